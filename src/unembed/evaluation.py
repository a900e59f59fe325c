"""How well an inverter does on texts it has not seen, by length, beside two controls on the same rows.

Texts are cut to exactly n tokens of the embedder (as vec2text's evaluation does). The controls say what the figures are
worth: a random training text shows what any fluent text of the domain scores, a sample of the model's unconditional
prior what the model scores without looking at the vector.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from unembed import confidence
from unembed.devices import accelerator_name
from unembed.errors import InputError, TokensUnknown
from unembed.inverter import Inverter
from unembed.lengths import LENGTHS, WHOLE, in_order, label
from unembed.metrics import Scores, cosine, score_pairs
from unembed.models.base import Sampling
from unembed.rare import rare_recall
from unembed.search.types import SearchConfig

SYSTEMS = ("inverter", "training text", "prior sample")


@dataclass(frozen=True)
class Row:
    """One text and what each system makes of its vector."""

    id: str
    length: int
    """In the embedder's tokens; beside an API that shows none, in the model's."""
    reference: str
    texts: dict[str, str]
    """System → its text for this row."""
    cosines: dict[str, float]
    """System → cosine of its text's embedding to the target."""
    exact: bool
    """Verified: the inverter's text re-embeds to the target."""
    steps: int
    queries: int
    seconds: float
    evidence: list[float] = field(default_factory=list)
    """What a calibration is fitted to; see `unembed.confidence`."""
    confidence: float | None = None
    confidence_exact: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """Scores by length and system, and under what they were measured."""

    scores: dict[int, dict[str, Scores]]
    rows: list[Row]
    settings: dict[str, Any]

    def rare(self, length: int, system: str) -> dict[str, Any]:
        """Recall of names, numbers, dates and their like by kind (`unembed.rare`), as plain JSON values."""
        rows = [row for row in self.rows if row.length == length]
        found = rare_recall([row.reference for row in rows], [row.texts[system] for row in rows])
        return {kind: estimate.to_dict() for kind, estimate in found.items()}

    def confidence(self, length: int) -> dict[str, Any]:
        """Whether the probabilities that the results carry came true, by outcome; nothing without a calibration."""
        rows = [row for row in self.rows if row.length == length]
        truth = confidence.outcomes([(row.reference, row.texts["inverter"]) for row in rows])
        given = {"good": [row.confidence for row in rows], "exact": [row.confidence_exact for row in rows]}
        groups = np.arange(len(rows))
        return {
            name: asdict(confidence.reliability(np.array(values, dtype=np.float64), truth[name], groups))
            for name, values in given.items()
            if all(value is not None for value in values)
        }

    def nanov2t(self, length: int) -> dict[str, float]:
        """The inverter's figures under nanoV2T's names and in its units: `bleu` the mean of sentence BLEUs (0..100),
        `token_f1` of the sets of tokens and `em`, the cased exact match, both in %, `cos_sim` the mean cosine (-1..1).
        Texts are compared, so that special tokens never count."""
        mean = {name: estimate.value for name, estimate in self.scores[length]["inverter"].summary.items()}
        f1, em = 100 * mean["token_set_f1"], 100 * mean["exact"]
        return {"bleu": mean["bleu"], "token_f1": f1, "em": em, "cos_sim": mean["cosine"]}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the rows' texts."""
        lengths = {}
        for length, systems in self.scores.items():
            rows = [row for row in self.rows if row.length == length]
            lengths[label(length)] = {
                "n": len(rows),
                "verified_exact": sum(row.exact for row in rows),
                "queries_mean": float(np.mean([row.queries for row in rows])),
                "seconds_mean": float(np.mean([row.seconds for row in rows])),
                "systems": {name: scores.to_dict() for name, scores in systems.items()},
                "rare": {name: self.rare(length, name) for name in systems},
                "confidence": self.confidence(length),
                "nanov2t": self.nanov2t(length),
            }
        return {"settings": self.settings, "lengths": lengths, "rows": [row.to_dict() for row in self.rows]}


class Read(Iterable[str]):
    """Texts that can be gone through again and again, and are fetched one by one when they are first needed."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._coming, self._here = iter(texts), list[str]()

    def __iter__(self) -> Iterator[str]:
        at = 0
        while True:
            if at == len(self._here):
                self._here += islice(self._coming, 1)
                if at == len(self._here):
                    return
            yield self._here[at]
            at += 1


def cut_texts(
    inverter: Inverter, texts: Iterable[str], lengths: Sequence[int], n: int
) -> Iterator[tuple[str, int, str]]:
    """(id, length, text) for up to n texts of exactly each length, or WHOLE. A text gives one row to each length it is
    long enough for; texts that no cut fits are passed over. No more of `texts` is read than that needs."""
    texts = Read(texts)
    for length in lengths:
        found = 0
        for i, text in enumerate(texts):
            if found == n:
                break
            cut = _cut(inverter, text, length)
            if cut is not None:
                found += 1
                yield f"{length}/{i}", length, cut
        if not found:
            raise InputError(
                f"no text has {length} tokens of {inverter.embedder.spec.id}: give longer texts or other lengths"
            )


def _cut(inverter: Inverter, text: str, n: int) -> str | None:
    """As `Embedder.cut`; in the model's tokens where the embedder shows none. WHOLE leaves a text as it is."""
    if n == WHOLE:
        return text.strip() or None
    try:
        return inverter.embedder.cut(text, n)
    except TokensUnknown:
        return inverter.model.cut(text, n)


