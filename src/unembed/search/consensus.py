"""The text that agrees best with all samples, without asking the embedder.

Minimum Bayes risk decoding (Kumar & Byrne, HLT-NAACL 2004; by sampling: Eikema & Aziz, COLING 2020) with token F1 as
the gain: the text whose expected token F1 is highest, were any of the samples the truth. The likeliest text is often a
poor answer where a model is unsure; words that most samples have are seldom wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from unembed.metrics import words
from unembed.search.recombination import Recombination


def agreement(texts: Sequence[str], samples: Sequence[str]) -> np.ndarray:
    """Mean token F1 of each text with all samples [n]; 0 where neither has a word."""
    bags = [Counter(words(text)) for text in (*texts, *samples)]
    index = {word: i for i, word in enumerate(dict.fromkeys(word for bag in bags for word in bag))}
    counts = np.zeros((len(bags), len(index)), dtype=np.int32)
    for row, bag in enumerate(bags):
        for word, count in bag.items():
            counts[row, index[word]] = count
    ours, theirs = counts[: len(texts)], counts[len(texts) :]
    shared = np.minimum(ours[:, None], theirs[None]).sum(axis=2)  # n, samples
    sizes = ours.sum(axis=1)[:, None] + theirs.sum(axis=1)[None]
    return (2 * shared / np.maximum(1, sizes)).mean(axis=1) if len(samples) else np.zeros(len(texts))


def by_agreement(texts: Sequence[str]) -> list[str]:
    """The distinct texts, the one that agrees best with all of them first."""
    distinct = list(dict.fromkeys(texts))
    order = np.argsort(-agreement(distinct, texts), kind="stable")
    return [distinct[i] for i in order.tolist()]


def by_consensus(texts: Sequence[str]) -> list[str]:
    """The text that is put together from all of them, and then they themselves, the best of them first."""
    ordered = by_agreement(texts)
    return list(dict.fromkeys([Recombination(texts).text(ordered[0]), *ordered]))
