"""Vectors in a FAISS index: `index.faiss`, or `faiss:FILE` for any name. Needs the extra `faiss`.

What an index keeps as codes (PQ, scalar quantisers) comes out decoded. Ids are those of an IndexIDMap, or row numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unembed.errors import InputError, require
from unembed.stores.address import existing, split
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import readable


class FaissSource(VectorSource):
    """An index in a file, memory-mapped."""

    count: int
    dtype = np.dtype(np.float32)

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        for what, name in (("ids", ids_field), ("vectors", vector_field), ("texts", text_field)):
            if name:
                raise InputError(f"{source}: a FAISS index has no field {name!r} for the {what}")
        faiss = require("faiss", "faiss")
        self.source = source
        with readable(source):
            index: Any = faiss.read_index(str(source), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
        self._whole = index  # it owns what is inside it
        self._ids = None
        if isinstance(index, faiss.IndexIDMap):  # IndexIDMap2 is one
            self._ids = faiss.vector_to_array(index.id_map)
            index = faiss.downcast_index(index.index)
            self.own_ids = True
        self._index, self.count, self.dim = index, index.ntotal, index.d
        if not self.count:
            raise InputError(f"{source}: an empty index; give one with at least one vector")
        lost = isinstance(index, faiss.IndexIVFFastScan)  # FAISS crashes on asking these for their vectors
        try:
            lost = lost or index.reconstruct_n(0, 1) is None
        except RuntimeError:
            lost = True
        if lost:
            raise InputError(
                f"{source}: {type(index).__name__} keeps nothing that vectors could be made of again; export them "
                "from where the index was built"
            )

    def _read(self, size: int) -> Iterator[VectorBatch]:
        for start in range(0, self.count, size):
            n = min(size, self.count - start)
            with readable(self.source):
                vectors = np.asarray(self._index.reconstruct_n(start, n))
            ids = range(start, start + n) if self._ids is None else self._ids[start : start + n]
            yield VectorBatch([str(i) for i in ids], vectors, None)


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> FaissSource:
    """Open `faiss:FILE`; see `unembed.stores.open_vectors`."""
    path = existing(source, Path(split(source)[0]))
    return FaissSource(str(path), ids_field, vector_field, text_field)
