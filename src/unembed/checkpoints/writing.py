"""Writing a model's folder: all of it or nothing, a T5's safetensors in shards, a tokenizer for any transformers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor

from unembed.checkpoints.t5 import HEAD, TIED
from unembed.checkpoints.tensors import architecture
from unembed.embedders.tokens import copy_tokenizer
from unembed.errors import InputError, StorageError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from unembed.models.encoder_decoder import EncoderDecoderNetwork

SHARD_SIZE = "5GB"
"""Largest file of weights, as transformers shards them."""


def state(net: EncoderDecoderNetwork, theirs: Mapping[str, str]) -> dict[str, Tensor]:
    """A network's tensors on the CPU by the names of a format, each once: copies of the table of embeddings are left
    out. theirs: how a name begins → how it begins in the format."""
    shared = net.t5.get_input_embeddings().weight
    tied = {f"t5.{name}" for name in TIED if name != HEAD or net.t5.lm_head.weight.data_ptr() == shared.data_ptr()}
    if any(tensor.is_meta for tensor in net.state_dict().values()):
        raise InputError("a network that is partly on disk cannot be written: load it without device_map")
    out = {}
    for name, tensor in net.state_dict().items():
        if name not in tied:
            start = next(start for start in theirs if name.startswith(start))
            out[theirs[start] + name.removeprefix(start)] = tensor.detach().cpu()
    return out


def write(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    card: str,
    shard_size: str | int,
) -> None:
    """Write a model's folder, in the place of an older model of that name. A failure leaves what was there before.
    Raises StorageError: a full disk, no permission, or a folder with other things in it."""
    from huggingface_hub import save_torch_state_dict

    kind = config["architectures"][0]
    with replacing(Path(folder), lambda old: architecture(old) == kind, kind) as made:
        # transformers before version 5 insists on being told that the tensors are PyTorch's.
        save_torch_state_dict(dict(tensors), made, max_shard_size=shard_size, metadata={"format": "pt"})
        write_json(made / "config.json", config)
        write_tokenizer(tokenizer, made)
        if card:
            (made / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def replacing(folder: Path, alike: Callable[[Path], bool], kind: str) -> Iterator[Path]:
    """An empty folder to write into. It becomes `folder` at the end, or vanishes if an error comes before. What is
    there already is replaced only if it is `alike`, another model of this kind. Raises StorageError."""
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not alike(folder))):
        raise StorageError(f"{folder} exists and is no {kind}: choose another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            made, old = Path(name) / "made", Path(name) / "old"
            made.mkdir()
            yield made
            if folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write the model to {folder} ({first_line(error)}): free space or choose another folder"
        ) from error


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """tokenizer.json as it is, and what transformers 4 and 5 both need to take it as it is."""
    copy_tokenizer(tokenizer.backend_tokenizer).save(str(folder / "tokenizer.json"))
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": bool(tokenizer.clean_up_tokenization_spaces),
        "model_max_length": tokenizer.model_max_length,
        **tokens,
    }
    write_json(folder / "tokenizer_config.json", config)
    spiece = Path(getattr(tokenizer, "vocab_file", None) or "")
    if spiece.suffix == ".model" and spiece.is_file():
        shutil.copyfile(spiece, folder / "spiece.model")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
