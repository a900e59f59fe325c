"""Projection to the principal components."""

from __future__ import annotations

from typing import Self

import numpy as np

from unembed.errors import InputError
from unembed.privacy.defences.base import Defence, checked


class Pca(Defence):
    """Coordinates along the directions in which the vectors it is fitted to are largest. They are not centred, so that
    inner products are kept as well as so few numbers can."""

    name = "pca"
    knob = "dimensions kept"
    source = "Eckart & Young 1936; the usual reduction before indexing"
    ladder = (1024, 768, 512, 384, 320, 256, 192, 128, 96, 64, 32, 16)
    changes_space = True
    _directions: np.ndarray | None = None

    @classmethod
    def settings(cls, d: int) -> list[float]:
        return [strength for strength in super().settings(d) if strength < d]

    def allowed(self) -> tuple[float, float]:
        return 1, 65_536

    def fit(self, vectors: np.ndarray) -> Self:
        vectors = checked(vectors)
        _, directions = np.linalg.eigh(vectors.T @ vectors)  # [d, d], the largest last
        self._directions = directions[:, ::-1][:, : int(self.strength)]
        return self

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self._directions is None:
            raise InputError("pca learns its directions: call fit with public vectors first")
        return vectors @ self._directions
