"""A training run of the DAVAE family as data: every field is a key of the YAML recipe and a flag of
`unembed train --family davae`. The public model's own recipe was never published: its model card names the parts
(trapezoid, free bits, noise on the embeddings, adversarial latent), the numbers here are ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from unembed.errors import InputError
from unembed.models.davae.losses import FREE_BITS_MODES
from unembed.training.run_config import RunConfig

STAGES, SCHEDULES = ("vae", "inversion"), ("trapezoid", "cyclic", "constant")


@dataclass
class DAVAESizes:
    """A network from scratch."""

    latent_size: int = 32
    """Numbers of the latent."""
    hidden_size: int = 256
    """Width of the decoder."""
    num_layers: int = 4
    """Of the decoder."""
    num_attention_heads: int = 4
    """Of a layer of the decoder."""
    vocab_size: int = 8000
    """Pieces of the decoder's vocabulary, which is trained on the texts."""
    encoder_hidden_size: int = 256
    """Width of the BERT; not used where a pretrained one is."""
    encoder_num_layers: int = 4
    """Of the BERT."""
    encoder_num_attention_heads: int = 4
    """Of a layer of the BERT."""
    encoder_vocab_size: int = 8000
    """Words of the BERT's vocabulary, which is trained on the texts."""
    dropout: float = 0.1
    """Of both."""


@dataclass
class BetaConfig:
    """The weight of the KL over a run. What is left of a cycle after `zero` and `ramp` is spent at `peak`."""

    schedule: str = "trapezoid"
    """trapezoid (one cycle), cyclic (several; Fu et al., NAACL 2019) or constant (at peak from the start)."""
    peak: float = 1.0
    """The highest; 1 is the evidence lower bound."""
    zero: float = 0.25
    """Share of a cycle at 0: the decoder learns to use the latent while that costs nothing."""
    ramp: float = 0.5
    """Share of a cycle over which it rises linearly."""
    cycles: int = 4
    """Of a cyclic schedule."""

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"beta.schedule '{self.schedule}' is unknown: choose {', '.join(SCHEDULES)}")
        if self.peak < 0 or self.cycles < 1 or min(self.zero, self.ramp) < 0 or self.zero + self.ramp > 1:
            raise InputError(
                "beta.peak must be 0 or more, cycles 1 or more, zero and ramp shares of a cycle, 1 together at most"
            )

    def at(self, progress: float) -> float:
        """The weight when this share of the run, 0 to 1, is done."""
        if self.schedule == "constant" or progress >= 1:
            return self.peak
        place = progress if self.schedule == "trapezoid" else progress * self.cycles % 1
        if place < self.zero:
            return 0.0
        return self.peak * min(1.0, (place - self.zero) / self.ramp) if self.ramp else self.peak


@dataclass
class DAVAETrainConfig(RunConfig):
    """One stage; see RunConfig. Stage vae learns texts alone: embedder, vectors and precompute are the inversion's."""

    family: str = "davae"
    """davae."""
    stage: str = "vae"
    """vae (text → latent → text) or inversion (an embedder's vector → the latent of a trained auto-encoder)."""
    vae: str | None = None
    """The auto-encoder by folder, run or hub id: what stage inversion is fitted to, or where stage vae begins."""
    encoder: str | None = None
    """Stage vae: a pretrained BERT (hub id or folder) as the encoder, such as bert-base-chinese."""
    sizes: DAVAESizes = field(default_factory=DAVAESizes)
    """Sizes of what is new."""
    beta: BetaConfig = field(default_factory=BetaConfig)
    """Weight of the KL."""
    free_bits_mode: int = 1
    """0: none. 1: a dimension's KL counts only above `free_bits`. 2: the posterior's deviation is held at 1."""
    free_bits: float = 0.1
    """Nats of a dimension in mode 1 (`dim_target_kl` of the format)."""
    adversarial: float = 0.1
    """Weight of the adversarial losses, which make all latents together look like N(0, 1); 0 leaves them out."""
    embedding_noise: float = 0.05
    """Standard deviation of Gaussian noise on the encoder's input embeddings."""
    length_weighted: bool = False
    """Each text's reconstruction counts as the mean over its tokens, not as their sum."""
    learn_end: bool = True
    """The end of text is learned like any token. In the public recipe it is not."""
    map_hidden: int = 1024
    """Width of the hidden layer between vector and latent."""
    latent_weight: float = 1.0
    """Stage inversion: weight of the squared distance to the posterior's mean, beside the loss of the text."""
    noise: float = 0.0
    """Stage inversion: standard deviation of Gaussian noise on each number of the vectors."""
    learning_rate: float = 5e-4
    """Of AdamW, after the warm-up."""
    warmup_steps: float = 0.05
    """Steps of rising learning rate; below 1 a share of all steps."""
    epochs: float = 10
    """Passes over the texts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family != "davae" or self.stage not in STAGES:
            raise InputError(f"stage '{self.stage}' of family '{self.family}' is unknown: choose {', '.join(STAGES)}")
        if self.fits_map and not self.vae:
            raise InputError("stage inversion needs the auto-encoder that it is fitted to: give its folder as vae")
        if self.fits_map and not self.precompute:
            raise InputError("stage inversion embeds its texts once: leave precompute on")
        if self.vae and self.encoder:
            raise InputError("vae brings its own encoder: leave out encoder")
        if self.free_bits_mode not in FREE_BITS_MODES:
            raise InputError(f"free_bits_mode is {self.free_bits_mode}: choose 0, 1 or 2")
        least = ("free_bits", "adversarial", "embedding_noise", "latent_weight", "noise")
        if negative := [name for name in least if getattr(self, name) < 0]:
            raise InputError(f"{negative[0]} is {getattr(self, negative[0])}: it must be 0 or more")
        if not self.fits_map:
            if self.vectors or not self.texts:
                raise InputError("stage vae learns texts: give texts, and leave vectors to stage inversion")
            self.precompute = False
            # The lowest loss may be that of a decoder that ignores the latent: what is kept is the end of the schedule.
            self.arguments = {"load_best_model_at_end": False, **self.arguments}

    @property
    def fits_map(self) -> bool:
        return self.stage == "inversion"

    @property
    def label_tokens(self) -> int:
        """A text with its end."""
        return self.max_seq_length + 1
