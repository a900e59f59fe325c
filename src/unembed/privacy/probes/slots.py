"""Template slot filling: "{person} was prescribed {drug}", a list of candidates for each slot, and the question with
which of them a record was written.

The filled templates are embedded and ranked by their cosine to a record's vector. No inverter is needed, the fields may
be such as no inverter writes, and it works where a store rounded its vectors. What a match is worth is judged against
records that were not written with the candidates: the gap between the best value of a slot and the next best is
compared with the gaps that come about there (Phipson & Smyth 2010 for the p-value).

Where there are few combinations all are embedded, once for all records. Otherwise each slot's values are first ranked
for a record by their mean vectors in a few texts whose other slots are filled at random, the same for all values and
all records; then the combinations of the best of each are embedded.

Shapes: n records, d numbers of a vector, J slots, V values of a slot, C combinations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unembed.embedders import Embedder
from unembed.embedders.vectors import unit
from unembed.errors import InputError, StorageError

_SLOT = re.compile(r"\{([^{}]*)\}")
CONTEXTS = 4
"""Texts in which a value is embedded where there are too many combinations to embed them all."""
TARGETS_AT_ONCE = 64


@dataclass(frozen=True)
class Template:
    """A text with named slots in braces, and what may stand in each."""

    text: str
    slots: dict[str, list[str]]
    """Name → its candidates, in the order in which the slots stand in the text."""

    @property
    def combinations(self) -> int:
        return math.prod(len(values) for values in self.slots.values())

    def fill(self, values: Sequence[str]) -> str:
        """The text with one value for each slot, in their order."""
        chosen = dict(zip(self.slots, values, strict=True))
        return _SLOT.sub(lambda slot: chosen[slot[1]], self.text)


@dataclass(frozen=True)
class Filling:
    """What fits one record best."""

    text: str
    cosine: float
    values: dict[str, str]
    """Slot → its value in `text`."""
    gaps: dict[str, float]
    """Slot → how much higher the cosine is than with any other value of that slot, whatever stands in the others."""

    @property
    def gap(self) -> float:
        """To the second best text."""
        return min(self.gaps.values())


def parse(text: str, candidates: Mapping[str, Sequence[str]], embedder: Embedder) -> Template:
    """A template with its candidates, those left out that the embedder cannot tell from an earlier one (by case, say).

    Raises InputError for a text without slots, a slot without candidates or with a single one, and candidates for a
    slot that is not there.
    """
    names = list(dict.fromkeys(_SLOT.findall(text)))
    if not names:
        raise InputError(f"the template '{text}' has no slot: write each as {{name}}, such as {{drug}}")
    if unknown := [name for name in candidates if name not in names]:
        raise InputError(f"there are candidates for '{unknown[0]}', but the template has {', '.join(names)}")
    slots = {}
    for name in names:
        values: dict[str, str] = {}
        for value in candidates.get(name) or []:
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"slot '{name}' has the candidate {value!r}, which is no text: quote or remove it")
            values.setdefault(embedder.key(value), value.strip())
        if len(values) < 2:
            raise InputError(f"slot '{name}' has {len(values)} candidates: give two or more that differ")
        slots[name] = list(values.values())
    return Template(text, slots)


def read_candidates(path: str | Path) -> dict[str, list[str]]:
    """A YAML (or JSON) file: slot → a list of candidates, or the name of a text file beside it with one a line.

    Raises InputError for another content or a file that is not there, StorageError where one cannot be read.
    """
    path = Path(path)
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not content:
            raise InputError(f"{path}: no mapping of slots to candidates; write SLOT: [one, other]")
        out = {}
        for name, values in content.items():
            if isinstance(values, str):
                values = list(filter(None, map(str.strip, (path.parent / values).read_text("utf-8").splitlines())))
            if not isinstance(values, list):
                raise InputError(f"{path}: '{name}' is neither a list of candidates nor the name of a file")
            out[str(name)] = values
        return out
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML ({' '.join(str(error).split())}): mend it") from error
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error


class Filler:
    """Fills one template for any number of records.

    at_most: combinations of which all are embedded. shortlist: where there are more, those embedded for each record.
    """

    def __init__(
        self, template: Template, embedder: Embedder, at_most: int = 20_000, shortlist: int = 1000, seed: int = 0
    ) -> None:
        """Embeds what all records share. Raises InputError for a shortlist that leaves no choice."""
        if shortlist < 2 ** len(template.slots):
            least = 2 ** len(template.slots)
            raise InputError(
                f"shortlist is {shortlist}: two values for each of {len(template.slots)} slots are {least}"
            )
        self.template, self.embedder, self.shortlist = template, embedder, shortlist
        self._lists = list(template.slots.values())
        self._all: np.ndarray | None = None
        self._means: list[np.ndarray] = []
        if template.combinations <= at_most:
            self._all = self._embed(list(product(*self._lists)))  # C d
        else:
            rng = np.random.default_rng(seed)
            contexts = [[values[rng.integers(len(values))] for values in self._lists] for _ in range(CONTEXTS)]
            self._means = [self._mean(slot, contexts) for slot in range(len(self._lists))]

    def fill(self, vectors: np.ndarray) -> Iterator[Filling]:
        """The best filling of each record [n, d], at length 1."""
        for start in range(0, len(vectors), TARGETS_AT_ONCE):
            targets = vectors[start : start + TARGETS_AT_ONCE]
            if self._all is not None:
                yield from (_best(self.template, self._lists, scores) for scores in targets @ self._all.T)
                continue
            ranked = [targets @ mean.T for mean in self._means]  # J × [b, V]
            for i, target in enumerate(targets):
                lists = self._shortlists([scores[i] for scores in ranked])
                yield _best(self.template, lists, self._embed(list(product(*lists))) @ target)

    def _embed(self, combinations: Sequence[Sequence[str]]) -> np.ndarray:
        return unit(self.embedder.encode([self.template.fill(values) for values in combinations]))

    def _mean(self, slot: int, contexts: Sequence[Sequence[str]]) -> np.ndarray:
        """Each value's mean vector over the contexts, [V, d]."""
        filled = [[*own[:slot], value, *own[slot + 1 :]] for value in self._lists[slot] for own in contexts]
        return self._embed(filled).reshape(len(self._lists[slot]), len(contexts), -1).mean(axis=1)

    def _shortlists(self, scores: Sequence[np.ndarray]) -> list[list[str]]:
        """The best values of each slot, as long as all their combinations may be embedded; at least two of each."""
        lengths = [2] * len(self._lists)
        while True:
            grown = [min(length + 1, len(values)) for length, values in zip(lengths, self._lists, strict=True)]
            if grown == lengths or math.prod(grown) > self.shortlist:
                break
            lengths = grown
        orders = [np.argsort(-row)[:length] for row, length in zip(scores, lengths, strict=True)]
        return [[values[i] for i in order] for values, order in zip(self._lists, orders, strict=True)]


def _best(template: Template, lists: Sequence[Sequence[str]], scores: np.ndarray) -> Filling:
    """Of the cosines of all combinations [C], the last slot running fastest."""
    table = scores.reshape([len(values) for values in lists])
    at = [int(i) for i in np.unravel_index(int(scores.argmax()), table.shape)]
    values, gaps = [], {}
    for slot, name in enumerate(template.slots):
        others = tuple(axis for axis in range(table.ndim) if axis != slot)
        best = np.sort(table.max(axis=others))  # V: the best with each value
        gaps[name] = float(best[-1] - best[-2])
        values.append(lists[slot][at[slot]])
    return Filling(template.fill(values), float(scores.max()), dict(zip(template.slots, values, strict=True)), gaps)
