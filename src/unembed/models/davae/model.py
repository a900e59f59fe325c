"""DAVAE as an inverter: a learned map from an embedder's vectors to latents, in front of the decoder.

Without a map it inverts its own latents: its encoder is then the embedder (`embedders.davae`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from unembed.errors import InputError
from unembed.models.base import GREEDY, Hypothesis, InversionModel, Sampling
from unembed.models.batching import in_batches
from unembed.models.davae.generation import Written, beam_search, drawn, write
from unembed.models.davae.losses import reconstruction
from unembed.models.davae.vae import TextVAE

if TYPE_CHECKING:
    from unembed.embedders.spec import EmbedderSpec


class LatentMap(nn.Sequential):
    """A vector [B, E] → a latent [B, L]: normalised, then one hidden layer."""

    def __init__(self, dim: int, hidden: int, latent_size: int, dropout: float = 0.0) -> None:
        super().__init__(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, latent_size)
        )


class DAVAEModel(InversionModel):
    """A text auto-encoder whose latents are guessed from vectors."""

    family = "davae"
    has_prior = False

    def __init__(
        self, vae: TextVAE, latent_map: LatentMap | None, spec: EmbedderSpec, *, max_tokens: int | None = None
    ) -> None:
        """latent_map: None where the vectors are the model's own latents. max_tokens: longest text written."""
        self.vae, self.latent_map, self.spec = vae, latent_map, spec
        self.max_tokens = max_tokens or vae.settings.max_out_length - 1
        self.batch_size = vae.batch_size

    @torch.inference_mode()
    def latents(self, targets: np.ndarray) -> Tensor:
        """[rows, L] for targets float32 [rows, E]. Raises InputError for NaN."""
        if self.latent_map is None:
            return self.vae.tensor(targets)
        if not np.isfinite(targets).all():
            raise InputError("a target holds NaN or infinity: embed its text again")
        found = torch.as_tensor(np.array(targets, dtype=np.float32, order="C"), device=self.vae.net.device)
        return self.latent_map(found)

    def hypothesize(
        self, targets: np.ndarray, n: int = 1, sampling: Sampling = GREEDY, seed: int = 0
    ) -> list[list[Hypothesis]]:
        return self.write(self.latents(targets), n, sampling, seed)

    def correct(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> list[list[Hypothesis]]:
        """n texts of each row from the latent of its hypothesis, moved by as much as the map says that the vectors are
        apart: what the map gets wrong of both is left out."""
        mean, _ = self.vae.posterior(hypotheses)
        moved = self.vae.tensor(mean) + self.latents(targets) - self.latents(hypothesis_vectors)
        return self.write(moved, n, sampling, seed)

    def write(self, latents: Tensor, n: int, sampling: Sampling, seed: int) -> list[list[Hypothesis]]:
        """n texts of each latent [rows, L], in batches of about `batch_size` texts."""
        pieces, decoder, longest = self.vae.pieces, self.vae.net.decoder, self.max_tokens + 1
        width = max(n, sampling.beams) if sampling.beams or sampling.temperature == 0 else 1
        draw = torch.Generator(latents.device).manual_seed(seed)

        def some(part: slice) -> list[list[Hypothesis]]:
            if width > 1:
                rows = beam_search(
                    decoder, latents[part], pieces.bos_id, n, width, end=pieces.eos_id, longest=longest
                )  # fmt: skip
                return [[self._hypothesis(text) for text in row] for row in rows]
            repeated = latents[part].repeat_interleave(n, 0)
            starts = self.vae.starts(None, len(repeated))
            texts = write(decoder, repeated, starts, drawn(sampling, draw), end=pieces.eos_id, longest=longest)
            return [[self._hypothesis(text) for text in texts[i : i + n]] for i in range(0, len(texts), n)]

        return in_batches(self, len(latents), max(n, width), some)

    def _hypothesis(self, text: Written) -> Hypothesis:
        return Hypothesis(self.vae.text(text.ids), text.logprob)

    @torch.inference_mode()
    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        if targets is None:
            raise InputError("a DAVAE has no prior of texts that can be computed: set prior_weight to 0")
        pieces, latents = self.vae.pieces, self.latents(targets)
        rows = [[pieces.bos_id, *row[: self.max_tokens], pieces.eos_id] for row in pieces.encode(texts)]

        def some(part: slice) -> list[float]:
            width = max(map(len, rows[part]))
            ids = torch.tensor([row + [pieces.pad_id] * (width - len(row)) for row in rows[part]])
            ids = ids.to(latents.device)
            logits = self.vae.net.decoder(ids, latents[part])
            return (-reconstruction(logits, ids, pieces.pad_id)).tolist()

        return np.array(in_batches(self, len(rows), 1, some), dtype=np.float32)

    def cut(self, text: str, n: int) -> str | None:
        return self.vae.pieces.cut(text, n)

    def sample_prior(self, n: int, sampling: Sampling, seed: int = 0) -> list[Hypothesis]:
        """n texts of latents drawn from the prior N(0, 1)."""
        draw = torch.Generator().manual_seed(seed)
        latents = torch.empty(n, self.vae.latent_size).normal_(generator=draw)
        return [row[0] for row in self.write(latents.to(self.vae.net.device), 1, sampling, seed)]
