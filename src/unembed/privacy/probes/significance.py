"""How surprising a score is where there is nothing to find, and how well scores tell two kinds of rows apart.

Higher scores speak for a finding throughout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from unembed.errors import InputError
from unembed.metrics import CONFIDENCE, RESAMPLES, Estimate


def p_values(scores: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Of each score [n], given scores [m] of rows where there is nothing to find: (1 + those as high) / (1 + m).

    Never 0, and valid for every m where a row without a finding scores like those of the null (Phipson & Smyth 2010).
    """
    null = np.sort(null)
    return (1 + len(null) - np.searchsorted(null, scores, side="left")) / (1 + len(null))


def p_among(scores: np.ndarray) -> np.ndarray:
    """Of each score [n], with all the others as its null. Where many rows hold a finding it is too cautious: no p is
    below the share of the rows that score as high."""
    below = np.searchsorted(np.sort(scores), scores, side="left")
    return (len(scores) - below) / len(scores)  # those as high are the score itself and so many others


def holm(p: np.ndarray) -> np.ndarray:
    """p-values [n] corrected so that a single false finding among all is as unlikely as they say (Holm 1979)."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    return _back(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """p-values [n] corrected so that they bound the share of false findings (Benjamini & Hochberg 1995)."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / (1 + np.arange(len(p)))
    return _back(np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0), order)


def _back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    out[order] = values
    return out


CORRECTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"holm": holm, "benjamini-hochberg": benjamini_hochberg}


def auc(found: np.ndarray, others: np.ndarray) -> float:
    """Chance that a row of `found` [n] scores above one of `others` [m]; ties count half."""
    others = np.sort(others)
    below = np.searchsorted(others, found, side="left") + np.searchsorted(others, found, side="right")
    return float(below.mean() / (2 * len(others)))


def tpr(found: np.ndarray, others: np.ndarray, fpr: float = 0.01) -> float:
    """Share of `found` [n] above the lowest bar that at most a share `fpr` of `others` [m] passes. With fewer than
    1 / fpr others no one of them passes."""
    bar = np.sort(others)[-1 - int(fpr * len(others))]
    return float((found > bar).mean())


def estimate(
    measure: Callable[[np.ndarray, np.ndarray], float], found: np.ndarray, others: np.ndarray, seed: int = 0
) -> Estimate:
    """`measure` with a bootstrap interval over the rows of each kind. Raises InputError where one kind has no rows."""
    if not len(found) or not len(others):
        raise InputError(f"{len(found)} rows with a finding and {len(others)} without: give at least one of each")
    rng = np.random.default_rng(seed)
    drawn = [
        measure(rng.choice(found, len(found)), rng.choice(others, len(others)))
        for _ in range(RESAMPLES if min(len(found), len(others)) > 1 else 0)
    ]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist() if drawn else (None, None)
    return Estimate(measure(found, others), low, high, len(found) + len(others))
