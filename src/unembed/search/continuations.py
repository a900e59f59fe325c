"""How words go on that no lexicon has: pieces of words, and what each adds to an embedder's vector.

To an embedder a rare name is several tokens, "Bug" and "##en" and "##hagen", and each that a text lacks is seen in how
its vector misses the target. What one adds is measured behind a beginning that means nothing.

Shapes: P pieces, d numbers of a vector.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from unembed.embedders import Embedder
from unembed.errors import TokensUnknown
from unembed.scripts import spaced

CARRIER = "xq{} was born in"
"""A name that is none. Behind it nearly every token stays one: no longer token begins with its letters."""

MOST = 10_000
"""Of an embedder for a hundred languages with a quarter of a million tokens, the first and mostly frequent ones."""

log = logging.getLogger("unembed.search")


class Continuations:
    """P pieces that go on a word, each once, in lower case where the embedder has no capitals, and the directions
    float32 [P, d], of length 1, in which they move a vector, less what all of them have in common."""

    def __init__(self, pieces: Sequence[str], directions: np.ndarray) -> None:
        self.pieces, self.directions = list(pieces), directions
        self.known = frozenset(self.pieces)

    def wanted(self, difference: np.ndarray, whitening: np.ndarray) -> np.ndarray:
        """How much a difference [d], target less embedding of a text, asks for each piece [P]: the cosine of the two
        where `whitening` [d, d] has made the known texts vary alike in all directions. What their words and their
        order differ in counts little there, and what none of them has counts much."""
        along = self.directions @ whitening.astype(np.float32)  # P d
        asked = along @ (difference @ whitening).astype(np.float32)
        return asked / np.maximum(np.linalg.norm(along, axis=1), 1e-12)


_MEASURED: WeakKeyDictionary[Embedder, Continuations | None] = WeakKeyDictionary()


def continuations(embedder: Embedder) -> Continuations | None:
    """Those of an embedder, measured once for this object, then remembered; None for one that shows no tokens."""
    if embedder not in _MEASURED:
        _MEASURED[embedder] = measure(embedder)
    return _MEASURED[embedder]


def measure(embedder: Embedder) -> Continuations | None:
    """What each token of letters or digits does behind a word, for some thousand texts embedded; None for an embedder
    that shows no tokens, or has none that go on a word."""
    try:
        pieces = [token for token in embedder.vocabulary() if token.isalnum() and spaced(token)]
        without, *counts = embedder.count_tokens([CARRIER.format(piece) for piece in ("", *pieces)])
    except TokensUnknown:
        return None
    pieces = [piece for piece, count in zip(pieces, counts, strict=True) if count == without + 1][:MOST]
    if len(pieces) < 2:
        return None
    begun, *vectors = embedder.probe([CARRIER.format(piece) for piece in ("", *pieces)])
    moved = np.stack(vectors) - begun  # P d
    moved -= moved.mean(axis=0)
    log.debug("%d tokens of %s go on a word", len(pieces), embedder.spec.id)
    return Continuations(pieces, moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12))
