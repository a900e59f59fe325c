"""What every source of vectors offers, and the registry that picks one by the form of its name.

A source streams: only one batch is in memory at a time (plus the ids seen, where the source brings its own, to refuse
duplicates). Nothing is ever written to a source. Whether the numbers are usable as embeddings (dimension, NaN, norm)
is not judged here but by `unembed.embedders.vectors.validate_vectors`.

To add a store: one new file with `open_source(source, *, ids_field, vector_field, text_field) -> VectorSource`, and
one line in `SCHEMES`.
"""

from __future__ import annotations

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from unembed.errors import InputError
from unembed.stores.address import without_password

# kind of "KIND:..." -> "module:function". Modules are imported only when one of their sources is opened.
SCHEMES: dict[str, str] = {
    "faiss": "unembed.stores.faiss:open_source",
    "chroma": "unembed.stores.chroma:open_source",
    "qdrant": "unembed.stores.qdrant:open_source",
    "lancedb": "unembed.stores.lancedb:open_source",
    "pgvector": "unembed.stores.pgvector:open_source",
}
_FILES = "unembed.stores.files:open_source"


@dataclass(frozen=True)
class VectorBatch:
    """Some consecutive vectors of a source."""

    ids: list[str]
    """One per vector, unique within the source."""
    vectors: np.ndarray
    """[n, d], in the source's own numeric dtype; as stored, neither validated nor normalised."""
    texts: list[str] | None
    """The text of each vector, "" for one without, where the source keeps texts beside the vectors; otherwise None."""


class VectorSource(ABC):
    """A set of vectors that can be read in batches. Use it as a context manager, or call `close` when done."""

    source: str
    """What the user named, for messages."""
    count: int | None
    """Number of vectors; None where it is not known before reading to the end."""
    dim: int
    """Length of each vector."""
    dtype: np.dtype
    """Of the vectors in each batch."""
    own_ids: bool = False
    """Whether the ids come from the source; row numbers, its alternative, need no check for duplicates."""
    fields: Sequence[str] = ()
    """What else lies beside each vector, by name; often the real leak."""
    code: Callable[[np.ndarray], np.ndarray] | None = None
    """Clean vectors float32 [n, d] → what this store would give of them, float32 [n, d], where it keeps fixed codes and
    their book; None where it gives vectors as they were, or does not say. Works after `close` as well."""

    @abstractmethod
    def _read(self, size: int) -> Iterator[VectorBatch]:
        """Yield batches of at most `size` vectors, from the start."""

    def batches(self, size: int = 256) -> Iterator[VectorBatch]:
        """Yield all vectors from the start, `size` at a time (the last batch, and batches at inner borders, may be
        smaller). Raises InputError or StorageError where the source turns out to be damaged, and InputError on a
        duplicate id."""
        if size < 1:
            raise InputError(f"batch size {size}: give at least 1")
        return self._checked(size)

    def _checked(self, size: int) -> Iterator[VectorBatch]:
        seen: set[str] = set()
        for batch in self._read(size):
            if self.own_ids:
                for name in batch.ids:
                    if name in seen:
                        raise InputError(
                            f"{self.source}: the id {name!r} occurs more than once; name another field for the ids, "
                            'or "" to take the row numbers'
                        )
                    seen.add(name)
            yield batch

    def sample(self, n: int, seed: int = 0, size: int = 1024) -> VectorBatch:
        """`n` vectors of the source, or all if it has fewer: those whose ids come first when ids are mixed by the seed.

        The same ids give the same sample whatever their order, and a smaller sample is the start of a larger one, so an
        interrupted or enlarged run goes on with what it has. One pass over the source, with `n` vectors in memory.
        """
        if n < 1:
            raise InputError(f"a sample of {n}: give at least 1")
        kept: list[tuple[int, str, np.ndarray, str | None]] = []
        for batch in self.batches(size):
            mixed = [_mixed(name, seed) for name in batch.ids]
            bar = kept[-1][0] if len(kept) == n else None
            for i, number in enumerate(mixed):
                if bar is None or number < bar:
                    # A view would keep its whole batch in memory.
                    kept.append(
                        (number, batch.ids[i], batch.vectors[i].copy(), batch.texts[i] if batch.texts else None)
                    )
            kept = sorted(kept, key=lambda entry: entry[:2])[:n]
        if not kept:
            return VectorBatch([], np.empty((0, self.dim), self.dtype), None)
        _, ids, vectors, texts = zip(*kept, strict=True)
        known = [text for text in texts if text is not None]
        return VectorBatch(list(ids), np.stack(vectors), known if len(known) == len(ids) else None)

    def close(self) -> None:  # noqa: B027  (most sources hold nothing open between batches)
        """Let go of files and connections. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def vector_hash(vector: np.ndarray) -> str:
    """A short name of a vector [d] as it is stored, by which a resumed run sees whether it is still the same one."""
    return hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()[:16]


def _mixed(name: str, seed: int) -> int:
    """A number that depends on an id and a seed alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")


def open_vectors(
    source: str,
    *,
    ids_field: str | None = None,
    vector_field: str | None = None,
    text_field: str | None = None,
) -> VectorSource:
    """Open a file (by its suffix), standard input (`-`, JSON Lines) or a store (`KIND:PLACE#PART`).

    ids_field, text_field: the field, column or array with the ids and the texts. None takes "id"/"ids" and
    "text"/"texts" where they exist; "" ignores them. Without ids the row numbers serve, "0", "1", ...
    vector_field: where the vectors are; None finds them where there is no doubt.
    Raises InputError on a name that leads nowhere, a field that is not there or a source without vectors,
    StorageError on a damaged or unreadable one, MissingExtra when the package that reads it is not installed.
    """
    source = str(source)
    kind = source.partition(":")[0].lower()
    target = SCHEMES.get(kind, _FILES)
    if "://" in source and kind not in SCHEMES:
        known = ", ".join(f"{name}:" for name in sorted(SCHEMES))
        shown = without_password(source)
        raise InputError(f"{shown}: no store of kind {kind!r}; give one of {known}, or a file")
    module, function = target.split(":")
    opener: Any = getattr(importlib.import_module(module), function)
    return opener(source, ids_field=ids_field, vector_field=vector_field, text_field=text_field)


def read_vectors(
    source: str,
    *,
    ids_field: str | None = None,
    vector_field: str | None = None,
    text_field: str | None = None,
    limit: int | None = None,
) -> VectorBatch:
    """The whole source (or its first `limit` vectors) as one batch in memory; otherwise as `open_vectors`."""
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit}: give at least 1")
    ids: list[str] = []
    vectors: list[np.ndarray] = []
    texts: list[str] = []
    has_texts = True
    fields = {"ids_field": ids_field, "vector_field": vector_field, "text_field": text_field}
    with open_vectors(source, **fields) as opened:
        for batch in opened.batches(1024 if limit is None else min(limit, 1024)):
            ids += batch.ids
            vectors.append(batch.vectors)
            has_texts = has_texts and batch.texts is not None
            texts += batch.texts or []
            if limit is not None and len(ids) >= limit:
                break
        joined = np.concatenate(vectors) if vectors else np.empty((0, opened.dim), opened.dtype)
    return VectorBatch(ids[:limit], joined[:limit], texts[:limit] if has_texts and ids else None)
