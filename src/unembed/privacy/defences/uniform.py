"""Uniform noise."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, as_long_as


class Uniform(Defence):
    name = "uniform"
    knob = "largest change of each number"
    source = "additive noise without tails; the same variance as Gaussian noise of 0.58 times this"
    ladder = (0.002, 0.005, 0.02, 0.035, 0.05, 0.09, 0.12, 0.17, 0.25, 0.35)
    continuous = True
    random = True

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return as_long_as(vectors + rng.uniform(-self.strength, self.strength, vectors.shape), vectors)
