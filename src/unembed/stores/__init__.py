"""Where vectors live, behind one read-only, streaming interface; see `unembed.stores.base`."""

from __future__ import annotations

from unembed.stores.base import VectorBatch, VectorSource, open_vectors, read_vectors

__all__ = ["VectorBatch", "VectorSource", "open_vectors", "read_vectors"]
