"""Drafts that a corrector learns from: training texts made wrong in the ways in which a search is wrong near its end.

A denoiser (Lewis et al., ACL 2020, BART: deletion, infilling, permutation) whose noise is aimed: the words that stand
where they should not are those that the vector itself, or the draft's own miss of it, seems to ask for. Hypotheses that
a network writes at one go are far from the truth and all alike; a search corrects texts that have most of the words
in some wrong order.

Shapes: B rows, d numbers of a vector, V words of the lexicon.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces, spaced
from unembed.search.edits import by_rank, exchanged, join

MISLEADING = 80
"""The words of the lexicon that a vector seems to ask for most, from which wrong ones are drawn, ..."""
WANTED = 0.04
"""... by rank, the chance falling by this share from each to the next."""


class Corruption:
    """Makes texts wrong. `mean` [d] is of training vectors, so that a vector tells what is particular to it."""

    def __init__(self, lexicon: Lexicon, mean: np.ndarray) -> None:
        self.lexicon, self.mean = lexicon, mean

    def drafts(self, texts: Sequence[str], targets: np.ndarray, rng: np.random.Generator) -> list[str]:
        """A wrong text for each text, with target [B, d]; none is empty."""
        misleading = self.lexicon.most_wanted(targets - self.mean, MISLEADING).tolist()  # B, MISLEADING
        return [self.draft(text, row, rng) for text, row in zip(texts, misleading, strict=True)]

    def draft(self, text: str, misleading: Sequence[int], rng: np.random.Generator) -> str:
        """`text` with words left out, exchanged for others, brought in and put elsewhere: how many of each is drawn."""
        own = pieces(f" {text}")
        much = rng.random()
        dropped, exchanged_words, brought = much * rng.random(3) * (0.5, 0.6, 0.5)
        parts: list[str] = []
        for part in own:
            chance = rng.random()
            if chance < dropped:
                continue
            if chance < dropped + exchanged_words:
                part = _spaced(self._other(part.strip(), misleading, rng))
            parts.append(part)
            if rng.random() < brought:
                parts.append(_spaced(self._wrong(misleading, rng)) if rng.random() < 0.8 or not parts else parts[0])
        if rng.random() < 0.85:
            spread = much * rng.random() * len(parts) / 2
            order = np.argsort(np.arange(len(parts)) + spread * rng.standard_normal(len(parts)), kind="stable")
            parts = [parts[i] for i in order.tolist()]
        draft = join(parts)
        while len(parts) > 1 and rng.random() < 0.4:
            draft = exchanged(parts, rng)
            parts = pieces(f" {draft}")
        return draft or "."

    def _wrong(self, misleading: Sequence[int], rng: np.random.Generator) -> str:
        return self.lexicon.words[by_rank(misleading, WANTED, rng)]

    def _other(self, word: str, misleading: Sequence[int], rng: np.random.Generator) -> str:
        forms = self.lexicon.forms(word) if rng.random() < 0.4 else []
        return forms[int(rng.integers(len(forms)))] if forms else self._wrong(misleading, rng)


def _spaced(word: str) -> str:
    return f" {word}" if spaced(word) else word
