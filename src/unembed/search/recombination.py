"""A text put together from all samples of a target: the consensus that none of them has whole.

The samples stand for what the target may say. From one of them, the word is added, left out or exchanged that raises
the expected token F1 most, until none does; a new word stands where its neighbours stand beside it in the samples. This
is minimum Bayes risk decoding (Kumar & Byrne, HLT-NAACL 2004) among more texts than were sampled, as combinations of
systems are in machine translation (Rosti et al., NAACL 2007).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from unembed.metrics import words
from unembed.scripts import pieces, spaced
from unembed.search.edits import join

WORDS = 200
"""Words that may be added: those that most candidates have."""
CHANGES = 30
Part = tuple[str, tuple[str, ...]]
"""A piece of a text and the words in it: one, several (an emoji between letters), or none (a mark)."""
_START, _END = "<", ">"  # no words: `words` gives letters and digits alone


class Recombination:
    """The candidates of one target (at least one), as counts: n texts, V words."""

    def __init__(self, candidates: Sequence[str]) -> None:
        texts = [[(piece, words(piece)) for piece in pieces(candidate)] for candidate in candidates]
        runs = [[word for _, found in text for word in found] for text in texts]
        self.sizes = np.array([len(run) for run in runs])
        surfaces: dict[str, Counter[str]] = {}
        for text in texts:
            for piece, found in text:
                if len(found) == 1:
                    surfaces.setdefault(found[0], Counter())[piece.strip()] += 1
        self.surface = {word: seen.most_common(1)[0][0] for word, seen in surfaces.items()}
        spread = Counter(word for run in runs for word in set(run) if word in surfaces)
        order = sorted(spread, key=lambda word: (-spread[word], word))
        self.vocabulary = order[:WORDS]
        self.index = {word: i for i, word in enumerate(order)}
        self.counts = np.stack([self._count(run) for run in runs])  # n, all words
        places: dict[str, list[float]] = {}
        for run in runs:
            for at, word in enumerate(run):
                places.setdefault(word, []).append((at + 0.5) / len(run))
        self.mostly_at = {word: float(np.mean(found)) for word, found in places.items()}
        self.pairs: dict[tuple[str, str], int] = {}
        owners, ids = [], []
        for row, run in enumerate(runs):
            for pair in zip([_START, *run], [*run, _END], strict=True):
                owners.append(row)
                ids.append(self.pairs.setdefault(pair, len(self.pairs)))
        self._owners, self._ids = np.array(owners), np.array(ids)

    def _count(self, found: Iterable[str]) -> np.ndarray:
        """How often each word of the index is among `found`."""
        counts = np.zeros(len(self.index), dtype=np.int32)
        for word in found:
            if word in self.index:
                counts[self.index[word]] += 1
        return counts

    def text(self, start: str) -> str:
        """`start`, one of the candidates, changed word by word."""
        weights = np.full(len(self.counts), 1 / len(self.counts))  # n
        beside = np.bincount(self._ids, weights[self._owners], minlength=len(self.pairs))
        parts = [(piece, tuple(words(piece))) for piece in pieces(start)]
        own = self._count(word for _, found in parts for word in found)
        for _ in range(CHANGES):
            change = self._best_change(parts, own, weights, beside)
            if change is None:
                break
            leave, add = change
            if leave is not None:
                own -= self._count(parts.pop(leave)[1])
            if add is not None:
                own[self.index[add]] += 1
                self._place(parts, add, beside)
        return join([piece for piece, _ in parts])

    def _best_change(
        self, parts: list[Part], own: np.ndarray, weights: np.ndarray, beside: np.ndarray
    ) -> tuple[int | None, str | None] | None:
        """(the piece to leave out, the word to add) that raise expected token F1 most; None where nothing does."""
        V, size = len(self.vocabulary), sum(len(found) for _, found in parts)
        shared = np.minimum(own, self.counts).sum(axis=1)  # n
        more = (self.counts[:, :V] > own[:V]).astype(np.float64)  # n V: texts that have the word once more

        def expected(shared: np.ndarray, size: int) -> float:
            return float((2 * weights * shared / np.maximum(1, size + self.sizes)).sum())

        def gain(shared: np.ndarray, size: int) -> tuple[float, int]:
            each = 2 * weights / np.maximum(1, size + 1 + self.sizes)
            values = each @ shared + each @ more
            return float(values.max()), int(values.argmax())

        best = expected(shared, size) + 1e-9
        change: tuple[int | None, str | None] | None = None
        if V:
            value, new = gain(shared, size)
            if value > best:
                best, change = value, (None, self.vocabulary[new])
        for found, at in self._loosest(parts, beside).items():
            left, rest = shared.copy(), size - len(found)
            for word, times in Counter(found).items():
                if (i := self.index.get(word)) is not None:
                    has = self.counts[:, i]
                    left += np.minimum(own[i] - times, has) - np.minimum(own[i], has)
            value = expected(left, rest)
            if value > best and rest:
                best, change = value, (at, None)
            if V:
                value, new = gain(left, rest)
                if value > best:
                    best, change = value, (at, self.vocabulary[new])
        return change

    def _loosest(self, parts: list[Part], beside: np.ndarray) -> dict[tuple[str, ...], int]:
        """For each word that stands in `parts`, the place where it fits its neighbours least."""
        found: dict[tuple[str, ...], tuple[float, int]] = {}
        for at, (_, own) in enumerate(parts):
            if own:
                fit = self._fit([*parts[:at], *parts[at + 1 :]], at, own, beside)
                if own not in found or fit < found[own][0]:
                    found[own] = (fit, at)
        return {own: at for own, (_, at) in found.items()}

    def _place(self, parts: list[Part], word: str, beside: np.ndarray) -> None:
        """Put a word in where it fits best; of places that fit alike, where it mostly stands."""
        mostly = self.mostly_at[word] * len(parts)
        at = max(range(len(parts) + 1), key=lambda at: (self._fit(parts, at, (word,), beside), -abs(at - mostly)))
        surface = self.surface[word]
        parts.insert(at, (f" {surface}" if at and spaced(surface) else surface, (word,)))

    def _fit(self, parts: list[Part], at: int, own: tuple[str, ...], beside: np.ndarray) -> float:
        """Weight of the candidates in which `own` has the neighbours that it would have at `at`, less that of those in
        which they are neighbours of each other."""
        before = next((found[-1] for _, found in reversed(parts[:at]) if found), _START)
        after = next((found[0] for _, found in parts[at:] if found), _END)

        def weight(a: str, b: str) -> float:
            pair = self.pairs.get((a, b))
            return 0.0 if pair is None else float(beside[pair])

        return weight(before, own[0]) + weight(own[-1], after) - weight(before, after)
