"""Fits the guide of a model: a bag of words from many more texts than a network can be trained on in the time."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from unembed.errors import StorageError
from unembed.models.native.guide import SPECIAL, Guide
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training.batches import ChunkSource
from unembed.training.lexical import FIRST_CHUNK, bag_loss

WIDTH, ROWS, PASSES, RATE = 1024, 1024, 2.0, 2e-3
HELD_OUT = 2048
"""Texts at most that are not learnt from; a tenth where there are few."""
LOGGED = 100

log = logging.getLogger("unembed.train")


def fit_guide(
    source: ChunkSource, tokenizer: TextTokenizer, dim: int, spans: int, seed: int, folder: Path, device: torch.device
) -> Guide:
    """A guide fitted to about `spans` texts of `source`, whose vectors are kept in `folder` until it is done, so that a
    stopped fit need not embed them again. Raises StorageError."""
    vectors, rows = _collect(source, tokenizer, spans, folder)
    order = np.random.default_rng(seed).permutation(len(rows))
    held, learnt = np.split(order, [min(HELD_OUT, len(order) // 10)])
    torch.manual_seed(seed)
    guide = Guide(dim, WIDTH, tokenizer.vocab_size).to(device)
    counts = np.bincount(np.concatenate([rows[i] for i in learnt.tolist()]), minlength=tokenizer.vocab_size) + 0.5
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
    for path in folder.glob("guide-*.npz"):
        path.unlink()
    return guide.eval().requires_grad_(False)


def _loss(guide: Guide, vectors: np.ndarray, rows: list[np.ndarray], picked: np.ndarray) -> torch.Tensor:
    device = guide.out.weight.device
    with torch.autocast(device.type, torch.bfloat16):
        logits = guide(torch.from_numpy(vectors[picked].astype(np.float32)).to(device))  # B V
    return bag_loss(logits.float(), [rows[i] for i in picked.tolist()])


def _collect(
    source: ChunkSource, tokenizer: TextTokenizer, spans: int, folder: Path
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Vectors float16 [n, d] and token ids of n texts, at least `spans` of them, none empty."""
    vectors: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    while len(rows) < spans:
        path = folder / f"guide-{len(vectors):05d}.npz"
        if not path.exists():
            _embed(source, tokenizer, FIRST_CHUNK + len(vectors), path)
        with np.load(path) as stored:
            vectors.append(stored["vectors"])
            rows += np.split(stored["ids"], stored["ends"][:-1])
        log.info("guide: %d of %d texts embedded", min(len(rows), spans), spans)
    return np.concatenate(vectors), rows


def _embed(source: ChunkSource, tokenizer: TextTokenizer, number: int, path: Path) -> None:
    """Write one chunk: vectors, and all ids in a row with where each text ends."""
    texts, vectors = source.chunk(number)
    ids = tokenizer.encode(texts)
    kept = [i for i, row in enumerate(ids) if row]
    ends = np.cumsum([len(ids[i]) for i in kept])
    flat = np.concatenate([np.array(ids[i], dtype=np.int32) for i in kept])
    writing = path.with_suffix(".writing.npz")
    try:
        np.savez(writing, vectors=vectors[kept].astype(np.float16), ids=flat, ends=ends)
        writing.replace(path)
    except OSError as error:
        writing.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror}): free space, and run the same command") from error
