"""Model folders as numpy arrays, without torch: vec2text's, nanoV2T's and those of the causal-LM family with a GPT-2.

What a folder holds besides its network (the embedder that a vec2text hypothesizer carries along, the tokenizer, the
model card) is kept as it is when the network is written back.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unembed import layouts
from unembed.errors import CheckpointError, StorageError

FAMILIES = {
    "InversionModel": "vec2text",
    "CorrectorEncoderModel": "vec2text",
    "T5Generator": "nanov2t",
    "PrefixDecoder": "prefix",
}
"""`architectures` in config.json → family."""
WEIGHTS, PROJECTOR = "model.safetensors", "projector.safetensors"
TABLE, HEAD = "t5.shared.weight", "t5.lm_head.weight"
LENGTHS = {"vec2text": 128, "nanov2t": 32}
"""Tokens of a text where config.json does not say."""


@dataclass(frozen=True)
class Folder:
    """A model folder, read."""

    path: Path
    family: str
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    """Float32, by our names: t5.*, target.{0,3}.*…; transformer.* and target.{0,3}.* of a GPT-2."""
    rest: dict[str, np.ndarray] = field(default_factory=dict)
    """What is not of the network, by its own names."""

    @property
    def corrects(self) -> bool:
        return "difference.0.weight" in self.tensors

    @property
    def length(self) -> int:
        """Tokens of the texts that it was trained on, as its family counts them."""
        if self.family == "prefix":
            return int(self.config.get("prefix", {}).get("max_tokens") or 128)
        return int(self.config.get("max_seq_length") or LENGTHS[self.family])

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor; CheckpointError names it where it is missing."""
        if name not in self.tensors:
            raise CheckpointError(f"{self.path} lacks the tensor {name}: copy the model again")
        return self.tensors[name].shape

    def count(self, pattern: str) -> int:
        """Different numbers that `pattern` finds in the names: layers of a stack."""
        return len({match[1] for name in self.tensors if (match := re.match(pattern, name))})


def read(path: Path) -> Folder:
    """Raises CheckpointError: no model, an unknown family, a damaged file, tensors that only torch can read."""
    path = path / "model" if not (path / "config.json").exists() and (path / "model").is_dir() else path
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        name = config["architectures"][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(f"{path}/config.json is missing or damaged ({error}): give a model folder") from error
    family = FAMILIES.get(name)
    if family is None:
        raise CheckpointError(f"{path} is of a family that this backend does not have ({name}): {', '.join(FAMILIES)}")
    if family == "prefix" and config.get("model_type") != "gpt2":
        raise CheckpointError(
            f"{path} holds a language model of the kind {config.get('model_type')}: only gpt2 is here"
        )
    stored = _tensors(path)
    if family == "prefix":
        tensors = {name: stored[name] for name in stored if name.startswith("transformer.")}
        if (path / PROJECTOR).is_file():
            tensors |= _open(path / PROJECTOR)
        return Folder(path, family, config, tensors)
    if family == "vec2text":
        names = layouts.from_vec2text(stored, name == "CorrectorEncoderModel")
    else:
        names = layouts.from_nanov2t(stored)
    taken = set(names.values())
    # Copies of the table: .bin files and old safetensors hold them, a network of ours does not.
    tied = {"t5.encoder.embed_tokens.weight", "t5.decoder.embed_tokens.weight"}
    if HEAD in names and TABLE in names and np.array_equal(stored[names[HEAD]], stored[names[TABLE]]):
        tied.add(HEAD)
    tensors = {new: stored[old] for new, old in names.items() if new not in tied}
    return Folder(path, family, config, tensors, {old: stored[old] for old in stored if old not in taken})


def check(folder: Folder, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """See that a folder has the tensors of a network, and no others. CheckpointError names the first that is missing,
    unknown or of another shape."""
    given = folder.tensors
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted and not beside(name, folder)]
    if missing or extra:
        what = f"lacks the tensor {missing[0]}" if missing else f"holds a tensor {extra[0]} that no such model has"
        raise CheckpointError(
            f"{folder.path} {what} ({len(missing)} missing, {len(extra)} unknown): copy the model again"
        )
    for name, shape in wanted.items():
        if given[name].shape != shape:
            raise CheckpointError(f"{folder.path}: the tensor {name} has shape {given[name].shape}, not {shape}")


def beside(name: str, folder: Folder) -> bool:
    """A causal LM that was also taught to correct has projections that a hypothesizer does not read."""
    return folder.family == "prefix" and name.startswith(("hypothesis.", "difference."))


def write(source: Folder, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """A folder like `source` with these tensors (by our names), in the place of an older model; a failure leaves what
    was there before. Raises StorageError."""
    path = path.expanduser().absolute()
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / "config.json").is_file())):
        raise StorageError(f"{path} exists and is no model: choose another folder")
    theirs, parts = {}, {name: tensor for name, tensor in tensors.items() if not name.startswith("transformer.")}
    if source.family == "prefix":
        theirs = {name: tensor for name, tensor in tensors.items() if name.startswith("transformer.")}
    else:
        starts = layouts.to_vec2text(source.corrects) if source.family == "vec2text" else layouts.to_nanov2t()
        for name, tensor in parts.items():
            start = next(start for start in starts if name.startswith(start))
            theirs[starts[start] + name.removeprefix(start)] = tensor
        parts = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
            made = Path(name) / "made"
            made.mkdir()
            for file in source.path.iterdir():
                if file.is_file() and file.suffix not in (".safetensors", ".bin") and ".index." not in file.name:
                    shutil.copyfile(file, made / file.name)
            save_file({**theirs, **source.rest}, made / WEIGHTS, metadata={"format": "pt"})
            if parts:
                save_file(parts, made / PROJECTOR, metadata={"format": "pt"})
            if path.exists():
                path.rename(Path(name) / "old")
            made.rename(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write the model to {path} ({error}): free space or choose another folder"
        ) from error


def _tensors(path: Path) -> dict[str, np.ndarray]:
    index = path / f"{WEIGHTS}.index.json"
    if index.is_file():
        try:
            files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index} is damaged ({error}): copy the model again") from error
    else:
        files = [WEIGHTS]
    out: dict[str, np.ndarray] = {}
    for file in files:
        if Path(file).name != file or not (path / file).is_file():
            raise CheckpointError(
                f"{path / file} is missing: copy it again; a .bin is turned into safetensors by `unembed models "
                "convert`, where torch is"
            )
        out |= _open(path / file)
    return out


def _open(file: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(file, "np") as stored:
            return {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}): copy the model again") from error
    except (TypeError, AttributeError) as error:  # bfloat16, which numpy does not know
        raise CheckpointError(
            f"{file} holds numbers that numpy does not know ({error}): store it as float32"
        ) from error
