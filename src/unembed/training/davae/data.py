"""Batches of the DAVAE family: texts in both vocabularies, and for the map their vectors.

Shapes: B rows, S tokens of the encoder, T pieces of a text and its end, E vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from unembed.models.base import IGNORED
from unembed.models.davae.tokenizer import PieceTokenizer
from unembed.models.davae.vae import Encoder
from unembed.training.corpora import PackedTexts
from unembed.training.rows import Rows, TokenRows, pad


def cut_texts(texts: Iterator[str], pieces: PieceTokenizer, n: int) -> list[str]:
    """The start of each text that has at most `n` pieces; those without any are left out."""
    return [start for text in texts if (start := pieces.start(text, n).strip())]


class PieceRows(TokenRows):
    """Pieces of many texts, each with its end, as TokenRows keeps them."""

    def __init__(self, texts: Sequence[str] | PackedTexts, pieces: PieceTokenizer, longest: int) -> None:
        rows = [[*ids, pieces.eos_id] for ids in pieces.encode([texts[i] for i in range(len(texts))])]
        before = np.array([len(ids) for ids in rows], dtype=np.int64)
        self.whole, self.lengths = before <= longest, np.minimum(before, longest)
        cut = (ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in rows)
        self._ids = np.fromiter((token for ids in cut for token in ids), dtype=np.int32)
        self._ends = np.cumsum(self.lengths)


class Collator:
    """Rows → a batch: encoder_ids [B, S], labels [B, T], and for rows with vectors targets [B, E]."""

    def __init__(self, encoder: Encoder, end: int, *, learn_end: bool = True, noise: float = 0.0) -> None:
        """encoder: reads texts; its network is not used. end: the id of the end of text, which is among the labels only
        if it is to be learned. noise: standard deviation on each number of a vector."""
        self.encoder, self.end, self.learn_end, self.noise = encoder, end, learn_end, noise

    def __call__(self, items: Sequence[tuple[Rows, int]]) -> dict[str, Tensor]:
        rows, at = items[0][0], [i for _, i in items]
        assert rows.texts is not None
        labels = pad([rows.labels[i] for i in at], IGNORED)
        if not self.learn_end:
            labels = labels.masked_fill(labels == self.end, IGNORED)
        read = self.encoder.read([rows.texts[i] for i in at])
        batch = {"encoder_ids": pad([np.array(row) for row in read], 0), "labels": labels}
        if rows.vectors is not None:
            targets = torch.from_numpy(np.asarray(rows.vectors[at], dtype=np.float32))
            batch["targets"] = targets + self.noise * torch.randn_like(targets) if self.noise else targets
        return batch
