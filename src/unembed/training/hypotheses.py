"""A folder of precomputed hypotheses: what a hypothesizer writes for the rows of a vector folder, and their vectors.

drafts.jsonl  {"idx": row, "draft": text} a line, in order (nanoV2T's format)
vectors.npy   [n, d] float32 or float16: the drafts, embedded again; zeros for an empty draft
meta.json     which vector folder and hypothesizer they belong to, the embedder's spec, n
part-*.jsonl  until all are done: the drafts of each process. A row whose draft is there is done; a killed run goes on
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unembed.embedders import Embedder, EmbedderSpec, check_match
from unembed.errors import InputError, StorageError
from unembed.models.base import InversionModel
from unembed.processes import Processes
from unembed.training.shares import ALONE, share
from unembed.training.vectors import VectorFolder, read_meta, reserve, write_meta

KIND = "unembed hypothesize"


class HypothesisFolder:
    """A finished folder, read-only: `drafts` [n], `vectors` [n, d] (memory-mapped), `spec`.

    Raises InputError when it is unfinished or belongs to other vectors than `vectors`, StorageError when it is damaged.
    """

    def __init__(self, path: str | Path, vectors: str | Path) -> None:
        path = Path(path)
        meta = read_meta(path, KIND)
        if meta["of"] != content_of(vectors):
            raise InputError(f"{path} holds hypotheses of other texts than {vectors}: write them for this folder")
        if meta["done"] != meta["count"]:
            done = len(_written(path))
            raise InputError(f"{path} holds {done} of {meta['count']} hypotheses: run the same command again")
        self.spec = EmbedderSpec.from_dict(meta["embedder"])
        try:
            self.vectors = np.load(path / "vectors.npy", mmap_mode="r", allow_pickle=False)
            with open(path / "drafts.jsonl", encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            self.drafts: list[str] = [row["draft"] for row in rows]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged ({error}): write the hypotheses again into a new folder") from error
        whole = [row["idx"] for row in rows] == list(range(meta["count"]))
        if not whole or self.vectors.shape != (meta["count"], self.spec.dim):
            raise StorageError(
                f"{path} is damaged (not one draft and one vector for each of {meta['count']} rows): write it again"
            )

    def __len__(self) -> int:
        return len(self.drafts)


def write_hypotheses(
    model: InversionModel,
    embedder: Embedder,
    vectors: str | Path,
    path: str | Path,
    *,
    dtype: str = "float32",
    chunk: int = 512,
    progress: Callable[[int, int], None] | None = None,
    processes: Processes = ALONE,
) -> int:
    """Write a greedy draft for each row of the folder `vectors`, and embed it, continuing where a killed run stopped.
    Several processes share the work. Returns the drafts that this process wrote now.

    Raises InputError when the vectors are unfinished or the folder was begun with others, or by another model,
    SpecMismatch when the vectors are not of the embedder that the model inverts, StorageError when the disk is full.
    """
    path, source = Path(path), VectorFolder(vectors)
    check_match(source.spec, model.spec, expected_name=str(vectors), actual_name="the hypothesizer")
    check_match(source.spec, embedder.spec, expected_name=str(vectors))
    meta: dict[str, Any] = {
        "of": content_of(vectors), "model": model.digest, "embedder": embedder.spec.to_dict(), "count": len(source),
        "dtype": dtype, "max_tokens": model.max_tokens,
    }  # fmt: skip
    try:
        if processes.rank == 0:
            _begin(path, meta)
        processes.wait()
        done = np.full(len(source), read_meta(path, KIND)["done"] == len(source))
        finished, fresh = bool(done.all()), 0
        done[list(_written(path))] = True
        out = np.lib.format.open_memmap(path / "vectors.npy", mode="r+")
        for part in share(done, chunk, processes):
            drafts = [row[0].text for row in model.hypothesize(np.asarray(source.vectors[part], dtype=np.float32))]
            out[part] = embed_drafts(drafts, embedder)
            out.flush()
            with open(path / f"part-{processes.rank}.jsonl", "a", encoding="utf-8") as file:
                for idx, draft in enumerate(drafts, part.start):
                    file.write("\n" + json.dumps({"idx": idx, "draft": draft}, ensure_ascii=False))
            fresh += len(drafts)
            if progress:
                progress(min(int(done.sum()) + fresh * processes.count, len(source)), len(source))
        processes.wait()
        if processes.rank == 0 and not finished:
            _finish(path, meta)
        processes.wait()
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror or error}): free space, then run the same command"
        ) from error
    return fresh


def embed_drafts(drafts: list[str], embedder: Embedder) -> np.ndarray:
    """float32 [n, d]; zeros where a draft is empty, which no embedder takes."""
    out = np.zeros((len(drafts), embedder.spec.dim), dtype=np.float32)
    rows = [row for row, draft in enumerate(drafts) if draft.strip()]
    out[rows] = embedder.encode([drafts[row] for row in rows])
    return out


def content_of(vectors: str | Path) -> str:
    """16 hex digits that name the texts of a vector folder."""
    try:
        with open(Path(vectors) / "texts.jsonl", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise StorageError(f"{vectors} is no folder written by 'unembed embed' ({error})") from error


def _begin(path: Path, meta: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if (path / "meta.json").exists():
        old = {"max_tokens": meta["max_tokens"], **read_meta(path, KIND)}  # older folders do not say
        if any(old.get(key) != meta[key] for key in ("of", "model", "count", "dtype", "max_tokens")):
            raise InputError(
                f"{path} was begun with other vectors, another hypothesizer, dtype or max_tokens: choose another folder"
            )
        return
    reserve(path / "vectors.npy", (meta["count"], meta["embedder"]["dim"]), meta["dtype"])
    write_meta(path, {**meta, "done": 0})


def _finish(path: Path, meta: dict[str, Any]) -> None:
    """The parts become one file, in order."""
    found, temporary = _written(path), path / "drafts.jsonl.tmp"
    with open(temporary, "w", encoding="utf-8") as out:
        for idx in range(meta["count"]):
            out.write(json.dumps({"idx": idx, "draft": found[idx]}, ensure_ascii=False) + "\n")
    temporary.replace(path / "drafts.jsonl")
    write_meta(path, {**meta, "done": meta["count"]})
    for part in path.glob("part-*.jsonl"):
        part.unlink()


def _written(path: Path) -> dict[int, str]:
    """The drafts so far by row. Each begins a new line, so that one that a kill cut short spoils no other."""
    found = {}
    for part in path.glob("part-*.jsonl"):
        with open(part, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    row = json.loads(line)
                except ValueError:  # blank, or cut short
                    continue
                found[row["idx"]] = row["draft"]
    return found
