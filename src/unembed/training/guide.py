"""Fits the guide of a model: a bag of words from many more texts than a network can be trained on in the time."""

from __future__ import annotations

import logging

import numpy as np
import torch

from unembed.models.native.guide import SPECIAL, Guide
from unembed.training.lexical import bag_loss

WIDTH, ROWS, PASSES, RATE = 1024, 1024, 2.0, 2e-3
HELD_OUT = 2048
"""Texts at most that are not learnt from; a tenth where there are few."""
LOGGED = 100

log = logging.getLogger("unembed.train")


def fit_guide(vectors: np.ndarray, rows: list[np.ndarray], vocab_size: int, seed: int, device: torch.device) -> Guide:
    """A guide fitted to texts, given as token ids, with vectors [n, d]."""
    order = np.random.default_rng(seed).permutation(len(rows))
    held, learnt = np.split(order, [min(HELD_OUT, len(order) // 10)])
    torch.manual_seed(seed)
    guide = Guide(vectors.shape[1], WIDTH, vocab_size).to(device)
    counts = np.bincount(np.concatenate([rows[i] for i in learnt.tolist()]), minlength=vocab_size) + 0.5
    counts[:SPECIAL] = 0.5
    guide.frequency.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    with torch.no_grad():
        guide.out.bias.copy_(guide.frequency)
    optimiser = torch.optim.AdamW(guide.parameters(), lr=RATE, weight_decay=0.0)
    steps = max(1, round(PASSES * len(learnt) / ROWS))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=steps)
    rng, waiting = np.random.default_rng([seed, 1]), learnt[:0]
    for step in range(steps):
        if len(waiting) < min(ROWS, len(learnt)):
            waiting = rng.permutation(learnt)
        picked, waiting = waiting[:ROWS], waiting[ROWS:]
        loss = _loss(guide, vectors, rows, picked)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        if step % LOGGED == 0 or step == steps - 1:
            with torch.inference_mode():
                unseen = _loss(guide, vectors, rows, held) if len(held) else loss
            log.info("guide: step %d/%d, %.3f nats a token, %.3f held out", step, steps, loss.item(), unseen.item())
    return guide.eval().requires_grad_(False)


def _loss(guide: Guide, vectors: np.ndarray, rows: list[np.ndarray], picked: np.ndarray) -> torch.Tensor:
    device = guide.out.weight.device
    with torch.autocast(device.type, torch.bfloat16):
        logits = guide(torch.from_numpy(vectors[picked].astype(np.float32)).to(device))  # B V
    return bag_loss(logits.float(), [rows[i] for i in picked.tolist()])
