"""The lengths that texts are measured at, in the embedder's tokens."""

from __future__ import annotations

LENGTHS = (4, 8, 16, 32, 64)
"""Where nothing else is said."""
WHOLE = 0
"""In the place of a length: texts as they are, as a store holds them."""


def label(length: int) -> str:
    """How a length is called in reports."""
    return "whole" if length == WHOLE else str(length)
