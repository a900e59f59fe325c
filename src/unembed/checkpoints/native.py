"""The native format: config.json, model.safetensors (float32, or int8 with one scale a row), tokenizer.json,
guide.safetensors, lexicon.safetensors and corrector.safetensors (likewise, for a model that has them), controls.jsonl
(some training texts, for the control in evaluations), README.md.

config.json holds the network's sizes, the embedder's spec and the SHA-256 of the other files, which loading verifies.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unembed.checkpoints.writing import replacing
from unembed.devices import multiplies_bfloat16
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError, first_line
from unembed.models.lexicon import Lexicon
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.guide import Guide
from unembed.models.native.tokenizer import TextTokenizer

FORMAT = "unembed-native"
VERSION = 1
WEIGHTS, GUIDE, LEXICON = "model.safetensors", "guide.safetensors", "lexicon.safetensors"
CORRECTOR = "corrector.safetensors"
_SCALE, _DIRECTIONS = ".scale", "directions"


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def save(
    model: NativeModel,
    folder: str | Path,
    *,
    card: str = "",
    training: dict[str, Any] | None = None,
    int8: bool = False,
) -> None:
    """Write `model` to `folder`, in the place of an older model there. With `int8`, matrices are stored as int8 with
    one float16 scale a row: a quarter of the size. Raises StorageError (a full disk, a folder with other things in it)
    and leaves what was there."""
    parts = {WEIGHTS: dict(model.net.state_dict())}
    if model.guide:
        parts[GUIDE] = dict(model.guide.state_dict())
    notes: dict[str, dict[str, str]] = {}
    if model.lexicon:
        parts[LEXICON] = {_DIRECTIONS: torch.from_numpy(model.lexicon.directions)}
        notes[LEXICON] = {"words": json.dumps(model.lexicon.words)}
    if model.corrector:
        parts[CORRECTOR] = model.corrector.own_state()
    with replacing(Path(folder), recognise, "model of unembed's own kind") as made:
        for name, part in parts.items():
            weights = {key: tensor.detach().float().cpu().contiguous() for key, tensor in part.items()}
            save_file(quantise(weights) if int8 else weights, made / name, notes.get(name))
        model.tokenizer.save(made / "tokenizer.json")
        config = {
            "format": FORMAT,
            "version": VERSION,
            "network": model.net.config.to_dict(),
            "embedder": model.spec.to_dict(),
            "training": training or {},
            "sha256": {name: sha256(made / name) for name in (*parts, "tokenizer.json")},
        }
        (made / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
        if model.controls:
            lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in model.controls)
            (made / "controls.jsonl").write_text(lines, encoding="utf-8")
        if card:
            (made / "README.md").write_text(card, encoding="utf-8")


def load(folder: str | Path, device: torch.device, dtype: torch.dtype | None = None) -> NativeModel:
    """Read a model folder for inference on `device`. Raises CheckpointError when a file is missing or was changed."""
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["version"] > VERSION:
            raise CheckpointError(f"{folder} is of format version {config['version']}: pip install -U unembed")
        network, digests = NativeConfig(**config["network"]), dict(config["sha256"])
        spec = EmbedderSpec.from_dict(config["embedder"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}/config.json is missing or damaged ({error}): copy the model again") from error
    for name, digest in digests.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing: the model folder is incomplete; copy it again")
        if sha256(folder / name) != digest:
            raise CheckpointError(f"{folder / name} is not the file it was (SHA-256 differs): copy the model again")
    net, guide = NativeNetwork(network), None
    _fill(net, _read(folder / WEIGHTS), folder / WEIGHTS)
    if GUIDE in digests:
        stored = _read(folder / GUIDE)
        guide = Guide(spec.dim, len(stored.get("hidden.bias", ())), network.vocab_size)
        _fill(guide, stored, folder / GUIDE)
        guide.eval().requires_grad_(False).to(device)
    net.eval().requires_grad_(False).to(device=device, dtype=dtype or inference_dtype(device))
    model = NativeModel(net, TextTokenizer.load(folder / "tokenizer.json"), spec)
    model.guide = guide
    if LEXICON in digests:
        model.lexicon = _lexicon(folder / LEXICON, spec.dim)
    if CORRECTOR in digests:
        corrector = NativeNetwork(replace(network, pointer=True)).corrects_beside(net)
        shared = {name: weight for name, weight in net.state_dict().items() if name not in corrector.own_state()}
        _fill(corrector, {**_read(folder / CORRECTOR), **shared}, folder / CORRECTOR)
        model.corrector = corrector.eval().requires_grad_(False).to(device=device, dtype=net.embed.weight.dtype)
    parts = [digests[name] for name in (WEIGHTS, GUIDE, LEXICON, CORRECTOR) if name in digests]
    model.digest = parts[0][:16] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
    if (folder / "controls.jsonl").is_file():
        try:
            with open(folder / "controls.jsonl", encoding="utf-8") as file:
                model.controls = [json.loads(line) for line in file]
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}/controls.jsonl is damaged ({error}): copy the model again") from error
    return model


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dequantise(load_file(path))
    except Exception as error:  # safetensors raises several kinds; the file is unusable all the same
        raise CheckpointError(f"{path} cannot be read ({first_line(error)}): copy the model again") from error


def _lexicon(path: Path, dim: int) -> Lexicon:
    directions = _read(path).get(_DIRECTIONS, torch.zeros(0))
    with safe_open(path, "np") as file:
        words = json.loads((file.metadata() or {}).get("words", "[]"))
    if directions.shape != (len(words), dim):
        raise CheckpointError(f"{path} does not fit its config: copy the model again")
    return Lexicon(words, directions.numpy())


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its config ({first_line(error)}): copy the model again") from error


def history(folder: str | Path) -> list[dict[str, Any]]:
    """What the model was trained by, one entry a run, the first one first; see `unembed.training.loop`."""
    training = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("training") or {}
    return [*training.get("before", []), {key: value for key, value in training.items() if key != "before"}]


def inference_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def quantise(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices → int8 rows and their float16 scales (largest magnitude of the row = 127); the rest stays as it is."""
    out: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim != 2 or weight.size(0) < 64:
            out[name] = weight
            continue
        scale = (weight.abs().amax(dim=1) / 127).clamp(min=6e-8).half()  # 6e-8: the smallest float16 above zero
        out[name] = (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        out[name + _SCALE] = scale
    return out


def dequantise(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inverse of `quantise` up to rounding; a float32 file passes through."""
    return {
        name: tensor.float() * stored[name + _SCALE].float()[:, None] if tensor.dtype == torch.int8 else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(_SCALE)
    }


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
