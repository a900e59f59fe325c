"""Metric differential privacy with respect to the angle: the Purkayastha mechanism."""

from __future__ import annotations

import numpy as np

from unembed.privacy.defences.base import Defence, as_long_as, sphere

STEPS = 200_001
"""Of the grid of angles on which the distribution is inverted."""


class Purkayastha(Defence):
    """A direction at the angle θ from the clean one, with density proportional to exp(−ε · θ) on the sphere, so that θ
    itself has density sin(θ)^(d−2) · exp(−ε · θ). Texts whose vectors are an angle α apart can be told apart by a
    factor of at most exp(ε · α)."""

    name = "purkayastha"
    knob = "ε per radian"
    source = "Weggenmann & Kerschbaum, CCS 2021; for sentence embeddings Du et al., WWW 2023"
    ladder = (100_000.0, 30_000.0, 15_000.0, 8_000.0, 5_000.0, 3_500.0, 2_500.0, 1_500.0, 800.0, 400.0, 200.0)
    continuous = True
    random = True

    def allowed(self) -> tuple[float, float]:
        return 1e-6, float("inf")

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n, d = vectors.shape
        clean = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(float).tiny)
        side = sphere(rng, n, d)
        side -= (side * clean).sum(axis=1, keepdims=True) * clean  # into the plane that touches the sphere there
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        angle = self.angles(rng.random((n, 1)), d)
        return as_long_as(np.cos(angle) * clean + np.sin(angle) * side, vectors)

    def angles(self, quantiles: np.ndarray, d: int) -> np.ndarray:
        """The angles at these quantiles (of any shape) of their distribution in d dimensions, in radians."""
        # The peak of sin(θ)^(d−2) · exp(−ε · θ) lies at arctan((d−2)/ε); far beyond it nothing is left.
        peak = np.arctan2(d - 2, self.strength)
        grid = np.linspace(0, min(np.pi, 4 * peak + 60 / self.strength), STEPS)[1:]
        log = (d - 2) * np.log(np.maximum(np.sin(grid), np.finfo(float).tiny)) - self.strength * grid
        mass = np.cumsum(np.exp(log - log.max()))
        return np.interp(quantiles, mass / mass[-1], grid)
