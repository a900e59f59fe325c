"""Where the reader and the lexical head start: a bag of words, fitted in minutes before the network is trained.

Regression from the vector to the counts of the text's tokens (the bag-of-words attack of Song & Raghunathan, CCS 2020).
One product a text instead of one a token: which words a vector holds is learned far sooner this way than through the
whole network (docs/lab.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unembed.models.native import NativeNetwork
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training.batches import ChunkSource

PASSES, ROWS = 2, 1024
FIRST_CHUNK = 1 << 40  # chunks that training does not reach

log = logging.getLogger("unembed.train")


def fit_lexical_head(
    net: NativeNetwork, source: ChunkSource, tokenizer: TextTokenizer, spans: int, seed: int, dtype: torch.dtype
) -> None:
    """Fit net.lexical_in, and net.reader if there is one, to about `spans` texts of `source`.

    The network has no use for the fitted bias, the plain frequency of a token: its output layer learns that at once.
    """
    vectors, rows = _collect(source, tokenizer, spans)
    device = net.device
    bias = torch.zeros(net.config.vocab_size, device=device, requires_grad=True)
    weights = [net.lexical_in.weight] + ([net.reader.weight] if net.config.reader_width else [])
    optimiser = torch.optim.AdamW([{"params": weights, "lr": 2e-3}, {"params": [bias], "lr": 0.03}], weight_decay=0.0)
    steps = max(1, PASSES * len(rows) // ROWS)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        picks = rng.choice(len(rows), size=min(ROWS, len(rows)), replace=False)
        logits = net.bag(torch.from_numpy(vectors[picks]).to(device), dtype)
        loss = bag_loss(logits.float() + bias, [rows[i] for i in picks.tolist()])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
        if step % 100 == 0:
            log.info("lexical head: step %d/%d, %.3f nats a token", step, steps, loss.item())


def _collect(source: ChunkSource, tokenizer: TextTokenizer, spans: int) -> tuple[np.ndarray, list[list[int]]]:
    """Vectors float32 [n, d] and token ids of n texts, at least `spans` of them, none empty."""
    vectors: list[np.ndarray] = []
    rows: list[list[int]] = []
    number = FIRST_CHUNK
    while len(rows) < spans:
        texts, chunk = source.chunk(number)
        ids = tokenizer.encode(texts)
        kept = [i for i, row in enumerate(ids) if row]
        rows += [ids[i] for i in kept]
        vectors.append(chunk[kept])
        number += 1
    return np.concatenate(vectors), rows


def bag_loss(logits: Tensor, rows: Sequence[Sequence[int] | np.ndarray]) -> Tensor:
    """Mean −log p over all tokens of all rows, from logits [B, V]; the order of the tokens plays no part."""
    owner = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(row) for row in rows])).to(logits.device)
    token = torch.from_numpy(np.concatenate(rows)).to(logits.device)
    return -logits.log_softmax(dim=-1)[owner, token].mean()