def evaluate_rows(
    inverter: Inverter,
    texts: Iterable[str],
    config: SearchConfig,
    *,
    lengths: Sequence[int] = LENGTHS,
    n: int = 100,
    controls: Sequence[str] = (),
    done: set[str] = frozenset(),  # type: ignore[assignment]
    share: tuple[int, int] = (0, 1),
) -> Iterator[list[Row]]:
    """Yield rows in batches of `config.targets_at_once`; batches whose ids are all in `done` are passed over. Of p
    processes, `share` (i, p) takes every p-th batch from the i-th on: the same batches, so the same rows."""
    rows = list(cut_texts(inverter, texts, lengths, n))
    size = config.targets_at_once
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        if {row[0] for row in part} <= done or start // size % share[1] != share[0]:
            continue
        references = [row[2] for row in part]
        targets = inverter.embedder.encode(references)
        began = time.perf_counter()
        [(targets, found)] = inverter.batches(targets, config, first=start)
        seconds = (time.perf_counter() - began) / len(part)
        seen = confidence.evidence(inverter.model, targets, found)
        if inverter.model.calibration is not None:
            found = inverter.model.calibration.rate(found, seen)
        others = {
            "training text": control_texts(inverter, controls, [row[1] for row in part], start, config.seed),
            "prior sample": prior_samples(inverter, len(part), config.seed + start),
        }
        cosines = {name: cosine(inverter.embedder.encode(made), targets) for name, made in others.items() if made}
        yield [
            Row(
                name, length, reference,
                {"inverter": inversion.text, **{system: made[i] for system, made in others.items() if made}},
                {"inverter": inversion.cosine, **{system: float(values[i]) for system, values in cosines.items()}},
                inversion.exact, inversion.steps, inversion.queries, seconds,
                seen[i].tolist(), inversion.confidence, inversion.confidence_exact,
            )
            for i, ((name, length, reference), inversion) in enumerate(zip(part, found, strict=True))
        ]  # fmt: skip


def prior_samples(inverter: Inverter, n: int, seed: int) -> list[str]:
    """n texts that the model writes without a vector; none where it has no prior."""
    if not inverter.model.has_prior:
        return []
    written = inverter.model.sample_prior(n, Sampling(), seed=seed)
    return [hypothesis.text if hypothesis.text.strip() else "." for hypothesis in written]


def control_texts(inverter: Inverter, controls: Sequence[str], lengths: list[int], start: int, seed: int) -> list[str]:
    """A random training text for each row, cut to the row's length where it is long enough."""
    if not controls:
        return []
    picks = np.random.default_rng([seed, start, 3]).integers(len(controls), size=len(lengths)).tolist()
    return [_cut(inverter, controls[i], n) or controls[i] for i, n in zip(picks, lengths, strict=True)]


def summarise(rows: Sequence[Row], settings: dict[str, Any]) -> Evaluation:
    """Rows, in whatever order → scores by length and system, each with n and a bootstrap interval."""
    order = in_order(row.length for row in rows)
    rows = sorted(rows, key=lambda row: (order.index(row.length), int(row.id.rpartition("/")[2])))
    scores: dict[int, dict[str, Scores]] = {}
    for length in order:
        part = [row for row in rows if row.length == length]
        scores[length] = {
            system: score_pairs(
                [row.reference for row in part],
                [row.texts[system] for row in part],
                [row.cosines[system] for row in part],
            )
            for system in SYSTEMS
            if all(system in row.texts for row in part)
        }
    return Evaluation(scores, rows, settings)


def evaluate(
    inverter: Inverter,
    texts: Iterable[str],
    config: SearchConfig | None = None,
    *,
    lengths: Sequence[int] = LENGTHS,
    n: int = 100,
    controls: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure `inverter` on held-out `texts` cut to each of `lengths`.

    Args:
        texts: held-out texts, whole; they must not have been trained on.
        config: how hard the search looks; the default is that of `unembed invert`.
        lengths: in the embedder's tokens; WHOLE takes the texts as they are.
        n: texts of each length.
        controls: training texts for the first control; none leaves it out.
        progress: called with the number of rows just finished.
    """
    config = config or SearchConfig()
    rows: list[Row] = []
    for part in evaluate_rows(inverter, texts, config, lengths=lengths, n=n, controls=controls):
        rows += part
        if progress:
            progress(len(part))
    return summarise(rows, {"search": asdict(config), "embedder": inverter.embedder.spec.to_dict(), **hardware()})


def hardware() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": _usable_cores(),
        "gpu": accelerator_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _usable_cores() -> int:
    """Those that this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
