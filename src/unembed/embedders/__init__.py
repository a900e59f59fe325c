"""Embedders: text -> vectors.

`embedder(name)` finds one, `EmbedderSpec` says all that changes its geometry, `validate_vectors` checks vectors from
outside against it.
"""

from __future__ import annotations

from unembed.embedders.base import Embedder
from unembed.embedders.registry import embedder, known_embedders
from unembed.embedders.spec import EmbedderSpec, check_match
from unembed.embedders.vectors import storage_dtype, validate_vectors

__all__ = [
    "Embedder",
    "EmbedderSpec",
    "check_match",
    "embedder",
    "known_embedders",
    "storage_dtype",
    "validate_vectors",
]
