"""A secret rotation."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence


class Rotation(Defence):
    """Every vector times one secret orthogonal matrix, drawn uniformly. All distances stay, so search stays as good;
    and as many known pairs as there are dimensions give the matrix away."""

    name = "rotation"
    knob = "on or off"
    source = "Zhuang et al. 2024 (a secret linear transformation)"
    ladder = (1,)
    changes_space = True
    secret = True

    def allowed(self) -> tuple[float, float]:
        return 0, 1

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return vectors @ self.matrix(vectors.shape[1]) if self.strength else vectors

    def matrix(self, d: int) -> np.ndarray:
        """The rotation [d, d]. The signs make the QR decomposition's choice uniform (Mezzadri 2007)."""
        q, r = np.linalg.qr(self._random().standard_normal((d, d)))
        return q * np.sign(np.diag(r))
