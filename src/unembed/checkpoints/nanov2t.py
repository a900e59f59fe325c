"""nanoV2T's format: `T5Generator` folders, stage 1 (hypothesizer) and stage 2 (corrector), read without nanoV2T.

Its embedder is Sentence-Transformers' GTR with Dense and Normalize, not the raw one of vec2text's checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unembed.checkpoints.t5 import T5Pair, network, read_spec, stored, tokenizer, write
from unembed.checkpoints.tensors import architecture, read_config, read_tensors
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError
from unembed.models.encoder_decoder import EncoderDecoderNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARCHITECTURE = "T5Generator"
LENGTH = 32
"""Content tokens that its models are trained on; texts are written with two more places, hypotheses read with one."""
T5_FIELDS = (
    "d_ff", "d_kv", "d_model", "decoder_start_token_id", "dense_act_fn", "dropout_rate", "eos_token_id",
    "feed_forward_proj", "initializer_factor", "is_encoder_decoder", "is_gated_act", "layer_norm_epsilon",
    "num_decoder_layers", "num_heads", "num_layers", "pad_token_id", "relative_attention_max_distance",
    "relative_attention_num_buckets", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
PROJECTORS = {
    "target_projector.projector.": "target.",
    "draft_projector.projector.": "hypothesis.",
    "diff_projector.projector.": "difference.",
    "proj_ln.": "norm.",
}
"""Its names of the projectors → ours."""


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    return architecture(folder) == ARCHITECTURE


def is_corrector(folder: Path) -> bool:
    return bool(read_config(folder).get("project_draft_embedding"))


def load_pair(hypothesizer: Path, corrector: Path | None, device: torch.device, dtype: torch.dtype | None) -> T5Pair:
    """The networks of one or two folders, with tokenizer and the spec of their embedder. Raises CheckpointError."""
    config = read_config(hypothesizer)
    first = load_network(hypothesizer)
    second = None if corrector is None else load_network(corrector)
    place: dict[str, Any] = {"device": device, "dtype": dtype or torch.float32}
    name, spec = config.get("embedder_name_or_path"), read_spec(hypothesizer)
    length = int(config.get("max_seq_length") or LENGTH)
    if not name:
        raise CheckpointError(f"{hypothesizer}/config.json names no embedder (embedder_name_or_path): copy it again")
    return T5Pair(
        first.to(**place),
        second.to(**place) if second else None,
        tokenizer(hypothesizer, "google-t5/t5-base"),
        spec or EmbedderSpec(str(name), first.config.embedding_dim, cased=True),
        max_tokens=length + 2,
        hypothesis_tokens=length + 1,
    )


def save(
    net: EncoderDecoderNetwork,
    folder: Path,
    *,
    backbone: str,
    tokenizer: PreTrainedTokenizerBase,
    spec: EmbedderSpec,
    max_tokens: int,
) -> None:
    """Write a stage's folder. max_tokens: of the texts it was trained on, `</s>` not included. nanoV2T builds its T5
    from config.json, so `backbone` is only noted."""
    made = net.t5.config.to_dict()
    config = {key: made[key] for key in T5_FIELDS if made.get(key) is not None} | {
        "model_type": "t5",
        "architectures": [ARCHITECTURE],
        "_name_or_path": backbone,
        "projector_type": "mlp2x_gelu",
        "embedder_hidden_size": net.config.embedding_dim,
        "embedder_name_or_path": spec.id,
        "expanding_factor": net.config.tokens,
        "project_draft_embedding": net.config.corrector or None,
        "layer_norm_after_projection": net.config.layer_norm,
        "max_seq_length": max_tokens,
    }
    names = {ours: theirs for theirs, ours in PROJECTORS.items()}
    write(folder, stored(net, names, ""), config, tokenizer, spec)


def load_network(folder: Path) -> EncoderDecoderNetwork:
    """The network alone, on the CPU."""
    t5, projectors = {}, {}
    for name, tensor in read_tensors(folder).items():
        name = name.removeprefix("_orig_mod.")  # of a compiled module, in mid-training files
        start = next((start for start in PROJECTORS if name.startswith(start)), None)
        if start is None:
            t5[name] = tensor
        else:
            projectors[PROJECTORS[start] + name.removeprefix(start)] = tensor
    return network(t5, projectors, folder, layer_norm="norm.weight" in projectors, masked_start=False)
