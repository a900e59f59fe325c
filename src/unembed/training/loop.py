"""The one training loop, on `accelerate`: one CPU, one GPU, or many through `accelerate launch` / `torchrun`.

A run is a function of its config: batch s depends on (seed, s) and the weights alone, so a killed run that continues
from its last checkpoint draws the same curve.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from unembed.checkpoints import native
from unembed.devices import training_device
from unembed.embedders import Embedder, EmbedderSpec, check_match, embedder
from unembed.errors import CheckpointError, InputError, StorageError
from unembed.metrics import token_f1
from unembed.models.base import GREEDY, Sampling
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.generation import generate
from unembed.models.native.network import pad_rows, text_and_labels
from unembed.models.native.tokenizer import TextTokenizer
from unembed.scripts import first_words
from unembed.training import state
from unembed.training.batches import (
    Ahead,
    Batch,
    ChunkSource,
    SpanSource,
    StoredSource,
    batches_of_chunk,
    disturb,
    drop_condition,
)
from unembed.training.collected import collected
from unembed.training.config import SourceConfig, TrainConfig
from unembed.training.corpora import Corpus, read_texts
from unembed.training.correction import Correction
from unembed.training.guide import fit_guide
from unembed.training.lexical import fit_lexical_head
from unembed.training.lexicon import fit_lexicon
from unembed.training.optim import build_optimisers, schedule, set_learning_rate
from unembed.training.vectors import VectorFolder

log = logging.getLogger("unembed.train")


@dataclass
class Position:
    """How far a run is; with weights and optimisers, its whole state."""

    identity: str
    """Of the config; a checkpoint of another is refused."""
    step: int = 0
    chunk: int = 0
    batch: int = 0
    """Batches of the chunk that are done."""
    tokens: int = 0
    """Text tokens trained on, padding not counted."""
    seconds: float = 0.0
    restarted: int = 0
    """Step at which the optimisers began anew, after a compact checkpoint."""


class Objective(nn.Module):
    """Network and loss as one module, so that it is compiled and distributed as one."""

    def __init__(self, net: NativeNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(
        self,
        targets: Tensor,
        text: Tensor,
        labels: Tensor,
        hypothesis: Tensor | None,
        hypothesis_vectors: Tensor | None,
    ) -> Tensor:
        return self.net.loss(self.net(targets, text, hypothesis, hypothesis_vectors, self.dtype), labels)


class Trainer:
    """Everything a run holds. `train(config)` is the way in."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.output = config, Path(config.output)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.accelerator = Accelerator(
            cpu=training_device(config.device) == "cpu",
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=config.output,
            # Batches without a hypothesis leave the feedback's weights unused.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.rank, self.device = self.accelerator.process_index, self.accelerator.device
        self.dtype = getattr(torch, config.dtype)
        torch.manual_seed(config.seed)
        self._open_output()
        self.source, self.heldout = self._open_data()
        self.tokenizer = self._open_tokenizer()
        start = native.load(config.init_from, self.device, torch.float32) if config.init_from else None
        self.guide, self.lexicon = (start.guide, start.lexicon) if start else (None, None)
        sizes = {**asdict(config.model), "vocab_size": self.tokenizer.vocab_size}
        network = NativeConfig(embedding_dim=self.spec.dim, pointer=config.objective.corrector, **sizes)
        self.net = NativeNetwork(network).to(self.device)
        self.correction = self._open_correction(start) if config.objective.corrector else None
        self.optimisers = build_optimisers(self.net, config.optimiser)
        self.position = Position(identity=config.identity)
        self._resume()
        if self.accelerator.is_main_process:
            self._record()
            if not self.position.step:
                self._begin(start)  # the other processes get its weights
        self.objective = self.accelerator.prepare(Objective(self.net, self.dtype))
        if config.compile:
            self.objective = torch.compile(self.objective, dynamic=True)  # one graph for all lengths

    # Opening what the run needs

    def _open_output(self) -> None:
        try:
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to {self.output} ({error.strerror}): choose another output") from error

    def _open_data(self) -> tuple[ChunkSource, list[str]]:
        config, processes = self.config, self.accelerator.num_processes
        self.corpus: Corpus | None = None
        heldout = [
            text
            for path in config.heldout
            for text in read_texts(SourceConfig(config.locate(path), limit=config.heldout_samples))
        ]
        self.embedder: Embedder = self._open_embedder()
        if config.vectors:
            folder = VectorFolder(config.vectors)
            check_match(folder.spec, self.embedder.spec, expected_name="the vectors", actual_name="the embedder")
            self.spec: EmbedderSpec = folder.spec
            self.folder = folder
            return StoredSource(folder, config.chunk, config.seed, self.rank, processes), heldout
        self.spec = self.embedder.spec
        sources = [replace(source, path=config.locate(source.path)) for source in config.corpora]
        self.corpus = Corpus(sources, config.spans)
        heldout = heldout or self.corpus.hold_out(config.heldout_samples)
        # A tokenizer is not to be used from two threads at once: batches made ahead have an embedder of their own.
        own = self.embedder if self.device.type == "cpu" else self._open_embedder()
        return SpanSource(self.corpus, own, config.chunk, config.seed, self.rank), heldout

    def _open_embedder(self) -> Embedder:
        return embedder(self.config.embedder, dtype=self.config.embedder_dtype, device=str(self.device))

    def _open_tokenizer(self) -> TextTokenizer:
        path = Path(
            self.config.tokenizer
            or (self.config.init_from and f"{self.config.init_from}/tokenizer.json")
            or self.output / "tokenizer.json"
        )
        if not path.exists() and not self.config.tokenizer and self.accelerator.is_main_process:
            log.info("training a tokenizer of %d entries", self.config.model.vocab_size)
            texts = self.corpus.tokenizer_texts() if self.corpus else self.folder.texts
            TextTokenizer.train(texts, self.config.model.vocab_size, self.config.lowercase).save(path)
        self.accelerator.wait_for_everyone()
        return TextTokenizer.load(path)

    def _resume(self) -> None:
        newest = state.latest_state(self.output / "checkpoints")
        if newest is not None:
            saved = state.read_position(newest)
            if saved.get("identity") != self.config.identity:
                raise InputError(
                    f"{self.output} holds a run of another config: choose another output, or delete {newest.parent}"
                )
            whole = state.load_state(newest, self.net, self.optimisers)
            places = saved.pop("places", [])
            if len(places) == self.accelerator.num_processes:
                saved["chunk"], saved["batch"] = places[self.rank]
            self.position = Position(**saved)
            if not whole:
                self.position.restarted = self.position.step
            log.info("continuing from step %d", self.position.step)

    def _record(self) -> None:
        """Write down the config, and take back what the curve says beyond the checkpoint: it is drawn again."""
        try:
            text = json.dumps(self.config.to_dict(), indent=1, ensure_ascii=False)
            (self.output / "train.json").write_text(text, encoding="utf-8")
            if (curve := self.output / "curve.jsonl").exists():
                lines = curve.read_text(encoding="utf-8").splitlines(keepends=True)
                kept = [line for line in lines if _step_of(line) <= self.position.step]
                curve.write_text("".join(kept), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot write to {self.output} ({error.strerror}): choose another output") from error

    def _begin(self, given: NativeModel | None) -> None:
        """The weights before the first step: a fitted bag of words, the model that the run starts from, or both, where
        that model has no reader yet."""
        config = self.config
        if config.model.centred and not config.init_from:
            self.net.centre_on(self.source.chunk(0)[1])
        start = given.net if given else None
        if start:
            width = start.config.reader_width or config.model.reader_width
            if replace(start.config, reader_width=width, pointer=self.net.config.pointer) != self.net.config:
                raise InputError(
                    f"{config.init_from} has other sizes than this recipe: copy its network sizes into model"
                )
        if config.lexical_spans:
            if start and start.config.reader_width == self.net.config.reader_width:
                raise InputError("lexical_spans starts a reader and init_from brings one: leave one of them out")
            fit_lexical_head(self.net, self.source, self.tokenizer, config.lexical_spans, config.seed, self.dtype)
        if start:
            self.net.take_over(start)

    def _open_correction(self, start: NativeModel | None) -> Correction:
        if start is None or start.lexicon is None:
            raise InputError("objective.corrector needs init_from: a model with a lexicon (guide_spans)")
        self.base = start
        self.net.corrects_beside(start.net)
        return Correction(start.lexicon, self.source.chunk(0)[1].mean(axis=0), self.tokenizer, self.embedder)

    # The loop

    def run(self) -> NativeModel:
        """Train to max_steps, or for `minutes`; returns the model, which is also written to output/model."""
        config, position = self.config, self.position
        if config.tracker != "none":
            self.accelerator.init_trackers("train" if config.tracker == "tensorboard" else "unembed")
        curve = open(self.output / "curve.jsonl", "a", encoding="utf-8") if self.accelerator.is_main_process else None
        saved = began = time.monotonic()
        before = position.seconds
        losses: list[Tensor] = []  # read when they are logged: reading waits for the device
        batches = self._batches()
        stop = position.step >= config.max_steps
        while not stop:
            batch = next(batches)
            losses.append(self._step(batch))
            position.step += 1
            position.tokens += self.accelerator.num_processes * sum(len(row) + 1 for row in batch.ids)
            position.seconds = before + time.monotonic() - began
            step = position.step
            save, over = self._clock(saved, began)
            stop = over or step == config.max_steps
            look = step % config.evaluate_every == 0 or stop
            show = step % config.log_every == 0 or stop
            if show or look or save:
                loss = self._mean(losses)
                if show:
                    self._log(curve, {"loss": loss}, began)
                    losses = []
            if look and self.accelerator.is_main_process:
                self._log(curve, self.evaluate(), began)
            if save or stop:
                saved = time.monotonic()
                # Chunks of different processes may hold different numbers of batches.
                places = gather_object([(position.chunk, position.batch)])
                if self.accelerator.is_main_process:
                    whole = {**asdict(position), "places": places}
                    folder = self.output / "checkpoints"
                    state.save_state(folder, self.net, self.optimisers, whole, config.keep, config.compact)
                self.accelerator.wait_for_everyone()
        if curve:
            curve.close()
        if position.step < config.max_steps:
            log.info("stopped at step %d of %d; the same command goes on", position.step, config.max_steps)
        model = self._finish() if self.accelerator.is_main_process else self.model()
        if config.tracker != "none":
            self.accelerator.end_training()
        return model

    def _finish(self) -> NativeModel:
        """The model as it is now, in its folder; with a guide and a lexicon, where they are asked for and the last step
        is done."""
        config, model = self.config, self.model()
        if stored := self._stored():
            model.guide, model.lexicon = stored.guide, stored.lexicon
            return model
        if config.guide_spans and self.position.step >= config.max_steps:
            with collected(self.source, self.tokenizer, config.guide_spans, self.output) as (vectors, rows):
                model.guide = fit_guide(vectors, rows, self.tokenizer.vocab_size, config.seed, self.device)
                model.lexicon = fit_lexicon(vectors, rows, self.tokenizer)
        native.save(model, self.output / "model", training=self._history())
        return model

    def model(self) -> NativeModel:
        """The network as it is now, as a model. It shares the weights."""
        model = NativeModel(self.base.net if self.correction else self.net, self.tokenizer, self.spec)
        model.guide, model.lexicon = self.guide, self.lexicon
        model.corrector = self.net if self.correction else None
        model.controls = self.corpus.examples(256) if self.corpus else self.folder.texts[:256]
        return model

    def _stored(self) -> NativeModel | None:
        """The model in the folder, if it has these very weights. It is left alone then: a calibration may be there."""
        folder = self.output / "model"
        this = {key: value for key, value in self._history().items() if key != "before"}
        try:
            if native.history(folder)[-1] != this:
                return None
            return native.load(folder, self.device)  # which finds a missing or changed file
        except (CheckpointError, OSError, ValueError):
            return None

    def _history(self) -> dict[str, Any]:
        """What the weights were trained by: this run, and those of the model that it started from."""
        position, config = self.position, self.config
        run = {"steps": position.step, "tokens": position.tokens, "seconds": round(position.seconds)}
        guide = {"guide_spans": config.guide_spans} if config.guide_spans else {}
        corrector = {"corrector": True} if self.correction else {}
        before = {"before": native.history(config.init_from)} if config.init_from else {}
        return {**run, **guide, **corrector, "config": config.identity, **before}

    def _batches(self) -> Iterator[Batch]:
        """Batches from where the run stands; `position` follows."""
        position, skip = self.position, self.position.batch
        make: Callable[[int], list[Batch]] = partial(
            batches_of_chunk, self.source, tokenizer=self.tokenizer, config=self.config, rank=self.rank
        )
        if self.device.type != "cpu":
            make = Ahead(make)
        while True:
            batches = make(position.chunk)
            if not batches:
                raise InputError(
                    f"none of {self.config.chunk} texts fits spans.lengths ({max(self.config.spans.lengths)} tokens at "
                    "most): raise the lengths, or do not take the texts whole"
                )
            for i, batch in enumerate(batches):
                if i >= skip:
                    position.batch = i + 1
                    yield batch
            position.chunk += 1
            position.batch = skip = 0

    def _mean(self, losses: list[Tensor]) -> float:
        """Mean of the losses of the last steps. Raises InputError when one of them is no number, before anything is
        saved."""
        values = torch.stack(losses).cpu().double()
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            at = int(wrong[0])
            raise InputError(
                f"the loss became {values[at].item()} at step {self.position.step - len(losses) + at}: lower the "
                "learning rates and start from a checkpoint"
            )
        return values.mean().item()

    def _step(self, batch: Batch) -> Tensor:
        config, step = self.config, self.position.step
        rng = np.random.default_rng([config.seed, self.rank, step, 2])
        targets = torch.from_numpy(disturb(batch.targets, config.objective, rng)).to(self.device)
        hypothesis = hypothesis_vectors = None
        if self.correction:
            ids, vectors = self.correction.hypotheses(batch, rng)
            hypothesis = pad_rows(ids, length=-(-max(map(len, ids)) // 8) * 8).to(self.device)
            hypothesis_vectors = torch.from_numpy(vectors).to(self.device)
        else:
            if batch.with_hypothesis and step >= config.objective.hypothesis_from * config.max_steps:
                hypothesis, hypothesis_vectors = self.hypothesise(targets, batch.width)
            targets[torch.from_numpy(drop_condition(len(targets), config.objective, rng)).to(self.device)] = 0
        text, labels = (t.to(self.device) for t in text_and_labels(batch.ids, batch.width))
        set_learning_rate(self.optimisers, schedule(step, config.max_steps, config.optimiser, self.position.restarted))
        loss = self.objective(targets, text, labels, hypothesis, hypothesis_vectors)
        self.accelerator.backward(loss)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    def hypothesise(self, targets: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """On-policy hypotheses [B, width] (padded) and their embeddings [B, d], by the network as it is now."""
        generator = torch.Generator(device=self.device).manual_seed(self.config.seed + self.position.step)
        sampling = Sampling(temperature=self.config.objective.hypothesis_temperature)
        written = generate(
            self.net, targets, sampling=sampling, max_tokens=width, generator=generator, dtype=self.dtype
        )  # one text a row
        ids = [row[0].ids for row in written]
        texts = [
            text if text.strip() else "." for text in self.tokenizer.decode(ids)
        ]  # an embedder takes no empty text
        return pad_rows(ids, length=width).to(self.device), torch.from_numpy(self.embedder.encode(texts)).to(
            self.device
        )

    def _clock(self, saved: float, began: float) -> tuple[bool, bool]:
        """Whether to save, and whether the time is over. All processes do so at the same step: the first at which one
        of them is due."""
        now, limit = time.monotonic(), self.config.minutes
        late = [now - saved > 60 * self.config.save_minutes, limit is not None and now - began > 60 * limit]
        if self.accelerator.num_processes > 1:
            late = self.accelerator.reduce(torch.tensor(late, dtype=torch.float32, device=self.device)).bool().tolist()
        return late[0], late[1]

    # Looking at it

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Held-out loss, and token F1 of greedy inversions without and with one correction; logs four of them."""
        rng = np.random.default_rng(self.config.seed)
        words = rng.integers(4, 24, size=len(self.heldout)).tolist()
        texts = [first_words(text, n) for text, n in zip(self.heldout, words, strict=True)]
        if not texts:
            return {}
        if self.correction:
            return self.correction.evaluate(self.net, texts, rng, self.dtype)
        targets = self.embedder.encode(texts)
        limit = min(64, self.config.model.max_tokens)
        rows = [row[:limit] for row in self.tokenizer.encode(texts)]
        text, labels = (t.to(self.device) for t in text_and_labels(rows))
        e = torch.from_numpy(targets).to(self.device)
        logits = self.net(e, text, dtype=self.dtype)
        loss = self.net.loss(logits, labels).item()
        first = generate(self.net, e, sampling=GREEDY, max_tokens=limit, dtype=self.dtype)
        guesses = [guess if guess.strip() else "." for guess in self.tokenizer.decode([row[0].ids for row in first])]
        hypotheses = pad_rows([row[:limit] for row in self.tokenizer.encode(guesses)]).to(self.device)
        vectors = torch.from_numpy(self.embedder.encode(guesses)).to(self.device)
        again = generate(self.net, e, hypotheses, vectors, sampling=GREEDY, max_tokens=limit, dtype=self.dtype)
        corrected = self.tokenizer.decode([row[0].ids for row in again])
        for i in range(min(4, len(texts))):
            log.info("  text       %s\n  zero-step  %s\n  corrected  %s", texts[i], guesses[i], corrected[i])
        return {
            "heldout_loss": loss,
            "heldout_f1": float(np.mean([token_f1(a, b) for a, b in zip(texts, guesses, strict=True)])),
            "heldout_f1_corrected": float(np.mean([token_f1(a, b) for a, b in zip(texts, corrected, strict=True)])),
        }

    def _log(self, curve: TextIO | None, values: dict[str, float], began: float) -> None:
        position = self.position
        elapsed = time.monotonic() - began
        left = (self.config.max_steps - position.step) * position.seconds / max(1, position.step)
        row = {
            "step": position.step,
            "tokens": position.tokens,
            "seconds": round(position.seconds, 1),
            **values,
        }
        if self.config.tracker != "none":
            self.accelerator.log(values, step=position.step)
        if curve is not None:
            curve.write(json.dumps(row) + "\n")
            curve.flush()
            shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            log.info(
                "step %d/%d  %s  %.0f s, %.0f min left",
                position.step,
                self.config.max_steps,
                shown,
                elapsed,
                left / 60,
            )


def _step_of(line: str) -> float:
    """The step of a line of the curve; a line torn by a kill counts as beyond any step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")


def train(config: TrainConfig) -> NativeModel:
    """Train a native inverter as `config` says, continuing a run that stopped; see TrainConfig and the guide."""
    return Trainer(config).run()
