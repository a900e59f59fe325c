"""Muon for the hidden matrices, AdamW for the rest, and the warm-up / constant / linear-decay schedule."""

from __future__ import annotations

import torch

from unembed.models.native import NativeNetwork
from unembed.training.config import OptimiserConfig


def build_optimisers(net: NativeNetwork, config: OptimiserConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024; torch.optim.Muon) orthogonalises the momentum of 2-D hidden weights; the token table,
    the heads and the small vectors, whose rows are used one at a time or alone, take AdamW."""
    groups = {name: [p for p in group if p.requires_grad] for name, group in net.parameter_groups().items()}
    rates = {"embed": config.embed_lr, "head": config.head_lr, "reader": config.reader_lr, "vectors": config.vector_lr}
    decay = config.weight_decay
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(groups["matrices"], lr=config.muon_lr, momentum=0.95, weight_decay=decay)
        if config.adamw_lr is None
        else torch.optim.AdamW(groups["matrices"], lr=config.adamw_lr, betas=(0.9, 0.95), weight_decay=decay),
        torch.optim.AdamW(
            [{"params": groups[name], "lr": rate} for name, rate in rates.items() if groups[name]],
            betas=(0.8, 0.95),
            eps=1e-10,
            weight_decay=0.0,
        ),
    ]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return optimisers


def schedule(step: int, max_steps: int, config: OptimiserConfig, restarted: int = 0) -> float:
    """Factor on the peak learning rates at `step` (0-based), where the optimisers began anew at step `restarted`."""
    warmup = max(1, round(config.warmup * max_steps))
    decay = max(1, round(config.decay * max_steps))
    factor = min(1.0, (step + 1) / warmup, max(0, max_steps - step) / decay)
    return min(factor, (step + 1 - restarted) / max(1, config.rewarm)) if restarted else factor


def set_learning_rate(optimisers: list[torch.optim.Optimizer], factor: float) -> None:
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
