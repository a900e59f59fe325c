"""Moves within words: a piece put behind a word, or into it, or in the place of its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces
from unembed.search.continuations import Continuations
from unembed.search.edits import by_rank, join

LIKELY = 60
"""Pieces that a target seems to ask for most, of which one is drawn."""
WANTED = 0.3
"""They are drawn by rank, the chance falling by this share from each to the next."""
RARE = 4.0
"""A word that the lexicon lacks is chosen so many times as often as one that it has, and it alone may end in a piece:
common words are one token."""


class Continued:
    """Draws texts that differ from another in a piece of one word."""

    def __init__(self, continuations: Continuations, wanted: np.ndarray, lexicon: Lexicon | None) -> None:
        """`wanted` [P]: how much each piece is asked for."""
        best = np.argsort(-wanted, kind="stable")[:LIKELY]
        self.likely = [continuations.pieces[i] for i in best.tolist()]
        self.known, self.lexicon = continuations.known, lexicon

    def text(self, text: str, rng: np.random.Generator) -> str:
        """A text with one change; the same where there is no word."""
        parts = pieces(text)
        words = [at for at, part in enumerate(parts) if part.strip().isalnum()]
        if not words or not self.likely:
            return text
        rare = np.array([self._rare(parts[at].strip()) for at in words])
        weights = np.where(rare, RARE, 1.0)
        chosen = int(rng.choice(len(words), p=weights / weights.sum()))
        at, ends = words[chosen], self.known if rare[chosen] else frozenset[str]()
        parts[at] = continued(parts[at], by_rank(self.likely, WANTED, rng), ends, rng)
        return join(parts)

    def _rare(self, word: str) -> bool:
        return self.lexicon is None or word.isdigit() or word not in self.lexicon


def continued(word: str, piece: str, known: Collection[str], rng: np.random.Generator) -> str:
    """A word (white space before it may be) with `piece` at its end, or where a known piece ends it, in front of that
    or in its place."""
    start = len(word) - len(word.lstrip()) + 1
    ends: Sequence[str] = [word[i:] for i in range(start, len(word)) if word[i:].lower() in known]
    if not ends or rng.random() < 0.4:
        return word + piece
    end = ends[int(rng.integers(len(ends)))]
    head = word[: len(word) - len(end)]
    return head + piece + (end if rng.random() < 0.4 else "")
