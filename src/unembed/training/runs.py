"""A training run on transformers' Trainer, whatever the family: one CPU, one GPU, or many by torchrun.

A checkpoint of the Trainer is a model folder in the family's own format, with the Trainer's optimiser state beside it.
The loss of a step is the mean over all its text tokens, on however many processes they are.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from unembed.devices import resolve_device, training_device
from unembed.errors import CheckpointError, InputError, StorageError, UnembedError
from unembed.models.base import IGNORED
from unembed.processes import Processes
from unembed.training.rows import Order, Rows
from unembed.training.run_config import RunConfig

log = logging.getLogger("unembed.train")

STATE = "trainer_state.json"


def carry_out(config: RunConfig, prepare: Callable[[TrainingArguments, Processes], FamilyTrainer]) -> Path:
    """Train, going on from the last whole checkpoint, and return the folder of the model. `prepare` makes the trainer
    once the output folder is known to be this run's.

    Raises InputError, CheckpointError, SpecMismatch and StorageError in one line.
    """
    output = Path(config.output)
    arguments, processes = begin(config)
    trainer = prepare(arguments, processes)
    last = last_whole(output)
    state = last and TrainerState.load_from_json(str(last / STATE))
    steps = steps_of(arguments, len(trainer.order))
    if last and state and state.global_step >= steps:  # done: the Trainer would take one more step
        if _since(output / "model", last / STATE):
            return output / "model"  # left alone: a calibration may lie in it
        trainer.state = state
        trainer._load_best_model()
    else:
        if last:
            log.info("going on from %s", last)
        trainer.train(resume_from_checkpoint=last and str(last))
        trainer.save_state()
    writing = output / ".model-writing"
    trainer.save_model(str(writing))
    if processes.rank == 0:
        shutil.rmtree(output / "model", ignore_errors=True)
        os.replace(writing, output / "model")
    processes.wait()
    return output / "model"


def _since(model: Path, state: Path) -> bool:
    """Whether the model was written after that state."""
    config = model / "config.json"
    return config.is_file() and config.stat().st_mtime >= state.stat().st_mtime


def begin(config: RunConfig) -> tuple[TrainingArguments, Processes]:
    """See that the output folder is this run's, on all processes."""
    if config.threads:
        torch.set_num_threads(config.threads)
    arguments = training_arguments(config)
    processes = Processes(arguments.process_index, arguments.world_size)
    if processes.rank == 0:
        claim(Path(config.output), config.identity)
    else:
        log.setLevel(logging.WARNING)
    processes.wait()
    return arguments, processes


def steps_of(arguments: TrainingArguments, rows: int) -> int:
    """Steps of the whole run."""
    batches = math.ceil(rows / (arguments.per_device_train_batch_size * arguments.world_size))
    epoch = math.ceil(batches / arguments.gradient_accumulation_steps)
    return arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * epoch)


def training_arguments(config: RunConfig) -> TrainingArguments:
    """transformers' arguments of a run; `config.arguments` has the last word."""
    cpu = training_device(config.device) == "cpu" or resolve_device(None).type == "cpu"
    every = "epoch" if config.eval_steps == 0 else "steps"
    try:
        return TrainingArguments(
            **{
                "output_dir": config.output,
                "per_device_train_batch_size": config.batch_size,
                "per_device_eval_batch_size": config.eval_batch_size,
                "gradient_accumulation_steps": config.gradient_accumulation_steps,
                "num_train_epochs": config.epochs,
                "max_steps": config.max_steps or -1,
                "learning_rate": config.learning_rate,
                "lr_scheduler_type": config.lr_scheduler,
                "warmup_steps": config.warmup_steps,
                "weight_decay": config.weight_decay,
                "adam_epsilon": config.adam_epsilon,
                "max_grad_norm": config.max_grad_norm,
                "bf16": config.bf16,
                "seed": config.seed,
                "use_cpu": cpu,
                "ddp_backend": "gloo" if cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
                "logging_steps": config.logging_steps,
                "logging_nan_inf_filter": False,  # it would make an accelerator wait at each step
                "eval_strategy": every,
                "eval_steps": config.eval_steps or None,
                "save_strategy": every,
                "save_steps": config.save_steps or 500,
                "save_total_limit": config.keep,
                "load_best_model_at_end": True,
                "prediction_loss_only": True,
                "remove_unused_columns": False,
                "ddp_find_unused_parameters": False,
                "report_to": config.tracker,
                "disable_tqdm": not sys.stderr.isatty(),
                **config.arguments,
            }
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"transformers' Trainer refuses the recipe: {' '.join(str(error).split())}") from error


