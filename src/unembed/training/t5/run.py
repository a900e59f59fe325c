"""The training run of the encoder-decoder family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration, TrainingArguments

from unembed.checkpoints import nanov2t, vec2text
from unembed.checkpoints.placement import Placement
from unembed.models.encoder_decoder import EncoderDecoderNetwork
from unembed.processes import Processes
from unembed.training.runs import FamilyTrainer, begin, carry_out
from unembed.training.stages import Collator
from unembed.training.t5.config import T5TrainConfig
from unembed.training.t5.export import export
from unembed.training.t5.prepare import T5Preparation, carried

FORMATS: dict[str, ModuleType] = {"vec2text": vec2text, "nanov2t": nanov2t}


def train(config: T5TrainConfig) -> Path:
    """Train one stage and return the folder of the model; see `carry_out`. With `export`, train nothing and return the
    folder of the exported run."""
    if config.export:
        return _exported(config, Path(config.export))
    return carry_out(config, lambda arguments, processes: T5Trainer(config, arguments, processes))


def _exported(config: T5TrainConfig, folder: Path) -> Path:
    arguments, processes = begin(config)
    prepared = T5Preparation(config, processes, arguments.device)
    rows, held = prepared.rows()
    if processes.rank == 0:
        net = prepared.network()
        FORMATS[config.family].save(net, folder / "model", **saving(config, prepared))
        export(config, folder, rows, held, net.config.masked_start)
    processes.wait()
    return folder


def saving(config: T5TrainConfig, prepared: T5Preparation) -> dict[str, Any]:
    """What a model's folder needs beside the network."""
    # nanoV2T's format has no place for an embedder's tensors, and neither has a corrector.
    carries = config.family == "vec2text" and not config.corrects
    return {
        "tokenizer": prepared.tokenizer, "spec": prepared.embedder.spec, "backbone": config.backbone,
        "max_tokens": config.max_seq_length, "embedder_tensors": carried(prepared.embedder) if carries else None,
    }  # fmt: skip


class Objective(nn.Module):
    """The network with its loss as the only output: logits of a whole batch need not leave it."""

    def __init__(self, net: EncoderDecoderNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        targets: Tensor,
        labels: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return {"loss": self.net(targets, labels, hypothesis_ids, hypothesis_vectors).loss}


class T5Trainer(FamilyTrainer):
    """Either stage of either system."""

    recipe: T5TrainConfig

    def __init__(self, config: T5TrainConfig, arguments: TrainingArguments, processes: Processes) -> None:
        prepared = T5Preparation(config, processes, arguments.device)
        rows, held = prepared.rows()
        self.saving = saving(config, prepared)
        net = prepared.network()
        fresh = not config.precompute
        collator = Collator(
            prepared.tokens, start=net.config.masked_start, noise=config.noise,
            embedder=prepared.embedder if fresh else None,
            hypothesizer=prepared.open_hypothesizer() if fresh and config.corrects else None,
        )  # fmt: skip
        super().__init__(config, arguments, Objective(net), collator, rows, held)

    def write(self, model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        net = cast(Objective, model).net
        if state is not None:
            with torch.device("meta"):
                net = EncoderDecoderNetwork(T5ForConditionalGeneration(net.t5.config), net.config)
            net.load_state_dict({name.removeprefix("net."): t for name, t in state.items()}, assign=True)
            net.t5.tie_weights()
        FORMATS[self.recipe.family].save(net, folder, **self.saving)

    def read(self, model: nn.Module, folder: Path) -> None:
        place = Placement(torch.device("cpu"), torch.float32)
        stored = FORMATS[self.recipe.family].Checkpoint(folder).network(place).state_dict()
        cast(Objective, model).net.load_state_dict(stored)
