"""The encoder-decoder family: a T5 that reads projected vectors. vec2text (Morris et al., EMNLP 2023) and nanoV2T.

Notable:
- One network class is hypothesizer or corrector, of either system. They differ in the width of the projector's hidden
  layer (the vector's in vec2text, the T5's in nanoV2T), in the layer norm over the whole input, and in the masked
  start token that vec2text leaves in front of a hypothesis.
- The hypothesizer's encoder reads k soft tokens of the target e. The corrector's reads
  [sep, k(e), sep, k(ê), sep, k(e − ê), sep, the hypothesis' tokens], where sep is the embedding of </s>.
- The T5 is that of transformers; how it writes is in t5_generation.py. There is no unconditional prior.

Shapes: B rows, E vector, D model width, k soft tokens of a vector, S hypothesis tokens, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from unembed.embedders.tokens import copy_tokenizer, cut_text
from unembed.errors import InputError
from unembed.models.base import GREEDY, IGNORED, Hypothesis, InversionModel, Sampling
from unembed.models.batching import in_batches
from unembed.models.t5_generation import beam_search, plain, write

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

    from unembed.embedders.spec import EmbedderSpec


@dataclass(frozen=True)
class ProjectionConfig:
    """How vectors become encoder inputs."""

    embedding_dim: int
    tokens: int = 16
    """Soft tokens of each vector (`num_repeat_tokens` of vec2text, `expanding_factor` of nanoV2T)."""
    hidden: int = 768
    """Width of the projector's hidden layer."""
    corrector: bool = False
    layer_norm: bool = False
    """Normalise the corrector's whole input, hypothesis tokens included."""
    masked_start: bool = False
    """A masked start token stands in front of the hypothesis' tokens."""
    feedback: bool = True
    """The corrector sees the hypothesis' vector; without (an ablation), the target's in its place."""


class Projector(nn.Sequential):
    """A vector [B, E] → k soft tokens [B, k, D]. Sequential, so that the layers keep the numbers they have on disk."""

    def __init__(self, config: ProjectionConfig, width: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(config.embedding_dim, config.hidden),
            nn.Dropout(dropout),
            nn.GELU(),
            nn.Linear(config.hidden, config.tokens * width),
        )
        self.tokens, self.width = config.tokens, width

    def layers(self) -> tuple[nn.Linear, nn.Linear]:
        """The two that hold its parameters."""
        return cast(nn.Linear, self[0]), cast(nn.Linear, self[3])

    def forward(self, vectors: Tensor) -> Tensor:
        return super().forward(vectors).view(-1, self.tokens, self.width)


