"""Where vectors live, behind one read-only, streaming interface; see `unembed.stores.base`."""

from __future__ import annotations

from unembed.stores.base import VectorBatch, VectorSource, open_vectors, read_vectors, vector_hash

__all__ = ["VectorBatch", "VectorSource", "open_vectors", "read_vectors", "vector_hash"]
