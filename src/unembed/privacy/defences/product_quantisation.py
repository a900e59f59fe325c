"""Product quantisation, by FAISS. Needs the extra `faiss`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from unembed.errors import InputError, require
from unembed.privacy.defences.base import Defence, checked

BITS = 8


class ProductQuantisation(Defence):
    """The vector in parts of equal length, each stored as one byte: the number of the nearest of 256 centroids, which
    are learned from the vectors it is fitted to. Decoded to the centroids. The query stays as it is (asymmetric
    distance, the usual way of searching)."""

    name = "product-quantisation"
    knob = "bytes a vector"
    source = "Jégou et al., PAMI 2011; as a defence Zhuang et al. 2024"
    fewest = 2**BITS
    ladder = (192, 128, 96, 64, 48, 32, 16, 8)
    _quantiser: Any = None

    @classmethod
    def settings(cls, d: int) -> list[float]:
        return [strength for strength in super().settings(d) if d % strength == 0]

    def allowed(self) -> tuple[float, float]:
        return 1, 65_536

    def fit(self, vectors: np.ndarray) -> Self:
        faiss = require("faiss", "faiss")
        vectors = checked(vectors).astype(np.float32)
        n, d = vectors.shape
        parts = int(self.strength)
        if d % parts:
            fitting = ", ".join(f"{m:g}" for m in self.settings(d))
            raise InputError(f"{d} numbers cannot be cut into {parts} equal parts: try {fitting}")
        if n < self.fewest:
            raise InputError(f"{n} vectors are too few to learn {self.fewest} centroids from: give more")
        self._quantiser = faiss.ProductQuantizer(d, parts, BITS)
        self._quantiser.cp.min_points_per_centroid = 1  # or FAISS prints a warning for each of the parts
        self._quantiser.train(vectors)
        return self

    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self._quantiser is None:
            raise InputError("product quantisation learns its centroids: call fit with public vectors first")
        return self._quantiser.decode(self._quantiser.compute_codes(vectors.astype(np.float32)))
