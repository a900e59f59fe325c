"""Which words a text lacks, read from how its vector misses the target.

For each word the direction in which the vectors of texts that hold it lie apart from all others, with one covariance
for all of them (the linear discriminant, Fisher 1936). A text that lacks a word misses its target along the word's
direction, and one that holds a word too many against it.

Shapes: V words, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from unembed.scripts import pieces

ENDINGS = 3
"""Letters at the end in which another form of a word may differ."""


class Lexicon:
    """V words, each but once whatever its case, and their directions float32 [V, d]."""

    def __init__(self, words: Sequence[str], directions: np.ndarray) -> None:
        self.words, self.directions = list(words), directions
        self._stems: dict[str, list[str]] | None = None

    def __contains__(self, word: str) -> bool:
        """Whether it has the word, in any case."""
        return word.lower() in self._known

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(word.lower() for word in self.words)

    def wanted(self, differences: np.ndarray) -> np.ndarray:
        """How much differences [..., d], each a target less the embedding of a text, ask for each word [..., V]."""
        return differences @ self.directions.T

    def wanted_words(self, difference: np.ndarray, n: int) -> list[str]:
        """The n words that a difference [d] asks for most, the first one first."""
        return [self.words[i] for i in self.most_wanted(difference[None], n)[0].tolist()]

    def most_wanted(self, differences: np.ndarray, n: int) -> np.ndarray:
        """Rows of the n words, or all, that each difference [rows, d] asks for most, the first one first [rows, n]."""
        asked = self.wanted(differences)  # rows V
        most = min(len(self.words), n)
        best = np.argpartition(-asked, most - 1, axis=1)[:, :most]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(asked, best, axis=1), axis=1), axis=1)

    def lacking(self, texts: Sequence[str], differences: np.ndarray, n: int) -> list[list[str]]:
        """For each text the n words that its difference [rows, d] asks for most and that do not stand in it."""
        out = []
        for text, row in zip(texts, self.most_wanted(differences, 2 * n + 8).tolist(), strict=True):
            own = {piece.strip().lower() for piece in pieces(text)}
            out.append([word for word in (self.words[i] for i in row) if word.lower() not in own][:n])
        return out

    def forms(self, word: str, endings: int = ENDINGS) -> list[str]:
        """The other words that are like `word` but for the last `endings` letters or fewer of either, three letters
        being alike at least: other forms of it, mostly."""
        if self._stems is None:
            self._stems = {}
            for other in self.words:
                for stem in _stems(other, endings):
                    self._stems.setdefault(stem, []).append(other)
        near = [other for stem in _stems(word, endings) for other in self._stems.get(stem, ())]
        return [other for other in dict.fromkeys(near) if other.lower() != word.lower()]


def _stems(word: str, endings: int) -> list[str]:
    """The word in lower case less none and up to `endings` letters at its end, of three letters at least."""
    low = word.lower()
    return [low[: len(low) - less] for less in range(endings + 1) if len(low) - less >= 3] if low.isalpha() else []
