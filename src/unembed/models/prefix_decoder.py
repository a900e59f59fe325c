"""The causal-LM family: the vector is what a GPT-like language model reads first. The idea is vector2text's (Koziev),
which puts a sentence's LaBSE vector, padded with zeros, before the embeddings of its tokens.

Notable:
- Any causal language model of transformers. A vector becomes one position, padded with zeros to the model's width, or K
  positions by a learned projection.
- One network is hypothesizer and, where it was taught to be, corrector (which vector2text has not). It then reads
  [e, ê, e − ê, the hypothesis' tokens, end of text] before it writes; without a hypothesis [e] alone.
- Trained on some examples without their vector (zeros in its place), it knows the prior log p(text) as well.
- Writing keeps keys and values in transformers' own cache, under the loops of decoding.py.

Shapes: B rows, E vector, D width of the language model, K positions of a vector, S hypothesis tokens, P positions of
the prefix, T text tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unembed.embedders.tokens import copy_tokenizer, cut_text
from unembed.errors import InputError
from unembed.models import decoding
from unembed.models.base import GREEDY, IGNORED, Hypothesis, InversionModel, Sampling
from unembed.models.batching import in_batches
from unembed.models.decoding import Written
from unembed.models.encoder_decoder import ProjectionConfig, Projector

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

    from unembed.embedders.spec import EmbedderSpec

NEEDED = ("inputs_embeds", "attention_mask", "past_key_values", "logits_to_keep")
"""What the language model's forward must take."""


@dataclass(frozen=True)
class PrefixConfig:
    """How vectors become positions, and what the network was taught."""

    embedding_dim: int
    tokens: int = 0
    """Positions of each vector, by a learned projection; 0: one position, the vector padded with zeros."""
    hidden: int = 0
    """Width of the projection's hidden layer."""
    corrector: bool = False
    prior: bool = False
    """Zeros in the vector's place mean that nothing is known of the text."""

    def length(self, hypothesis_tokens: int = 0) -> int:
        """Positions in front of a text, at most."""
        one = max(1, self.tokens)
        return 3 * one + hypothesis_tokens + 1 if self.corrector else one


class Padding(nn.Module):
    """A vector [B, E] → one position [B, 1, D], zeros behind it."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.missing = width - dim

    def forward(self, vectors: Tensor) -> Tensor:
        return F.pad(vectors, (0, self.missing))[:, None]


@dataclass
class PrefixOutput:
    """logits [B, T, V] of a text's tokens, and the loss: the mean over them."""

    loss: Tensor
    logits: Tensor


