"""vec2text's format (Morris et al., EMNLP 2023): `InversionModel` and `CorrectorEncoderModel` folders, read without
vec2text.

config.json there is the union of all arguments of a training run; what only describes its author's machine is not
looked at. The embedder's recipe follows from `embedder_model_name`: "gtr_base" there is the mean-pooled encoder without
the Dense and Normalize layers of Sentence-Transformers, and its inputs are cut to `max_seq_length` tokens.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unembed.checkpoints.t5 import T5Pair, network, read_spec, stored, tokenizer, write
from unembed.checkpoints.tensors import architecture, read_config, read_tensors
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError
from unembed.models.encoder_decoder import EncoderDecoderNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HYPOTHESIZER, CORRECTOR = "InversionModel", "CorrectorEncoderModel"
LONGEST = 128
"""Tokens that vec2text writes at most, whatever the model was trained on."""
RECIPES: dict[str, dict[str, Any]] = {
    "gtr_base": {"id": "sentence-transformers/gtr-t5-base#raw", "normalized": False},
    "gtr_large": {"id": "sentence-transformers/gtr-t5-large#raw", "normalized": False},
    "gtr_base_st": {"id": "sentence-transformers/gtr-t5-base"},
    "text-embedding-ada-002": {"id": "openai:text-embedding-ada-002", "pooling": "unknown", "max_tokens": 8191},
}
"""`embedder_model_name` (or `embedder_model_api`) → its spec, as far as it is known by that name."""
PROJECTORS = {
    "embedding_transform_1.": "target.",
    "embedding_transform_2.": "difference.",
    "embedding_transform_3.": "hypothesis.",
    "embedding_transform.": "target.",
    "layernorm.": "norm.",
}
"""Its names of the projectors → ours."""


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    return architecture(folder) in (HYPOTHESIZER, CORRECTOR)


def is_corrector(folder: Path) -> bool:
    return architecture(folder) == CORRECTOR


class Checkpoint:
    """One folder. Its files are read when they are asked for, and once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_config(self.folder)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return read_tensors(self.folder)

    @property
    def length(self) -> int:
        """Tokens of the texts that it was trained on."""
        return int(self.config.get("max_seq_length") or LONGEST)

    @cached_property
    def spec(self) -> EmbedderSpec:
        """The embedder that it inverts."""
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        dim = next((shapes[n][1] for n in shapes if re.match(r"embedding_transform(_1)?\.0\.weight", n)), None)
        if dim is None:
            raise CheckpointError(f"{self.folder} lacks the tensor embedding_transform.0.weight: copy the model again")
        if spec := read_spec(self.folder):
            return spec
        name = self.config.get("embedder_model_api") or self.config.get("embedder_model_name")
        if not name:
            raise CheckpointError(f"{self.folder}/config.json names no embedder (embedder_model_name): copy it again")
        recipe = RECIPES.get(str(name), {"id": str(name)})
        return EmbedderSpec(**{"dim": dim, "max_tokens": self.length, "cased": True, **recipe})

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizer(self.folder, str(self.config.get("model_name_or_path") or "t5-base"))

    def embedder_tensors(self) -> dict[str, Tensor]:
        """Of the encoder that a hypothesizer carries, if it is the embedder: beside an API's vectors it is unused."""
        if self.config.get("embedder_model_api"):
            return {}
        start = "embedder."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}

    def network(self) -> EncoderDecoderNetwork:
        start = "encoder_decoder."
        t5 = {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}
        rest = {name: t for name, t in self.tensors.items() if not name.startswith((start, "embedder."))}
        projectors = _projectors(_modern(rest, is_corrector(self.folder)))
        return network(
            t5,
            projectors,
            self.folder,
            layer_norm="norm.weight" in projectors,
            masked_start=True,
            feedback=not self.config.get("corrector_ignore_hypothesis_embedding"),
        )


def load_pair(hypothesizer: Path, corrector: Path | None, device: torch.device, dtype: torch.dtype | None) -> T5Pair:
    """The networks of one or two folders, with tokenizer and the spec of their embedder. Raises CheckpointError."""
    first, second = Checkpoint(hypothesizer), corrector and Checkpoint(corrector)
    place: dict[str, Any] = {"device": device, "dtype": dtype or torch.float32}
    return T5Pair(
        first.network().to(**place),
        second.network().to(**place) if second else None,
        first.tokenizer(),
        first.spec,
        max_tokens=LONGEST,
        hypothesis_tokens=(second or first).length,
        embedder=f"checkpoint:{hypothesizer}" if first.embedder_tensors() else None,
    )


def load_network(folder: Path) -> EncoderDecoderNetwork:
    """The network alone, on the CPU."""
    return Checkpoint(folder).network()


def save(
    net: EncoderDecoderNetwork,
    folder: Path,
    *,
    backbone: str,
    tokenizer: PreTrainedTokenizerBase,
    spec: EmbedderSpec,
    max_tokens: int,
) -> None:
    """Write a hypothesizer's or a corrector's folder. backbone: the T5 by its name on the hub. max_tokens: of the texts
    it was trained on, `</s>` included."""
    corrector = net.config.corrector
    names = {ours: theirs for theirs, ours in PROJECTORS.items() if corrector or theirs == "embedding_transform."}
    if corrector:
        names["target."] = "embedding_transform_1."
    known = {recipe["id"]: name for name, recipe in RECIPES.items()}
    api = spec.id.removeprefix("openai:") if spec.id.startswith("openai:") else None
    config = {
        "architectures": [CORRECTOR if corrector else HYPOTHESIZER],
        "model_name_or_path": backbone,
        "embedder_model_name": "gtr_base" if api else known.get(spec.id, spec.id),
        "embedder_model_api": api,
        "max_seq_length": max_tokens,
        "num_repeat_tokens": net.config.tokens,
        "corrector_ignore_hypothesis_embedding": not net.config.feedback,
        "use_frozen_embeddings_as_input": True,
        "embedder_torch_dtype": "float32",
        "embedding_transform_strategy": "repeat",
        "embedder_no_grad": True,
        "embedder_fake_with_zeros": False,
        "embeddings_from_layer_n": None,
        "encoder_dropout_disabled": False,
        "decoder_dropout_disabled": False,
        "use_lora": False,
    }
    write(folder, stored(net, names, "encoder_decoder."), config, tokenizer, spec)


def _modern(tensors: dict[str, Tensor], corrects: bool) -> dict[str, Tensor]:
    """The three older ways of naming, brought to today's: the second linear layer as number 2 (before there was a
    dropout between), one projector for all three vectors of a corrector, and no layer norm."""
    out = {}
    for name, tensor in tensors.items():
        base, _, rest = name.partition(".")
        number, _, kind = rest.partition(".")
        if base.startswith("embedding_transform") and number == "2":
            name = f"{base}.3.{kind}"
        if corrects and base == "embedding_transform":
            for vector in (1, 2, 3):
                out[f"embedding_transform_{vector}.{name.partition('.')[2]}"] = tensor
        else:
            out[name] = tensor
    return out


def _projectors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in tensors.items():
        start = next((start for start in PROJECTORS if name.startswith(start)), "")
        out[PROJECTORS.get(start, "") + name.removeprefix(start)] = tensor
    return out
