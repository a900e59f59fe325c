"""The format of the causal-LM family: a language model's own folder, as transformers writes it, and beside it how the
vector goes in.

config.json  the language model's own; `architectures` is ["PrefixDecoder"], `prefix` holds how vectors become positions
             and the longest text, `embedder_spec` the embedder
model*.safetensors, generation_config.json  the language model: `AutoModelForCausalLM` loads the folder as it is
projector.safetensors  of the projections, where vectors are not padded with zeros
tokenizer.json, tokenizer_config.json  the language model's, with its end of text
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unembed.checkpoints.tensors import architecture, digest, read_config, weight_files
from unembed.checkpoints.writing import SHARD_SIZE, replacing, write_json, write_tokenizer
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError, InputError, first_line
from unembed.models.prefix_decoder import PrefixConfig, PrefixDecoderModel, PrefixNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARCHITECTURE = "PrefixDecoder"
PROJECTOR = "projector.safetensors"


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    return architecture(folder) == ARCHITECTURE


def describe(folder: Path) -> tuple[dict[str, Any], PrefixConfig, int, EmbedderSpec]:
    """config.json, and what it says of the vector: its wiring, the longest text in tokens, the embedder. Raises
    CheckpointError."""
    config = read_config(folder)
    try:
        wiring = dict(config["prefix"])
        longest = int(wiring.pop("max_tokens"))
        found = PrefixConfig(**wiring)
        spec = EmbedderSpec.from_dict(config["embedder_spec"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise CheckpointError(f"{folder}/config.json is damaged ({first_line(error)}): copy the model again") from error
    if found.embedding_dim != spec.dim:
        raise CheckpointError(
            f"{folder}/config.json speaks of vectors of {spec.dim} numbers and of {found.embedding_dim}: copy it again"
        )
    return config, found, longest, spec


def load(folder: Path, device: torch.device, dtype: torch.dtype | None = None) -> PrefixDecoderModel:
    """A model folder for inference on `device`. Raises CheckpointError: files, tensors or the end of text missing,
    tensors unknown or of other shapes, a kind of language model that transformers does not know."""
    _, _, longest, spec = describe(folder)
    net = network(folder, dtype or torch.float32).eval().requires_grad_(False).to(device)
    words, rows = tokenizer(folder), net.lm.get_input_embeddings().weight.size(0)
    if len(words) > rows:
        raise CheckpointError(f"{folder}: its tokenizer has {len(words)} tokens and the model {rows}: copy it again")
    model = PrefixDecoderModel(net, words, spec, max_tokens=longest)
    model.digest = digest([folder])
    return model


def network(folder: Path, dtype: torch.dtype) -> PrefixNetwork:
    """The network of a folder, on the CPU."""
    from transformers import AutoConfig, AutoModelForCausalLM

    weight_files(folder)  # says in our words what is not there
    config, wiring, _, _ = describe(folder)
    try:
        sizes = AutoConfig.from_pretrained(folder)
    except Exception as error:  # the library has several classes for it
        raise CheckpointError(
            f"{folder} is a language model of a kind that the installed transformers does not know "
            f"({config.get('model_type')}): pip install -U transformers"
        ) from error
    try:
        with silent():
            lm, report = AutoModelForCausalLM.from_pretrained(
                folder, config=sizes, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True
            )
    except Exception as error:  # safetensors, torch and transformers each raise their own
        raise CheckpointError(f"{folder} cannot be loaded ({first_line(error)}): copy the model again") from error
    other = {name: f"has shape {tuple(theirs)}, not {tuple(ours)}" for name, theirs, ours in report["mismatched_keys"]}
    _refuse(folder, set(report["missing_keys"]), set(report["unexpected_keys"]), other)
    net = PrefixNetwork(lm, wiring)
    wanted = net.vectors.state_dict()
    if wanted:
        stored = _projector(folder)
        shapes = {
            name: f"has shape {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            for name, tensor in stored.items()
            if name in wanted and tensor.shape != wanted[name].shape
        }
        _refuse(folder, set(wanted) - set(stored), set(stored) - set(wanted), shapes)
        net.vectors.load_state_dict(stored)
        net.vectors.to(dtype)
    return net


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder. Raises CheckpointError when it is missing or knows no end of text."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder}/tokenizer.json is missing: the model folder is incomplete; copy it again")
    try:
        found = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the Rust library raises plain Exception
        raise CheckpointError(f"{folder}/tokenizer.json is damaged ({first_line(error)}): copy it again") from error
    if found.eos_token_id is None:
        raise CheckpointError(f"{folder}/tokenizer_config.json names no eos_token, which ends a text: copy it again")
    return found


def save(
    net: PrefixNetwork,
    folder: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase,
    spec: EmbedderSpec,
    max_tokens: int,
    state: Mapping[str, Tensor] | None = None,
    card: str = "",
    shard_size: str = SHARD_SIZE,
) -> None:
    """Write a model folder, in the place of an older one of this format; a failure leaves what was there before.

    Args:
        net: of any precision.
        folder: to be made.
        tokenizer: of the language model, with an end of text.
        spec: the embedder that is inverted.
        max_tokens: longest text in tokens, the end of text not counted.
        state: the network's tensors, where they are not in `net` (FSDP).
        card: README.md.
        shard_size: largest file of weights.

    Raises:
        StorageError: a full disk, no permission, or a folder with other things in it.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in (state or net.state_dict()).items()}
    parts = {
        start: {name.removeprefix(start): t.contiguous() for name, t in tensors.items() if name.startswith(start)}
        for start in ("lm.", "vectors.")
    }
    with replacing(Path(folder), recognise, ARCHITECTURE) as made:
        with silent():
            net.lm.save_pretrained(made, state_dict=parts["lm."], max_shard_size=shard_size)
        if parts["vectors."]:
            save_file(parts["vectors."], made / PROJECTOR)
        config = json.loads((made / "config.json").read_text(encoding="utf-8"))
        config["architectures"] = [ARCHITECTURE]
        config["prefix"] = {**asdict(net.config), "max_tokens": max_tokens}
        config["embedder_spec"] = spec.to_dict()
        write_json(made / "config.json", config)
        write_tokenizer(tokenizer, made)
        if card:
            (made / "README.md").write_text(card, encoding="utf-8")


@contextmanager
def silent() -> Iterator[None]:
    """transformers without its progress bars and reports: what matters of them is said in our own words."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _projector(folder: Path) -> dict[str, Tensor]:
    if not (folder / PROJECTOR).is_file():
        raise CheckpointError(f"{folder / PROJECTOR} is missing: the model folder is incomplete; copy it again")
    try:
        return load_file(folder / PROJECTOR)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / PROJECTOR} cannot be read ({first_line(error)}): copy it again") from error


def _refuse(folder: Path, missing: set[str], unknown: set[str], other: Mapping[str, str]) -> None:
    """Name the first tensor that is not as it must be."""
    if missing:
        raise CheckpointError(
            f"{folder} lacks the tensor {min(missing)} ({len(missing)} missing): copy the model again"
        )
    if unknown:
        raise CheckpointError(
            f"{folder} holds a tensor {min(unknown)} that no such model has ({len(unknown)} unknown): copy it again"
        )
    if other:
        name = min(other)
        raise CheckpointError(f"{folder}: the tensor {name} {other[name]}: copy the model again")
