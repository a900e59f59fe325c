"""Batches of the encoder-decoder family: rows of tokens and vectors, padded to the batch's longest.

Shapes: n rows, E vector, B rows of a batch, T text tokens, S hypothesis tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unembed.embedders import Embedder
from unembed.models.base import IGNORED, InversionModel
from unembed.training.hypotheses import HypothesisFolder, embed_drafts
from unembed.training.rows import Rows, TokenRows, pad

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAME = 1e-3
"""A hypothesis whose vector is this near to the target, relative to its length, leaves nothing to correct; float16
alone moves a vector by less than half of it."""


def not_yet_right(rows: Rows, hypotheses: HypothesisFolder, chunk: int = 4096) -> np.ndarray:
    """Of `rows.used` those whose hypothesis has something to correct and to learn from: not empty, and not embedded to
    the target already."""
    assert rows.vectors is not None
    keep = np.zeros(len(rows.labels), dtype=bool)
    for start in range(0, len(rows.labels), chunk):
        part = slice(start, start + chunk)
        target = np.asarray(rows.vectors[part], dtype=np.float32)
        theirs = np.asarray(hypotheses.vectors[part], dtype=np.float32)
        far = np.linalg.norm(target - theirs, axis=1) > SAME * np.linalg.norm(target, axis=1)
        keep[part] = far & theirs.any(axis=1)
    return rows.used[keep[rows.used]]


class Collator:
    """Rows → a batch: targets [B, E], labels [B, T], and for a corrector hypothesis_ids [B, S] and hypothesis_vectors
    [B, E]. What is not precomputed is embedded and written here."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        *,
        noise: float = 0.0,
        start: bool = False,
        embedder: Embedder | None = None,
        hypothesizer: InversionModel | None = None,
    ) -> None:
        """longest: tokens of a hypothesis. start: a start token stands in front of it. embedder, hypothesizer: for
        rows without vectors or hypotheses."""
        self.tokenizer, self.longest, self.noise, self.start = tokenizer, longest, noise, start
        self.embedder, self.hypothesizer = embedder, hypothesizer

    def __call__(self, items: Sequence[tuple[Rows, int]]) -> dict[str, Tensor]:
        rows, at = items[0][0], [i for _, i in items]
        if rows.vectors is None:
            assert rows.texts is not None and self.embedder is not None
            targets = self.embedder.encode([rows.texts[i] for i in at])
        else:
            targets = np.asarray(rows.vectors[at], dtype=np.float32)
        if self.noise:
            targets = targets + self.noise * torch.randn(targets.shape).numpy()
        batch: dict[str, Any] = {
            "targets": torch.from_numpy(targets),
            "labels": pad([rows.labels[i] for i in at], IGNORED),
        }
        if rows.hypotheses is not None:
            assert rows.hypothesis_tokens is not None
            ids = [rows.hypothesis_tokens[i] for i in at]
            vectors = np.asarray(rows.hypotheses.vectors[at], dtype=np.float32)
        elif self.hypothesizer is not None and self.embedder is not None:
            drafts = [row[0].text for row in self.hypothesizer.hypothesize(targets)]
            vectors = embed_drafts(drafts, self.embedder)
            tokens = TokenRows(drafts, self.tokenizer, self.longest)
            ids = [tokens[i] for i in range(len(tokens))]
        else:
            return batch
        hypothesis = pad(ids, 0)
        batch["hypothesis_ids"] = torch.nn.functional.pad(hypothesis, (1, 0)) if self.start else hypothesis
        batch["hypothesis_vectors"] = torch.from_numpy(vectors)
        return batch
