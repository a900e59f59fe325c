"""Truncation to the first dimensions."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, as_long_as


class Truncation(Defence):
    """The first numbers alone, scaled back to the vector's length. Embedders trained for it (Matryoshka) lose little;
    others lose what their first dimensions hold."""

    name = "truncation"
    knob = "dimensions kept"
    source = "Kusupati et al., NeurIPS 2022"
    ladder = (1024, 768, 512, 384, 320, 256, 192, 128, 96, 64, 32, 16)
    changes_space = True

    @classmethod
    def settings(cls, d: int) -> list[float]:
        return [strength for strength in super().settings(d) if strength < d]

    def allowed(self) -> tuple[float, float]:
        return 1, 65_536

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return as_long_as(vectors[:, : int(self.strength)], vectors)
