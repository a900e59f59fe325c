"""How far a result can be believed where the truth is not known: P(token F1 ≥ 0.8) and P(exact), calibrated.

Notable:
- The evidence of a result is what can be seen without the truth: its cosine, its length, how likely the model finds the
  text with and without the vector, and how far its samples agree with it. How many texts were tried adds nothing to
  these, and misled where a search was set otherwise than those that were measured (docs/lab.md).
- One logistic regression an outcome (Platt 1999), fitted on evaluated held-out texts, to the evidence, its squares and
  its products: what a cosine is worth depends on the length, and on how far the samples agree. Evidence beyond all that
  the fit saw counts as the most extreme that it saw.
- How well it is calibrated is measured across folds: no row is judged by a fit that saw its text, at any length.
- The expected calibration error is that of Guo et al. (ICML 2017, §2): 10 bins of equal width. Few rows never fill
  their bins evenly, so what chance alone would show is told beside it.

A calibration holds for one model and for vectors like those it was measured on: noise or quantisation lowers the
cosine, so results on such vectors are believed less.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.errors import CheckpointError, InputError, require
from unembed.lengths import in_order, label
from unembed.metrics import exact_match, token_f1, words
from unembed.results import write_report

if TYPE_CHECKING:
    from unembed.models.base import InversionModel
    from unembed.search.types import Inversion

FILE = "confidence.json"
"""The calibration's name in a model folder."""
GOOD = 0.8
"""Token F1 from which on a reconstruction counts as good."""
EVIDENCE = ("distance", "words", "distance_words", "likelihood", "prior", "agreement")
OUTCOMES = ("good", "exact")
NAMES = {"good": "token F1 ≥ 0.8", "exact": "exact (uncased)"}
LEAST = 10
"""Rows of each kind (good and not, exact and not) below which an outcome is not fitted."""
BINS = 10
CHANCES = 200
"""Draws of outcomes from the predicted probabilities."""
FOLDS = 5


def evidence(model: InversionModel, targets: np.ndarray, inversions: Sequence[Inversion]) -> np.ndarray:
    """What speaks for each inversion of targets [n, d]: float64 [n, len(EVIDENCE)]."""
    texts = [inversion.text for inversion in inversions]
    counts = np.array([len(words(text)) for text in texts], dtype=np.float64)
    distance = -np.log(1 - np.array([inversion.cosine for inversion in inversions]).clip(-1, 1) + 1e-4)
    columns = (
        distance,
        np.log1p(counts),
        distance * np.log1p(counts),
        model.score(texts, targets) / (1 + counts),
        model.score(texts) / (1 + counts) if model.has_prior else np.zeros(len(texts)),
        np.array([inversion.agreement for inversion in inversions]),
    )
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


@dataclass(frozen=True)
class Fit:
    """A logistic regression on standardised evidence, its squares and products."""

    mean: list[float]
    scale: list[float]
    low: list[float]
    """The least of each kind of evidence that it was fitted to, standardised."""
    high: list[float]
    weights: list[float]
    """Of `expanded` evidence."""
    bias: float

    def __post_init__(self) -> None:
        k = len(self.mean)
        if not len(self.scale) == len(self.low) == len(self.high) == k or len(self.weights) != k + k * (k + 1) // 2:
            raise ValueError(f"{len(self.weights)} weights are not those of {k} kinds of evidence")

    def predict(self, evidence: np.ndarray) -> np.ndarray:
        """evidence [n, k] → probabilities [n]."""
        standard = ((evidence - np.array(self.mean)) / np.array(self.scale)).clip(self.low, self.high)
        return 1 / (1 + np.exp(-(expanded(standard) @ np.array(self.weights) + self.bias)))


def expanded(standard: np.ndarray) -> np.ndarray:
    """Standardised evidence [n, k] → itself, its squares and products [n, k + k (k + 1) / 2]."""
    first, second = np.triu_indices(standard.shape[1])
    return np.concatenate([standard, standard[:, first] * standard[:, second]], axis=1)


