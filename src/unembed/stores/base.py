"""What every source of vectors offers, and the registry that picks one by the form of its name.

A source streams: only one batch is in memory at a time (plus the ids seen, where the source brings its own, to refuse
duplicates). Nothing is ever written to a source. Whether the numbers are usable as embeddings (dimension, NaN, norm)
is not judged here but by `unembed.embedders.vectors.validate_vectors`.

To add a store: one new file with `open_source(source, *, ids_field, vector_field, text_field) -> VectorSource`, and
one line in `SCHEMES`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from unembed.errors import InputError

# scheme of "scheme://..." -> "module:function". Modules are imported only when one of their sources is opened.
SCHEMES: dict[str, str] = {}
_FILES = "unembed.stores.files:open_source"


@dataclass(frozen=True)
class VectorBatch:
    """Some consecutive vectors of a source."""

    ids: list[str]
    """One per vector, unique within the source."""
    vectors: np.ndarray
    """[n, d], in the source's own numeric dtype; as stored, neither validated nor normalised."""
    texts: list[str] | None
    """The text of each vector, where the source keeps texts beside the vectors; otherwise None."""


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

    def close(self) -> None:  # noqa: B027  (most sources hold nothing open between batches)
        """Let go of files and connections. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_vectors(
    source: str,
    *,
    ids_field: str | None = None,
    vector_field: str | None = None,
    text_field: str | None = None,
) -> VectorSource:
    """Open a file (by its suffix), standard input (`-`, JSON Lines) or a store (`scheme://...`).

    ids_field, text_field: the field, column or array with the ids and the texts. None takes "id"/"ids" and
    "text"/"texts" where they exist; "" ignores them. Without ids the row numbers serve, "0", "1", ...
    vector_field: where the vectors are; None finds them where there is no doubt.
    Raises InputError on a name that leads nowhere, a field that is not there or a source without vectors,
    StorageError on a damaged or unreadable one, MissingExtra when the package that reads it is not installed.
    """
    source = str(source)
    scheme, mark, _ = source.partition("://")
    if not mark:
        target = _FILES
    elif scheme.lower() in SCHEMES:
        target = SCHEMES[scheme.lower()]
    else:
        known = ", ".join(f"{name}://" for name in sorted(SCHEMES))
        raise InputError(f"{source}: no store of kind {scheme!r}; give {f'one of {known}, or ' if known else ''}a file")
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
