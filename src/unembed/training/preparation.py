"""What stands before the first step of a run on the Trainer: the embedder, and the rows with what is computed once,
shared by processes."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unembed.embedders import Embedder, check_match, embedder
from unembed.errors import CheckpointError, InputError
from unembed.processes import Processes
from unembed.training.config import SourceConfig
from unembed.training.corpora import PackedTexts
from unembed.training.rows import Rows, TokenRows, cut_texts, hold_out, texts_of
from unembed.training.run_config import RunConfig
from unembed.training.vectors import VectorFolder, finished, write_vectors

log = logging.getLogger("unembed.train")


class Preparation(ABC):
    """All that a run needs; a family adds its tokenizer and its network."""

    def __init__(self, config: RunConfig, processes: Processes, device: torch.device) -> None:
        self.config, self.processes, self.device, self.output = config, processes, device, Path(config.output)
        self.tokenizer = self._tokenizer()

    @cached_property
    def embedder(self) -> Embedder:
        """Opened when it is asked for: not every stage has vectors."""
        config = self.config
        return embedder(config.embedder, device=str(self.device), dtype=config.embedder_dtype)

    @abstractmethod
    def _tokenizer(self) -> Any:
        """The one whose tokens are learned; of transformers, unless a family tokenises by itself."""

    def _cut(self, texts: Iterator[str]) -> list[str]:
        """Each text up to the end of its last token that can be learned."""
        return cut_texts(texts, self.tokenizer, self.config.label_tokens - 1)

    @abstractmethod
    def _complete(self, rows: Rows, made: VectorFolder, prefix: str) -> None:
        """What a family computes once for rows that have vectors."""

    def tokens(self, texts: Sequence[str] | PackedTexts) -> TokenRows:
        """What is learned of each text."""
        return TokenRows(texts, self.tokenizer, self.config.label_tokens)

    def rows(self) -> tuple[Rows, Rows]:
        """For training and for evaluation."""
        config = self.config
        rows = self._open(config.texts, config.vectors, "", config.use_less_data)
        if config.eval_texts:
            train, held = rows, self._open(config.eval_texts, None, "eval-", config.max_eval_samples)
        else:
            train, held = hold_out(rows, config.max_eval_samples)
        log.info("%d texts to train on, %d held out", len(train), len(held))
        return train, held

    def _open(self, sources: Sequence[SourceConfig], vectors: str | None, prefix: str, limit: int | None) -> Rows:
        """Rows of texts, or of a folder of vectors that is there or is made of the texts now."""
        config = self.config
        if not config.precompute:
            texts = self._read(sources, limit)
            labels = self.tokens(texts)
            return Rows(labels, np.arange(len(labels)), texts=PackedTexts(texts))
        folder = Path(vectors) if vectors else self.output / f"{prefix}vectors"
        if sources and not finished(folder):
            write_vectors(
                self._read(sources, limit), self.embedder, folder, dtype=config.store, processes=self.processes,
                progress=self._progress("vectors"),
            )  # fmt: skip
        made = VectorFolder(folder)
        check_match(made.spec, self.embedder.spec, expected_name=str(folder))
        if made.vectors.shape[1] != self.embedder.spec.dim:
            raise InputError(
                f"{folder} holds vectors of {made.vectors.shape[1]} numbers, the embedder's have "
                f"{self.embedder.spec.dim}: embed the texts again into a new folder"
            )
        labels = self.tokens(made.texts)
        used = np.flatnonzero(labels.whole)[:limit]
        if long := int((~labels.whole).sum()):
            log.info("%d of %d texts left out: more than %d tokens", long, len(labels), config.max_seq_length)
        if not len(used):
            raise InputError(f"all texts of {folder} have more than {config.max_seq_length} tokens: raise it")
        rows = Rows(labels, used, vectors=made.vectors)
        self._complete(rows, made, prefix)
        return rows

    def _read(self, sources: Sequence[SourceConfig], limit: int | None) -> list[str]:
        texts = self._cut(self._texts(sources, limit))
        if not texts:
            raise InputError(f"{', '.join(source.path for source in sources)}: no text there; give other texts")
        return texts

    def _texts(self, sources: Sequence[SourceConfig], limit: int | None) -> Iterator[str]:
        return texts_of(sources, limit)

    def _own_tokenizer(self, train: Callable[[Iterator[str], int, Path], None], size: int) -> Path:
        """The folder of a tokenizer with at most `size` entries that is trained on the texts of the run, once."""
        folder, config = self.output / "tokenizer", self.config
        if self.processes.rank == 0 and not (folder / "tokenizer_config.json").exists():
            stored = None if config.texts else iter(VectorFolder(str(config.vectors)).texts)
            train(stored or self._texts(config.texts, config.use_less_data), size, folder)
        self.processes.wait()
        return folder

    def _progress(self, what: str) -> Callable[[int, int], None] | None:
        if self.processes.rank > 0:
            return None
        return lambda done, total: log.info("%s: %d of %d", what, done, total)


def unfetched(what: str, name: str, error: Exception) -> CheckpointError:
    """The error for what a library could not get."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{what} {name} is no folder here and cannot be fetched ({first}): give a folder or a hub id"
    )
