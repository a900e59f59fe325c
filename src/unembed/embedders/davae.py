"""A DAVAE's encoder as an embedder: a text's vector is the mean of its latent. Without a map, a DAVAE inverts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unembed.devices import resolve_device
from unembed.embedders.base import Embedder, check_texts
from unembed.embedders.spec import DTYPES, EmbedderSpec
from unembed.embedders.tokens import copy_tokenizer, count_tokens, cut_text, vocabulary
from unembed.errors import InputError

if TYPE_CHECKING:
    import torch


class DAVAEEmbedder(Embedder):
    """The encoder in a DAVAE's folder; its decoder is not read.

    Args:
        folder: of the model. CheckpointError where it is damaged.
        device: see `unembed.devices.resolve_device`.
        dtype: precision of the encoder.
        batch_size: texts in a forward pass at most.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str | torch.device | None = None,
        dtype: str = "float32",
        batch_size: int = 64,
    ) -> None:
        import torch

        from unembed.checkpoints.davae import ENCODER, Checkpoint
        from unembed.models.davae.vae import Encoder

        if dtype not in DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        self.folder = Path(folder)
        checkpoint = Checkpoint(self.folder)
        self._spec = checkpoint.own_spec
        net = checkpoint.network(resolve_device(device), getattr(torch, dtype), ENCODER)
        self.encoder = Encoder(net, checkpoint.reader(), checkpoint.quirks, batch_size=batch_size)
        self._tokens = copy_tokenizer(self.encoder.reader.backend_tokenizer)

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    def _embed(self, texts: list[str]) -> np.ndarray:
        return self.encoder.posterior(texts)[0]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of content tokens in each whole text."""
        return count_tokens(self._tokens, check_texts(texts, allow_empty=True))

    def cut(self, text: str, n: int) -> str | None:
        """The longest start of `text` with exactly `n` tokens; see `Embedder.cut`."""
        return cut_text(self._tokens, text, n)

    def vocabulary(self) -> list[str]:
        return vocabulary(self._tokens)

    def __repr__(self) -> str:
        return f"DAVAEEmbedder({str(self.folder)!r})"
