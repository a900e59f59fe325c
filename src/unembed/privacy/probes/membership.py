"""Membership inference: is this text in the store?

A text's score is the best cosine of its vector to any that is stored. How high one is for a text that is not there is
learned from reference texts: public ones, of the same kind as those that are asked about. The further they are from
that, the less a p-value is worth. A vector that was rounded or disturbed is found as well, as long as its neighbours
are further away.

Shapes: n texts that are asked about, m references, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unembed.embedders.vectors import unit
from unembed.errors import InputError
from unembed.privacy.probes.significance import CORRECTIONS, p_values
from unembed.privacy.probes.stored import directions
from unembed.stores import VectorSource

ASKED_AT_ONCE = 4096


@dataclass(frozen=True)
class Neighbours:
    """The stored vector that is nearest to each text's."""

    cosines: np.ndarray
    """float32 [n]."""
    ids: list[str]
    """Theirs in the store, n."""
    stored: int
    """Vectors that were compared."""
    unusable: int
    """Vectors left out since they have no direction: zero, NaN, infinity."""


@dataclass(frozen=True)
class Membership:
    """What is known of n texts."""

    cosines: np.ndarray
    """Of each to the nearest stored vector, [n]."""
    nearest: list[str]
    """Its id, n."""
    p: np.ndarray
    """Chance of such a cosine for a text that is not in the store, [n]."""
    corrected: np.ndarray
    """The same, corrected for so many texts being asked about, [n]."""
    null: np.ndarray
    """The references' cosines to their nearest stored vectors, [m]."""
    stored: int
    unusable: int

    @property
    def least_p(self) -> float:
        """The smallest p that so many references allow."""
        return 1 / (1 + len(self.null))


def neighbours(asked: np.ndarray, source: VectorSource, progress: Callable[[int], None] | None = None) -> Neighbours:
    """The nearest stored vector of each of `asked` [n, d], by cosine, in one pass over the store and bounded memory.

    progress: called with the number of vectors read. Raises InputError where the store has another dimension, or no
    usable vector.
    """
    asked = unit(asked)
    best = np.full(len(asked), -np.inf, dtype=np.float32)
    ids = [""] * len(asked)
    stored = unusable = 0
    for batch, left_out in directions(source, asked.shape[1]):
        stored, unusable = stored + len(batch.ids), unusable + left_out
        for start in range(0, len(asked) if batch.ids else 0, ASKED_AT_ONCE):
            cosines = asked[start : start + ASKED_AT_ONCE] @ batch.vectors.T
            nearest = cosines.argmax(axis=1)
            for i in np.flatnonzero(cosines.max(axis=1) > best[start : start + ASKED_AT_ONCE]):
                best[start + i], ids[start + i] = cosines[i, nearest[i]], batch.ids[nearest[i]]
        if progress:
            progress(len(batch.ids) + left_out)
    if not stored:
        raise InputError(f"{source.source}: holds no usable vector ({unusable} are zero, NaN or infinite)")
    return Neighbours(best, ids, stored, unusable)


def membership(
    asked: np.ndarray, references: np.ndarray, source: VectorSource, correction: str = "benjamini-hochberg",
    progress: Callable[[int], None] | None = None,
) -> Membership:  # fmt: skip
    """Whether texts are in a store: their vectors [n, d], and those of texts [m, d] that are not.

    correction: holm, or benjamini-hochberg. Raises InputError for another one, without texts or references, and as
    `neighbours`.
    """
    if correction not in CORRECTIONS:
        raise InputError(f"unknown correction '{correction}': choose {' or '.join(CORRECTIONS)}")
    if not len(asked) or not len(references):
        raise InputError(f"{len(asked)} texts and {len(references)} references: give at least one of each")
    found = neighbours(np.concatenate([asked, references]), source, progress)
    cosines, null = found.cosines[: len(asked)], found.cosines[len(asked) :]
    p = p_values(cosines, null)
    corrected = CORRECTIONS[correction](p)
    return Membership(cosines, found.ids[: len(asked)], p, corrected, null, found.stored, found.unusable)
