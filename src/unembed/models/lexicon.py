"""Which words a text lacks, read from how its vector misses the target.

For each word the direction in which the vectors of texts that hold it lie apart from all others, with one covariance
for all of them (the linear discriminant, Fisher 1936). A text that lacks a word misses its target along the word's
direction, and one that holds a word too many against it.

Shapes: V words, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class Lexicon:
    """V words, each but once whatever its case, and their directions float32 [V, d]."""

    def __init__(self, words: Sequence[str], directions: np.ndarray) -> None:
        self.words, self.directions = list(words), directions
        self._rows = {word.lower(): row for row, word in enumerate(self.words)}

    def wanted(self, difference: np.ndarray) -> np.ndarray:
        """How much a difference [d], target less embedding of a text, asks for each word [V]."""
        return self.directions @ difference

    def rows(self, words: Iterable[str]) -> list[int | None]:
        """Where in the lexicon each word is, in any case; None where it is not."""
        return [self._rows.get(word.lower()) for word in words]
