"""Reading the tensors of other projects' checkpoints: safetensors or .bin, in one file or in shards, one at a time."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unembed.errors import CheckpointError, first_line

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


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    file: Path
    name: str
    """Its name in the file."""
    shape: tuple[int, ...]


class Weights(Mapping[str, Tensor]):
    """The tensors of a model folder by name. Names and shapes are known at once; a tensor is read when it is asked for,
    and one file is open at a time, so that loading a model needs no second copy of it. On the CPU."""

    def __init__(self, entries: Mapping[str, Entry], reader: Reader) -> None:
        self.entries, self.reader = dict(entries), reader

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        return self.reader.open(entry.file)[1](entry.name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries, key=lambda name: self.entries[name].file))

    def __len__(self) -> int:
        return len(self.entries)

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """Those among `names`, new name → present one, under their new names."""
        return Weights({new: self.entries[old] for new, old in names.items()}, self.reader)

    def part(self, start: str) -> Weights:
        """Those whose name begins with `start`, which is taken off."""
        return self.renamed({name.removeprefix(start): name for name in self.entries if name.startswith(start)})


class Reader:
    """Opens files of tensors: (shape of each, function from name to tensor). The last one stays open."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def open(self, path: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
        if path != self.path:
            self.path = None
            self.content = _open(path)
            self.path = path
        return self.content


def read_tensors(folder: Path) -> Weights:
    """The tensors of a model folder. Shards are found by their index. A .bin is read without running any code in it.

    Raises CheckpointError: no weights, a missing shard, a damaged file, a pickle that holds more than tensors.
    """
    reader = Reader()
    entries: dict[str, Entry] = {}
    for file in weight_files(folder):
        entries |= {name: Entry(file, name, shape) for name, shape in reader.open(file)[0].items()}
    return Weights(entries, reader)


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder that hold its tensors. CheckpointError when there is none, or one is missing."""
    for name in NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            try:
                shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{index} is damaged ({error}): copy the model again") from error
            for shard in shards:
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise CheckpointError(f"{folder / shard} is missing: the model folder is incomplete; copy it again")
            return [folder / shard for shard in shards]
    raise CheckpointError(f"{folder} holds no weights ({' or '.join(NAMES)}): copy the model again")


def _open(path: Path) -> tuple[dict[str, tuple[int, ...]], Callable[[str], Tensor]]:
    try:
        if path.suffix == ".safetensors":
            file = safe_open(path, "pt")
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, file.get_tensor  # noqa: SIM118
        # Mapped into memory where the format can be (since torch 1.6), so that only what is asked for is read.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({first_line(error)}): copy the model again") from error
    except Exception as error:  # unpickling raises whatever the bytes say
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, and was not run ({first_line(error)})"
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} is no mapping of names to tensors: it is not a model's weights")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, dict(tensors).__getitem__


def digest(folders: Iterable[Path]) -> str:
    """16 hex digits that name the weights of these folders together."""
    found = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")):
            with open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def shape(tensors: Weights, name: str, folder: Path) -> tuple[int, ...]:
    """The shape of a tensor; CheckpointError names it where it is missing."""
    if name not in tensors.entries:
        raise CheckpointError(f"{folder} lacks the tensor {name}: the model folder is incomplete; copy it again")
    return tensors.entries[name].shape


def fill(
    module: nn.Module,
    tensors: Weights,
    folder: Path,
    tied: Mapping[str, str],
    place: Callable[[str], torch.device | None],
    dtype: torch.dtype,
) -> None:
    """Give a module that was built on the meta device its parameters, one tensor at a time, in `dtype`.

    `tied`, a name → the name whose parameter it is, may be missing from `tensors` or must be equal. `place` says of a
    name on which device it goes; None leaves it out, to be read from its file later. CheckpointError names the first
    tensor that is missing, unknown, of another shape, or not tied.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in module.state_dict().items()}
    missing = [name for name in wanted if name not in tensors.entries and name not in tied]
    extra = [name for name in tensors.entries if name not in wanted]
    if missing or extra:
        what = f"lacks the tensor {missing[0]}" if missing else f"holds a tensor {extra[0]} that no such model has"
        raise CheckpointError(f"{folder} {what} ({len(missing)} missing, {len(extra)} unknown): copy the model again")
    for name, entry in tensors.entries.items():
        if entry.shape != wanted[name]:
            raise CheckpointError(f"{folder}: the tensor {name} has shape {entry.shape}, not {wanted[name]}")
    for name in tensors:
        device = place(name)
        if name in tied:
            if not torch.equal(tensors[name], tensors[tied[name]]):
                raise CheckpointError(f"{folder}: {name} is not {tied[name]}, as in a T5 it must be: copy it again")
        else:
            # In float16 the T5's widest sums overflow; transformers keeps this matrix in float32 as well.
            kept = torch.float32 if dtype == torch.float16 and name.endswith(".wo.weight") else dtype
            # What stays on the CPU in its own precision is not copied: it is mapped from its file and read when used.
            made = (
                torch.empty(wanted[name], dtype=kept, device="meta")
                if device is None
                else tensors[name].to(device, kept)
            )
            _put(module, name, nn.Parameter(made, requires_grad=False))
    for name, source in tied.items():
        _put(module, name, module.get_parameter(source))


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    module.get_submodule(path).register_parameter(leaf, parameter)
