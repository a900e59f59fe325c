"""The embedder inside a vec2text hypothesizer: its checkpoints carry the T5 encoder that they were trained on.

It is that very embedder, raw: the mean of the encoder's states over the text's tokens, cut to `max_seq_length`, without
the Dense and Normalize layers of Sentence-Transformers. Nothing has to be fetched.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.devices import resolve_device
from unembed.embedders.spec import DTYPES, EmbedderSpec
from unembed.embedders.tokenized import TokenizedEmbedder
from unembed.embedders.tokens import copy_tokenizer
from unembed.errors import InputError

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


class CheckpointEmbedder(TokenizedEmbedder):
    """The encoder in a vec2text hypothesizer's folder.

    Args:
        folder: of the hypothesizer. CheckpointError when it holds no encoder.
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

        from unembed.checkpoints import t5, vec2text
        from unembed.models.linear import for_inference

        if dtype not in DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        self.folder, self.batch_size = Path(folder), batch_size
        checkpoint = vec2text.Checkpoint(self.folder)
        self._spec = checkpoint.spec
        self.device = resolve_device(device)
        self.encoder = t5.encoder(checkpoint.embedder_tensors(), self.folder, self.device, getattr(torch, dtype))
        if self.device.type == "cpu":
            for_inference(self.encoder, self.encoder)
        self.tokenizer: Any = checkpoint.tokenizer()

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    def _embed(self, texts: list[str]) -> np.ndarray:
        import torch

        order = np.argsort([-len(text) for text in texts], kind="stable")
        out = np.empty((len(texts), self.spec.dim), dtype=np.float32)
        for i in range(0, len(texts), self.batch_size):
            rows = order[i : i + self.batch_size]
            batch = self.tokenizer(
                [texts[row] for row in rows], truncation=True, max_length=self.spec.max_tokens, padding=True,
                return_tensors="pt",
            ).to(self.device)  # fmt: skip
            with torch.inference_mode():
                states = self.encoder(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            mask = batch["attention_mask"][:, :, None]  # b T 1
            mean = (states.last_hidden_state.float() * mask).sum(1) / mask.sum(1)  # b E
            out[rows] = mean.cpu().numpy()
        return out

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return copy_tokenizer(self.tokenizer.backend_tokenizer)

    def _tokens(self) -> Tokenizer:
        return self._tokenizer

    def __repr__(self) -> str:
        return f"CheckpointEmbedder({str(self.folder)!r})"
