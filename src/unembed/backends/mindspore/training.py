"""Training in MindSpore, both stages: from the rows and the untrained network that `unembed train --export` wrote where
torch is, to a model folder that goes back there.

The optimiser, the schedule, the order of rows and what is logged are those of `unembed train` with the same recipe;
batches are padded to one length, so that the step is compiled once. Float32 alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unembed.backends.mindspore.encoder_decoder import IGNORED
from unembed.backends.mindspore.model import Model, array
from unembed.errors import CheckpointError, InputError, StorageError

log = logging.getLogger("unembed.train")
BETAS = (0.9, 0.999)
COLUMNS = ("targets", "labels", "hypothesis_ids", "hypothesis_vectors")


@dataclass
class Settings:
    """What is used of a recipe; the names are those of T5TrainConfig."""

    learning_rate: float = 1e-3
    warmup_steps: float = 2500
    epochs: float = 100
    max_steps: int | None = None
    batch_size: int = 128
    eval_batch_size: int = 128
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-6
    max_grad_norm: float = 1.0
    noise: float = 0.0
    dropout_rate: float | None = None
    seed: int = 42
    logging_steps: int = 100
    eval_steps: int = 5000

    @classmethod
    def of(cls, recipe: dict[str, Any], changes: dict[str, Any]) -> Settings:
        """Those of an exported recipe, with changes. InputError for what this backend does not do."""
        if recipe.get("lr_scheduler", "constant_with_warmup") != "constant_with_warmup":
            raise InputError(f"lr_scheduler is {recipe['lr_scheduler']}: this backend has constant_with_warmup alone")
        if recipe.get("gradient_accumulation_steps", 1) != 1:
            raise InputError("gradient_accumulation_steps is not 1: this backend has no such thing; lower batch_size")
        if recipe.get("encoder_dropout_disabled") or recipe.get("decoder_dropout_disabled"):
            raise InputError("dropout of one side alone is not in this backend: leave both on, or set dropout_rate 0")
        names = {entry.name for entry in fields(cls)}
        if unknown := set(changes) - names:
            raise InputError(f"{min(unknown)} is no setting of this backend: choose among {', '.join(sorted(names))}")
        return cls(**{name: value for name, value in {**recipe, **changes}.items() if name in names})

    @property
    def identity(self) -> str:
        """Hash of all that decides which curve a run follows; where it ends does not."""
        free = ("max_steps", "epochs", "logging_steps", "eval_steps", "eval_batch_size")
        data = {name: value for name, value in asdict(self).items() if name not in free}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


class AdamW(nn.Cell):
    """Loshchilov and Hutter (ICLR 2019) as torch computes it, on MindSpore's fused kernel of Adam: the kernel adds its
    epsilon to the root before the bias is corrected, torch after, so it is given a smaller one."""

    def __init__(self, parameters: tuple[ms.Parameter, ...], epsilon: float, weight_decay: float) -> None:
        super().__init__()
        self.parameters = ParameterTuple(parameters)
        self.first = self.parameters.clone(prefix="first", init="zeros")
        self.second = self.parameters.clone(prefix="second", init="zeros")
        self.decays = tuple(weight_decay > 0 and parameter.ndim > 1 for parameter in parameters)
        self.epsilon, self.weight_decay, self.kernel = epsilon, weight_decay, ops.Adam()

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, step: Tensor) -> bool:
        """rate: of learning, now. step: from 1, float32."""
        power1, power2 = ops.pow(BETAS[0], step), ops.pow(BETAS[1], step)
        epsilon = self.epsilon * ops.sqrt(1.0 - power2)
        for i in range(len(self.parameters)):
            if self.decays[i]:
                ops.assign(self.parameters[i], self.parameters[i] * (1.0 - rate * self.weight_decay))
            self.kernel(
                self.parameters[i], self.first[i], self.second[i], power1, power2, rate, BETAS[0], BETAS[1], epsilon,
                gradients[i],
            )  # fmt: skip
        return True


class Trainer:
    """A network with its optimiser: one compiled step, and a compiled loss without dropout."""

    def __init__(self, net: nn.Cell, settings: Settings) -> None:
        parameters = tuple(net.trainable_params())
        self.net, self.settings = net, settings
        self.optimiser = AdamW(parameters, settings.adam_epsilon, settings.weight_decay)
        gradients, optimiser, longest = ms.value_and_grad(net, None, parameters), self.optimiser, settings.max_grad_norm

        def step(rate: Tensor, number: Tensor, *batch: Tensor) -> Tensor:
            loss, grads = gradients(*batch)
            # Plain numbers: with tensors that are made in here, MindSpore 2.10 crashes when it compiles something else.
            squares = 0.0
            for part in grads:
                squares = squares + ops.ReduceSum()(ops.square(part))
            factor = ops.minimum(longest / (ops.sqrt(squares) + 1e-6), 1.0)
            short = ()
            for part in grads:
                short += (part * factor,)  # type: ignore[assignment]
            optimiser(short, rate, number)
            return loss

        def measure(*batch: Tensor) -> Tensor:
            return net(*batch)

        self._step, self._measure = ms.jit(step), ms.jit(measure)

    def step(self, number: int, rate: float, batch: list[np.ndarray]) -> Tensor:
        """Step `number`, from 1; its loss, which is on its way."""
        self.net.set_train(True)
        return self._step(Tensor(rate, ms.float32), Tensor(number, ms.float32), *map(Tensor, batch))

    def measure(self, rows: Rows) -> float:
        """The mean loss of a text token, without dropout."""
        self.net.set_train(False)
        total = tokens = 0.0
        size = self.settings.eval_batch_size
        for start in range(0, len(rows), size):
            batch = rows.batch(np.arange(start, min(start + size, len(rows))), size)
            count = float((batch[1] != IGNORED).sum())
            total += count * float(self._measure(*map(Tensor, batch)).asnumpy())
            tokens += count
        return total / tokens

    def state(self) -> dict[str, np.ndarray]:
        return {part.name: array(part) for part in (*self.optimiser.first, *self.optimiser.second)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        for part in (*self.optimiser.first, *self.optimiser.second):
            part.set_data(Tensor(state[part.name]))


class Rows:
    """Prepared rows: targets [n, E], labels [n, T], and for a corrector hypothesis_ids [n, S] and hypothesis_vectors
    [n, E]."""

    def __init__(self, path: Path) -> None:
        try:
            columns = load_file(path)
            self.columns = [columns[name] for name in COLUMNS if name in columns]
            self.labels = columns["labels"]
        except (OSError, SafetensorError, KeyError) as error:
            raise StorageError(f"{path} is missing or damaged ({error}): run unembed train --export again") from error

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, at: np.ndarray, size: int, noise: float = 0.0, rng: np.random.Generator | None = None) -> list:
        """The rows at `at`; up to `size` it is filled with rows that have no label."""
        out = [column[at] for column in self.columns]
        if noise and rng is not None:
            out[0] = (out[0] + noise * rng.standard_normal(out[0].shape)).astype(np.float32)
        if missing := size - len(at):
            out = [np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) for part in out]
            out[1][len(at) :] = IGNORED
        return out

    def epoch(self, number: int, seed: int, size: int) -> Iterator[np.ndarray]:
        """The rows of each batch, in the order that `unembed train` has without group_by_length."""
        order = np.random.default_rng([seed, number]).permutation(len(self))
        for start in range(0, len(order), size):
            yield order[start : start + size]


def train(export: str | Path, output: str | Path, **changes: Any) -> Path:
    """Train on the folder that `unembed train --export` wrote and return the model's folder, OUTPUT/model: that of the
    lowest held-out loss. A killed run goes on from its last measurement. OUTPUT/log.jsonl holds the losses.

    changes: settings that are to differ from the exported recipe (see `Settings`).

    Raises InputError, CheckpointError, StorageError.
    """
    export, output = Path(export), Path(output)
    try:
        recipe = json.loads((export / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{export} is no folder of unembed train --export ({error})") from error
    settings = Settings.of(recipe, changes)
    rows, held = Rows(export / "train.safetensors"), Rows(export / "held.safetensors")
    run = Run(output, settings.identity)
    done, best = run.begin()
    ms.set_seed(settings.seed + done)
    model = Model.load(run.state / "model" if done else export / "model", settings.dropout_rate)
    if len(rows.columns) != (4 if model.net.corrects else 2):
        raise InputError(f"{export}: its rows and its model are of different stages: run unembed train --export again")
    trainer = Trainer(model.net, settings)
    if done:
        trainer.restore(run.moments())
    each = math.ceil(len(rows) / settings.batch_size)
    last = settings.max_steps or math.ceil(settings.epochs * each)
    warmup = settings.warmup_steps if settings.warmup_steps >= 1 else settings.warmup_steps * last
    every = settings.eval_steps or each
    log.info("%d rows, %d held out, %d steps", len(rows), len(held), last)
    number, losses = 0, []
    for epoch in range(math.ceil(last / each)):
        for at in rows.epoch(epoch, settings.seed, settings.batch_size):
            number += 1
            if number <= done or number > last:
                continue
            rate = settings.learning_rate * min(1.0, (number - 1) / warmup if warmup else 1.0)
            noise = np.random.default_rng([settings.seed, number])
            losses.append(trainer.step(number, rate, rows.batch(at, settings.batch_size, settings.noise, noise)))
            if number % settings.logging_steps == 0 or number == last:
                run.note(step=number, loss=float(np.mean([loss.asnumpy() for loss in losses])))
                losses = []
            if number % every == 0 or number == last:
                found = trainer.measure(held)
                run.note(step=number, eval_loss=found)
                if found < best:
                    best = found
                    model.save(output / "model")
                run.keep(number, best, model, trainer.state())
    return output / "model"


class Run:
    """The folder of a run: model/, log.jsonl, and state/ to go on from."""

    def __init__(self, output: Path, identity: str) -> None:
        self.output, self.identity, self.state = output, identity, output / "state"

    def begin(self) -> tuple[int, float]:
        """Steps done before and the lowest held-out loss until then. InputError: a run of another recipe."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            if not (self.state / "run.json").exists():
                (self.output / "log.jsonl").unlink(missing_ok=True)
                return 0, math.inf
            note = json.loads((self.state / "run.json").read_text(encoding="utf-8"))
            if note["identity"] != self.identity:
                raise InputError(f"{self.output} holds a run of another recipe: choose another output, or delete it")
            lines = (self.output / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] <= note["step"]]
            (self.output / "log.jsonl").write_text("".join(kept), encoding="utf-8")
            return int(note["step"]), float(note["best"])
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(f"{self.output} cannot be used ({error}): choose another output") from error

    def moments(self) -> dict[str, np.ndarray]:
        try:
            return load_file(self.state / "moments.safetensors")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.state} is damaged ({error}): delete it to begin anew") from error

    def note(self, **entry: float) -> None:
        log.info("%s", ", ".join(f"{name} {value:.6g}" for name, value in entry.items()))
        with open(self.output / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def keep(self, step: int, best: float, model: Model, moments: dict[str, np.ndarray]) -> None:
        """Write state/ anew, whole or not at all."""
        writing, old = self.output / ".state-writing", self.output / ".state-old"
        for folder in (writing, old):
            shutil.rmtree(folder, ignore_errors=True)
        model.save(writing / "model")
        try:
            save_file(moments, writing / "moments.safetensors")
            note = {"identity": self.identity, "step": step, "best": best}
            (writing / "run.json").write_text(json.dumps(note), encoding="utf-8")
            if self.state.exists():
                os.replace(self.state, old)
            os.replace(writing, self.state)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"cannot write {self.state} ({error}): free space, then run the same command") from error
        shutil.rmtree(old, ignore_errors=True)
