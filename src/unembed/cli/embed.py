"""`unembed embed`."""

from __future__ import annotations

import shutil
from pathlib import Path

from unembed.errors import InputError, StorageError


def embed(
    input: list[str] | str,
    output: str,
    embedder: str = "all-MiniLM-L6-v2",
    field: str = "text",
    limit: int | None = None,
    store: str = "float32",
    device: str | None = None,
    dtype: str = "float32",
    quiet: bool = False,
) -> int:
    """Turn texts into vectors. Several processes (torchrun) share the work.

    Args:
        input: text, jsonl or parquet files (also .gz, .xz), folders of them, or hf:NAME; one text a line.
        output: a folder (vectors.npy, texts.jsonl, meta.json) that training can read, or a single .npy file. A run that
            was stopped goes on where it was.
        embedder: name, folder, hub id, or an OpenAI-compatible server (see the guide).
        field: the field that holds the text in jsonl, parquet and Hugging Face data.
        limit: embed only the first so many texts of each input.
        store: float32 or float16.
        device: cpu, cuda, mps, npu…; by default the best there is.
        dtype: precision that the embedder computes in.
        quiet: no progress bar.
    """
    from unembed.cli.console import console, progress
    from unembed.embedders import embedder as open_embedder
    from unembed.processes import processes
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts
    from unembed.training.vectors import write_vectors

    inputs = [input] if isinstance(input, str) else input
    texts = [text for path in inputs for text in read_texts(SourceConfig(path, field=field, limit=limit))]
    if not texts:
        raise InputError(f"{', '.join(inputs)} holds no text: give a file with one text a line")
    target = Path(output)
    single = target.suffix == ".npy"
    folder = target.with_name(target.name + ".partial") if single else target
    if single and target.exists():
        raise InputError(f"{target} exists already: delete it or choose another output")
    with processes() as team, progress(len(texts), "embed", quiet or not team.first) as bar:
        fresh = write_vectors(
            texts, open_embedder(embedder, device=team.device(device), dtype=dtype), folder, dtype=store,
            progress=lambda done, total: bar.update(done - bar.n), processes=team,
        )  # fmt: skip
    if not team.first:
        return 0
    if single:
        try:
            (folder / "vectors.npy").replace(target)
        except OSError as error:
            raise StorageError(f"cannot write {target} ({error.strerror}): the vectors are in {folder}") from error
        shutil.rmtree(folder)
    console().print(f"{len(texts)} vectors in {target} ({fresh} embedded now)", markup=False)
    return 0
