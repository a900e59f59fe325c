"""A DAVAE's encoder as an embedder: a text's vector is the mean of its latent. Without a map, a DAVAE inverts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unembed.devices import resolve_device
from unembed.embedders.spec import DTYPES, EmbedderSpec
from unembed.embedders.tokenized import TokenizedEmbedder
from unembed.embedders.tokens import copy_tokenizer
from unembed.errors import InputError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


class DAVAEEmbedder(TokenizedEmbedder):
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
        self._tokenizer = copy_tokenizer(self.encoder.reader.backend_tokenizer)

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    def _embed(self, texts: list[str]) -> np.ndarray:
        return self.encoder.posterior(texts)[0]

    def _tokens(self) -> Tokenizer:
        return self._tokenizer

    def __repr__(self) -> str:
        return f"DAVAEEmbedder({str(self.folder)!r})"
