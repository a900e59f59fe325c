"""Where the lexical head starts: a linear bag of words, fitted in a minute or two before the network is trained.

Softmax regression from the vector to the counts of the text's tokens (the bag-of-words attack of Song & Raghunathan,
CCS 2020). One product a text instead of one a token: what is linear in the vector is learned far sooner this way than
through the whole network (docs/lab.md).
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from unembed.models.native import NativeNetwork
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training.batches import ChunkSource

PASSES, ROWS = 3, 1024
FIRST_CHUNK = 1 << 30  # chunks that training does not reach

log = logging.getLogger("unembed.train")


def fit_lexical_head(net: NativeNetwork, source: ChunkSource, tokenizer: TextTokenizer, spans: int, seed: int) -> None:
    """Fit net.lexical_in to about `spans` texts of `source`.

    The network has no use for the fitted bias, the plain frequency of a token: its output layer learns that at once.
    """
    vectors, rows = _collect(source, tokenizer, spans)
    E, V, device = net.config.embedding_dim, net.config.vocab_size, net.device
    weight = torch.zeros(V, E, device=device, requires_grad=True)
    bias = torch.zeros(V, device=device, requires_grad=True)
    optimiser = torch.optim.AdamW([{"params": [weight], "lr": 2e-3}, {"params": [bias], "lr": 0.03}], weight_decay=0.0)
    steps = max(1, PASSES * len(rows) // ROWS)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        picks = rng.choice(len(rows), size=min(ROWS, len(rows)), replace=False)
        e = torch.from_numpy(vectors[picks]).to(device) * E**0.5  # unit RMS, as the network takes it
        loss = _bag_loss(e @ weight.T + bias, [rows[i] for i in picks.tolist()])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            log.info("lexical head: step %d/%d, %.3f nats a token", step, steps, loss.item())
    with torch.no_grad():
        net.lexical_in.weight.zero_()
        net.lexical_in.weight[:, :E] = weight  # the other half takes e − ê, which is 0 until there are hypotheses


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


def _bag_loss(logits: Tensor, rows: list[list[int]]) -> Tensor:
    """Mean −log p over all tokens of all rows, from logits [B, V]; the order of the tokens plays no part."""
    owner = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(row) for row in rows])).to(logits.device)
    token = torch.from_numpy(np.concatenate(rows)).to(logits.device)
    return -logits.log_softmax(dim=-1)[owner, token].mean()
