"""The lengths that texts are measured at, in the embedder's tokens."""

from __future__ import annotations

from collections.abc import Iterable

LENGTHS = (4, 8, 16, 32, 64)
"""Where nothing else is said."""
WHOLE = 0
"""In the place of a length: texts as they are, as a store holds them."""


def label(length: int) -> str:
    """How a length is called in reports."""
    return "whole" if length == WHOLE else str(length)


def in_order(lengths: Iterable[int]) -> list[int]:
    """Each length once, the shortest first and WHOLE last."""
    return sorted(set(lengths), key=lambda length: (length == WHOLE, length))
