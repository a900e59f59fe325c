"""From texts to rows of token ids: cut, tokenised once, held out, and in which order they come.

Shapes: n rows, E vector, B rows of a batch, T text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from unembed.embedders.tokens import copy_tokenizer
from unembed.errors import InputError
from unembed.training.config import SourceConfig
from unembed.training.corpora import PackedTexts, read_texts
from unembed.training.hypotheses import HypothesisFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATASETS = {"nq": "hf:jxm/nq_corpus_dpr", "msmarco": "hf:Tevatron/msmarco-passage-corpus"}
"""Names of training sets → where they are on the hub."""
AT_ONCE = 10_000
"""Texts tokenised at a time."""
MIXED = 50
"""Batches that are sorted together by length."""


def texts_of(sources: Sequence[SourceConfig], limit: int | None) -> Iterator[str]:
    """The texts of all sources, at most `limit`."""
    named = (SourceConfig(**{**vars(source), "path": DATASETS.get(source.path, source.path)}) for source in sources)
    return islice((text for source in named for text in read_texts(source)), limit)


def cut_texts(texts: Iterator[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """Each text up to the end of its first `tokens` tokens, as it stands there; those without any are left out."""
    plain, out = copy_tokenizer(tokenizer.backend_tokenizer), []

    def start(text: str, ends: list[int]) -> str:
        """The longest start with at most `tokens` tokens: a word that is cut through may need more than it had."""
        found = (text[:end].strip() for end in reversed(ends))
        return next((piece for piece in found if len(plain.encode(piece, add_special_tokens=False).ids) <= tokens), "")

    while part := list(islice(texts, AT_ONCE)):
        for text, encoding in zip(part, plain.encode_batch(part, add_special_tokens=False), strict=True):
            if len(encoding.ids) > tokens:
                text = start(text, [end for _, end in encoding.offsets[:tokens]])
            if encoding.ids and text:
                out.append(text)
    return out


class TokenRows:
    """Token ids of many texts, each with its end of text, in one array: `rows[i]` is int32 [T]."""

    def __init__(
        self,
        texts: Sequence[str] | PackedTexts,
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        end: int | None = None,
    ) -> None:
        """Texts of more than `longest` tokens are cut; `whole` [n] says which are not. end: what stands behind each
        text, and no other special token, in place of what the tokenizer adds (a T5's adds its `</s>`)."""
        plain = copy_tokenizer(tokenizer.backend_tokenizer, encode_special_tokens=end is not None)
        lengths, pieces = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int32)]
        for start in range(0, len(texts), AT_ONCE):
            part = [texts[i] for i in range(start, min(start + AT_ONCE, len(texts)))]
            rows = [encoding.ids for encoding in plain.encode_batch(part, add_special_tokens=end is None)]
            if end is not None:
                rows = [[*ids, end] for ids in rows]
            lengths.append(np.array([len(ids) for ids in rows]))
            cut = (ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]] for ids in rows)
            pieces.append(np.fromiter((token for ids in cut for token in ids), dtype=np.int32))
        before = np.concatenate(lengths)
        self.whole, self.lengths = before <= longest, np.minimum(before, longest)
        self._ends, self._ids = np.cumsum(self.lengths), np.concatenate(pieces)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._ids[self._ends[i] - self.lengths[i] : self._ends[i]]


@dataclass
class Rows:
    """Texts as tokens, their vectors [n, E] (or the texts, to embed them on the fly), for a corrector the hypotheses;
    and which rows are used. A dataset of row numbers: the collator fetches a whole batch at once."""

    labels: TokenRows
    used: np.ndarray
    vectors: np.ndarray | None = None
    texts: PackedTexts | None = None
    hypotheses: HypothesisFolder | None = None
    hypothesis_tokens: TokenRows | None = None

    def __len__(self) -> int:
        return len(self.used)

    def __getitem__(self, i: int) -> tuple[Rows, int]:
        return self, int(self.used[i])

    @property
    def lengths(self) -> np.ndarray:
        return self.labels.lengths[self.used]

    def part(self, used: np.ndarray) -> Rows:
        return Rows(self.labels, used, self.vectors, self.texts, self.hypotheses, self.hypothesis_tokens)


def hold_out(rows: Rows, n: int) -> tuple[Rows, Rows]:
    """Training rows and, from the end, at most `n` and at most a tenth of them for evaluation."""
    n = min(n, len(rows) // 10)
    if n < 1:
        raise InputError(f"{len(rows)} texts are too few to train on and hold some out: give at least 10")
    return rows.part(rows.used[:-n]), rows.part(rows.used[-n:])


def pad(rows: Sequence[np.ndarray], value: int) -> Tensor:
    """int64 [B, T], right-padded with `value` to the longest."""
    out = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


class Order(Sampler[int]):
    """The rows of an epoch: a function of (seed, epoch), the same on all processes. With `lengths`, rows of about one
    length stand together in runs of `batch`, and the runs are mixed."""

    def __init__(self, n: int, seed: int, batch: int, lengths: np.ndarray | None = None) -> None:
        """batch: rows of a step on all processes together."""
        self.n, self.seed, self.batch, self.lengths, self.epoch = n, seed, batch, lengths, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.n)
        if self.lengths is not None:
            pool = MIXED * self.batch
            for start in range(0, self.n, pool):
                part = order[start : start + pool]
                order[start : start + pool] = part[np.argsort(-self.lengths[part], kind="stable")]
            runs = [order[i : i + self.batch] for i in range(0, self.n, self.batch)]
            last = [runs.pop()] if len(runs[-1]) < self.batch else []  # the short one stays at the end
            order = np.concatenate([*(runs[i] for i in rng.permutation(len(runs))), *last])
        return iter(order.tolist())
