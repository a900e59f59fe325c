"""What a target holds, estimated from all texts that were asked about: words, their neighbours, and how many.

Ridge regression of what stands in the texts on their embeddings, in the target's neighbourhood. Each estimate is the
same weighted sum over the texts, with weights that may be negative and make one: those of the sum of embeddings that
comes closest to the target (kriging: Matheron, Economic Geology 1963). So a word that no near text has may be seen in
the difference of many.

Shapes: n texts, d numbers of a vector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from unembed.scripts import pieces, spaced
from unembed.search.edits import join

RIDGE = 1e-3
SHARE = 0.7
"""Of the texts, as many make one of several estimates."""
SUM = 10.0
"""How much it counts that the weights make one."""
LEAST = 0.05
"""What is expected less often than this is left out."""
LIKELY = 0.2
"""What is expected more often than this, a text may lack."""
_START, _END = "<start>", "<end>"


@lru_cache(maxsize=20_000)
def units(text: str) -> tuple[str, ...]:
    """The pieces of a text, in lower case and without white space."""
    return tuple(piece.strip().lower() for piece in pieces(text))


class Estimator:
    """Texts (n, at least one) and their embeddings [n, d], and a target [d]; all vectors of length 1."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray, target: np.ndarray) -> None:
        self.texts = [units(text) for text in texts]
        self.vectors = np.hstack([vectors, np.full((len(texts), 1), SUM)])  # n, d + 1
        self.target = np.append(target, SUM)
        self.index: dict[str, int] = {}
        self.pairs: dict[tuple[str, str], int] = {}
        self.lengths = np.array([len(found) for found in self.texts])
        surfaces: dict[str, Counter[str]] = {}
        places: dict[str, list[float]] = {}
        owners, ids, pair_owners, pair_ids = [], [], [], []
        for row, (text, found) in enumerate(zip(texts, self.texts, strict=True)):
            for at, (piece, unit) in enumerate(zip(pieces(text), found, strict=True)):
                ids.append(self.index.setdefault(unit, len(self.index)))
                owners.append(row)
                surfaces.setdefault(unit, Counter())[piece.strip()] += 1
                places.setdefault(unit, []).append((at + 0.5) / len(found))
            for pair in zip((_START, *found), (*found, _END), strict=True):
                pair_ids.append(self.pairs.setdefault(pair, len(self.pairs)))
                pair_owners.append(row)
        self.names = list(self.index)
        self._units = np.array(owners, dtype=np.int64), np.array(ids, dtype=np.int64)
        self._pairs = np.array(pair_owners, dtype=np.int64), np.array(pair_ids, dtype=np.int64)
        self.surface = {unit: seen.most_common(1)[0][0] for unit, seen in surfaces.items()}
        self.mostly_at = {unit: float(np.mean(found)) for unit, found in places.items()}

    def weights(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """The weight of each text [n]; with `rng` of a share of them that is drawn, the others 0."""
        n = len(self.texts)
        rows = np.arange(n) if rng is None else np.sort(rng.permutation(n)[: max(1, round(SHARE * n))])
        known = self.vectors[rows]
        solved = np.linalg.solve(known.T @ known + RIDGE * np.eye(known.shape[1]), self.target)  # d + 1
        out = np.zeros(n)
        out[rows] = known @ solved
        return out

    def estimate(self, rng: np.random.Generator | None = None) -> Estimate:
        """The estimate from all texts, or with `rng` from a share of them: no two are the same."""
        weights = self.weights(rng)
        (owners, ids), (pair_owners, pair_ids) = self._units, self._pairs
        counts = np.bincount(ids, weights[owners], minlength=len(self.index))
        beside = np.bincount(pair_ids, weights[pair_owners], minlength=len(self.pairs))
        return Estimate(self, counts, beside, float(weights @ self.lengths))


class Estimate:
    """How often each unit is expected, which stand side by side, and how many there are in all."""

    def __init__(self, known: Estimator, counts: np.ndarray, beside: np.ndarray, length: float) -> None:
        self.known, self.counts, self.beside, self.length = known, counts, beside, max(1.0, length)

    def likeliest(self, n: int) -> tuple[list[str], np.ndarray]:
        """The n units expected most often, as they are written, and how often."""
        names = self.known.names
        best = np.argsort(-self.counts, kind="stable")[:n]
        return [self.known.surface[names[i]] for i in best.tolist()], self.counts[best]

    def lacking(self, text: str, n: int) -> list[str]:
        """Up to n units that are expected and that `text` does not have so often, the one most lacking first."""
        rest = self.counts.copy()
        for unit in units(text):
            if (row := self.known.index.get(unit)) is not None:
                rest[row] -= 1
        best = np.argsort(-rest, kind="stable")[:n]
        return [self.known.surface[self.known.names[i]] for i in best.tolist() if rest[i] > LIKELY]

    def bag(self) -> Counter[str]:
        """The units with the highest expected token F1."""
        names = self.known.names
        found: list[tuple[float, str]] = []
        for i in np.flatnonzero(self.counts > LEAST).tolist():
            left = float(self.counts[i])
            while left > LEAST:  # one more of the same counts for what is left
                found.append((min(1.0, left), names[i]))
                left -= 1
        found.sort(key=lambda pair: -pair[0])
        shared = np.cumsum([share for share, _ in found])
        sizes = np.arange(1, len(found) + 1)
        n = int(np.argmax(2 * shared / (sizes + self.length))) + 1 if found else 0
        return Counter(unit for _, unit in found[:n])

    def text(self, start: str) -> str:
        """`start`, less what is not expected, and with what it lacks where it fits its neighbours best."""
        parts, own = pieces(start), list(units(start))
        bag = self.bag()
        for unit, times in (Counter(own) - bag).items():
            for _ in range(times):
                places = [at for at, other in enumerate(own) if other == unit]
                at = min(places, key=lambda at: self._fit([*own[:at], *own[at + 1 :]], at, unit))
                del parts[at], own[at]
        lacking = (bag - Counter(own)).elements()
        for unit in sorted(lacking, key=lambda unit: -self.counts[self.known.index[unit]]):
            mostly = self.known.mostly_at[unit] * len(own)
            at = max(range(len(own) + 1), key=lambda at: (self._fit(own, at, unit), -abs(at - mostly)))
            surface = self.known.surface[unit]
            parts.insert(at, f" {surface}" if at and spaced(surface) else surface)
            own.insert(at, unit)
        return join(parts)

    def _fit(self, own: list[str], at: int, unit: str) -> float:
        """How far `unit` is expected beside the neighbours it would have at `at`, less how far they are beside each
        other."""
        before, after = own[at - 1] if at else _START, own[at] if at < len(own) else _END
        return self._pair(before, unit) + self._pair(unit, after) - self._pair(before, after)

    def _pair(self, a: str, b: str) -> float:
        row = self.known.pairs.get((a, b))
        return 0.0 if row is None else float(self.beside[row])
