"""Metric differential privacy with respect to the Euclidean distance: multivariate Laplace noise."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, as_long_as, sphere


class Laplace(Defence):
    """Noise z with density proportional to exp(−ε · |z|): a uniform direction, a length of Gamma(d, 1/ε). Texts whose
    vectors are δ apart can be told apart by a factor of at most exp(ε · δ). Scaling back to the clean length keeps that
    where all vectors have one length, as is usual; otherwise lengths are not protected."""

    name = "laplace"
    knob = "ε per unit of Euclidean distance"
    source = "Feyisetan et al., WSDM 2020; for sentence embeddings Du et al., WWW 2023"
    ladder = (100_000.0, 30_000.0, 15_000.0, 8_000.0, 5_000.0, 3_500.0, 2_500.0, 1_500.0, 800.0, 400.0, 200.0)
    continuous = True
    random = True

    def allowed(self) -> tuple[float, float]:
        return 1e-6, float("inf")

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, d = vectors.shape
        length = rng.gamma(d, 1 / self.strength, (n, 1))
        return as_long_as(vectors + length * sphere(rng, n, d), vectors)
