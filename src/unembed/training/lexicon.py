"""Fits the lexicon of a model to texts and their vectors; one pass over them counts words, a second adds up vectors."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch

from unembed.models.lexicon import Lexicon
from unembed.models.native.tokenizer import TextTokenizer
from unembed.scripts import pieces

WORDS = 16_384
FEWEST = 5
"""Texts that a word must stand in."""
LONGEST = 20
"""Pieces of a text: in a longer one, a word is a small part of the vector."""
RIDGE = 0.1
"""Of the mean variance of a direction, added to each, so that directions in which nothing varies are not blown up."""
PART = 4096

log = logging.getLogger("unembed.train")


def fit_lexicon(vectors: np.ndarray, rows: list[np.ndarray], tokenizer: TextTokenizer) -> Lexicon | None:
    """The lexicon of texts, given as token ids, with vectors [n, d]; None where no word stands in enough of them."""
    surfaces: Counter[str] = Counter()
    for _, texts in _parts(rows, tokenizer):
        for words in texts:
            surfaces.update(words)
    known: dict[str, str] = {}  # each word in the case that it mostly has
    for word, _ in surfaces.most_common():
        known.setdefault(word.lower(), word)
        if len(known) == WORDS:
            break
    index = {word: row for row, word in enumerate(known)}
    d = vectors.shape[1]
    sums, counts = torch.zeros(len(known), d), torch.zeros(len(known))
    total, products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for start, texts in _parts(rows, tokenizer):
        part = torch.from_numpy(vectors[start : start + len(texts)].astype(np.float32))  # p d
        total += part.sum(dim=0)
        products += part.T @ part
        pairs = [
            (index[word], row)
            for row, words in enumerate(texts)
            if len(words) <= LONGEST
            for word in {word.lower() for word in words}
            if word in index
        ]
        if pairs:
            which, held = torch.tensor(pairs).T
            sums.index_add_(0, which, part[held])
            counts += torch.bincount(which, minlength=len(known))
    mean = total / len(rows)
    variances, axes = torch.linalg.eigh(products / len(rows) - torch.outer(mean, mean))
    whitening = ((axes * (variances.clamp(min=0) + RIDGE * variances.mean()).rsqrt()) @ axes.T).float()  # d d
    enough = counts >= FEWEST
    if not enough.any():
        return None
    apart = (sums[enough] / counts[enough, None] - mean.float()) @ whitening  # V d
    directions = torch.nn.functional.normalize(apart, dim=1) @ whitening
    words = [word for word, kept in zip(known.values(), enough.tolist(), strict=True) if kept]
    log.info("lexicon: %d words of %d texts", len(words), len(rows))
    return Lexicon(words, directions.numpy())


def _parts(rows: list[np.ndarray], tokenizer: TextTokenizer) -> Iterator[tuple[int, list[list[str]]]]:
    """Where a part of the texts begins, and the words and marks in each of them."""
    for start in range(0, len(rows), PART):
        texts = tokenizer.decode([row.tolist() for row in rows[start : start + PART]])
        yield start, [[piece.strip() for piece in pieces(text)] for text in texts]
