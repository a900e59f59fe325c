"""Model folders: one module a format, each with `recognise` and `load`; and the models that ship with the package.

To add a format: one module with `recognise(folder) -> bool` and `load(folder, device, dtype) -> InversionModel`, and
one entry in `FORMATS`.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from unembed.confidence import Calibration
from unembed.errors import CheckpointError, InputError

if TYPE_CHECKING:
    import torch

    from unembed.models.base import InversionModel

FORMATS = ("unembed.checkpoints.native",)
SHIPPED = {"all-MiniLM-L6-v2": "minilm"}
"""Embedder name → folder under unembed/weights."""
ALIASES = {"minilm": "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2": "all-MiniLM-L6-v2"}


def resolve(name: str | Path) -> Path:
    """The folder of a model: shipped, on disk, or on the hub (downloaded). Raises InputError with the nearest name."""
    text = str(name)
    shipped = {known.lower(): folder for known, folder in SHIPPED.items()}
    alias = {known.lower(): target for known, target in ALIASES.items()}
    key = alias.get(text.lower(), text).lower()
    if key in shipped:
        return Path(__file__).parent.parent / "weights" / shipped[key]
    path = Path(text).expanduser()
    if path.is_dir():
        # The folder of a training run stands for the model in it.
        inner = path / "model"
        return inner if not (path / "config.json").exists() and inner.is_dir() else path
    if path.exists():
        raise InputError(f"{text} is a file: give the folder that holds config.json and model.safetensors")
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _download(text)
    near = difflib.get_close_matches(text.lower(), [*shipped, *alias], n=1, cutoff=0.3)
    hint = next((known for known in [*SHIPPED, *ALIASES] if near and known.lower() == near[0]), next(iter(SHIPPED)))
    raise InputError(f"unknown model '{text}': did you mean '{hint}'? Otherwise give a folder or a hub id (owner/name)")


def load_model(
    name: str | Path, device: torch.device, dtype: torch.dtype | None = None, *, calibrated: bool = True
) -> InversionModel:
    """Load a model by name, folder or hub id, whatever its format, with its calibration where it has one (and
    `calibrated` does not leave that out)."""
    folder = resolve(name)
    for module_name in FORMATS:
        module = importlib.import_module(module_name)
        if module.recognise(folder):
            model = module.load(folder, device, dtype)
            if calibrated:
                model.calibration = Calibration.load(folder, model.digest)
            return model
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no model (config.json is missing): give a folder that unembed train wrote"
        )
    raise CheckpointError(f"{folder}/config.json is damaged or of a format that this version does not know")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.md"]))
    except Exception as error:  # offline, absent, gated: the library has a class for each
        first = str(error).strip().splitlines()[0]
        raise InputError(f"model '{name}' is no folder here and cannot be fetched from the hub ({first})") from error