@dataclass(frozen=True)
class Calibration:
    """The fitted outcomes of one model; an outcome that could not be fitted is None."""

    weights: str
    """`InversionModel.digest` of the model it was measured with."""
    good: Fit | None
    exact: Fit | None

    def rate(self, inversions: Sequence[Inversion], evidence: np.ndarray) -> list[Inversion]:
        """The inversions with their probabilities, from their evidence [n, k]."""
        good, exact = (fit.predict(evidence).tolist() if fit else repeat(None) for fit in (self.good, self.exact))
        return [
            replace(inversion, confidence=a, confidence_exact=b)
            for inversion, a, b in zip(inversions, good, exact, strict=False)
        ]

    def save(self, folder: str | Path, measured: dict[str, Any]) -> None:
        """Write confidence.json, with what was measured beside it. Raises StorageError."""
        write_report(Path(folder) / FILE, json.dumps({**asdict(self), "measured": measured}, indent=1))

    @classmethod
    def load(cls, folder: str | Path, weights: str) -> Calibration | None:
        """The calibration in a model folder, None where there is none. Raises CheckpointError when it is damaged or of
        other weights."""
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            fits = [Fit(**data[outcome]) if data[outcome] else None for outcome in OUTCOMES]
            if any(fit and len(fit.mean) != len(EVIDENCE) for fit in fits):
                raise ValueError(f"not {len(EVIDENCE)} kinds of evidence")
            found = cls(data["weights"], *fits)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): delete it, or run unembed calibrate") from error
        if found.weights != weights:
            raise CheckpointError(f"{path} belongs to other weights: delete it, or run unembed calibrate")
        return found


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities against what came true."""

    n: int
    observed: float
    """Share that came true."""
    ece: float
    low: float
    high: float
    """95 % bootstrap interval of the expected calibration error, over texts."""
    chance: float
    """The expected calibration error that true probabilities would have shown with as many rows, on average."""
    bins: list[tuple[float, float, int]]
    """(mean probability, share that came true, n) of each bin that is not empty."""


def reliability(
    predicted: np.ndarray, true: np.ndarray, groups: np.ndarray, resamples: int = 1000, seed: int = 0
) -> Reliability:
    """Compare probabilities [n] with outcomes [n] of 0 and 1; rows of one group [n] are resampled together."""
    which = np.minimum((predicted * BINS).astype(int), BINS - 1)
    names, group = np.unique(groups, return_inverse=True)
    # Sums of a group and bin: a resample is then a product with how often each group was drawn.
    gap = np.zeros((len(names), BINS))
    np.add.at(gap, (group, which), predicted - true)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    sizes = np.bincount(group, minlength=len(names))
    samples = np.abs(drawn @ gap).sum(axis=1) / np.maximum(1, drawn @ sizes)
    low, high = np.quantile(samples, [0.025, 0.975])
    bins = [
        (float(predicted[which == b].mean()), float(true[which == b].mean()), int((which == b).sum()))
        for b in range(BINS)
        if (which == b).any()
    ]
    ece = float(np.abs(gap.sum(axis=0)).sum() / len(predicted))
    by_chance = [
        np.abs(np.bincount(which, predicted - (rng.random(len(predicted)) < predicted), BINS)).sum()
        for _ in range(CHANCES)
    ]
    chance = float(np.mean(by_chance) / len(predicted))
    return Reliability(len(predicted), float(true.mean()), ece, float(low), float(high), chance, bins)


@dataclass(frozen=True)
class Judged:
    """Evaluated rows: evidence [n, k], the outcomes [n] by name, lengths [n], and which text each row is cut from."""

    evidence: np.ndarray
    outcomes: dict[str, np.ndarray]
    lengths: np.ndarray
    groups: np.ndarray


def outcomes(pairs: Sequence[tuple[str, str]]) -> dict[str, np.ndarray]:
    """(reference, inversion) → 0 or 1 [n] for each of OUTCOMES."""
    return {
        "good": np.array([token_f1(a, b) >= GOOD for a, b in pairs], dtype=np.float64),
        "exact": np.array([exact_match(a, b, cased=False) for a, b in pairs], dtype=np.float64),
    }


def judge(rows: Sequence[tuple[str, dict[str, Any]]]) -> Judged:
    """(data set, row of an evaluation) → what a calibration is fitted to."""
    if any(not row.get("evidence") for _, row in rows):
        raise InputError("the rows hold no evidence: they are of an older version; evaluate again")
    return Judged(
        np.array([row["evidence"] for _, row in rows], dtype=np.float64),
        outcomes([(row["reference"], row["texts"]["inverter"]) for _, row in rows]),
        np.array([row["length"] for _, row in rows]),
        np.array([f"{data}/{row['id'].rsplit('/', 1)[-1]}" for data, row in rows]),
    )


def calibrate(judged: Judged, weights: str) -> tuple[Calibration, dict[str, dict[str, Reliability]]]:
    """Fit on all rows; returns the calibration, and for each outcome its reliability across folds, by length and for
    "all". Raises InputError when neither outcome happens often enough both ways."""
    fits: dict[str, Fit | None] = {}
    report: dict[str, dict[str, Reliability]] = {}
    for outcome in OUTCOMES:
        true = judged.outcomes[outcome]
        if min(true.sum(), (1 - true).sum()) < LEAST or len(np.unique(judged.groups)) < FOLDS:
            fits[outcome] = None
            continue
        fits[outcome] = fit(judged.evidence, true)
        predicted = across_folds(judged.evidence, true, judged.groups)
        parts = {label(length): judged.lengths == length for length in in_order(judged.lengths.tolist())}
        parts["all"] = np.ones(len(true), dtype=bool)
        report[outcome] = {
            name: reliability(predicted[rows], true[rows], judged.groups[rows]) for name, rows in parts.items()
        }
    if not report:
        raise InputError(
            f"too few rows ({len(judged.lengths)}) to calibrate on: evaluate more texts, some of them short"
        )
    return Calibration(weights, fits["good"], fits["exact"]), report


def fit(evidence: np.ndarray, true: np.ndarray) -> Fit:
    """A logistic regression of `true` [n] on evidence [n, k], its squares and products."""
    require("sklearn", "evaluate")
    from sklearn.linear_model import LogisticRegression

    mean, scale = evidence.mean(axis=0), np.maximum(evidence.std(axis=0), 1e-6)
    standard = (evidence - mean) / scale
    found = LogisticRegression(max_iter=3000).fit(expanded(standard), true)
    return Fit(
        mean.tolist(), scale.tolist(), standard.min(axis=0).tolist(), standard.max(axis=0).tolist(),
        found.coef_[0].tolist(), float(found.intercept_[0]),
    )  # fmt: skip


def across_folds(evidence: np.ndarray, true: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Probabilities [n], each by a fit that saw no row of its group."""
    require("sklearn", "evaluate")
    from sklearn.model_selection import StratifiedGroupKFold

    out = np.empty(len(true))
    for seen, unseen in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(evidence, true, groups):
        out[unseen] = fit(evidence[seen], true[seen]).predict(evidence[unseen])
    return out
