"""A training run of the encoder-decoder family as data: every field is a key of the YAML recipe and a flag of
`unembed train --family vec2text|nanov2t`. The defaults are those of vec2text's published command lines."""

from __future__ import annotations

from dataclasses import dataclass

from unembed.errors import InputError
from unembed.training.run_config import RunConfig

FAMILIES, STAGES = ("vec2text", "nanov2t"), ("inversion", "corrector")


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
class T5TrainConfig(RunConfig):
    """One stage of a pair; see RunConfig."""

    family: str = "vec2text"
    """vec2text or nanov2t: how vectors become encoder inputs, and in whose format the model is written."""
    stage: str = "inversion"
    """inversion (vector → text) or corrector (vector, hypothesis, its vector → text)."""
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
    noise: float = 0.0
    """Standard deviation of Gaussian noise on each number of the targets: the attacker who knows such a defence."""
    hypothesizer: str | None = None
    """Corrector: the model that writes the first hypotheses, by folder, run or hub id."""
    hypotheses: str | None = None
    """Corrector: a folder of `unembed hypothesize` for `vectors`. If it is not there it is made; by default
    OUTPUT/hypotheses."""
    ignore_hypothesis_embedding: bool = False
    """Corrector without feedback (an ablation): it sees the target's vector in place of the hypothesis'."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("family", FAMILIES), ("stage", STAGES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} '{getattr(self, name)}' is unknown: choose {', '.join(known)}")
        if self.num_repeat_tokens < 1:
            raise InputError(f"num_repeat_tokens is {self.num_repeat_tokens}: it must be 1 or more")
        self._check_stage()

    def _check_stage(self) -> None:
        if self.corrects and not self.hypothesizer and not self.hypotheses:
            raise InputError("stage corrector needs the hypothesizer that it is to correct: give its folder")
        if self.corrects and not self.precompute and (self.hypotheses or not self.hypothesizer):
            raise InputError("hypotheses are precomputed: give a hypothesizer instead, or leave precompute on")
        if not self.corrects and (self.hypothesizer or self.hypotheses or self.ignore_hypothesis_embedding):
            raise InputError("hypothesizer, hypotheses and ignore_hypothesis_embedding belong to stage corrector")
        if self.ignore_hypothesis_embedding and self.family != "vec2text":
            raise InputError("ignore_hypothesis_embedding is vec2text's: nanoV2T's format has no place for it")
        if self.noise < 0 or (self.noise and self.corrects and self.precompute):
            raise InputError(
                "noise must be 0 or more, and its hypotheses are written anew each time: for a corrector set "
                "precompute: false"
            )

    @property
    def corrects(self) -> bool:
        return self.stage == "corrector"

    @property
    def label_tokens(self) -> int:
        return self.max_seq_length + (self.family == "nanov2t")

    @property
    def model_name(self) -> str:
        alone = super().model_name
        return f"{self.hypothesizer or 'HYPOTHESIZER'}+{alone}" if self.corrects else alone
