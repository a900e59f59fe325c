"""A text as one would write it: of all that are one text to the embedder, what the prior finds likeliest.

No vector can tell "(At 3.7" from "( at 3. 7" where the tokenizer knows no capitals and parts punctuation from what it
touches; and an edit leaves the one or the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from unembed.embedders import Embedder
from unembed.models.base import InversionModel
from unembed.scripts import pieces

LIKELIER = 1.0
"""Nats of log p by which another spelling has to be likelier; below that, a text stays as it was written."""


def spelled(text: str, model: InversionModel, embedder: Embedder) -> str:
    """`text` (not empty) with the spaces between its pieces and their first letters' case changed to what the model's
    prior finds likelier, as far as the embedder cannot tell. Costs no query."""
    key, best = embedder.key(text), float(model.score([text])[0])
    while True:
        parts = pieces(text)
        changes = [(at, part, _with(parts, {at: part})) for at, part in _changes(parts)]
        changes = [change for change in changes if embedder.key(change[2]) == key]
        if not changes:
            return text
        scores = model.score([other for *_, other in changes])
        order = np.argsort(-scores, kind="stable").tolist()
        taken: dict[int, str] = {}
        for i in order:
            at, part, _ = changes[i]
            if scores[i] > best + LIKELIER and not taken.keys() & {at - 1, at, at + 1}:
                taken[at] = part
        if not taken:
            return text
        # All in one round, unless they are not as good together as the likeliest of them alone.
        together = _with(parts, taken)
        score = float(model.score([together])[0])
        if score >= scores[order[0]] and embedder.key(together) == key:
            text, best = together, score
        else:
            text, best = changes[order[0]][2], float(scores[order[0]])


def _changes(parts: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Each piece with the space before it put or taken, and begun in the other case."""
    for at, part in enumerate(parts):
        bare = part.lstrip()
        space = part[: len(part) - len(bare)]
        if at:
            yield at, bare if space else f" {bare}"
        other = bare[:1].swapcase() + bare[1:]
        if other != bare:
            yield at, space + other


def _with(parts: Sequence[str], other: Mapping[int, str]) -> str:
    return "".join(other.get(at, part) for at, part in enumerate(parts))
