"""Model folders: one module a format, each with `recognise` and `load`; and the models that ship with the package.

To add a format: one module with `recognise(folder) -> bool` and `load(folder, device, dtype) -> InversionModel`, and
one entry in `FORMATS`. A format whose hypothesizers and correctors are two checkpoints has, instead of load,
`is_corrector(folder) -> bool` and `load_pair(hypothesizer, corrector or None, device, dtype, …) -> T5Pair`, and for
`unembed models convert` a class `Checkpoint` and `save`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unembed.checkpoints.hub import download
from unembed.checkpoints.public import PAIRS, SINGLES
from unembed.checkpoints.tensors import architecture, digest
from unembed.confidence import Calibration
from unembed.embedders.spec import DTYPES
from unembed.errors import CheckpointError, InputError

if TYPE_CHECKING:
    import torch

    from unembed.models.base import InversionModel
    from unembed.models.encoder_decoder import EncoderDecoderModel

NAMES = ("native", "vec2text", "nanov2t", "prefix", "davae", "onnx")
FORMATS = tuple(f"unembed.checkpoints.{name}" for name in NAMES)
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
    text = {known.lower(): hub_id for known, hub_id in SINGLES.items()}.get(text.lower(), text)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return download(text)
    names = {known.lower(): known for known in (*SHIPPED, *ALIASES, *PAIRS, *SINGLES)}
    near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.3)
    hint = names[near[0]] if near else next(iter(SHIPPED))
    raise InputError(f"unknown model '{text}': did you mean '{hint}'? Otherwise give a folder or a hub id (owner/name)")


def members(name: str | Path) -> list[str]:
    """The models of which a name speaks: two for a pair, by its short name or as HYPOTHESIZER+CORRECTOR; else one.
    Short names of public models become their ids on the hub."""
    text = str(name)
    public = {known.lower(): ids for known, ids in (PAIRS | {one: (hub,) for one, hub in SINGLES.items()}).items()}
    if text.lower() in public and not Path(text).exists():
        return list(public[text.lower()])
    return text.split("+") if "+" in text and not Path(text).exists() else [text]


def precision(name: str | None) -> torch.dtype | None:
    """The precision of a model by its name: one of an embedder's, or int8. InputError for another."""
    if name is None:
        return None
    if name not in (*DTYPES, "int8"):
        raise InputError(f"unknown precision '{name}' of the model: use {', '.join(DTYPES)} or int8")
    return getattr(importlib.import_module("torch"), name)


def load_model(
    name: str | Path,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    calibrated: bool = True,
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[Any, Any] | None = None,
    packed: bool = True,
) -> InversionModel:
    """Load a model by name, folder or hub id, whatever its format, with its calibration where it has one (and
    `calibrated` does not leave that out). A pair of two checkpoints is named HYPOTHESIZER+CORRECTOR. `device_map` and
    `max_memory` spread a T5 over several devices and the disk: see `unembed.checkpoints.placement.Placement`. dtype
    int8 rounds a T5's linear layers on a CPU, which are otherwise packed there, unless `packed` is False: see
    `unembed.models.linear`."""
    text, parts = str(name), members(name)
    folders = [resolve(part) for part in parts]
    module = _format(folders[0])
    model: Any
    t5 = hasattr(module, "load_pair")
    int8, in_memory = str(dtype) == "torch.int8", device.type == "cpu" and device_map is None
    if int8 and not (t5 and in_memory):
        raise InputError("int8 is for the T5 family in a CPU's memory (device cpu, no device_map): use bfloat16")
    if t5:
        spread = {"device_map": device_map, "max_memory": max_memory}
        model = _load_pair(module, folders, device, None if int8 else dtype, spread)
        if in_memory and (packed or int8):
            from unembed.models.linear import for_inference

            for net in filter(None, (model.hypothesizer, model.corrector)):
                for_inference(net, net.t5, int8=int8)
    elif device_map is not None:
        raise InputError(f"{text} goes to one device; only the T5 family is spread: leave out device_map")
    elif len(folders) > 1:
        raise InputError(f"{parts[0]} is hypothesizer and corrector in one: give it alone, without +{parts[1]}")
    else:
        model = module.load(folders[0], device, dtype)
    if calibrated:
        model.calibration = Calibration.load(folders[0], model.digest)
    return model


def _format(folder: Path) -> Any:  # noqa: ANN401  (a module)
    """The module of a folder's format."""
    for module_name in FORMATS:
        module = importlib.import_module(module_name)
        if module.recognise(folder):
            return module
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no model (config.json is missing): give a folder that unembed train wrote"
        )
    if found := architecture(folder):
        raise CheckpointError(f"{folder} is of an architecture that this version does not know ({found})")
    raise CheckpointError(f"{folder}/config.json is damaged or of a format that this version does not know")


def is_corrector(folder: Path) -> bool:
    """Whether a model folder holds a corrector, which inverts only together with a hypothesizer."""
    module = _format(folder)
    return hasattr(module, "is_corrector") and module.is_corrector(folder)


def _load_pair(
    module: Any,  # noqa: ANN401
    folders: list[Path],
    device: torch.device,
    dtype: torch.dtype | None,
    spread: dict[str, Any],
) -> EncoderDecoderModel:
    """A hypothesizer and perhaps its corrector, of one format."""
    if len(folders) > 2 or any(not module.recognise(folder) for folder in folders):
        raise InputError(
            f"{' and '.join(map(str, folders))} are no pair: give one HYPOTHESIZER+CORRECTOR of one format"
        )
    if module.is_corrector(folders[0]):
        raise InputError(f"{folders[0]} is a corrector, which needs a first hypothesis: give HYPOTHESIZER+{folders[0]}")
    if len(folders) == 2 and not module.is_corrector(folders[1]):
        raise InputError(f"{folders[1]} is no corrector: give HYPOTHESIZER+CORRECTOR")
    pair = module.load_pair(folders[0], folders[1] if len(folders) == 2 else None, device, dtype, **spread)
    if pair.corrector and pair.corrector.config.embedding_dim != pair.spec.dim:
        raise InputError(f"{folders[1]} corrects vectors of another dimension than {folders[0]} writes from")
    model = pair.model()
    model.digest = digest(folders)
    return model
