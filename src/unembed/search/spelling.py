"""A text as one would write it: of all that are one text to the embedder, what the prior finds likeliest.

No vector can tell "(At 3.7" from "( at 3. 7" where the tokenizer knows no capitals and parts punctuation from what it
touches; and an edit leaves the one or the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unembed.embedders import Embedder
from unembed.models.base import InversionModel
from unembed.scripts import pieces

LIKELIER = 1.0
"""Nats of log p by which another spelling has to be likelier; below that, a text stays as it was written."""


def spelled(text: str, model: InversionModel, embedder: Embedder) -> str:
    """`text` (not empty) with the spaces between its pieces and their first letters' case changed, one after another,
    to what the model's prior finds likelier, as far as the embedder cannot tell. Costs no query."""
    key, best = embedder.key(text), float(model.score([text])[0])
    while True:
        others = [other for other in _otherwise(text) if other != text and embedder.key(other) == key]
        if not others:
            return text
        scores = model.score(others)
        likeliest = int(np.argmax(scores))
        if scores[likeliest] <= best + LIKELIER:
            return text
        text, best = others[likeliest], float(scores[likeliest])


def _otherwise(text: str) -> Iterator[str]:
    """The text with one space put or taken, or one piece begun in the other case."""
    parts = pieces(text)
    for i, part in enumerate(parts):
        bare = part.lstrip()
        space = part[: len(part) - len(bare)]
        if i:
            yield "".join([*parts[:i], bare if space else f" {bare}", *parts[i + 1 :]])
        yield "".join([*parts[:i], space, bare[:1].swapcase(), bare[1:], *parts[i + 1 :]])
