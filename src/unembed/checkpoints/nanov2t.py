"""nanoV2T's format: `T5Generator` folders, stage 1 (hypothesizer) and stage 2 (corrector), read without nanoV2T.

Its embedder is Sentence-Transformers' GTR with Dense and Normalize, not the raw one of vec2text's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unembed import layouts
from unembed.checkpoints.placement import Placement
from unembed.checkpoints.t5 import HEAD, T5Pair, network, spec_of, tokenizer
from unembed.checkpoints.tensors import Weights, architecture, read_config, read_tensors, shape
from unembed.checkpoints.writing import SHARD_SIZE, state, write
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError
from unembed.models.encoder_decoder import EncoderDecoderNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARCHITECTURE = "T5Generator"
LENGTH = 32
"""Content tokens that its models are trained on; texts are written with two more places, hypotheses read with one."""
SIZES = (
    "d_ff", "d_kv", "d_model", "dropout_rate", "feed_forward_proj", "initializer_factor", "is_gated_act",
    "dense_act_fn", "layer_norm_epsilon", "num_decoder_layers", "num_heads", "num_layers",
    "relative_attention_max_distance", "relative_attention_num_buckets", "vocab_size", "classifier_dropout",
)  # fmt: skip
"""Fields of the T5's own config."""


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    return architecture(folder) == ARCHITECTURE


def is_corrector(folder: Path) -> bool:
    return bool(read_config(folder).get("project_draft_embedding"))


class Checkpoint:
    """One folder. Its files are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_config(self.folder)

    @cached_property
    def tensors(self) -> Weights:
        """In our names."""
        found = read_tensors(self.folder)
        return found.renamed(layouts.from_nanov2t(found))

    @property
    def length(self) -> int:
        """Content tokens of the texts that it was trained on."""
        return int(self.config.get("max_seq_length") or LENGTH)

    @property
    def backbone(self) -> str:
        """The T5 that nanoV2T starts from, the only one."""
        return "google-t5/t5-base"

    @cached_property
    def spec(self) -> EmbedderSpec:
        """The embedder that it inverts."""
        return _spec(self.config, shape(self.tensors, "target.0.weight", self.folder)[1], self.folder)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizer(self.folder, self.backbone)

    def embedder_tensors(self) -> dict[str, Tensor]:
        """None: nanoV2T's files hold no embedder."""
        return {}

    def network(self, place: Placement) -> EncoderDecoderNetwork:
        layer_norm = "norm.weight" in self.tensors.entries
        return network(self.tensors, self.folder, place, layer_norm=layer_norm, masked_start=False)


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
        max_tokens=(second or first).length + 2,
        hypothesis_tokens=(second or first).length + 1,
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
    """Write stage 1 (a hypothesizer) or stage 2 (a corrector) for nanoV2T.

    Args:
        net: wired as nanoV2T wires it: a projector as wide as the T5, and in a corrector no masked start token.
        folder: to be made; an older model there is replaced as a whole.
        backbone, embedder_tensors: not in this format; taken so that both formats are written by one call.
        tokenizer: of the T5.
        spec: the embedder that is inverted. What its name does not say is written beside it as `embedder_spec`, which
            only unembed reads.
        max_tokens: longest text in content tokens.
        card: README.md.
        shard_size: largest file of weights, such as "5GB".

    Raises:
        CheckpointError: a network that nanoV2T would not wire so. StorageError: a full disk; nothing is left of it.
    """
    config, t5 = net.config, net.t5.config
    if config.hidden != t5.d_model:
        raise CheckpointError(
            f"nanoV2T's projectors are as wide as the T5 ({t5.d_model}), and this one is {config.hidden} wide: write "
            "it as vec2text"
        )
    if config.corrector and config.masked_start:
        raise CheckpointError(
            "nanoV2T's correctors read a hypothesis without a masked token in front, and this one was trained with it: "
            "write it as vec2text"
        )
    if not config.feedback:
        raise CheckpointError(
            "nanoV2T's correctors read the hypothesis' vector, and this one was trained without: write it as vec2text"
        )
    tensors = state(net, layouts.to_nanov2t())
    fields = {
        "architectures": [ARCHITECTURE],
        "model_type": "t5",
        "is_encoder_decoder": True,
        **{name: getattr(t5, name) for name in SIZES},
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_cache": True,
        "torch_dtype": str(net.t5.dtype).removeprefix("torch."),
        "projector_type": "mlp2x_gelu",
        "expanding_factor": config.tokens,
        "embedder_hidden_size": config.embedding_dim,
        "embedder_name_or_path": spec.id,
        "project_draft_embedding": True if config.corrector else None,
        "layer_norm_after_projection": config.layer_norm,
    }
    if HEAD in tensors:  # T5 1.1
        fields["tie_word_embeddings"] = False
    if max_tokens != LENGTH:  # in nanoV2T this is an argument of the run
        fields["max_seq_length"] = max_tokens
    if _spec(fields, spec.dim, Path(folder)) != spec:
        fields["embedder_spec"] = spec.to_dict()
    write(folder, tensors, fields, tokenizer, card, shard_size)


def _spec(config: Mapping[str, Any], dim: int, folder: Path) -> EmbedderSpec:
    name = config.get("embedder_name_or_path")
    if not name:
        raise CheckpointError(f"{folder}/config.json names no embedder (embedder_name_or_path): copy it again")
    return spec_of(config, folder, EmbedderSpec(str(name), dim, cased=True))
