"""A folder of precomputed vectors: what `unembed embed` writes and training can read instead of embedding on the fly.

vectors.npy   [n, d] float32 or float16, memory-mapped while it is written and while it is read
texts.jsonl   one JSON string a line, row for row
meta.json     the embedder's spec, n, and how many rows are done
done-*.txt    until all are: which ones; a killed run continues there
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unembed.embedders import Embedder, EmbedderSpec, check_match
from unembed.errors import InputError, StorageError
from unembed.processes import Processes
from unembed.scripts import encodable
from unembed.training.shares import ALONE, share


class VectorFolder:
    """A finished folder, read-only: `path`, `texts` [n], `vectors` [n, d] (memory-mapped), `spec`."""

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        meta = read_meta(path)
        if meta["done"] != meta["count"]:
            raise InputError(
                f"{path} holds {_done(path, meta).sum()} of {meta['count']} vectors: run the same embed command again"
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
    processes: Processes = ALONE,
) -> int:
    """Embed `texts` into the folder `path`, continuing where a killed run stopped. Several processes share the work,
    each with the same texts and an embedder of its own. Returns the rows that this process embedded now.

    Raises InputError when the folder was begun with other texts or another embedder, StorageError when the
    disk is full.
    """
    if dtype not in ("float32", "float16"):
        raise InputError(f"dtype '{dtype}' is unknown: store vectors as float32 or float16")
    path = Path(path)
    try:
        if processes.rank == 0:
            _begin(texts, embedder.spec, path, dtype)
        processes.wait()
        meta = read_meta(path)
        done, fresh = _done(path, meta), 0
        vectors = np.lib.format.open_memmap(path / "vectors.npy", mode="r+")
        for part in share(done, chunk, processes):
            vectors[part] = embedder.encode([encodable(text) for text in texts[part]])
            vectors.flush()
            _mark(path, part, processes.rank)
            fresh += part.stop - part.start
            if progress:
                progress(min(int(done.sum()) + fresh * processes.count, len(texts)), len(texts))
        processes.wait()
        if processes.rank == 0:
            write_meta(path, {**meta, "done": len(texts)})
            for note in path.glob("done-*.txt"):
                note.unlink()
        processes.wait()
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror or error}): free space, then run the same command"
        ) from error
    return fresh


def store_vectors(texts: Sequence[str], vectors: np.ndarray, spec: EmbedderSpec, path: Path) -> None:
    """Write a finished folder of texts [n] and the vectors [n, d] that stand for theirs; an older one is replaced.
    Raises StorageError when the disk is full."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "meta.json").unlink(missing_ok=True)
        (path / "texts.jsonl").write_text(_lines(texts), encoding="utf-8")
        np.save(path / "vectors.npy", vectors.astype(np.float32))
        write_meta(path, {"embedder": spec.to_dict(), "count": len(texts), "dtype": "float32", "done": len(texts)})
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror or error}): free space, then run the same command"
        ) from error


def _lines(texts: Sequence[str]) -> str:
    return "".join(json.dumps(encodable(text), ensure_ascii=False) + "\n" for text in texts)


def _begin(texts: Sequence[str], spec: EmbedderSpec, path: Path, dtype: str) -> None:
    """Make the folder with texts and room for their vectors; where it is there already, see that it is for these."""
    lines = _lines(texts)
    path.mkdir(parents=True, exist_ok=True)
    if (path / "meta.json").exists():
        old = read_meta(path)
        check_match(EmbedderSpec.from_dict(old["embedder"]), spec, expected_name=str(path))
        same = old.get("count") == len(texts) and old.get("dtype") == dtype
        if not same or (path / "texts.jsonl").read_text(encoding="utf-8") != lines:
            raise InputError(
                f"{path} was begun with other texts, another embedder or another dtype: choose another folder"
            )
        return
    (path / "texts.jsonl").write_text(lines, encoding="utf-8")
    reserve(path / "vectors.npy", (len(texts), spec.dim), dtype)
    write_meta(path, {"embedder": spec.to_dict(), "count": len(texts), "dtype": dtype, "done": 0})


def _done(path: Path, meta: dict) -> np.ndarray:
    """Which rows have their vectors, bool [n]. A line that a kill cut short does not count."""
    out = np.arange(meta["count"]) < meta["done"]
    for note in path.glob("done-*.txt"):
        for start, end in re.findall(r"^(\d+) (\d+)\n", note.read_text(encoding="utf-8"), re.M):
            out[int(start) : int(end)] = True
    return out


def _mark(path: Path, part: slice, rank: int) -> None:
    with open(path / f"done-{rank}.txt", "a", encoding="utf-8") as file:
        file.write(f"{part.start} {part.stop}\n")


def reserve(file: Path, shape: tuple[int, int], dtype: str) -> None:
    """Write the whole file once, so that a full disk shows now as an error and not later as a killed process: a write
    to a memory-mapped hole has no other way to fail."""
    with open(file, "wb") as out:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        left, zeros = shape[0] * shape[1] * np.dtype(dtype).itemsize, bytes(1 << 20)
        while left:
            left -= out.write(zeros[:left])


def finished(path: Path, command: str = "unembed embed") -> bool:
    """Whether `path` is a folder that `command` wrote to its end."""
    if not (path / "meta.json").exists():
        return False
    meta = read_meta(path, command)
    return meta["done"] == meta["count"]


def read_meta(path: Path, command: str = "unembed embed") -> dict:
    """meta.json of a folder that `command` wrote; StorageError where there is none."""
    try:
        return json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} is no folder written by '{command}' (meta.json: {error})") from error


def write_meta(path: Path, meta: dict) -> None:
    """Replace meta.json as a whole."""
    temporary = path / "meta.json.tmp"
    temporary.write_text(json.dumps(meta, indent=1), encoding="utf-8")
    temporary.replace(path / "meta.json")
