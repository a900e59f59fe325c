"""What every training run on transformers' Trainer is, as data; each family adds the keys of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from unembed.errors import InputError
from unembed.training.config import SourceConfig, config_from_dict

STAGES = ("inversion", "corrector")


@dataclass
class RunConfig:
    """One run. The folder `output` holds its state: the same command continues it. The model ends up in OUTPUT/model,
    and every OUTPUT/checkpoint-N is a model folder as well."""

    output: str
    """Folder of the run, its checkpoints and its model."""
    family: str = ""
    """Which one; see `training.families`."""
    texts: list[SourceConfig] = field(default_factory=list)
    """What to train on: files, folders, `hf:NAME`, or the names nq and msmarco. Each text is cut to its first
    max_seq_length tokens before it is embedded."""
    eval_texts: list[SourceConfig] = field(default_factory=list)
    """Never trained on; without any, the last texts of `texts` (at most a tenth)."""
    vectors: str | None = None
    """A folder of `unembed embed`, or of another run. If it is not there it is made of `texts`; by default
    OUTPUT/vectors. Texts beyond max_seq_length are left out: their vectors say more than may be written."""
    precompute: bool = True
    """Embed each text once, and write each hypothesis once, before the first step. Without, for every batch anew."""
    embedder: str = "all-MiniLM-L6-v2"
    """Any that `unembed embed` knows, also behind an API."""
    embedder_dtype: str = "float32"
    """Precision that the embedder computes in."""
    store: str = "float32"
    """Precision in which precomputed vectors are kept: float32 or float16."""
    max_seq_length: int = 32
    """Tokens of a text; vec2text counts the closing `</s>`, nanoV2T does not."""
    use_less_data: int | None = None
    """Only the first so many texts, those held out included."""
    max_eval_samples: int = 500
    """Texts held out, at most."""
    learning_rate: float = 1e-3
    """Of AdamW, after the warm-up."""
    lr_scheduler: str = "constant_with_warmup"
    """Any of transformers' schedules: linear, cosine, constant_with_warmup…"""
    warmup_steps: float = 2500
    """Steps of rising learning rate; below 1 a share of all steps."""
    epochs: float = 100
    """Passes over the texts."""
    max_steps: int | None = None
    """Stop after so many steps, whatever `epochs` says."""
    batch_size: int = 128
    """Texts of a step on each process."""
    eval_batch_size: int = 128
    """Texts at a time where nothing is learned: held-out loss, hypotheses."""
    gradient_accumulation_steps: int = 1
    """Batches of a step."""
    weight_decay: float = 0.0
    """Of AdamW, on the matrices."""
    adam_epsilon: float = 1e-6
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this length."""
    group_by_length: bool = True
    """Texts of about one length in a batch, so that little is padding."""
    bf16: bool = True
    """Compute in bfloat16; weights and optimiser stay in float32."""
    seed: int = 42
    """Of new weights, dropout, noise and the order of rows."""
    device: str | None = None
    """cpu, or by default the accelerator there is (cuda, npu…), one for each process."""
    threads: int | None = None
    """Of the CPU."""
    logging_steps: int = 100
    """Write the loss every so many steps."""
    eval_steps: int = 5000
    """Measure the loss on held-out texts every so many steps; 0 after each epoch."""
    save_steps: int = 5000
    """Write a checkpoint every so many steps, a multiple of eval_steps; 0 after each epoch."""
    keep: int = 2
    """Checkpoints to keep; the best one besides."""
    tracker: str = "tensorboard"
    """tensorboard, wandb or none."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """More of transformers' TrainingArguments, as they are: fsdp, torch_compile, gradient_checkpointing, run_name,
    dataloader_num_workers…"""

    def __post_init__(self) -> None:
        if self.tracker not in (known := ("tensorboard", "wandb", "none")):
            raise InputError(f"tracker '{self.tracker}' is unknown: choose {', '.join(known)}")
        if not self.texts and not self.vectors:
            raise InputError("give texts to train on, or vectors (a folder made by unembed embed)")
        if self.vectors and not self.precompute:
            raise InputError("vectors are precomputed: leave them out, or leave precompute on")
        counts = ("batch_size", "eval_batch_size", "max_eval_samples", "logging_steps", "keep")
        for name in (*counts, "gradient_accumulation_steps", "use_less_data", "max_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be 1 or more")
        if self.max_seq_length < 2:
            raise InputError(f"max_seq_length is {self.max_seq_length}: give at least 2 tokens")
        every = (self.eval_steps, self.save_steps)
        if min(every) < 0 or (every != (0, 0) and (0 in every or self.save_steps % self.eval_steps)):
            raise InputError(
                f"save_steps {self.save_steps} is no multiple of eval_steps {self.eval_steps}: the best checkpoint is "
                "kept, so each must have been measured (0 and 0: after each epoch)"
            )
        if not self.precompute and self.arguments.get("dataloader_num_workers"):
            raise InputError("without precompute the embedder works in this process: leave dataloader_num_workers at 0")

    @property
    def label_tokens(self) -> int:
        """Tokens of a text with its end-of-text token."""
        return self.max_seq_length

    @property
    def model_name(self) -> str:
        """What `--model` is to be given when the run is done."""
        return f"{self.output}/model"

    @classmethod
    def from_dict(cls, fields: dict) -> Self:
        """A config from a recipe's keys; InputError for a key or a value that does not fit."""
        return config_from_dict(cls, fields)

    @property
    def identity(self) -> str:
        """Hash of all that decides which curve this run follows. Where it ends does not: a run can be lengthened."""
        free = ("output", "export", "max_steps", "epochs", "device", "threads", "keep", "tracker", "arguments")
        data = {key: value for key, value in asdict(self).items() if key not in free and not key.endswith("_steps")}
        data |= {key: getattr(self, key) for key in ("warmup_steps", "gradient_accumulation_steps")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class StagedConfig(RunConfig):
    """One stage of a family that has two: a hypothesizer, then a corrector; see RunConfig."""

    stage: str = "inversion"
    """inversion (vector → text) or corrector (vector, hypothesis, its vector → text)."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on each number of the targets: the attacker who knows such a defence."""
    hypothesizer: str | None = None
    """Corrector: the model that writes the first hypotheses, by folder, run or hub id."""
    hypotheses: str | None = None
    """Corrector: a folder of `unembed hypothesize` for `vectors`. If it is not there it is made; by default
    OUTPUT/hypotheses."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stage not in STAGES:
            raise InputError(f"stage '{self.stage}' is unknown: choose {', '.join(STAGES)}")
        if self.corrects and not self.hypothesizer and not self.hypotheses:
            raise InputError("stage corrector needs the hypothesizer that it is to correct: give its folder")
        if self.corrects and not self.precompute and (self.hypotheses or not self.hypothesizer):
            raise InputError("hypotheses are precomputed: give a hypothesizer instead, or leave precompute on")
        if not self.corrects and (self.hypothesizer or self.hypotheses):
            raise InputError("hypothesizer and hypotheses belong to stage corrector")
        if self.noise < 0 or (self.noise and self.corrects and self.precompute):
            raise InputError(
                "noise must be 0 or more, and its hypotheses are written anew each time: for a corrector set "
                "precompute: false"
            )

    @property
    def corrects(self) -> bool:
        return self.stage == "corrector"
