"""Texts that owe nothing to the attacked vectors, for the same rows: what a figure of the inverter's is worth beside
theirs.

A random public text shows what any fluent text scores, a sample of the model's unconditional prior what the model
scores without looking at the vector, and the nearest of the public texts what an attacker gets who only looks vectors
up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from unembed.embedders.vectors import unit
from unembed.errors import TokensUnknown
from unembed.evaluation import control_texts, prior_samples
from unembed.inverter import Inverter
from unembed.metrics import cosine
from unembed.privacy.audit.leakage import Control

BATCH = 1024
"""Public texts embedded at a time."""


def controls(
    inverter: Inverter, targets: np.ndarray, references: Sequence[str], public: Sequence[str], *, seed: int = 0
) -> dict[str, Control]:
    """The controls by name, for targets [n, d] of the n references. Those of public texts are left out where there are
    none, that of the prior where the model has none."""
    made: dict[str, Control] = {}
    others = {
        "random text": control_texts(inverter, public, token_counts(inverter, references), 0, seed),
        "prior": prior_samples(inverter, len(references), seed),
    }
    for name, texts in others.items():
        if texts:
            made[name] = Control(texts, cosine(inverter.embedder.encode(texts), targets).tolist())
    if public:
        made["nearest public text"] = nearest(inverter, targets, public)
    return made


def nearest(inverter: Inverter, targets: np.ndarray, public: Iterable[str]) -> Control:
    """For each target [n, d] the public text whose vector is nearest to it by cosine; batch by batch."""
    directions = unit(targets)
    best, texts, remaining = np.full(len(targets), -np.inf), [""] * len(targets), iter(public)
    while batch := list(islice(remaining, BATCH)):
        found = directions @ unit(inverter.embedder.encode(batch)).T
        for row in np.flatnonzero(found.max(axis=1) > best).tolist():
            column = int(found[row].argmax())
            best[row], texts[row] = found[row, column], batch[column]
    return Control(texts, best.clip(-1, 1).tolist())


def token_counts(inverter: Inverter, texts: Sequence[str]) -> list[int]:
    """In the embedder's tokens; behind an API that shows none, by the usual four bytes a token."""
    try:
        return [max(1, count) for count in inverter.embedder.count_tokens(texts)]
    except TokensUnknown:
        return [max(1, len(text.encode()) // 4) for text in texts]
