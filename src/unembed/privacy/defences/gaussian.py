"""Gaussian noise (Morris et al., EMNLP 2023, section 7)."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, as_long_as


class Gaussian(Defence):
    name = "gaussian"
    knob = "standard deviation of the noise on each number"
    source = "Morris et al., EMNLP 2023, section 7"
    ladder = (0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2)
    continuous = True
    random = True

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return as_long_as(vectors + self.strength * rng.standard_normal(vectors.shape), vectors)
