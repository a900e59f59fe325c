"""The state of a run on disk: weights, optimisers and position, written whole or not at all (safetensors, JSON)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unembed.checkpoints.native import dequantise, quantise
from unembed.errors import CheckpointError, StorageError
from unembed.models.native import NativeNetwork


def save_state(
    folder: Path,
    net: NativeNetwork,
    optimisers: list[torch.optim.Optimizer],
    position: dict,
    keep: int,
    compact: bool = False,
) -> Path:
    """Write `folder`/step-N atomically (a temporary folder, then a rename) and drop all but the `keep` newest.
    `compact`: int8 weights, no optimisers."""
    final = folder / f"step-{position['step']:08d}"
    temporary = folder / f".writing-{position['step']:08d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        weights = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
        save_file(quantise(weights) if compact else weights, temporary / "model.safetensors")
        if not compact:
            save_file(_flatten(optimisers), temporary / "optimiser.safetensors")
        (temporary / "state.json").write_text(json.dumps(position, indent=1))
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(
            f"cannot write a checkpoint to {folder} ({error}): free space, then run the same command"
        ) from error
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def latest_state(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    return max(folder.glob("step-*"), default=None)


def read_position(path: Path) -> dict:
    """How far the run was when `path` was written."""
    try:
        return dict(json.loads((path / "state.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged ({error}): delete that folder to go on from the one before"
        ) from error


def load_state(path: Path, net: NativeNetwork, optimisers: list[torch.optim.Optimizer]) -> bool:
    """Restore what `save_state` wrote; whether the optimisers were part of it."""
    try:
        stored = load_file(path / "model.safetensors", device=str(net.device))
        net.load_state_dict(dequantise(stored))
        compact = any(tensor.dtype == torch.int8 for tensor in stored.values())
        if not compact:
            _restore(optimisers, load_file(path / "optimiser.safetensors", device=str(net.device)))
        return not compact
    except Exception as error:  # safetensors raises its own kind; whatever it is, the state is not usable
        first = str(error).splitlines()[0]
        raise CheckpointError(
            f"checkpoint {path} is damaged ({first}): delete that folder to go on from the one before"
        ) from error


def _flatten(optimisers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Optimiser states as named tensors `optimiser.parameter.key`; learning rates follow from the step."""
    flat = {}
    for i, optimiser in enumerate(optimisers):
        for j, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                flat[f"{i}.{j}.{key}"] = torch.as_tensor(value).contiguous()
    return flat


def _restore(optimisers: list[torch.optim.Optimizer], flat: dict[str, torch.Tensor]) -> None:
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in flat.items():
            owner, parameter, key = name.split(".", 2)
            if int(owner) == i:
                state.setdefault(int(parameter), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
