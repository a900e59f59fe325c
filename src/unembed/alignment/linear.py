"""Linear maps from one embedding space to another: ridge and orthogonal Procrustes, chosen by cross-validation.

Notable:
- Ridge comes nearest to the other vectors; Procrustes, which can only turn and scale them, tells them apart better
  where pairs are few, and is exact where the map is a rotation.
- Between spaces of one dimension ridge may also shrink towards the identity instead of towards zero: vectors that were
  only rounded or disturbed are best left nearly as they are, and few pairs then do no harm.
- The unregularised least squares of ALGEN (Chen et al., ACL 2025) is not offered: it fails where there are about as
  many pairs as dimensions.

Shapes: n pairs, s numbers of a source vector, t of a target vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from unembed.errors import InputError

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Of ridge, relative to the mean variance of the source's numbers."""
TO_IDENTITY = "ridge to identity"
FOLDS = 5
EPSILON = 1e-12
FEWEST = 10
"""Pairs; below that no fold says anything."""


@dataclass(frozen=True)
class LinearMap:
    """x → (x − source_mean) @ matrix + target_mean."""

    matrix: np.ndarray
    """float64 [s, t]"""
    source_mean: np.ndarray
    """float64 [s]"""
    target_mean: np.ndarray
    """float64 [t]"""
    kind: str
    """ridge, ridge to identity, or procrustes."""
    penalty: float
    """Of both ridges; 0 for Procrustes."""
    cosine: float
    """Mean cosine to the true vectors on pairs that were left out of the fit."""

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """float [n, s] → float32 [n, t]."""
        moved = (np.asarray(vectors, dtype=np.float64) - self.source_mean) @ self.matrix + self.target_mean
        return moved.astype(np.float32)


def align(source: np.ndarray, target: np.ndarray, seed: int = 0) -> LinearMap:
    """The best linear map from source [n, s] to target [n, t], row i of both being of one text.

    Kind and penalty are those with the highest mean cosine over `FOLDS` folds. Raises InputError for fewer than
    `FEWEST` pairs, for rows that do not go together and for numbers that are none.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target):
        raise InputError(f"pairs of shapes {list(source.shape)} and {list(target.shape)}: give [n, s] and [n, t]")
    if len(source) < FEWEST:
        raise InputError(f"{len(source)} pairs are too few to align two spaces: give at least {FEWEST}")
    if not np.isfinite(source).all() or not np.isfinite(target).all():
        raise InputError("a vector among the pairs holds NaN or infinity: leave that pair out")
    fold = np.random.default_rng(seed).permutation(len(source)) % FOLDS
    kinds = ("ridge", TO_IDENTITY) if source.shape == target.shape else ("ridge",)
    candidates = [("procrustes", 0.0), *product(kinds, PENALTIES)]
    cosines = np.zeros(len(candidates))
    for held in range(FOLDS):
        fits = _Fits(source[fold != held], target[fold != held])
        x, y = source[fold == held], target[fold == held]
        for i, candidate in enumerate(candidates):
            cosines[i] += _cosines(fits.make(*candidate, cosine=0.0)(x), y).sum() / len(source)
    best = int(cosines.argmax())
    return _Fits(source, target).make(*candidates[best], cosine=float(cosines[best]))


class _Fits:
    """All maps of one set of pairs, from two decompositions."""

    def __init__(self, source: np.ndarray, target: np.ndarray) -> None:
        self.source_mean, self.target_mean = source.mean(axis=0), target.mean(axis=0)
        x, y = source - self.source_mean, target - self.target_mean
        self.values, self.directions = np.linalg.eigh(x.T @ x)  # s, s s
        self.crossed = x.T @ y  # s t
        self.spread = max(np.maximum(self.values, 0).mean(), EPSILON)

    def make(self, kind: str, penalty: float, cosine: float) -> LinearMap:
        if kind == "procrustes":
            left, values, right = np.linalg.svd(self.crossed, full_matrices=False)
            matrix = (
                values.sum() / (self.spread * len(self.values)) * left @ right
            )  # the best turn, times the best scale
        else:
            scale = np.trace(self.crossed) / (self.spread * len(self.values)) if kind == TO_IDENTITY else 0.0
            towards = scale * np.eye(*self.crossed.shape)  # s t
            rest = self.directions.T @ self.crossed - self.values[:, None] * (self.directions.T @ towards)
            damped = np.maximum(self.values, 0) + penalty * self.spread
            matrix = towards + self.directions @ (rest / damped[:, None])
        return LinearMap(matrix, self.source_mean, self.target_mean, kind, penalty, cosine)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row; 0 where one has no direction."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(lengths, EPSILON)
