"""From texts to training batches: chunks of spans are cut, embedded on the fly, sorted by length and padded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unembed.embedders import Embedder
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training.config import ObjectiveConfig, TrainConfig
from unembed.training.corpora import Corpus
from unembed.training.vectors import VectorFolder


@dataclass
class Batch:
    """Rows of about one length: token ids, their texts' vectors [B, d], and whether they get a hypothesis."""

    ids: list[list[int]]
    targets: np.ndarray
    width: int
    with_hypothesis: bool


class ChunkSource(Protocol):
    """Gives chunk number i of the training data; the same for the same i whatever was asked before."""

    def chunk(self, number: int) -> tuple[Sequence[str], np.ndarray]:
        """n texts and their vectors, float32 [n, d]."""


class SpanSource:
    """Fresh spans of a corpus, embedded now. Every process draws its own."""

    def __init__(self, corpus: Corpus, embedder: Embedder, size: int, seed: int, rank: int) -> None:
        self.corpus, self.embedder, self.size, self.seed, self.rank = corpus, embedder, size, seed, rank

    def chunk(self, number: int) -> tuple[Sequence[str], np.ndarray]:
        texts = self.corpus.sample(self.size, np.random.default_rng([self.seed, self.rank, number]))
        return texts, self.embedder.encode(texts)


class StoredSource:
    """Texts with precomputed vectors: each pass over the folder in a new order, its chunks dealt to the processes."""

    def __init__(self, folder: VectorFolder, size: int, seed: int, rank: int, processes: int) -> None:
        self.folder, self.size, self.seed, self.rank, self.processes = folder, size, seed, rank, processes

    def chunk(self, number: int) -> tuple[Sequence[str], np.ndarray]:
        size = min(self.size, len(self.folder))
        epoch, part = divmod(number * self.processes + self.rank, max(1, len(self.folder) // size))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.folder))
        rows = np.sort(order[part * size : (part + 1) * size])
        return [self.folder.texts[i] for i in rows.tolist()], np.asarray(self.folder.vectors[rows], dtype=np.float32)


class Ahead:
    """make(n), with make(n + 1) begun in a thread: a GPU need not wait for its next batches."""

    def __init__(self, make: Callable[[int], list[Batch]]) -> None:
        self.make, self.worker = make, ThreadPoolExecutor(1)
        self.begun: tuple[int, Future[list[Batch]]] | None = None

    def __call__(self, number: int) -> list[Batch]:
        if self.begun is None or self.begun[0] != number:
            self.begun = number, self.worker.submit(self.make, number)
        made = self.begun[1].result()
        self.begun = number + 1, self.worker.submit(self.make, number + 1)
        return made


def batches_of_chunk(
    source: ChunkSource, number: int, tokenizer: TextTokenizer, config: TrainConfig, rank: int
) -> list[Batch]:
    """The batches of one chunk in a fixed random order. Rows of about one length go together, so little is padding;
    texts beyond the longest of spans.lengths are left out, and so is a last batch that would be less than half full."""
    texts, vectors = source.chunk(number)
    ids = tokenizer.encode(texts)
    lengths = sorted(config.spans.lengths)
    rng = np.random.default_rng([config.seed, rank, number, 1])
    mixed = rng.permutation(len(ids)).tolist()  # rows of one length meet others each time
    order = sorted((i for i in mixed if 0 < len(ids[i]) <= lengths[-1]), key=lambda i: -len(ids[i]))
    batches: list[tuple[list[int], int]] = []
    while order:
        width = lengths[bisect_left(lengths, len(ids[order[0]]))]
        size = max(1, config.batch_tokens // width)
        if len(order) >= size / 2 or not batches:
            batches.append((order[:size], width))
        order = order[size:]
    out = []
    for at in rng.permutation(len(batches)).tolist():
        rows, width = batches[at]
        hypothesis = bool(rng.random() < config.objective.hypothesis_share)
        out.append(Batch([ids[i] for i in rows], vectors[rows], width, hypothesis))
    return out


def disturb(targets: np.ndarray, config: ObjectiveConfig, rng: np.random.Generator) -> np.ndarray:
    """Targets [B, d] with noise on some rows; renormalised to the length they had."""
    n, d = targets.shape
    lengths = np.linalg.norm(targets, axis=1, keepdims=True)
    scale = rng.uniform(0, config.noise_scale, size=(n, 1)) * (rng.random((n, 1)) < config.noise_share)
    noisy = targets + lengths * scale * rng.standard_normal((n, d)) / np.sqrt(d)
    return (noisy * lengths / np.maximum(np.linalg.norm(noisy, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def drop_condition(n: int, config: ObjectiveConfig, rng: np.random.Generator) -> np.ndarray:
    """Which rows [n] train the prior: their condition is the zero vector."""
    return rng.random(n) < config.prior_share
