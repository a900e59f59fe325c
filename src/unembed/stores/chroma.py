"""Vectors in Chroma: `chroma:FOLDER#COLLECTION`, or `chroma:http://HOST:PORT#COLLECTION`. Needs the extra `chroma`.

Chroma writes to its folder even when it only reads, so a copy of the folder is read.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from unembed.errors import InputError, StorageError, require
from unembed.stores.address import existing, one_of, split, without_password
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import reached

SEEN = 256
"""Records that are looked at for the names of their fields."""


class ChromaSource(VectorSource):
    """One collection. Its documents are the texts; `fields` are the keys of its metadata."""

    dtype = np.dtype(np.float32)
    own_ids = True
    _copy: tempfile.TemporaryDirectory[str] | None = None

    def __init__(self, source: str, text_field: str | None) -> None:
        place, asked = split(source)
        source = self.source = without_password(source)
        try:
            with reached(source):
                client = self._connect(place)
                names = [collection.name for collection in client.list_collections()]
            with reached(source):
                self._collection = client.get_collection(one_of(source, "collection", names, asked))
                self.count = self._collection.count()
            if not self.count:
                raise InputError(f"{source}: an empty collection; give one with at least one vector")
            with reached(source):
                first = self._collection.get(limit=SEEN, include=["embeddings", "documents", "metadatas"])
            if first["embeddings"] is None or not len(first["embeddings"]):
                raise InputError(f"{source}: its records have no embeddings; give another collection")
            self.dim = len(first["embeddings"][0])
            self._texts = text_field != "" and any(first["documents"] or [])
            self.fields = sorted({key for entry in first["metadatas"] or [] for key in entry or {}})
        except BaseException:
            self.close()
            raise

    def _connect(self, place: str) -> Any:
        chromadb = require("chromadb", "chroma")
        settings = require("chromadb.config", "chroma").Settings(anonymized_telemetry=False)
        url = urlsplit(place)
        if url.scheme in ("http", "https"):
            port = url.port or (443 if url.scheme == "https" else 8000)
            return chromadb.HttpClient(url.hostname, port, ssl=url.scheme == "https", settings=settings)
        folder = existing(self.source, Path(place))
        if not (folder / "chroma.sqlite3").is_file():
            raise InputError(f"{self.source}: {folder} is no Chroma folder (chroma.sqlite3 is missing)")
        try:
            self._copy = tempfile.TemporaryDirectory(prefix="unembed-chroma-")
            shutil.copytree(folder, self._copy.name, dirs_exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.source}: Chroma writes where it reads, so a copy is read, and the copy failed ({error}): free "
                "space, or set TMPDIR to another disk"
            ) from error
        return chromadb.PersistentClient(self._copy.name, settings=settings)

    def close(self) -> None:
        if self._copy is not None:
            self._collection = None
            self._copy.cleanup()
            self._copy = None

    def _read(self, size: int) -> Iterator[VectorBatch]:
        start = 0
        while True:
            with reached(self.source):
                found = self._collection.get(
                    limit=size, offset=start, include=["embeddings", *(["documents"] if self._texts else [])]
                )
            if not found["ids"]:
                return
            texts = [text or "" for text in found["documents"]] if self._texts else None
            yield VectorBatch(list(found["ids"]), np.asarray(found["embeddings"], dtype=np.float32), texts)
            start += len(found["ids"])


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> ChromaSource:
    """Open a collection; see `unembed.stores.open_vectors`."""
    for what, name in (("ids", ids_field), ("vectors", vector_field), ("texts", text_field)):
        if name:
            raise InputError(f"{source}: Chroma has one place for the {what}, no field {name!r}; leave it out")
    return ChromaSource(source, text_field)
