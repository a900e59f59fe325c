"""Distance-comparison-preserving encryption by scaling and perturbing."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, sphere


class ScaleAndPerturb(Defence):
    """A secret factor s, and noise uniform in a ball of radius s · β / 4: of two texts, the one nearer to a third stays
    the nearer if the distances differ by more than β. Queries are encrypted in the same way. A cosine does not see the
    factor, so what protects is the noise."""

    name = "scale-and-perturb"
    knob = "β, in units of distance"
    source = "Fuchsbauer et al., SCN 2022; IronCore's Cloaked AI"
    ladder = (0.05, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    continuous = True
    random = True

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        return self.apply(vectors, seed=1)

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, d = vectors.shape
        scale = np.exp(self._random().uniform(-3, 3))
        radius = self.strength / 4 * rng.random((n, 1)) ** (1 / d)
        return scale * (vectors + radius * sphere(rng, n, d))
