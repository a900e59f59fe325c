"""Scalar quantisation: int8, int4, binary and what is between."""

from __future__ import annotations

from typing import Self

import numpy as np

from unembed.errors import InputError
from unembed.privacy.defences.base import Defence, as_long_as, checked


class Quantisation(Defence):
    """Each number as one of 2^bits levels, evenly spaced over the range that its dimension has among the vectors it was
    fitted to; at one bit the sign, as vector stores do. Decoded to the middle of the level. The query stays as it
    is."""

    name = "quantisation"
    knob = "bits a number"
    source = "Seputis et al. 2025 (8 bits); vector stores' int8, int4 and binary types"
    ladder = (8, 6, 5, 4, 3, 2, 1)
    _low: np.ndarray | None = None
    _high: np.ndarray | None = None

    def allowed(self) -> tuple[float, float]:
        return 1, 16

    def fit(self, vectors: np.ndarray) -> Self:
        vectors = checked(vectors)
        self._low, self._high = vectors.min(axis=0), vectors.max(axis=0)
        return self

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.strength == 1:
            return as_long_as(np.where(vectors > 0, 1.0, -1.0), vectors)
        if self._low is None or self._high is None:
            raise InputError("quantisation needs the range of each dimension: call fit with public vectors first")
        if self._low.shape != vectors.shape[1:]:
            raise InputError(f"fitted to vectors of {len(self._low)} numbers, given {vectors.shape[1]}")
        levels = 2 ** int(self.strength)
        width = np.maximum((self._high - self._low) / levels, np.finfo(float).tiny)
        codes = np.clip(np.floor((vectors - self._low) / width), 0, levels - 1)
        return self._low + (codes + 0.5) * width
