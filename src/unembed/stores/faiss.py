"""Vectors in a FAISS index: `index.faiss`, or `faiss:FILE` for any name. Needs the extra `faiss`.

What an index keeps as codes (PQ, scalar quantisers) comes out decoded. Ids are those of an IndexIDMap or of an IndexIVF
that was given some, or row numbers.
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
        given = None
        if isinstance(index, faiss.IndexIDMap):  # IndexIDMap2 is one
            given = faiss.vector_to_array(index.id_map)
            index = faiss.downcast_index(index.index)
        self._index, self.count, self.dim = index, index.ntotal, index.d
        if not self.count:
            raise InputError(f"{source}: an empty index; give one with at least one vector")
        self._transformed = isinstance(index, faiss.IndexPreTransform)
        self._inner = faiss.downcast_index(index.index) if self._transformed else index
        # FAISS crashes on asking these for their vectors.
        lost = isinstance(self._inner, faiss.IndexIVFFastScan)
        self._places: np.ndarray | None = None
        own = self._find_places() if isinstance(self._inner, faiss.IndexIVF) and not lost else None
        if own is not None and given is not None and ids_field != "":
            # Where vectors are removed, an IndexIDMap numbers the rest anew, and the IndexIVF in it does not.
            raise InputError(
                f"{source}: which vector has which id was lost when vectors were removed; build the index anew, or "
                'give "" for the ids to take row numbers'
            )
        self._ids = None if ids_field == "" else own if given is None else given
        self.own_ids = self._ids is not None
        try:
            lost = lost or self._vectors(0, 1) is None
        except RuntimeError:
            lost = True
        if lost:
            raise InputError(
                f"{source}: {type(self._inner).__name__} keeps nothing that vectors could be made of again; export "
                "them from where the index was built"
            )

        self.code = self._recoded if self._loses() else None

    def _recoded(self, vectors: np.ndarray) -> np.ndarray:
        """Clean vectors [n, d] as they would come out of the index, float32 [n, d]."""
        return np.asarray(self._index.sa_decode(self._index.sa_encode(np.ascontiguousarray(vectors, np.float32))))

    def _loses(self) -> bool:
        """Whether the index keeps codes that a vector can be put through alone, the same each time."""
        probe = np.random.default_rng(0).standard_normal((4, self.dim)).astype(np.float32)
        probe /= np.linalg.norm(probe, axis=1, keepdims=True)
        try:
            first, again = self._recoded(probe), self._recoded(probe)
        except RuntimeError:  # a kind without a codec of its own
            return False
        return np.array_equal(first, again) and not np.allclose(first, probe, atol=1e-5)

    def _find_places(self) -> np.ndarray | None:
        """Find out where each vector of an IndexIVF lies, (list, place in it) [n, 2], in the order of the index's own
        ids, and return these [n], or None where they are the row numbers.

        Its `reconstruct_n` goes by these ids, and leaves the rows empty where they are not the row numbers.
        """
        faiss = require("faiss", "faiss")
        lists = self._inner.invlists
        own = np.empty(self.count, dtype=np.int64)
        places = np.empty((self.count, 2), dtype=np.int64)
        at = 0
        with readable(self.source):
            for number in range(self._inner.nlist):
                size = lists.list_size(number)
                if size:
                    own[at : at + size] = faiss.rev_swig_ptr(lists.get_ids(number), size)
                    places[at : at + size, 0], places[at : at + size, 1] = number, np.arange(size)
                    at += size
        order = np.argsort(own, kind="stable")
        own, self._places = own[order], places[order]
        return None if np.array_equal(own, np.arange(self.count)) else own

    def _vectors(self, start: int, n: int) -> np.ndarray:
        """n rows, float32 [n, d]."""
        if self._places is None:
            return np.asarray(self._index.reconstruct_n(start, n))
        faiss = require("faiss", "faiss")
        found = np.empty((n, self._inner.d), dtype=np.float32)
        for row, (number, place) in zip(found, self._places[start : start + n].tolist(), strict=True):
            self._inner.reconstruct_from_offset(number, place, faiss.swig_ptr(row))
        if not self._transformed:
            return found
        back = np.empty((n, self.dim), dtype=np.float32)
        self._index.reverse_chain(n, faiss.swig_ptr(found), faiss.swig_ptr(back))
        return back

    def _read(self, size: int) -> Iterator[VectorBatch]:
        for start in range(0, self.count, size):
            n = min(size, self.count - start)
            with readable(self.source):
                vectors = self._vectors(start, n)
            ids = range(start, start + n) if self._ids is None else self._ids[start : start + n]
            yield VectorBatch([str(i) for i in ids], vectors, None)


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> FaissSource:
    """Open `faiss:FILE`; see `unembed.stores.open_vectors`."""
    path = existing(source, Path(split(source)[0]))
    return FaissSource(str(path), ids_field, vector_field, text_field)
