"""Writing texts with a network of this backend: greedily, or by the beam search of transformers (early_stopping=False,
length_penalty=1), one compiled step for each token.

The choice among tokens is made on the device, so that of each step only the best few tokens of each text come back; the
bookkeeping of the beams is numpy.

Shapes: B rows, w beams, R = B · w texts, T text tokens.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

NEVER = -1e9
"""A score that no text has."""


class Writer:
    """The compiled steps of one network, for one number of rows and beams and one length."""

    def __init__(self, net: Any, width: int, longest: int, end: int) -> None:  # noqa: ANN401  (a Cell of this backend)
        """longest: ids of a text at most, the start token included. end: the id that ends a text."""
        self.width, self.longest, self.end = width, longest, end
        picks, room = (1 if width == 1 else 2 * width), longest - 1

        def best(logits: Tensor) -> tuple[Tensor, Tensor]:
            """log p of the best tokens [R, picks] and the tokens."""
            return ops.topk(ops.log_softmax(logits, -1), picks)

        def begin(*condition: Tensor) -> Any:  # noqa: ANN401
            logits, fixed, caches = net.begin(width, room, *condition)
            return best(logits), fixed, caches

        # Tensors one by one: a tuple among the arguments is taken for a constant, and compiled anew when it changes.
        def step(tokens: Tensor, at: Tensor, parents: Tensor, *state: Tensor) -> Any:  # noqa: ANN401
            fixed, moved = state[: net.fixed], ()
            for cache in state[net.fixed :]:
                moved += (ops.gather(cache, parents, 0),)  # type: ignore[assignment]
            logits, caches = net.step(tokens, at, fixed, moved)
            return best(logits), caches

        self._begin, self._step = ms.jit(begin), ms.jit(step)

    def write(self, *condition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's condition (targets [B, E]…) → ids int64 [B, w, T], start token first, padded with 0, best text
        first, and log p [B, w] in nats."""
        rows = len(condition[0])
        (logprobs, tokens), fixed, caches = self._begin(*(Tensor(part) for part in condition))
        search = Beams(rows, self.width, self.longest, self.end)
        for at in range(1, self.longest):
            chosen, parents, done = search.take(at, logprobs.asnumpy(), tokens.asnumpy())
            if done:
                break
            (logprobs, tokens), caches = self._step(
                Tensor(chosen, ms.int32), Tensor(at, ms.int32), Tensor(parents, ms.int32), *fixed, *caches
            )
        return search.result(at)


class Beams:
    """What is being written: w running texts of each row and the w best that have ended. One beam is greedy choice."""

    def __init__(self, rows: int, width: int, longest: int, end: int) -> None:
        self.rows, self.width, self.longest, self.end = rows, width, longest, end
        self.running = np.zeros((rows, width, longest), dtype=np.int64)
        self.scores = np.full((rows, width), NEVER, dtype=np.float32)
        self.scores[:, 0] = 0  # all beams start alike: one of them counts
        self.ended = np.zeros_like(self.running)
        self.sums, self.means = np.zeros_like(self.scores), np.full_like(self.scores, NEVER)
        self.open = np.ones(rows, dtype=bool)

    def take(self, at: int, logprobs: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        """The best tokens of each text [R, picks], to stand at place `at`, and their log p → the tokens to go on with
        [R], the text that each continues [R], and whether all is done."""
        B, w = self.rows, self.width
        picks = logprobs.shape[1]
        total = (logprobs.reshape(B, w, picks) + self.scores[:, :, None]).reshape(B, -1)
        order = np.argsort(-total, axis=1, kind="stable")[:, : max(2 * w, 1) if w > 1 else 1]
        best, parents = np.take_along_axis(total, order, 1), order // picks
        chosen = np.take_along_axis(tokens.reshape(B, -1), order, 1).astype(np.int64)
        grown = np.take_along_axis(self.running, parents[:, :, None], 1)
        grown[:, :, at] = chosen
        ends = (chosen == self.end) | (at == self.longest - 1)
        # Only what ends among the best w counts as an ended text; rows that are done take no more.
        counts = ends[:, :w] & self.open[:, None]
        self._keep(np.where(counts, best[:, :w] / at, NEVER), best[:, :w], grown[:, :w])
        running = np.where(ends, NEVER, best)
        order = np.argsort(-running, axis=1, kind="stable")[:, :w]
        self.scores = np.take_along_axis(running, order, 1)
        self.running = np.take_along_axis(grown, order[:, :, None], 1)
        # A row is done when its best running text, ended here, would be no better than the worst that has ended.
        self.open &= self.scores[:, 0] / at > self.means[:, -1]
        parents = np.take_along_axis(parents, order, 1) + np.arange(B)[:, None] * w
        return np.take_along_axis(chosen, order, 1).ravel(), parents.ravel(), not self.open.any()

    def _keep(self, means: np.ndarray, sums: np.ndarray, ids: np.ndarray) -> None:
        """Of the ended texts and these the best."""
        means = np.concatenate([self.means, means], 1)
        order = np.argsort(-means, axis=1, kind="stable")[:, : self.width]
        self.means = np.take_along_axis(means, order, 1)
        self.sums = np.take_along_axis(np.concatenate([self.sums, sums], 1), order, 1)
        self.ended = np.take_along_axis(np.concatenate([self.ended, ids], 1), order[:, :, None], 1)

    def result(self, at: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ended[:, :, : at + 1], self.sums
