"""The training run of the causal-LM family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from unembed.checkpoints import prefix
from unembed.models.base import IGNORED
from unembed.models.prefix_decoder import PrefixDecoderModel, PrefixNetwork
from unembed.processes import Processes
from unembed.training.causal.config import CausalTrainConfig
from unembed.training.causal.prepare import CausalPreparation
from unembed.training.runs import FamilyTrainer, carry_out
from unembed.training.samples import ShowSamples
from unembed.training.stages import Collator


def train(config: CausalTrainConfig) -> Path:
    """Train one stage and return the folder of the model; see `carry_out`."""
    return carry_out(config, lambda arguments, processes: CausalTrainer(config, arguments, processes))


class Objective(nn.Module):
    """The network with its loss as the only output. Rows with a hypothesis are learned twice, with it and without, so
    that a corrector stays a hypothesizer."""

    def __init__(self, net: PrefixNetwork, prior_share: float = 0.0) -> None:
        super().__init__()
        self.net, self.prior_share = net, prior_share

    def forward(
        self,
        targets: Tensor,
        labels: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        known = targets
        if self.training and self.prior_share:
            known = targets * (torch.rand(len(targets), 1, device=targets.device) >= self.prior_share)
        loss = self.net(known, labels).loss
        if hypothesis_ids is not None:
            loss = (loss + self.net(targets, labels, hypothesis_ids, hypothesis_vectors).loss) / 2
        return {"loss": loss}


class CausalTrainer(FamilyTrainer):
    """Either stage."""

    recipe: CausalTrainConfig

    def __init__(self, config: CausalTrainConfig, arguments: TrainingArguments, processes: Processes) -> None:
        prepared = CausalPreparation(config, processes, arguments.device)
        rows, held = prepared.rows()
        self.tokenizer, self.spec = prepared.tokenizer, prepared.embedder.spec
        fresh = not config.precompute
        collator = Collator(
            prepared.tokens, fill=IGNORED, noise=config.noise,
            embedder=prepared.embedder if fresh else None,
            hypothesizer=prepared.open_hypothesizer() if fresh and config.corrects else None,
        )  # fmt: skip
        super().__init__(config, arguments, Objective(prepared.network(), config.prior_share), collator, rows, held)
        if config.samples and not self.is_fsdp_enabled:  # where no process has all weights
            self.add_callback(ShowSamples(*prepared.shown(held), self._inverter))

    def _inverter(self, model: nn.Module) -> PrefixDecoderModel:
        net, longest = cast(Objective, model).net, self.recipe.max_seq_length
        return PrefixDecoderModel(net, self.tokenizer, self.spec, max_tokens=longest)

    def write(self, model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        net = cast(Objective, model).net
        own = None if state is None else {name.removeprefix("net."): tensor for name, tensor in state.items()}
        prefix.save(
            net, folder, tokenizer=self.tokenizer, spec=self.spec, max_tokens=self.recipe.max_seq_length, state=own
        )

    def read(self, model: nn.Module, folder: Path) -> None:
        cast(Objective, model).net.load_state_dict(prefix.network(folder, torch.float32).state_dict())
