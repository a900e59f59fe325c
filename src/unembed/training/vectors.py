"""A folder of precomputed vectors: what `unembed embed` writes and training can read instead of embedding on the fly.

vectors.npy   [n, d] float32 or float16, memory-mapped while it is written and while it is read
texts.jsonl   one JSON string a line, row for row
meta.json     the embedder's spec, n, and how many rows are done: a killed run continues there
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unembed.embedders import Embedder, EmbedderSpec, check_match
from unembed.errors import InputError, StorageError


class VectorFolder:
    """A finished folder, read-only: `texts` [n], `vectors` [n, d] (memory-mapped), `spec`."""

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        meta = _read_meta(path)
        if meta["done"] != meta["count"]:
            raise InputError(
                f"{path} holds {meta['done']} of {meta['count']} vectors: run the same embed command again"
            )
        self.spec = EmbedderSpec.from_dict(meta["embedder"])
        try:
            self.vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
            with open(path / "texts.jsonl", encoding="utf-8") as file:
                self.texts: list[str] = [json.loads(line) for line in file]
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error}): embed the texts again into a new folder") from error
        if len(self.texts) != len(self.vectors):
            raise StorageError(f"{path} holds {len(self.texts)} texts but {len(self.vectors)} vectors: embed again")

    def __len__(self) -> int:
        return len(self.texts)


def write_vectors(
    texts: Sequence[str],
    embedder: Embedder,
    path: str | Path,
    *,
    dtype: str = "float32",
    chunk: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Embed `texts` into the folder `path`, continuing where a killed run stopped. Returns the rows embedded now.

    Raises InputError when the folder was begun with other texts or another embedder, StorageError when the
    disk is full.
    """
    if dtype not in ("float32", "float16"):
        raise InputError(f"dtype '{dtype}' is unknown: store vectors as float32 or float16")
    path = Path(path)
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    meta: dict[str, Any] = {"embedder": embedder.spec.to_dict(), "count": len(texts), "dtype": dtype, "done": 0}
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (path / "meta.json").exists():
            old = _read_meta(path)
            same = all(old.get(key) == meta[key] for key in ("count", "dtype"))
            check_match(EmbedderSpec.from_dict(old["embedder"]), embedder.spec, expected_name=str(path))
            if not same or (path / "texts.jsonl").read_text(encoding="utf-8") != lines:
                raise InputError(
                    f"{path} was begun with other texts, another embedder or another dtype: choose another folder"
                )
            meta["done"] = old["done"]
            vectors = np.lib.format.open_memmap(path / "vectors.npy", mode="r+")
        else:
            (path / "texts.jsonl").write_text(lines, encoding="utf-8")
            shape = (len(texts), embedder.spec.dim)
            _reserve(path / "vectors.npy", shape, dtype)
            vectors = np.lib.format.open_memmap(path / "vectors.npy", mode="r+")
            _write_meta(path, meta)
        begun = meta["done"]
        for start in range(begun, len(texts), chunk):
            end = min(start + chunk, len(texts))
            vectors[start:end] = embedder.encode(texts[start:end])
            vectors.flush()
            meta["done"] = end
            _write_meta(path, meta)
            if progress:
                progress(end, len(texts))
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror or error}): free space, then run the same command"
        ) from error
    return len(texts) - begun


def _reserve(file: Path, shape: tuple[int, int], dtype: str) -> None:
    """Write the whole file once, so that a full disk shows now as an error and not later as a killed process: a write
    to a memory-mapped hole has no other way to fail."""
    with open(file, "wb") as out:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        left, zeros = shape[0] * shape[1] * np.dtype(dtype).itemsize, bytes(1 << 20)
        while left:
            left -= out.write(zeros[:left])


def _read_meta(path: Path) -> dict:
    try:
        return json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} is no folder written by 'unembed embed' (meta.json: {error})") from error


def _write_meta(path: Path, meta: dict) -> None:
    temporary = path / "meta.json.tmp"
    temporary.write_text(json.dumps(meta, indent=1), encoding="utf-8")
    temporary.replace(path / "meta.json")
