"""The training run of the DAVAE family: the auto-encoder with its four losses, and the map in front of one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from unembed.checkpoints import davae
from unembed.models.base import IGNORED
from unembed.models.davae.losses import adversarial, kl, reconstruction
from unembed.models.davae.model import LatentMap
from unembed.models.davae.network import DAVAENetwork, reparameterise
from unembed.models.davae.vae import Encoder
from unembed.processes import Processes
from unembed.training.davae.config import DAVAETrainConfig
from unembed.training.davae.data import Collator
from unembed.training.davae.measures import Measures, active_units, mean_kl, mutual_information
from unembed.training.davae.prepare import DAVAEPreparation
from unembed.training.runs import FamilyTrainer, carry_out

log = logging.getLogger("unembed.train")

MEASURES = "measures.json"
"""In the run's folder: the measures of collapse at each evaluation of the auto-encoder."""


def train(config: DAVAETrainConfig) -> Path:
    """Train one stage and return the folder of the model; see `carry_out`."""
    return carry_out(config, lambda arguments, processes: DAVAETrainer(config, arguments, processes))


class Objective(nn.Module):
    """The network (and the map) with its loss as the only output, a mean over the tokens of the batch."""

    def __init__(
        self, net: DAVAENetwork, latent_map: LatentMap | None, config: DAVAETrainConfig, bos: int, padding: int
    ) -> None:
        super().__init__()
        self.net, self.latent_map, self.config, self.bos, self.padding = net, latent_map, config, bos, padding
        self.beta = config.beta.peak

    def train(self, mode: bool = True) -> Objective:
        super().train(mode)
        if self.latent_map is not None:  # the rest is finished: no dropout in it
            self.net.eval()
        return self

    def forward(self, encoder_ids: Tensor, labels: Tensor, targets: Tensor | None = None) -> dict[str, Tensor]:
        count = (labels != IGNORED).sum()
        if self.latent_map is not None and targets is not None:
            with torch.no_grad():
                wanted, _ = self.net.encode(encoder_ids)
            latents = self.latent_map(targets)
            distance = ((latents - wanted) ** 2).sum(1)
            loss = self.reconstruct(latents, labels) + self.config.latent_weight * distance
            return {"loss": loss.sum() / count}
        mean, logvar = self.net.encode(encoder_ids)
        mean, logvar = mean.float(), logvar.float()
        free = torch.zeros_like(logvar) if self.config.free_bits_mode == 2 else logvar
        # What is not weighed yet is not disturbed yet: at weight 0 this is a plain auto-encoder, which learns to use
        # the latent before noise could teach the decoder to do without it (Li et al., EMNLP 2019, begin likewise).
        noise = self.beta / self.config.beta.peak if self.config.beta.peak else 1.0
        latents = reparameterise(mean, free, noise) if self.training else mean
        cost = kl(mean, logvar, self.config.free_bits_mode, self.config.free_bits)
        costs = (self.beta if self.training else self.config.beta.peak) * cost
        rec = self.reconstruct(latents, labels)
        if self.config.length_weighted:
            loss = (rec / (labels != IGNORED).sum(1) + costs).mean()
        else:
            loss = (rec + costs).sum() / count
        if self.training and self.config.adversarial:
            loss = loss + self.config.adversarial * sum(adversarial(self.net.discriminator, latents))
        return {"loss": loss}

    def reconstruct(self, latents: Tensor, labels: Tensor) -> Tensor:
        """−log p [B] of labels [B, T] given latents [B, L]."""
        whole = torch.nn.functional.pad(labels, (1, 0), value=self.bos)
        read = whole[:, :-1].masked_fill(whole[:, :-1] == IGNORED, self.padding)
        return reconstruction(self.net.decoder(read, latents), whole, IGNORED)


class DAVAETrainer(FamilyTrainer):
    """Either stage."""

    recipe: DAVAETrainConfig

    def __init__(self, config: DAVAETrainConfig, arguments: TrainingArguments, processes: Processes) -> None:
        prepared = DAVAEPreparation(config, processes, arguments.device)
        rows, held = prepared.rows()
        net, pieces = prepared.network(), prepared.tokenizer
        self.saving = prepared.saving()
        collator = Collator(
            Encoder(net, prepared.reader, prepared.quirks()), pieces.eos_id, learn_end=config.learn_end,
            noise=config.noise,
        )  # fmt: skip
        objective = Objective(net, prepared.latent_map(), config, pieces.bos_id, pieces.pad_id)
        super().__init__(config, arguments, objective, collator, rows, held)

    @property
    def objective(self) -> Objective:
        return cast(Objective, self.accelerator.unwrap_model(self.model))

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        self.objective.beta = self.recipe.beta.at(self.state.global_step / max(1, self.state.max_steps))
        return super().compute_loss(model, inputs, *arguments, **options)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        metrics = super().evaluate(*arguments, **options)
        if not self.recipe.fits_map:
            found = asdict(measured := self.measure())
            self.log({f"eval_{name}": float(value) for name, value in found.items()})
            if self.state.is_world_process_zero:
                self._store({"step": self.state.global_step, "beta": self.objective.beta, **found})
                if measured.collapsed and self.objective.beta:
                    log.warning("posterior collapse: the decoder does without the latent")
        return metrics

    @torch.inference_mode()
    def measure(self) -> Measures:
        """On the held-out texts."""
        objective = self.objective.eval()
        means, logvars, right, wrong, tokens = [], [], 0.0, 0.0, 0
        for batch in self.get_eval_dataloader():
            ids, labels = (batch[name].to(self.args.device) for name in ("encoder_ids", "labels"))
            mean, logvar = (part.float() for part in objective.net.encode(ids))
            right += float(objective.reconstruct(mean, labels).sum())
            wrong += float(objective.reconstruct(mean.roll(1, 0), labels).sum())
            tokens += int((labels != IGNORED).sum())
            means.append(mean.cpu())
            logvars.append(logvar.cpu())
        mean, logvar = torch.cat(means), torch.cat(logvars)
        information = mutual_information(mean, logvar, torch.Generator().manual_seed(self.recipe.seed))
        return Measures(
            len(mean), active_units(mean), mean_kl(mean, logvar), information, right / tokens, wrong / tokens
        )  # fmt: skip

    def _store(self, entry: Mapping[str, Any]) -> None:
        """A list of entries, one for each step that was measured; a run that goes on again replaces its own."""
        path = Path(self.args.output_dir) / MEASURES
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        kept = [old for old in before if old["step"] < entry["step"]]
        writing = path.with_suffix(".writing")
        writing.write_text(json.dumps([*kept, entry], indent=1) + "\n", encoding="utf-8")
        writing.replace(path)

    def write(self, model: nn.Module, folder: Path, state: Mapping[str, Tensor] | None) -> None:
        objective = cast(Objective, model)
        whole = state and {name.removeprefix("net."): tensor for name, tensor in state.items()}
        davae.save(objective.net, folder, latent_map=objective.latent_map, weights=whole, **self.saving)

    def read(self, model: nn.Module, folder: Path) -> None:
        objective, stored = cast(Objective, model), davae.Checkpoint(folder)
        objective.net.load_state_dict(stored.network(torch.device("cpu")).state_dict())
        if objective.latent_map is not None:
            found = stored.latent_map(torch.device("cpu"))
            assert found is not None
            objective.latent_map.load_state_dict(found.state_dict())
