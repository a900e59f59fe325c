"""Stored vectors as directions to compare with: in batches, whatever they were stored as."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unembed.embedders.vectors import UINT8_ZERO, unit
from unembed.errors import InputError
from unembed.stores import VectorBatch, VectorSource

AT_ONCE = 1024


def directions(source: VectorSource, dim: int) -> Iterator[tuple[VectorBatch, int]]:
    """(batch with its vectors at length 1, float32; how many were left out of it) for a whole source. Left out is what
    has no direction: zero, NaN, infinity.

    Raises InputError, before anything is read, where the source has another dimension than `dim`.
    """
    if source.dim != dim:
        raise InputError(
            f"{source.source}: vectors of {source.dim} numbers, the embedder gives {dim}; name the one that made them"
        )
    return (_usable(batch) for batch in source.batches(AT_ONCE))


def _usable(batch: VectorBatch) -> tuple[VectorBatch, int]:
    values = batch.vectors.astype(np.float64)
    if batch.vectors.dtype == np.uint8:
        values -= UINT8_ZERO
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(values, axis=1)
    kept = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    texts = [batch.texts[i] for i in kept] if batch.texts else None
    vectors = unit(values[kept] / lengths[kept, None])
    return VectorBatch([batch.ids[i] for i in kept], vectors, texts), len(values) - len(kept)
