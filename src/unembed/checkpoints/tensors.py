"""Reading the tensors of other projects' checkpoints: safetensors or .bin, in one file or in shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unembed.errors import CheckpointError

NAMES = ("model.safetensors", "pytorch_model.bin")


def read_config(folder: Path) -> dict:
    """config.json as a dict; CheckpointError when it is missing or damaged."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json is missing or damaged ({error}): copy the model again") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder}/config.json is no JSON object: copy the model again")
    return config


def architecture(folder: Path) -> str | None:
    """The first of config.json's `architectures`; None where there is none."""
    try:
        names = read_config(folder).get("architectures")
    except CheckpointError:
        return None
    return names[0] if isinstance(names, list) and names else None


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder. Shards are found by their index. A .bin is read without running any code in it.

    Raises CheckpointError: no weights, a missing shard, a damaged file, a pickle that holds more than tensors.
    """
    for name in NAMES:
        if (folder / name).is_file():
            return _read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{index} is damaged ({error}): copy the model again") from error
            out: dict[str, Tensor] = {}
            for shard in shards:
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise CheckpointError(f"{folder / shard} is missing: the model folder is incomplete; copy it again")
                out.update(_read(folder / shard))
            return out
    raise CheckpointError(f"{folder} holds no weights ({' or '.join(NAMES)}): copy the model again")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({_first(error)}): copy the model again") from error
    except Exception as error:  # unpickling raises whatever the bytes say
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, and was not run ({_first(error)})"
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is no mapping of names to tensors: it is not a model's weights")
    return dict(tensors)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def digest(folders: Iterable[Path]) -> str:
    """16 hex digits that name the weights of these folders together."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")):
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def shape(tensors: Mapping[str, Tensor], name: str, folder: Path) -> tuple[int, ...]:
    """The shape of a tensor; CheckpointError names it where it is missing."""
    if name not in tensors:
        raise CheckpointError(f"{folder} lacks the tensor {name}: the model folder is incomplete; copy it again")
    return tuple(tensors[name].shape)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path, tied: Collection[str] = ()) -> None:
    """Load `tensors` into `module`, that may have no memory yet (made on torch's "meta" device, so that nothing is
    drawn at random to be overwritten): all of them, and nothing but `tied` names may be missing. CheckpointError names
    the first tensor that is missing, unknown, or of another shape."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors and name not in tied]
    extra = [name for name in tensors if name not in wanted]
    if missing or extra:
        what = f"lacks the tensor {missing[0]}" if missing else f"holds a tensor {extra[0]} that no such model has"
        raise CheckpointError(f"{folder} {what} ({len(missing)} missing, {len(extra)} unknown): copy the model again")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise CheckpointError(
                f"{folder}: the tensor {name} has shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            )
    module.load_state_dict(dict(tensors), strict=False, assign=True)
