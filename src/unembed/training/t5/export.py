"""A prepared run as files that any framework can read, made where torch and the embedder are:

model/              the network before its first step, in the family's own format
train.safetensors   targets float32 [n, E], labels int32 [n, T] (IGNORED where there is no token), and for a corrector
held.safetensors    hypothesis_ids int32 [n, S] (padded with 0) and hypothesis_vectors float32 [n, E]
recipe.json         the recipe

A run begins with recipe.json: it is written last.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from unembed.errors import StorageError
from unembed.models.base import IGNORED
from unembed.training.rows import Rows, TokenRows
from unembed.training.t5.config import T5TrainConfig


def export(config: T5TrainConfig, folder: Path, train: Rows, held: Rows, start: bool) -> None:
    """Write rows and recipe beside the model that is in `folder` already. start: a start token stands in front of a
    hypothesis. Raises StorageError."""
    try:
        for name, rows in (("train", train), ("held", held)):
            save_file(columns(rows, config.label_tokens, start), folder / f"{name}.safetensors")
        dropout = config.scratch.dropout_rate if config.scratch else 0.1  # every T5 that was published has this one
        recipe = {**asdict(config), "dropout_rate": dropout}
        (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {folder} ({error}): free space or choose another folder") from error


def columns(rows: Rows, longest: int, start: bool) -> dict[str, np.ndarray]:
    """The rows in use as arrays, all texts padded to `longest` tokens."""
    assert rows.vectors is not None
    out = {
        "targets": np.asarray(rows.vectors[rows.used], dtype=np.float32),
        "labels": padded(rows.labels, rows.used, longest, IGNORED),
    }
    if rows.hypotheses is not None and rows.hypothesis_tokens is not None:
        ids = padded(rows.hypothesis_tokens, rows.used, longest, 0)
        out["hypothesis_ids"] = np.pad(ids, ((0, 0), (int(start), 0)))
        out["hypothesis_vectors"] = np.asarray(rows.hypotheses.vectors[rows.used], dtype=np.float32)
    return out


def padded(tokens: TokenRows, used: np.ndarray, longest: int, value: int) -> np.ndarray:
    """int32 [n, longest]."""
    out = np.full((len(used), longest), value, dtype=np.int32)
    for row, i in zip(out, used, strict=True):
        row[: len(tokens[i])] = tokens[i]
    return out
