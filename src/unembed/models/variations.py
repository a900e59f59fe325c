"""Texts that differ from another in one token: where, and by what, a model that doubts it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

VARIED = 8
"""Likeliest tokens at each place, one is drawn from those of all places."""


def change(ids: list[int], place: int, token: int, rng: np.random.Generator) -> list[int]:
    """`ids` with `token` at `place`: in front of what stands there or, as often, in its stead; or without what stands
    there, where `token` is the next."""
    if place + 1 < len(ids) and ids[place + 1] == token:
        return ids[:place] + ids[place + 1 :]
    return [*ids[:place], token, *ids[place + int(rng.random() < 0.5) :]]


def changes(ids: list[int], drawn: Sequence[int], tokens: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
    """The texts with each of `tokens`, whose numbers among the `VARIED` of all places are `drawn`."""
    pairs = [(number // VARIED, token) for number, token in zip(drawn, tokens, strict=True)]
    return [change(ids, place, token, rng) for place, token in pairs if place <= len(ids)]
