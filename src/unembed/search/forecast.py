"""How close a text would come to a target, forecast without asking the embedder.

Ridge regression of the embeddings of known texts on what stands in them: their units, which stand side by side, which
come before which, and in which part of the text. It holds near the texts it was fitted to, so that many variations of
the best ones can be tried, and only the most promising embedded (a surrogate: Jin, Swarm and Evolutionary Computation
2011).

Shapes: n known texts, m texts, F features, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve

from unembed.search.estimate import units

RIDGE = 0.03
SIDE_BY_SIDE, BEFORE, PART = 0.3, 0.1, 0.3
"""What two neighbours count, two units in this order, and a unit in its part of the text; a unit itself counts 1."""
PARTS = 4
FAR = 20
"""Units that stand further apart are in no order: a long text would have too many pairs."""


_BITS = 24
"""For the number of a unit: a feature is one number, of its kind, its unit and its second unit."""
_UNIT, _BEFORE, _BESIDE, _PART = range(4)


def _feature(kind: int | np.ndarray, unit: np.ndarray, other: np.ndarray | int = 0) -> np.ndarray:
    """The number of a feature; -1 where a unit has none."""
    number = (np.asarray(kind, dtype=np.int64) << 2 * _BITS) + (unit << _BITS) + other
    return np.where((unit < 0) | (np.asarray(other) < 0), -1, number)


@cache
def _layout(n: int) -> tuple[np.ndarray, ...]:
    """For texts of n units: which two are in an order, first [P] and second [P]; and the parts of the text in which
    each lies, [2, n], and how far, [2, n]."""
    first, second = np.triu_indices(n, 1)
    near = second - first < FAR
    place = np.arange(n) / max(1, n - 1) * (PARTS - 1)
    part, rest = np.divmod(place, 1)
    return first[near], second[near], np.stack([part, part + 1]).astype(np.int64), np.stack([1 - rest, rest])


class Forecast:
    """Fitted to texts (n, at least one) and their embeddings [n, d] of length 1."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        self._numbers: dict[str, int] = {}
        for text in texts:
            for unit in units(text):
                self._numbers.setdefault(unit, len(self._numbers))
        rows, features, values = self._features(texts)
        self._columns, columns = np.unique(features, return_inverse=True)
        shape = len(texts), len(self._columns)
        known = sparse.csr_matrix((values, (rows, columns)), shape=shape)  # n, F
        self._mean = vectors.mean(axis=0)
        shared = (known @ known.T).toarray()  # n, n
        shared[np.diag_indices(len(texts))] += RIDGE
        # There are more features than texts, so the ridge is solved among texts. What each feature adds follows.
        solved = cho_solve(cho_factor(shared, overwrite_a=True), vectors - self._mean)  # n, d
        self._adds = known.T @ solved  # F, d

    def __contains__(self, unit: str) -> bool:
        """Whether a known text has it."""
        return unit in self._numbers

    def _features(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What stands in the texts, and how much it counts: of each occurrence text, feature (-1 for those of units
        that no known text has) and value, three arrays."""
        by_length: dict[int, list[int]] = {}
        for row, text in enumerate(texts):
            by_length.setdefault(len(units(text)), []).append(row)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for n, members in by_length.items():
            own = np.array([[self._numbers.get(unit, -1) for unit in units(texts[row])] for row in members], np.int64)
            own = own.reshape(len(members), n)  # m, n
            first, second, parts, shares = _layout(n)
            pairs = own[:, first], own[:, second]  # m, P each
            beside = second - first == 1
            entries = [
                (_feature(_UNIT, own), np.ones(n)),
                (_feature(_BEFORE, *pairs), np.full(len(first), BEFORE)),
                (_feature(_BESIDE, pairs[0][:, beside], pairs[1][:, beside]), np.full(beside.sum(), SIDE_BY_SIDE)),
                *((_feature(_PART + part, own), PART * share) for part, share in zip(parts, shares, strict=True)),
            ]
            rows = np.array(members)[:, None]
            for features, values in entries:
                shape = features.shape
                found.append(tuple(np.broadcast_to(a, shape).ravel() for a in (rows, features, values)))  # type: ignore[arg-type]
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        rows, features, values = (np.concatenate(column) for column in zip(*found, strict=True))
        return rows, features, values

    def _matrix(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """What stands in the texts [m, F]; what no known text has is left out."""
        rows, features, values = self._features(texts)
        at = np.searchsorted(self._columns, features).clip(max=max(0, len(self._columns) - 1))
        known = self._columns[at] == features if len(self._columns) else np.zeros(len(features), dtype=bool)
        known &= features >= 0
        shape = len(texts), len(self._columns)
        return sparse.csr_matrix((values[known], (rows[known], at[known])), shape=shape)

    def cosines(self, texts: Sequence[str], target: np.ndarray) -> np.ndarray:
        """The forecast cosine of each text's embedding to the target [d], of length 1: [m]."""
        vectors = self._matrix(texts) @ self._adds + self._mean  # m, d
        return vectors @ target / np.maximum(1e-12, np.linalg.norm(vectors, axis=1))
