"""Texts and their vectors for what is fitted beside a network, kept on disk until that is done."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from unembed.errors import StorageError
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training.batches import ChunkSource
from unembed.training.lexical import FIRST_CHUNK

log = logging.getLogger("unembed.train")


@contextmanager
def collected(
    source: ChunkSource, tokenizer: TextTokenizer, spans: int, folder: Path
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Vectors float16 [n, d] and token ids of n texts of `source`, at least `spans` of them, none empty. They are kept
    in `folder` until what is done with them is done, so that who was stopped need not embed them again. Raises
    StorageError."""
    vectors: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    while len(rows) < spans:
        path = folder / f"spans-{len(vectors):05d}.npz"
        if not path.exists():
            _embed(source, tokenizer, FIRST_CHUNK + len(vectors), path)
        with np.load(path) as stored:
            vectors.append(stored["vectors"])
            rows += np.split(stored["ids"], stored["ends"][:-1])
        log.info("%d of %d texts embedded", min(len(rows), spans), spans)
    yield np.concatenate(vectors), rows
    for path in folder.glob("spans-*.npz"):
        path.unlink()


def _embed(source: ChunkSource, tokenizer: TextTokenizer, number: int, path: Path) -> None:
    """Write one chunk: vectors, and all ids in a row with where each text ends."""
    texts, vectors = source.chunk(number)
    ids = tokenizer.encode(texts)
    kept = [i for i, row in enumerate(ids) if row]
    ends = np.cumsum([len(ids[i]) for i in kept])
    flat = np.concatenate([np.array(ids[i], dtype=np.int32) for i in kept])
    writing = path.with_suffix(".writing.npz")
    try:
        np.savez(writing, vectors=vectors[kept].astype(np.float16), ids=flat, ends=ends)
        writing.replace(path)
    except OSError as error:
        writing.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror}): free space, and run the same command") from error
