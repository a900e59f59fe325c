"""What a training run is, as data: every field is a key of the YAML recipe and a flag of `unembed train`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from unembed.errors import InputError

Config = TypeVar("Config")


@dataclass
class SourceConfig:
    """One corpus."""

    path: str
    """A .txt, .jsonl or .parquet file (also .gz or .xz), a folder of them, or `hf:NAME[:CONFIG][#SPLIT]` to stream a
    Hugging Face dataset."""
    weight: float = 1.0
    """Share of the training spans, relative to the other sources."""
    field: str = "text"
    """The column that holds the text, in jsonl, parquet and Hugging Face data."""
    limit: int | None = None
    """Read at most this many texts."""
    whole: bool = False
    """Take texts whole instead of random spans of them; those beyond the longest of spans.lengths are left out."""


@dataclass
class ModelConfig:
    """The network; see NativeConfig."""

    d_model: int = 256
    """Width: an even number for each of the heads."""
    n_layers: int = 6
    """Layers."""
    n_heads: int = 4
    """Attention heads of a layer."""
    target_tokens: int = 8
    """Soft tokens made of the vector."""
    feedback_tokens: int = 4
    """Soft tokens made of a hypothesis' vector, and as many of its difference from the target's."""
    max_tokens: int = 128
    """Longest text, in tokens of the network's own tokenizer."""
    vocab_size: int = 8192
    """At most; of the tokenizer that is trained where neither `tokenizer` nor `init_from` brings one."""
    reader_width: int = 1024
    """Hidden units of the reader, a layer that sees the vector once a text; 0: no reader."""
    lexical_head: bool = True
    """Map the vector straight to vocabulary logits, gated at each position."""
    vector_everywhere: bool = True
    """Add the projected vector to every text position."""
    centred: bool = False
    """For embedders whose vectors all point much the same way, such as E5."""


@dataclass
class SpanConfig:
    """How texts are cut."""

    min_words: int = 1
    """Words of the shortest span; two characters of a script without spaces are a word."""
    max_words: int = 56
    """Words of the longest; lengths between the two are drawn log-uniformly, and a shorter text is taken as it is."""
    sentence_start: float = 0.6
    """Share of the spans that begin where a sentence does; the others begin at any word."""
    lengths: list[int] = field(default_factory=lambda: [4, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96])
    """Token lengths to which batches are padded; texts beyond the longest are left out."""


@dataclass
class OptimiserConfig:
    """Muon for the hidden matrices, AdamW for the rest."""

    muon_lr: float = 0.02
    """Highest learning rate of Muon; those below are AdamW's."""
    adamw_lr: float | None = None
    """AdamW with this rate for the hidden matrices too, instead of Muon."""
    head_lr: float = 0.003
    """Of the output layer."""
    reader_lr: float = 0.0003
    """Of the reader and the lexical head: their inputs are many, so each step of AdamW moves the logits far."""
    embed_lr: float = 0.05
    """Of the token embeddings."""
    vector_lr: float = 0.01
    """Of what is left: the vectors that mark soft tokens and hypotheses, mixing weights, the lexical head's gate."""
    weight_decay: float = 0.01
    """Of the hidden matrices; nothing else decays."""
    warmup: float = 0.01
    """Share of the steps over which the learning rate rises linearly."""
    decay: float = 0.5
    """Share of the steps, at the end, over which it falls linearly to zero."""
    rewarm: int = 50
    """Steps over which it rises again where a run goes on from a compact checkpoint."""


@dataclass
class ObjectiveConfig:
    """What a training example shows to the network besides the target."""

    hypothesis_share: float = 0.3
    """Share of the batches with an on-policy hypothesis, sampled from the network as it is now and re-embedded."""
    hypothesis_from: float = 0.3
    """Hypotheses begin after this share of the steps: before, the network has nothing worth correcting."""
    hypothesis_temperature: float = 0.7
    """Temperature at which they are sampled."""
    noise_share: float = 0.1
    """Share of the targets to which Gaussian noise is added (then renormalised)."""
    noise_scale: float = 0.03
    """Largest noise norm relative to the vector's; each noisy target draws its own between 0 and this."""
    prior_share: float = 0.05
    """Share of the examples without any condition: they teach the prior log p(x)."""
    corrector: bool = False
    """Train a corrector beside the network of init_from, which stays as it is: layers of its own, which see texts that
    were made wrong. Everything above but the noise is for networks."""


