"""Maps between embedding spaces, learned from pairs of vectors of the same texts."""

from __future__ import annotations

from unembed.alignment.linear import LinearMap, align

__all__ = ["LinearMap", "align"]