class PrefixNetwork(nn.Module):
    """A causal language model and what makes positions of vectors."""

    def __init__(self, lm: PreTrainedModel, config: PrefixConfig) -> None:
        """Raises InputError: a language model that cannot read vectors, vectors that are too long to be padded."""
        super().__init__()
        taken = inspect.signature(lm.forward).parameters
        if missing := [name for name in NEEDED if name not in taken]:
            raise InputError(
                f"a language model of the kind {lm.config.model_type} cannot be used: it takes no {missing[0]}; "
                "choose another, such as a GPT-2 or a Llama"
            )
        if any(getattr(part, "is_causal", True) is False for part in lm.modules()):
            raise InputError(f"a {lm.config.model_type} looks ahead and cannot write: choose a causal language model")
        width = lm.get_input_embeddings().weight.size(1)
        if not config.tokens and config.embedding_dim > width:
            raise InputError(
                f"vectors of {config.embedding_dim} numbers cannot be padded to the language model's width {width}: "
                "have them projected (prefix_tokens: 1 or more)"
            )
        self.lm, self.config, self.takes_positions = lm, config, "position_ids" in taken
        names = ("target", "hypothesis", "difference") if config.corrector else ("target",)
        if config.tokens:
            sizes = ProjectionConfig(config.embedding_dim, config.tokens, config.hidden)
            self.vectors = nn.ModuleDict({name: Projector(sizes, width, dropout=0.0) for name in names})
        else:
            self.vectors = nn.ModuleDict({name: Padding(config.embedding_dim, width) for name in names})

    @property
    def device(self) -> torch.device:
        return self.lm.device

    def embed(self, ids: Tensor) -> Tensor:
        """[…] → […, D]"""
        return self.lm.get_input_embeddings()(ids)

    def prefix(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """targets [B, E], and to correct hypothesis_ids [B, S] (with end of text, padded with IGNORED) and
        hypothesis_vectors [B, E] → inputs [B, P, D] and their mask [B, P], None where nothing is padded. What is padded
        stands in front, so that the text follows without a gap."""
        if targets.size(1) != self.config.embedding_dim:
            raise InputError(f"vectors of {targets.size(1)} numbers, but the model reads {self.config.embedding_dim}")
        targets = targets.to(self.lm.dtype)
        soft = self.vectors["target"](targets)  # B K D
        if hypothesis_ids is None or hypothesis_vectors is None:
            return soft, None
        vectors = hypothesis_vectors.to(self.lm.dtype)
        parts = [soft, self.vectors["hypothesis"](vectors), self.vectors["difference"](targets - vectors)]
        known = hypothesis_ids != IGNORED
        x = torch.cat([*parts, self.embed(hypothesis_ids.clamp(min=0))], dim=1)
        if bool(known.all()):
            return x, None
        mask = F.pad(known.long(), (x.size(1) - known.size(1), 0), value=1)
        # Each row is turned until its padding, which is at the end, stands in front.
        order = (torch.arange(x.size(1), device=x.device) + mask.sum(dim=1, keepdim=True)) % x.size(1)
        return x.gather(1, order[:, :, None].expand_as(x)), mask.gather(1, order)

    def read(self, x: Tensor, mask: Tensor | None, keep: int, cache: DynamicCache | None = None) -> Tensor:
        """x [B, t, D], the inputs after those in the cache; mask [B, cached + t] → logits of the last `keep` [B, keep,
        V]. Positions are counted without what is masked."""
        given: dict[str, Any] = {"attention_mask": mask}
        if mask is not None and self.takes_positions:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -x.size(1) :]
        out = self.lm(inputs_embeds=x, past_key_values=cache, use_cache=cache is not None, logits_to_keep=keep, **given)
        return out.logits

    def forward(
        self,
        targets: Tensor,
        labels: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
    ) -> PrefixOutput:
        """labels [B, T], with the end of text, IGNORED where there is no token."""
        x, mask = self.prefix(targets, hypothesis_ids, hypothesis_vectors)
        text = self.embed(labels[:, :-1].clamp(min=0))
        mask = None if mask is None else F.pad(mask, (0, text.size(1)), value=1)
        logits = self.read(torch.cat([x, text], dim=1), mask, labels.size(1))
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return PrefixOutput(loss, logits)

    @torch.inference_mode()
    def generate(
        self,
        targets: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
        *,
        n: int = 1,
        sampling: Sampling = GREEDY,
        max_tokens: int,
        eos: int,
        seed: int = 0,
    ) -> list[list[Written]]:
        """n texts of each row; of several that are not sampled, the likeliest."""
        if n > 1 and sampling.temperature == 0:
            sampling = replace(sampling, beams=max(n, sampling.beams))
        decoder = Decoder(self, *self.prefix(targets, hypothesis_ids, hypothesis_vectors))
        return decoding.write(
            decoder, len(targets), n=n, sampling=sampling, max_tokens=max_tokens, eos=eos, device=targets.device,
            generator=torch.Generator(targets.device).manual_seed(seed),
        )  # fmt: skip


