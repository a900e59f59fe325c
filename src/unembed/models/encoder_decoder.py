"""The encoder-decoder family: a T5 that reads projected vectors. vec2text (Morris et al., EMNLP 2023) and nanoV2T.

Notable:
- One network class is hypothesizer or corrector, of either system. They differ in the width of the projector's hidden
  layer (the vector's in vec2text, the T5's in nanoV2T), in the layer norm over the whole input, and in the masked
  start token that vec2text leaves in front of a hypothesis.
- The hypothesizer's encoder reads k soft tokens of the target e. The corrector's reads
  [sep, k(e), sep, k(ê), sep, k(e − ê), sep, the hypothesis' tokens], where sep is the embedding of </s>.
- The T5 itself and its decoding are those of transformers. There is no unconditional prior.

Shapes: B rows, E vector, D model width, k soft tokens of a vector, S hypothesis tokens, T text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unembed.errors import InputError
from unembed.models.base import GREEDY, Hypothesis, InversionModel, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

    from unembed.embedders.spec import EmbedderSpec

IGNORED = -100


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

    def forward(self, vectors: Tensor) -> Tensor:
        return super().forward(vectors).view(len(vectors), self.tokens, self.width)


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
        table = self.t5.get_input_embeddings()
        sep = table.weight[self.t5.config.eos_token_id].expand(B, 1, -1)  # B 1 D
        parts = [sep, soft, sep, self.hypothesis(vectors), sep, self.difference(targets - vectors), sep]
        x = self.norm(torch.cat([*parts, table(hypothesis_ids)], dim=1))  # B 3k+4+S D
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
    ) -> Tensor:
        """n texts of each row as ids [B · n, T], start token first, padded with 0."""
        x, mask = self.inputs(targets, hypothesis_ids, hypothesis_vectors)
        options: dict[str, Any] = {"num_beams": 1, "do_sample": False}
        if sampling.beams or (n > 1 and sampling.temperature == 0):
            options["num_beams"] = max(n, sampling.beams)
        elif sampling.temperature > 0:
            options |= {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
            options["top_p"] = sampling.top_p
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # transformers draws from the global generator
            torch.manual_seed(seed)
            return self.t5.generate(
                inputs_embeds=x, attention_mask=mask, num_return_sequences=n, max_length=max_length, min_length=1,
                early_stopping=False, length_penalty=1.0, no_repeat_ngram_size=0, **options,
            )  # fmt: skip


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
        return self.hypothesizer.t5.device

    def tensor(self, vectors: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(vectors, dtype=np.float32, order="C"), device=self.device)

    def encode(self, texts: Sequence[str], start: bool = False) -> Tensor:
        """Token ids [B, S] with </s>, right-padded with 0; with `start`, one 0 in front."""
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.hypothesis_tokens)["input_ids"]
        rows = [[0] * start + row for row in rows]
        width = max(map(len, rows))
        return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.device)

    def decode(self, ids: Tensor) -> list[str]:
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def write(
        self, net: EncoderDecoderNetwork, targets: np.ndarray, n: int, sampling: Sampling, seed: int,
        hypotheses: Sequence[str] | None = None, hypothesis_vectors: np.ndarray | None = None,
    ) -> list[list[Hypothesis]]:  # fmt: skip
        """n texts of each row, in batches of about `batch_size` texts."""
        out: list[list[Hypothesis]] = []
        rows = max(1, self.batch_size // max(n, sampling.beams))
        for i in range(0, len(targets), rows):
            part = slice(i, i + rows)
            condition = [self.tensor(targets[part])]
            if hypotheses is not None and hypothesis_vectors is not None:
                read = self.encode(hypotheses[part], net.config.masked_start)
                condition += [read, self.tensor(hypothesis_vectors[part])]
            ids = net.generate(*condition, n=n, sampling=sampling, max_length=self.max_tokens, seed=seed + i)
            logprobs = self.logprobs(net, [t.repeat_interleave(n, 0) for t in condition], ids)
            found = [Hypothesis(*pair) for pair in zip(self.decode(ids), logprobs.tolist(), strict=True)]
            out += [found[j : j + n] for j in range(0, len(found), n)]
        return out

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

    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        if targets is None:
            raise InputError("an encoder-decoder model has no prior: set prior_weight to 0")
        out = np.zeros(len(texts), dtype=np.float32)
        for i in range(0, len(texts), self.batch_size):
            part = slice(i, i + self.batch_size)
            ids = self.encode(texts[part], start=True)
            out[part] = self.logprobs(self.hypothesizer, [self.tensor(targets[part])], ids).cpu().numpy()
        return out
