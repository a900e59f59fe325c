"""vec2text's format (Morris et al., EMNLP 2023): `InversionModel` and `CorrectorEncoderModel` folders, read without
vec2text.

config.json there is the union of all arguments of a training run; what only describes its author's machine is neither
looked at nor written. The embedder's recipe follows from `embedder_model_name`: "gtr_base" there is the mean-pooled
encoder without the Dense and Normalize layers of Sentence-Transformers, and its inputs are cut to `max_seq_length`
tokens.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unembed import layouts
from unembed.checkpoints.placement import Placement
from unembed.checkpoints.t5 import T5Pair, network, spec_of, tokenizer
from unembed.checkpoints.tensors import Weights, architecture, read_config, read_tensors
from unembed.checkpoints.writing import SHARD_SIZE, state, write
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError
from unembed.models.encoder_decoder import EncoderDecoderNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
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
    def tensors(self) -> Weights:
        return read_tensors(self.folder)

    @property
    def length(self) -> int:
        """Tokens of the texts that it was trained on."""
        return int(self.config.get("max_seq_length") or LONGEST)

    @property
    def backbone(self) -> str:
        """The T5 that it was made from."""
        return str(self.config.get("model_name_or_path") or "t5-base")

    @cached_property
    def spec(self) -> EmbedderSpec:
        """The embedder that it inverts."""
        names = (name for name in self.tensors if re.match(r"embedding_transform(_1)?\.0\.weight", name))
        first = next(names, None)
        if first is None:
            raise CheckpointError(f"{self.folder} lacks the tensor embedding_transform.0.weight: copy the model again")
        return _spec(self.config, self.tensors.entries[first].shape[1], self.folder)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizer(self.folder, self.backbone)

    def embedder_tensors(self) -> Weights:
        """Of the embedder that a hypothesizer carries."""
        return self.tensors.part("embedder.")

    @property
    def brings_embedder(self) -> bool:
        """Whether the embedder can be run as it is carried: a raw T5 encoder. Beside an API's vectors the encoder is
        another one; other embedders are opened by name."""
        return self.spec.id.endswith("#raw") and "embedder.final_layer_norm.weight" in self.tensors.entries

    def network(self, place: Placement) -> EncoderDecoderNetwork:
        names = layouts.from_vec2text(self.tensors, is_corrector(self.folder))
        ours = self.tensors.renamed(names)
        return network(
            ours, self.folder, place, layer_norm="norm.weight" in names, masked_start=True,
            feedback=not self.config.get("corrector_ignore_hypothesis_embedding"),
        )  # fmt: skip


def load_pair(
    hypothesizer: Path, corrector: Path | None, device: torch.device, dtype: torch.dtype | None, **spread: Any
) -> T5Pair:
    """The networks of one or two folders, with tokenizer and the spec of their embedder. `spread`: the `device_map` and
    `max_memory` of `Placement`. Raises CheckpointError."""
    first, second = Checkpoint(hypothesizer), corrector and Checkpoint(corrector)
    place = Placement(device, dtype or torch.float32, **spread)
    return T5Pair(
        first.network(place),
        second.network(place) if second else None,
        first.tokenizer(),
        first.spec,
        max_tokens=LONGEST,
        hypothesis_tokens=(second or first).length,
        embedder=f"checkpoint:{hypothesizer}" if first.brings_embedder else None,
    )


def save(
    net: EncoderDecoderNetwork,
    folder: str | Path,
    *,
    backbone: str,
    tokenizer: PreTrainedTokenizerBase,
    spec: EmbedderSpec,
    max_tokens: int,
    embedder_tensors: Mapping[str, Tensor] | None = None,
    card: str = "",
    shard_size: str | int = SHARD_SIZE,
) -> None:
    """Write a hypothesizer or a corrector for vec2text.

    Args:
        net: wired as vec2text wires it: a projector as wide as the vector, and in a corrector the layer norm and the
            masked start token.
        folder: to be made; an older model there is replaced as a whole.
        backbone: name of the T5 that vec2text is to build before it reads the tensors, such as t5-base.
        tokenizer: of that T5.
        spec: the embedder that is inverted. What vec2text's names for embedders do not say of it is written beside them
            as `embedder_spec`, which only unembed reads.
        max_tokens: longest text in tokens, </s> included (`max_seq_length`).
        embedder_tensors: of the embedder, by their names in it (for GTR those of the T5's encoder). vec2text keeps them
            in a hypothesizer's file; where they are missing it embeds with uninitialised numbers, and says nothing.
            unembed can do without.
        card: README.md.
        shard_size: largest file of weights, such as "5GB".

    Raises:
        CheckpointError: a network that vec2text would not wire so. StorageError: a full disk; nothing is left of it.
    """
    config = net.config
    if config.hidden != config.embedding_dim:
        raise CheckpointError(
            f"vec2text's projectors are as wide as the vector ({config.embedding_dim}), and this one is "
            f"{config.hidden} wide: write it as nanov2t"
        )
    if config.corrector and not (config.masked_start and config.layer_norm):
        raise CheckpointError(
            "vec2text's correctors normalise their input and begin a hypothesis with a masked token, and this one was "
            "trained otherwise: write it as nanov2t"
        )
    tensors = state(net, layouts.to_vec2text(config.corrector))
    if not config.corrector:
        if not embedder_tensors:
            log.warning("%s holds no embedder: unembed opens %s by name, vec2text cannot use it", folder, spec.id)
        tensors |= {f"embedder.{name}": tensor.detach().cpu() for name, tensor in (embedder_tensors or {}).items()}
    fields = _config(net, backbone, spec, max_tokens)
    if _spec(fields, spec.dim, Path(folder)) != spec:
        fields["embedder_spec"] = spec.to_dict()
    write(folder, tensors, fields, tokenizer, card, shard_size)


def _config(net: EncoderDecoderNetwork, backbone: str, spec: EmbedderSpec, max_tokens: int) -> dict[str, Any]:
    """What vec2text's models are built from; of the run that made them, nothing."""
    known = next((name for name, recipe in RECIPES.items() if recipe["id"] == spec.id), spec.id)
    api = known.removeprefix("openai:") if spec.id.startswith("openai:") else None
    return {
        "architectures": [CORRECTOR if net.config.corrector else HYPOTHESIZER],
        "model_name_or_path": backbone,
        "embedder_model_name": "gtr_base" if api else known,
        "embedder_model_api": api,
        "max_seq_length": max_tokens,
        "num_repeat_tokens": net.config.tokens,
        "embedding_transform_strategy": "repeat",
        "use_frozen_embeddings_as_input": True,
        "embedder_no_grad": True,
        "embedder_fake_with_zeros": False,
        "embedder_torch_dtype": "float32",
        "embedder_gaussian_noise_level": 0.0,
        "embedding_zero_except_topk": None,
        "embeddings_from_layer_n": None,
        "corrector_ignore_hypothesis_embedding": not net.config.feedback,
        "encoder_dropout_disabled": False,
        "decoder_dropout_disabled": False,
        "use_lora": False,
    }


def _spec(config: Mapping[str, Any], dim: int, folder: Path) -> EmbedderSpec:
    name = config.get("embedder_model_api") or config.get("embedder_model_name")
    if not name:
        raise CheckpointError(f"{folder}/config.json names no embedder (embedder_model_name): copy it again")
    length = int(config.get("max_seq_length") or LONGEST)
    recipe = RECIPES.get(str(name), {"id": str(name)})
    return spec_of(config, folder, EmbedderSpec(**{"dim": dim, "max_tokens": length, "cased": True, **recipe}))
