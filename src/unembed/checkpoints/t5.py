"""What the two T5 formats share: a T5 built from its tensors alone, its tokenizer, and networks from key maps.

Sizes are read from the tensors, not from a second checkpoint: config.json of a vec2text model names its backbone but
holds none of its sizes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unembed.checkpoints.placement import Placement
from unembed.checkpoints.tensors import Weights, fill, shape
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError, first_line
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork, ProjectionConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5Config, T5EncoderModel


@dataclass(frozen=True)
class T5Pair:
    """A hypothesizer, perhaps its corrector, and what both need."""

    hypothesizer: EncoderDecoderNetwork
    corrector: EncoderDecoderNetwork | None
    tokenizer: PreTrainedTokenizerBase
    spec: EmbedderSpec
    max_tokens: int
    hypothesis_tokens: int
    embedder: str | None = None
    """By which name the embedder is to be opened, where that is not the spec's id."""

    def model(self) -> EncoderDecoderModel:
        model = EncoderDecoderModel(
            self.hypothesizer, self.corrector, self.tokenizer, self.spec, max_tokens=self.max_tokens,
            hypothesis_tokens=self.hypothesis_tokens,
        )  # fmt: skip
        model.embedder = self.embedder
        return model


TABLE = "shared.weight"
HEAD = "lm_head.weight"
TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", HEAD)
"""Copies of the table in T5 1.0 (in 1.1 the head is its own): .bin files hold them, safetensors files do not."""


def t5_config(tensors: Weights, folder: Path) -> T5Config:
    """The config of a T5 from its state dict's shapes."""
    from transformers import T5Config

    bias = shape(tensors, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", folder)
    vocab, width = shape(tensors, TABLE, folder)
    inner = shape(tensors, "encoder.block.0.layer.0.SelfAttention.q.weight", folder)[0]
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in tensors.entries
    feed = "wi_0" if gated else "wi"
    layers = {
        side: len({match[1] for name in tensors if (match := re.match(rf"{side}\.block\.(\d+)\.", name))})
        for side in ("encoder", "decoder")
    }
    tied = HEAD not in tensors.entries or torch.equal(tensors[HEAD], tensors[TABLE])
    return T5Config(
        vocab_size=vocab, d_model=width, d_kv=inner // bias[1], num_heads=bias[1],
        d_ff=shape(tensors, f"encoder.block.0.layer.1.DenseReluDense.{feed}.weight", folder)[0],
        num_layers=layers["encoder"], num_decoder_layers=layers["decoder"], relative_attention_num_buckets=bias[0],
        feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=tied,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip


def encoder(tensors: Weights, folder: Path, device: torch.device, dtype: torch.dtype) -> T5EncoderModel:
    """A T5 encoder alone, of tensors named as in its stack (embed_tokens, block.0…, final_layer_norm)."""
    from transformers import T5EncoderModel

    names = {f"encoder.{name}": name for name in tensors if name != "embed_tokens.weight"}
    full = tensors.renamed(names | ({TABLE: "embed_tokens.weight"} if "embed_tokens.weight" in tensors.entries else {}))
    with torch.device("meta"):
        made = T5EncoderModel(t5_config(full, folder))
    fill(made, full, folder, {TIED[0]: TABLE}, lambda name: device, dtype)
    return made.eval()


def network(
    tensors: Weights, folder: Path, place: Placement, *, layer_norm: bool, masked_start: bool, feedback: bool = True
) -> EncoderDecoderNetwork:
    """A network of its tensors, named as in ours: t5.*, target.{0,3}.*, and for a corrector hypothesis.*, difference.*
    and, with `layer_norm`, norm.*. For inference, in the precision and on the devices of `place`."""
    from transformers import T5ForConditionalGeneration

    own = tensors.part("t5.")
    config = t5_config(own, folder)
    hidden, dim = shape(tensors, "target.0.weight", folder)
    tokens, rest = divmod(shape(tensors, "target.3.weight", folder)[0], config.d_model)
    if rest:
        raise CheckpointError(f"{folder}: the projector's output is no multiple of the T5's width {config.d_model}")
    projection = ProjectionConfig(
        dim, tokens, hidden, corrector="difference.0.weight" in tensors.entries, layer_norm=layer_norm,
        masked_start=masked_start, feedback=feedback,
    )  # fmt: skip
    with torch.device("meta"):
        net = EncoderDecoderNetwork(T5ForConditionalGeneration(config), projection)
    # A head that is there and is not the table belongs to a T5 1.1. transformers' tie_weights would overwrite it.
    own_head = HEAD in own.entries and not torch.equal(own[HEAD], own[TABLE])
    tied = {f"t5.{name}": f"t5.{TABLE}" for name in TIED if not (own_head and name == HEAD)}
    plan = place.plan(net.t5)
    fill(net, tensors, folder, tied, plan.device_of, place.dtype)
    plan.dispatch(net.t5, own, folder)
    return net.eval()


def spec_of(config: Mapping[str, Any], folder: Path, named: EmbedderSpec) -> EmbedderSpec:
    """The spec written beside a model (`embedder_spec`, of unembed's own), or what its embedder's name says."""
    written = config.get("embedder_spec")
    spec = named if written is None else EmbedderSpec.from_dict(written)
    if spec.dim != named.dim:
        raise CheckpointError(
            f"{folder}/config.json speaks of vectors of {spec.dim} numbers, its tensors of {named.dim}"
        )
    return spec


def tokenizer(folder: Path, backbone: str) -> PreTrainedTokenizerBase:
    """The T5 tokenizer: in the model's folder, in a folder named like its backbone beside it, or by the backbone's
    name from the hub's cache or the hub. Raises CheckpointError with what to do when it is nowhere."""
    from transformers import AutoTokenizer

    places = [folder, folder.parent / backbone, folder.parent.parent / backbone]
    for place in places:
        if (place / "tokenizer.json").is_file() or (place / "spiece.model").is_file():
            return AutoTokenizer.from_pretrained(place)
    try:
        return AutoTokenizer.from_pretrained(backbone)
    except Exception as error:  # offline, absent: the library has a class for each
        raise CheckpointError(
            f"{folder} has no tokenizer, and that of {backbone} cannot be fetched ({first_line(error)}): copy "
            f"{backbone}'s tokenizer.json into the folder"
        ) from error
