"""A training run of the encoder-decoder family as data: every field is a key of the YAML recipe and a flag of
`unembed train --family vec2text|nanov2t`. The defaults are those of vec2text's published command lines."""

from __future__ import annotations

from dataclasses import dataclass

from unembed.errors import InputError
from unembed.training.run_config import StagedConfig

FAMILIES = ("vec2text", "nanov2t")


@dataclass
class T5Sizes:
    """A T5 from scratch, for runs without a pretrained one."""

    d_model: int = 128
    """Width."""
    d_ff: int = 512
    """Hidden width of the feed-forward layers."""
    d_kv: int = 32
    """Width of a head."""
    num_heads: int = 4
    """Attention heads of a layer."""
    num_layers: int = 2
    """Of the encoder, and of the decoder."""
    dropout_rate: float = 0.1
    """Also of the projectors."""
    vocab_size: int = 4096
    """At most; of the tokenizer that is trained on the texts where `tokenizer` names none."""


@dataclass
class T5TrainConfig(StagedConfig):
    """One stage of a pair; see RunConfig."""

    export: str | None = None
    """Train nothing: write the rows and the network before its first step into this folder, for a framework other than
    torch (docs/mindspore.md)."""
    family: str = "vec2text"
    """vec2text or nanov2t: how vectors become encoder inputs, and in whose format the model is written."""
    backbone: str = "t5-base"
    """A pretrained T5 (hub id or folder), of any size."""
    scratch: T5Sizes | None = None
    """A T5 of these sizes with random weights, instead of the backbone's."""
    tokenizer: str | None = None
    """A T5 tokenizer (hub id or folder); by default the backbone's, or for a T5 from scratch one trained on the
    texts."""
    num_repeat_tokens: int = 16
    """Soft tokens of each vector."""
    encoder_dropout_disabled: bool = False
    """No dropout in the T5's encoder."""
    decoder_dropout_disabled: bool = False
    """No dropout in its decoder."""
    layer_norm: bool = True
    """Normalise the corrector's whole input (nanoV2T's layer_norm_after_projection; vec2text always does)."""
    ignore_hypothesis_embedding: bool = False
    """Corrector without feedback (an ablation): it sees the target's vector in place of the hypothesis'."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family not in FAMILIES:
            raise InputError(f"family '{self.family}' is unknown: choose {', '.join(FAMILIES)}")
        if self.export and not self.precompute:
            raise InputError("what is exported is precomputed: leave precompute on")
        if self.num_repeat_tokens < 1:
            raise InputError(f"num_repeat_tokens is {self.num_repeat_tokens}: it must be 1 or more")
        if self.ignore_hypothesis_embedding and not self.corrects:
            raise InputError("ignore_hypothesis_embedding belongs to stage corrector")
        if self.ignore_hypothesis_embedding and self.family != "vec2text":
            raise InputError("ignore_hypothesis_embedding is vec2text's: nanoV2T's format has no place for it")

    @property
    def label_tokens(self) -> int:
        return self.max_seq_length + (self.family == "nanov2t")

    @property
    def model_name(self) -> str:
        alone = super().model_name
        return f"{self.hypothesizer or 'HYPOTHESIZER'}+{alone}" if self.corrects else alone
