"""Vectors in Qdrant. Needs the extra `qdrant`. QDRANT_API_KEY is read from the environment.

`qdrant://HOST:PORT/COLLECTION`, `qdrant:https://HOST:PORT#COLLECTION`, or of its local mode `qdrant:FOLDER#COLLECTION`.
Qdrant normalises the vectors of a collection with cosine distance itself.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from unembed.errors import InputError, require
from unembed.stores.address import existing, one_of, split, without_password
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import TEXTS, choose, reached

log = logging.getLogger("unembed.stores")

LOOPBACK = "localhost", "127.0.0.1", "::1"
SEEN = 256
"""Records that are looked at for the names of their fields."""
TIMEOUT = 60
"""Seconds that an answer may take."""


class QdrantSource(VectorSource):
    """One collection. `fields` are the keys of its payload."""

    dtype = np.dtype(np.float32)
    own_ids = True
    _client: Any = None

    def __init__(self, source: str, vector_field: str | None, text_field: str | None) -> None:
        address, source = source, without_password(source)
        self.source = source
        try:
            asked = self._connect(address)
            with reached(source):
                names = [entry.name for entry in self._client.get_collections().collections]
            self._name = one_of(source, "collection", names, asked)
            with reached(source):
                kinds = self._client.get_collection(self._name).config.params.vectors
                self.count = self._client.count(self._name).count
            self._vector, kind = self._choose(kinds, vector_field)
            self.dim = kind.size
            if not self.count:
                raise InputError(f"{source}: an empty collection; give one with at least one vector")
            with reached(source):
                first, _ = self._client.scroll(self._name, limit=SEEN, with_payload=True)
            keys = sorted({key for record in first for key in record.payload or {}})
            self._texts = choose(source, "texts", text_field, keys, TEXTS)
            self.fields = [key for key in keys if key != self._texts]
        except BaseException:
            self.close()
            raise

    def _connect(self, source: str) -> str | None:
        """Open the client and return the collection that is asked for."""
        client = require("qdrant_client", "qdrant").QdrantClient
        place, asked = split(source)
        if place.startswith("//"):
            url = urlsplit(f"http:{place}")
            place, asked = f"http://{url.netloc}", asked or url.path.strip("/") or None
        if place.startswith(("http://", "https://")):
            key = os.environ.get("QDRANT_API_KEY")
            if key and place.startswith("http://") and urlsplit(place).hostname not in LOOPBACK:
                log.warning("QDRANT_API_KEY goes unencrypted to %s: use https", urlsplit(place).hostname)
            with reached(self.source), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Api key is used with an insecure")  # which is said above
                self._client = client(url=place, api_key=key, timeout=TIMEOUT, check_compatibility=False)
                self._client.http.client.add_middleware(_unbound)
            return asked
        folder = existing(self.source, Path(place))
        if not (folder / "meta.json").is_file():  # its local mode would begin a new store there
            raise InputError(f"{self.source}: {folder} is no folder of Qdrant's local mode (meta.json is missing)")
        with reached(self.source):
            self._client = client(path=str(folder))
        return asked

    def _choose(self, kinds: Any, asked: str | None) -> tuple[str | None, Any]:
        """(name, parameters) of the vectors that are read; the name is None where they have none."""
        if not isinstance(kinds, dict):
            if asked:
                raise InputError(f"{self.source}: its vectors have no names; leave out the vector field {asked!r}")
            if kinds is None:
                raise InputError(f"{self.source}: its collection holds no dense vectors")
            return None, kinds
        name = one_of(self.source, "vector field", list(kinds), asked)
        if kinds[name].multivector_config is not None:
            raise InputError(f"{self.source}: {name!r} holds several vectors a record, which cannot be inverted as one")
        return name, kinds[name]

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _read(self, size: int) -> Iterator[VectorBatch]:
        following: Any = None
        while True:
            with reached(self.source):
                records, following = self._client.scroll(
                    self._name, limit=size, offset=following,
                    with_vectors=True if self._vector is None else [self._vector],
                    with_payload=[self._texts] if self._texts else False,
                )  # fmt: skip
            rows = [(record, self._of(record)) for record in records]
            kept = [(record, vector) for record, vector in rows if vector is not None]
            if kept:
                texts = [str((record.payload or {}).get(self._texts) or "") for record, _ in kept]
                vectors = np.array([vector for _, vector in kept], dtype=np.float32)
                yield VectorBatch([str(record.id) for record, _ in kept], vectors, texts if self._texts else None)
            if following is None:
                return

    def _of(self, record: Any) -> Any:
        """A record's vector, or None: records may lack a named one."""
        return record.vector if self._vector is None else (record.vector or {}).get(self._vector)


def _unbound(request: Any, send: Any) -> Any:
    """Send a request. In httpx an answer and the stream that it came by hold each other, so that each page of a scroll,
    some megabytes, would stay in memory until Python's collector comes by; here they let go."""
    answer = send(request)
    answer.stream = None
    return answer


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> QdrantSource:
    """Open a collection; see `unembed.stores.open_vectors`."""
    if ids_field:
        raise InputError(f"{source}: Qdrant's ids are its own; leave out the ids field {ids_field!r}")
    return QdrantSource(source, vector_field, text_field)
