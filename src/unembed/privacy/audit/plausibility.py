"""Whether vectors can be an embedder's, before they are inverted: what an inverter writes about vectors of another
space is fluent and says nothing.

With texts beside the vectors, their own embeddings are compared with them. Without, the sample is compared with public
texts by its shape: an embedder's vectors keep to directions that those of another one, or the same ones behind a secret
rotation, do not know.

Shapes: n vectors of d numbers, m public ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unembed.embedders.vectors import unit

LEAST_AGREEMENT = 0.15
"""Measured with all-MiniLM-L6-v2 on 200 texts: 1 for clean vectors and int8, .79 for binary ones, .45 and .24 with
Gaussian noise of .1 and .2 on each number; .01 at most for vectors of another embedder or behind a rotation."""
DIRECTIONS = 64
DRAWS = 199
"""Random rotations that the shape is compared with: more than all of them is p ≤ .005."""


@dataclass(frozen=True)
class Plausibility:
    """A verdict, and the figures it rests on."""

    plausible: bool
    why: str


def by_texts(vectors: np.ndarray, embedded: np.ndarray) -> Plausibility:
    """Vectors [n, d] against the embeddings [n, d] of their own texts: how far their cosine is above that of texts and
    vectors which do not belong together, of the way from there to 1."""
    products = unit(vectors) @ unit(embedded).T
    matched = float(np.diag(products).mean())
    others = float((products.sum() - np.trace(products)) / max(1, products.size - len(products)))
    agreement = (matched - others) / max(1e-9, 1 - others)
    why = (
        f"the texts beside the vectors, embedded again, have a mean cosine of {matched:.3f} to them, and "
        f"{others:.3f} where text and vector do not belong together (n={len(products)})"
    )
    return Plausibility(agreement >= LEAST_AGREEMENT, why)


def by_shape(vectors: np.ndarray, public: np.ndarray, seed: int = 0) -> Plausibility:
    """Vectors [n, d] against public ones [m, d] of the embedder: the share of their length within the public ones'
    main directions, beside that of the same vectors under random rotations (exchanged and mirrored axes)."""
    rows, generator = unit(vectors), np.random.default_rng([seed, 6])
    _, _, directions = np.linalg.svd(unit(public), full_matrices=False)
    main = directions[:DIRECTIONS].T  # [d, k]
    d = rows.shape[1]
    share = _within(rows, main)
    draws = [_within(rows[:, generator.permutation(d)] * generator.choice([-1.0, 1.0], d), main) for _ in range(DRAWS)]
    why = (
        f"{100 * share:.0f} % of the vectors' length lies in the {main.shape[1]} main directions of public texts' "
        f"vectors, under random rotations at most {100 * max(draws):.0f} % (n={len(rows)})"
    )
    return Plausibility(share > max(draws), why)


def _within(rows: np.ndarray, directions: np.ndarray) -> float:
    return float(((rows @ directions) ** 2).sum(axis=1).mean())
