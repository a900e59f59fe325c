"""An embedder as somebody sees it who knows what a store does with its vectors.

A code moves a vector away from its text's own, and which text lies nearest then says little about which one it was. But
a fixed code can be tried: the text that was stored has the very code that is in the store, and few others have. So the
attacker who knows the code embeds his candidates as the store would, and the search compares like with like.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from unembed.embedders.base import Embedder
from unembed.embedders.noise import NoiseFloor, measure_noise
from unembed.embedders.spec import EmbedderSpec
from unembed.embedders.vectors import unit


class StoredForm(Embedder):
    """Vectors of `embedder` as a reader of the store sees them, at length 1.

    seen: clean vectors float32 [n, d] → what would be read of them [n, d]. The same vectors give the same each time, so
    nothing with random numbers.
    """

    def __init__(self, embedder: Embedder, seen: Callable[[np.ndarray], np.ndarray]) -> None:
        self.embedder, self.seen = embedder, seen

    @property
    def spec(self) -> EmbedderSpec:
        """The embedder's own: what is read is taken for its vectors."""
        return self.embedder.spec

    def _embed(self, texts: list[str]) -> np.ndarray:
        return unit(self.seen(self.embedder._embed(texts)))

    def noise_floor(self) -> NoiseFloor:
        """That of the codes. A number on the edge of a step falls to this side or that; such a jump is seen here or
        not, and ten of them, as the usual factor of safety would allow, would reach other texts."""
        if self._noise_floor is None:
            most = max(measure_noise(self).max_distance, self.embedder.noise_floor().tolerance())
            self._noise_floor = replace(self.embedder.noise_floor(), max_distance=most, safety=1.0)
        return self._noise_floor

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.embedder.count_tokens(texts)

    def cut(self, text: str, n: int) -> str | None:
        return self.embedder.cut(text, n)

    def vocabulary(self) -> list[str]:
        return self.embedder.vocabulary()

    def key(self, text: str) -> str:
        return self.embedder.key(text)