class Decoder:
    """A batch that is being written; see `models.decoding.Decoder`."""

    def __init__(self, net: PrefixNetwork, x: Tensor, mask: Tensor | None) -> None:
        """x [B, P, D] and mask [B, P]: the prefix, which is read once for all texts of a row."""
        from transformers import DynamicCache

        self.net, self.mask, self.cache = net, mask, DynamicCache(config=net.lm.config)
        self.first = self._read(x)  # B V

    def _read(self, x: Tensor) -> Tensor:
        return self.net.read(x, self.mask, 1, self.cache)[:, -1].float().log_softmax(dim=-1)

    def next(self, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            return self.first
        self.mask = None if self.mask is None else F.pad(self.mask, (0, 1), value=1)
        return self._read(self.net.embed(tokens)[:, None])

    def select(self, rows: Tensor) -> None:
        self.first = self.first[rows]
        self.cache.batch_select_indices(rows)
        self.mask = None if self.mask is None else self.mask[rows]


class PrefixDecoderModel(InversionModel):
    """A network with its tokenizer and the spec of the embedder it inverts."""

    family = "prefix-decoder"

    def __init__(
        self,
        net: PrefixNetwork,
        tokenizer: PreTrainedTokenizerBase,
        spec: EmbedderSpec,
        *,
        max_tokens: int,
        batch_size: int = 64,
    ) -> None:
        """max_tokens: longest text written or read, in its own tokens, the end of text not counted. batch_size: texts
        written at a time."""
        self.net, self.tokenizer, self.spec = net, tokenizer, spec
        self.max_tokens, self.batch_size = max_tokens, batch_size
        self.has_prior, self.eos = net.config.prior, int(tokenizer.eos_token_id)

    def tensor(self, vectors: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(vectors, dtype=np.float32, order="C"), device=self.net.device)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without truncation, and without special tokens: what a text says is text."""
        return copy_tokenizer(self.tokenizer.backend_tokenizer, encode_special_tokens=True)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Of each text at most max_tokens ids."""
        encoded = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids[: self.max_tokens] for encoding in encoded]

    def pad(self, rows: Sequence[list[int]]) -> Tensor:
        """Ids [B, S], the end of text behind each row, padded with IGNORED."""
        width = max(map(len, rows))
        padded = [[*row, self.eos, *[IGNORED] * (width - len(row))] for row in rows]
        return torch.tensor(padded, device=self.net.device)

    def cut(self, text: str, n: int) -> str | None:
        return cut_text(self._plain, text, n)

    def decode(self, ids: Sequence[list[int]]) -> list[str]:
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def write(
        self,
        targets: np.ndarray,
        n: int,
        sampling: Sampling,
        seed: int,
        hypotheses: Sequence[str] | None = None,
        hypothesis_vectors: np.ndarray | None = None,
    ) -> list[list[Hypothesis]]:
        """n texts of each row, in batches of about `batch_size` texts; hypotheses of like length together."""
        read = self.tokens(hypotheses) if hypotheses else None
        order = sorted(range(len(targets)), key=lambda row: 0 if read is None else -len(read[row]))

        def some(part: slice) -> list[list[Hypothesis]]:
            rows = order[part]
            condition = [self.tensor(targets[rows])]
            if read is not None and hypothesis_vectors is not None:
                condition += [self.pad([read[row] for row in rows]), self.tensor(hypothesis_vectors[rows])]
            written = self.net.generate(
                *condition, n=n, sampling=sampling, max_tokens=self.max_tokens, eos=self.eos, seed=seed + part.start,
            )  # fmt: skip
            texts = iter(self.decode([text.ids for row in written for text in row]))
            return [[Hypothesis(next(texts), text.logprob) for text in row] for row in written]

        written = in_batches(self, len(targets), max(n, sampling.beams), some)
        return [row for _, row in sorted(zip(order, written, strict=True), key=lambda pair: pair[0])]

    def hypothesize(
        self, targets: np.ndarray, n: int = 1, sampling: Sampling = GREEDY, seed: int = 0
    ) -> list[list[Hypothesis]]:
        return self.write(targets, n, sampling, seed)

    def correct(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> list[list[Hypothesis]]:
        """n better texts of each row; none at all where the network was not taught to correct."""
        if not self.net.config.corrector:
            return [[] for _ in hypotheses]
        return self.write(targets, n, sampling, seed, hypotheses, hypothesis_vectors)

    @torch.inference_mode()
    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        if targets is None:
            if not self.has_prior:
                raise InputError(
                    "this model was trained with its vectors alone and has no prior: set prior_weight to 0"
                )
            targets = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        given = targets

        def some(part: slice) -> list[float]:
            labels = self.pad(self.tokens(texts[part]))
            logits = self.net(self.tensor(given[part]), labels).logits.float()  # B T V
            chosen = logits.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
            return chosen.masked_fill(labels == IGNORED, 0).sum(dim=1).tolist()

        return np.array(in_batches(self, len(texts), 1, some), dtype=np.float32)
