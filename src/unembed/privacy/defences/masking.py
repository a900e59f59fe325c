"""Dimensions that are set to zero."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, as_long_as


class Masking(Defence):
    """The same share of the dimensions, drawn once by the key, is zero in every vector. Whoever sees a few vectors sees
    which, so it is no secret; but what they held is gone."""

    name = "masking"
    knob = "share of the dimensions"
    source = "Chen et al., ACL 2024 (masking for multilingual embeddings)"
    ladder = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    changes_space = True
    continuous = True

    def allowed(self) -> tuple[float, float]:
        return 0, 0.999

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        d = vectors.shape[1]
        gone = self._random().permutation(d)[: round(self.strength * d)]
        kept = vectors.copy()
        kept[:, gone] = 0
        return as_long_as(kept, vectors)