class FamilyTrainer(Trainer):
    """transformers' Trainer with our order of rows, loss and checkpoints. A family says how its model folder is written
    and read; the module it gives returns {"loss": …}, a mean over the batch's tokens."""

    def __init__(
        self,
        config: RunConfig,
        arguments: TrainingArguments,
        model: nn.Module,
        collator: Callable[[Any], dict[str, Any]],
        rows: Rows,
        held: Rows,
    ) -> None:
        batch = config.batch_size * arguments.world_size
        self.recipe = config
        self.order = Order(len(rows), config.seed, batch, rows.lengths if config.group_by_length else None)
        super().__init__(
            model=model, args=arguments, data_collator=collator, train_dataset=rows, eval_dataset=held,
            callbacks=[Follow(self.order)],
        )  # fmt: skip
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # so that the tokens of a whole step are counted

    @abstractmethod
    def write(self, model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        """Write a model folder. `state` is there where the weights are spread over processes (FSDP)."""

    @abstractmethod
    def read(self, model: nn.Module, folder: Path) -> None:
        """Bring the weights of a model folder back into the model."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # noqa: ANN401
        """The mean over the batch's tokens; in a step, over those of all its batches and processes."""
        outputs = model(**inputs)
        if num_items_in_batch is not None:
            share = (inputs["labels"] != IGNORED).sum() / num_items_in_batch
            outputs["loss"] = outputs["loss"] * share * self.accelerator.num_processes
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:  # noqa: ANN401
        return self.order

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            self.write(self.accelerator.unwrap_model(self.model), folder, state_dict)

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        try:
            super()._save_checkpoint(*arguments, **options)
        except UnembedError:
            raise
        except (OSError, RuntimeError) as error:  # torch.save makes a RuntimeError of a full disk
            raise StorageError(
                f"cannot write a checkpoint to {self.args.output_dir} ({error}): free space, then run the same command"
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.read(self.accelerator.unwrap_model(self.model), Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            step = self.state.best_global_step or self.state.global_step
            self.read(self.accelerator.unwrap_model(self.model), Path(self.args.output_dir) / f"checkpoint-{step}")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except Exception as error:  # whatever it is, the state is not usable
            raise CheckpointError(
                f"checkpoint {checkpoint} is damaged ({str(error).splitlines()[0]}): delete that folder to go on from "
                "the one before"
            ) from error


class Follow(TrainerCallback):
    """Tells the order of rows which epoch it is, and writes one line for each entry of the log."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.order.epoch = int((state.epoch or 0) + 1e-6)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if state.is_world_process_zero and logs:
            shown = (f"{key} {value:.4g}" for key, value in logs.items() if isinstance(value, float | int))
            log.info("step %d: %s", state.global_step, ", ".join(shown))


def claim(output: Path, identity: str) -> None:
    """See that the folder is this run's, or new; drop what a kill left half-written in it."""
    note = output / "run.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        if note.exists():
            if json.loads(note.read_text(encoding="utf-8"))["identity"] != identity:
                raise InputError(f"{output} holds a run of another recipe: choose another output, or delete it")
        else:
            note.write_text(json.dumps({"identity": identity}), encoding="utf-8")
        for folder in checkpoints(output):
            if not is_whole(folder):
                log.info("%s is half-written and goes away", folder)
                shutil.rmtree(folder)
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"{output} cannot be used ({error}): choose another output") from error


def checkpoints(output: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in output.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")))


def is_whole(folder: Path) -> bool:
    """The Trainer writes its state last."""
    try:
        return isinstance(json.loads((folder / STATE).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def last_whole(output: Path) -> Path | None:
    return next((folder for folder in reversed(checkpoints(output)) if is_whole(folder)), None)