@dataclass
class TrainConfig:
    """One run of `unembed train`. The folder `output` holds its state: the same command continues it."""

    output: str
    """Folder of the run. The model ends up in OUTPUT/model, the curve in OUTPUT/curve.jsonl."""
    corpora: list[SourceConfig] = field(default_factory=list)
    """Texts to cut into spans and embed on the fly, from one or more sources."""
    data_dir: str = ""
    """Folder from which the relative paths of corpora and heldout start."""
    embedder: str = "all-MiniLM-L6-v2"
    """Any that `unembed embed` knows, also behind an API; with `vectors` the one that made them."""
    embedder_dtype: str = "float32"
    """Precision that the embedder computes in."""
    vectors: str | None = None
    """A folder written by `unembed embed`: train on its texts and precomputed vectors instead of `corpora`."""
    tokenizer: str | None = None
    """A tokenizer.json to use; without it one is trained on the corpora."""
    lowercase: bool = False
    """The tokenizer that is trained has no capitals: for embedders that do not see them."""
    init_from: str | None = None
    """A model folder to start from (fine-tuning). It has the sizes of `model`, or these without a reader."""
    lexical_spans: int = 0
    """Spans to which the reader and the lexical head are fitted as a bag of words before the first step; 0 leaves them
    as they begin."""
    guide_spans: int = 0
    """Spans to which a guide and a lexicon are fitted after the last step: a bag of words that helps the network write,
    and one in which the search looks words up. 0 keeps those of `init_from`, where it has them."""
    model: ModelConfig = field(default_factory=ModelConfig)
    spans: SpanConfig = field(default_factory=SpanConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    max_steps: int = 1000
    """Steps of the whole run, which the learning rates' rise and fall follow."""
    minutes: float | None = None
    """Stop after so many minutes with a checkpoint and the model as it is; the same command goes on."""
    batch_tokens: int = 4096
    """Text tokens of a batch, padding included, on each process."""
    chunk: int = 4096
    """Spans that are cut and embedded at a time."""
    dtype: str = "bfloat16"
    """Precision that the network computes in: float32 or bfloat16; weights and optimisers stay in float32."""
    compile: bool = False
    """torch.compile the training step: worth its minutes of start-up from about half an hour of training on."""
    threads: int | None = None
    """Of the CPU; by default as many as torch takes."""
    device: str | None = None
    """cpu, or by default the accelerator there is (cuda, npu…), one for each process."""
    seed: int = 0
    """Of new weights, spans, noise, hypotheses and the order of batches."""
    save_minutes: float = 10.0
    """Write a checkpoint every so many minutes, and at the end."""
    keep: int = 2
    """Checkpoints to keep."""
    compact: bool = False
    """Checkpoints hold int8 weights and no optimisers, about a tenth of the size. A run that goes on from one warms up
    again; it is not the same to the last bit as one that was never stopped."""
    log_every: int = 20
    """Write the loss every so many steps, and at the end."""
    evaluate_every: int = 500
    """Measure loss and token F1 on held-out texts every so many steps, and at the end."""
    heldout: list[str] = field(default_factory=list)
    """Text files that are never trained on; without any, the last texts of the corpora are held out (`heldout_samples`
    of them, at most a tenth)."""
    heldout_samples: int = 64
    """Texts that are measured: so many of the first of each held-out file, or in all those held out of the corpora."""
    tracker: str = "tensorboard"
    """tensorboard, wandb or none."""

    def __post_init__(self) -> None:
        if bool(self.corpora) == bool(self.vectors):
            raise InputError(
                "give either corpora (texts to cut and embed on the fly) or vectors (a folder made by embed)"
            )
        if self.tracker not in ("tensorboard", "wandb", "none"):
            raise InputError(f"tracker '{self.tracker}' is unknown: choose tensorboard, wandb or none")
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"dtype '{self.dtype}' is unknown: choose float32 or bfloat16")
        if not self.spans.lengths or min(self.spans.lengths) < 1:
            raise InputError(f"spans.lengths is {self.spans.lengths}: give at least one length of at least 1 token")
        if not 1 <= self.spans.min_words <= self.spans.max_words:
            raise InputError(
                f"spans.min_words is {self.spans.min_words} and max_words {self.spans.max_words}: "
                "the first must be at least 1, the second no less"
            )
        if self.lowercase and self.tokenizer:
            raise InputError("lowercase is for a tokenizer that is trained here: leave out one of lowercase, tokenizer")
        if self.lexical_spans and not self.model.lexical_head:
            raise InputError("lexical_spans needs model.lexical_head: switch it on, or leave lexical_spans at 0")
        if max(self.spans.lengths) > self.model.max_tokens:
            raise InputError(
                f"spans.lengths goes to {max(self.spans.lengths)} but model.max_tokens is {self.model.max_tokens}: "
                "raise max_tokens or lower the lengths"
            )
        if self.minutes is not None and self.minutes <= 0:
            raise InputError("minutes, where given, must be more than 0")
        if self.max_steps < (0 if self.init_from and self.guide_spans else 1):
            raise InputError(
                "max_steps must be at least 1, or 0 to fit a guide (guide_spans) to the model of init_from"
            )
        if self.batch_tokens < max(self.spans.lengths):
            raise InputError("batch_tokens must be at least the longest of spans.lengths")

    def locate(self, path: str) -> str:
        """A corpus or held-out path as it is on this machine."""
        return path if path.startswith("hf:") else str(Path(self.data_dir) / path)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> TrainConfig:
        """A config from a recipe's keys, nested as in its YAML; what is not named has its default. InputError for
        a key or a value that does not fit."""
        return config_from_dict(cls, fields)

    @property
    def identity(self) -> str:
        """Hash of all that decides which curve this run follows. How often it logs or saves does not; nor does
        max_steps, so that a run can be cut short or lengthened: the schedule then follows the new end."""
        data = self.to_dict()
        for key in (
            "output",
            "data_dir",
            "max_steps",
            "minutes",
            "save_minutes",
            "keep",
            "log_every",
            "evaluate_every",
            "tracker",
            "device",
            "threads",
        ):
            data.pop(key)
        data["heldout"] = [Path(path).name for path in self.heldout]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def config_from_dict(kind: type[Config], fields: dict) -> Config:
    """An instance of a config class from nested keys; InputError for a key or a value that does not fit."""
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "config")
    build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.49
    try:
        return build(parser.parse_object({"config": fields})).config
    except ArgumentError as error:
        raise InputError(f"the recipe does not fit: {' '.join(str(error).split())}") from error
