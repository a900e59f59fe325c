"""Rounding to a few decimals."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence


class Rounding(Defence):
    name = "rounding"
    knob = "decimals kept"
    source = "the simplest change to what an API returns"
    ladder = (4, 3, 2, 1)

    def allowed(self) -> tuple[float, float]:
        return 0, 12

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.round(vectors, int(self.strength))
