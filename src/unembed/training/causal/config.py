"""A training run of the causal-LM family as data: every field is a key of the YAML recipe and a flag of `unembed train
--family causal`."""

from __future__ import annotations

from dataclasses import dataclass

from unembed.errors import InputError
from unembed.training.run_config import StagedConfig


@dataclass
class CausalSizes:
    """A GPT-2 from scratch, for runs without a pretrained language model."""

    n_embd: int = 384
    """Width."""
    n_layer: int = 4
    """Layers."""
    n_head: int = 6
    """Attention heads of a layer."""
    n_positions: int = 256
    """Longest input: the vector's positions, for a corrector a hypothesis, and the text."""
    dropout: float = 0.0
    """Of embeddings, attention and residuals."""
    vocab_size: int = 4096
    """At most; of the tokenizer that is trained on the texts where `tokenizer` names none."""


@dataclass
class CausalTrainConfig(StagedConfig):
    """One stage of a causal language model; see StagedConfig.

    A corrector goes on from its hypothesizer, whose sizes, tokenizer and wiring it has, and the network that it becomes
    does both."""

    family: str = "causal"
    """causal."""
    backbone: str = "gpt2"
    """A pretrained causal language model (hub id or folder)."""
    scratch: CausalSizes | None = None
    """A GPT-2 of these sizes with random weights, instead of the backbone's."""
    tokenizer: str | None = None
    """A tokenizer (hub id or folder); by default the backbone's, or from scratch one trained on the texts."""
    end_token: str | None = None
    """The token that ends a text, where the tokenizer names none (eos_token), or another one is wanted."""
    prefix_tokens: int = 0
    """Positions of each vector, by a learned projection; 0: one, the vector padded with zeros to the model's width."""
    max_characters: int | None = None
    """Leave out texts of more characters."""
    prior_share: float = 0.0
    """Share of the examples without their vector: they teach the prior log p(text), which a search weighs."""
    samples: int = 5
    """Held-out texts that are inverted and shown at each evaluation."""
    learning_rate: float = 5e-5
    lr_scheduler: str = "linear"
    warmup_steps: float = 0.03
    epochs: float = 3
    batch_size: int = 32
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family != "causal":
            raise InputError(f"family '{self.family}' is another one: this recipe is for causal")
        if self.corrects and not self.hypothesizer:
            raise InputError("a corrector goes on from its hypothesizer: give its folder, beside hypotheses as well")
        for name in ("prefix_tokens", "samples"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        if self.max_characters is not None and self.max_characters < 1:
            raise InputError(f"max_characters is {self.max_characters}: it must be 1 or more")
        if not 0 <= self.prior_share < 1:
            raise InputError(f"prior_share is {self.prior_share}: it must be at least 0 and below 1")

    @property
    def label_tokens(self) -> int:
        return self.max_seq_length + 1