class EncoderDecoderNetwork(nn.Module):
    """A T5 and its projectors."""

    def __init__(self, t5: T5ForConditionalGeneration, config: ProjectionConfig) -> None:
        super().__init__()
        self.t5, self.config = t5, config
        width, dropout = t5.config.d_model, t5.config.dropout_rate
        self.target = Projector(config, width, dropout)
        if config.corrector:
            self.difference = Projector(config, width, dropout)
            self.hypothesis = Projector(config, width, dropout)
            self.norm = nn.LayerNorm(width, eps=1e-5) if config.layer_norm else nn.Identity()

    @property
    def device(self) -> torch.device:
        """Where vectors and tokens are wanted; the T5 may lie elsewhere (see `checkpoints.placement`)."""
        return self.target.layers()[0].weight.device

    def inputs(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """targets [B, E], and for the corrector hypothesis_ids [B, S] (right-padded with 0) and hypothesis_vectors
        [B, E] → encoder inputs [B, L, D] and their mask [B, L]; L is k, or 3k + 4 + S."""
        dtype = self.t5.dtype
        targets = targets.to(dtype)
        soft = self.target(targets)  # B k D
        if not self.config.corrector:
            return soft, torch.ones(soft.shape[:2], dtype=torch.long, device=soft.device)
        assert hypothesis_ids is not None and hypothesis_vectors is not None
        vectors = hypothesis_vectors.to(dtype) if self.config.feedback else targets
        B, S = hypothesis_ids.shape
        ends = torch.full_like(hypothesis_ids[:, :1], self.t5.config.eos_token_id)  # B 1
        # Asked for by calling the table, not by its weight, which a device_map may keep elsewhere.
        rows = self.t5.get_input_embeddings()(torch.cat([ends, hypothesis_ids], dim=1)).to(soft.device)  # B 1+S D
        sep, text = rows[:, :1], rows[:, 1:]
        parts = [sep, soft, sep, self.hypothesis(vectors), sep, self.difference(targets - vectors), sep, text]
        x = self.norm(torch.cat(parts, dim=1))  # B 3k+4+S D
        mask = torch.ones(B, x.size(1), dtype=torch.long, device=x.device)
        mask[:, x.size(1) - S :] = (hypothesis_ids != 0).long()
        return x, mask

    def forward(
        self,
        targets: Tensor,
        labels: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
    ) -> Any:  # noqa: ANN401  (transformers' Seq2SeqLMOutput: loss, logits [B, T, V])
        """labels [B, T], IGNORED where there is no token → transformers' output with loss and logits."""
        x, mask = self.inputs(targets, hypothesis_ids, hypothesis_vectors)
        return self.t5(inputs_embeds=x, attention_mask=mask, labels=labels)

    @torch.inference_mode()
    def generate(
        self,
        targets: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
        *,
        n: int = 1,
        sampling: Sampling = GREEDY,
        max_length: int,
        seed: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """n texts of each row: ids [B · n, T], start token first, padded with 0, and log p [B · n] in nats. max_length:
        ids of a text at most, the start token included."""
        x, mask = self.inputs(targets, hypothesis_ids, hypothesis_vectors)
        if hasattr(self.t5, "hf_device_map"):  # it lies on several devices
            return plain(self.t5, x, mask, n, sampling, max_length, seed)
        width = max(n, sampling.beams) if sampling.beams or sampling.temperature == 0 else 0
        if width > 1:
            return beam_search(self.t5, x, mask, n, width, max_length)
        sampling = GREEDY if width else sampling
        generator = torch.Generator(x.device).manual_seed(seed)
        return write(self.t5, x, mask, n, sampling, max_length, generator)


class EncoderDecoderModel(InversionModel):
    """A hypothesizer and, where there is one, the corrector that belongs to it."""

    family = "encoder-decoder"
    has_prior = False

    def __init__(
        self,
        hypothesizer: EncoderDecoderNetwork,
        corrector: EncoderDecoderNetwork | None,
        tokenizer: PreTrainedTokenizerBase,
        spec: EmbedderSpec,
        *,
        max_tokens: int,
        hypothesis_tokens: int,
        batch_size: int = 64,
    ) -> None:
        """max_tokens: longest text written, in its own tokens. hypothesis_tokens: longest hypothesis the corrector
        reads. batch_size: texts written at a time."""
        self.hypothesizer, self.corrector, self.tokenizer, self.spec = hypothesizer, corrector, tokenizer, spec
        self.max_tokens, self.hypothesis_tokens, self.batch_size = max_tokens, hypothesis_tokens, batch_size

    @property
    def device(self) -> torch.device:
        return self.hypothesizer.device

    def tensor(self, vectors: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(vectors, dtype=np.float32, order="C"), device=self.device)

    def encode(self, texts: Sequence[str], start: bool = False) -> Tensor:
        """Token ids [B, S] with </s>, right-padded with 0; with `start`, one 0 in front."""
        return self.pad(self.tokens(texts), start)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), truncation=True, max_length=self.hypothesis_tokens)["input_ids"]

    def pad(self, rows: Sequence[list[int]], start: bool = False) -> Tensor:
        rows = [[0] * start + row for row in rows]
        width = max(map(len, rows))
        return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)

    @cached_property
    def _whole(self) -> Tokenizer:
        """The tokenizer without truncation."""
        return copy_tokenizer(self.tokenizer.backend_tokenizer)

    def cut(self, text: str, n: int) -> str | None:
        return cut_text(self._whole, text, n)

    def decode(self, ids: Tensor) -> list[str]:
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def write(
        self, net: EncoderDecoderNetwork, targets: np.ndarray, n: int, sampling: Sampling, seed: int,
        hypotheses: Sequence[str] | None = None, hypothesis_vectors: np.ndarray | None = None,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """n texts of each row, in batches of about `batch_size` texts; hypotheses of like length together."""
        read = self.tokens(hypotheses) if hypotheses else None
        order = sorted(range(len(targets)), key=lambda row: 0 if read is None else -len(read[row]))

        def some(part: slice) -> list[list[Hypothesis]]:
            condition = [self.tensor(targets[order[part]])]
            if read is not None and hypothesis_vectors is not None:
                ids = self.pad([read[row] for row in order[part]], net.config.masked_start)
                condition += [ids, self.tensor(hypothesis_vectors[order[part]])]
            options: dict[str, Any] = {"max_length": self.max_tokens, "seed": seed + part.start}
            ids, logprobs = net.generate(*condition, n=n, sampling=sampling, **options)
            found = [Hypothesis(*pair) for pair in zip(self.decode(ids), logprobs.tolist(), strict=True)]
            return [found[j : j + n] for j in range(0, len(found), n)]

        written = in_batches(self, len(targets), max(n, sampling.beams), some)
        return [row for _, row in sorted(zip(order, written, strict=True), key=lambda pair: pair[0])]

    @torch.inference_mode()
    def logprobs(self, net: EncoderDecoderNetwork, condition: Sequence[Tensor], ids: Tensor) -> Tensor:
        """log p [B] in nats of texts given as ids [B, 1 + T] (start token, tokens, </s>, padding) by `net`."""
        labels = ids[:, 1:].masked_fill(ids[:, 1:] == 0, IGNORED)
        targets, *hypothesis = condition
        logits = net(targets, labels, *hypothesis).logits.float()  # B T V
        chosen = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0]
        return chosen.masked_fill(labels == IGNORED, 0).sum(1)

    def hypothesize(
        self, targets: np.ndarray, n: int = 1, sampling: Sampling = GREEDY, seed: int = 0
    ) -> list[list[Hypothesis]]:
        return self.write(self.hypothesizer, targets, n, sampling, seed)

    def correct(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> list[list[Hypothesis]]:
        """n better texts of each row; none at all without a corrector."""
        if self.corrector is None:
            return [[] for _ in hypotheses]
        return self.write(self.corrector, targets, n, sampling, seed, hypotheses, hypothesis_vectors)

    def search_fields(self, sequence_beam_width: int) -> dict[str, Any]:
        """The likeliest corrections, of each hypothesis once, find more than samples do, for a part of the work."""
        if self.corrector is None:
            return {}
        unused = dict.fromkeys(("hypotheses", "screened", "polished", "renumbered"), 0)
        return {**unused, "corrections": sequence_beam_width, "sample_corrections": False, "patience": 5}

    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        if targets is None:
            raise InputError("an encoder-decoder model has no prior: set prior_weight to 0")

        def some(part: slice) -> list[float]:
            ids = self.encode(texts[part], start=True)
            return self.logprobs(self.hypothesizer, [self.tensor(targets[part])], ids).tolist()

        return np.array(in_batches(self, len(texts), 1, some), dtype=np.float32)
