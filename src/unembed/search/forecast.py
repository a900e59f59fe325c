"""How close a text would come to a target, forecast without asking the embedder.

Ridge regression of the embeddings of known texts on what stands in them: their units, which stand side by side, which
come before which, and in which part of the text. It holds near the texts it was fitted to, so that many variations of
the best ones can be tried, and only the most promising embedded (a surrogate: Jin, Swarm and Evolutionary Computation
2011).

Shapes: n known texts, m texts, F features, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

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


def features(text: str) -> dict[Hashable, float]:
    """What stands in a text, and how much it counts."""
    own = units(text)
    out: dict[Hashable, float] = {}
    for at, unit in enumerate(own):
        out[unit] = out.get(unit, 0.0) + 1
        for later, other in enumerate(own[at + 1 : at + FAR]):
            pair = (unit, other)
            out[pair] = out.get(pair, 0.0) + BEFORE
            if not later:
                side = (unit, other, "side by side")
                out[side] = out.get(side, 0.0) + SIDE_BY_SIDE
        part, rest = divmod(at / max(1, len(own) - 1) * (PARTS - 1), 1)
        for place, share in ((part, 1 - rest), (part + 1, rest)):
            if share:
                key = (unit, place)
                out[key] = out.get(key, 0.0) + PART * share
    return out


class Forecast:
    """Fitted to texts (n, at least one) and their embeddings [n, d] of length 1."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        self._columns: dict[Hashable, int] = {}
        self._known = self._matrix(texts, new=True)  # n, F
        self._mean = vectors.mean(axis=0)
        shared = (self._known @ self._known.T).toarray()  # n, n
        shared[np.diag_indices(len(texts))] += RIDGE
        self._solved = cho_solve(cho_factor(shared, overwrite_a=True), vectors - self._mean)  # n, d

    def _matrix(self, texts: Sequence[str], new: bool = False) -> sparse.csr_matrix:
        """What stands in the texts [m, F]; what no text had before is left out, unless it may be `new`."""
        starts, columns, values = [0], [], []
        for text in texts:
            for feature, value in features(text).items():
                if new:
                    self._columns.setdefault(feature, len(self._columns))
                if (column := self._columns.get(feature)) is not None:
                    columns.append(column)
                    values.append(value)
            starts.append(len(columns))
        return sparse.csr_matrix((values, columns, starts), shape=(len(texts), len(self._columns)))

    def cosines(self, texts: Sequence[str], target: np.ndarray) -> np.ndarray:
        """The forecast cosine of each text's embedding to the target [d], of length 1: [m]."""
        vectors = (self._matrix(texts) @ self._known.T).toarray() @ self._solved + self._mean  # m, d
        return vectors @ target / np.maximum(1e-12, np.linalg.norm(vectors, axis=1))
