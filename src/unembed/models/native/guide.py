"""Which tokens a vector speaks for, and how a network that writes is guided by them.

A bag of words (Song & Raghunathan, CCS 2020) costs one product a text, a network that writes one a token: in the same
time it is fitted to many times as many texts, and knows of words that the network passes over. While a text is written,
it raises and lowers the chances of the tokens that do not stand there yet; when the text ends is left to the network.
Weighted decoding of this kind is known from controlled generation (Ghazvininejad et al., ACL 2017).

Shapes: B rows, d numbers of a vector, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unembed.models.native.tokenizer import EOS_ID

STRENGTH = 0.5
"""What the guide's word counts for beside the network's own, which has learned most of it itself."""
LOWEST, HIGHEST = -2.0, 6.0
"""Nats by which a token may seem rarer and more frequent than in all texts."""
SPECIAL = EOS_ID + 1
"""Tokens that are no part of a text come first."""


class Guide(nn.Module):
    """One hidden layer: vectors [B, d] → logits [B, V] of what a token drawn from the text is."""

    frequency: Tensor
    """log p of each token in all texts [V]."""

    def __init__(self, dim: int, width: int, vocab_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, width)
        self.out = nn.Linear(width, vocab_size)
        self.register_buffer("frequency", torch.zeros(vocab_size))
        nn.init.zeros_(self.out.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        x = F.normalize(vectors, dim=-1) * vectors.size(-1) ** 0.5  # B d
        hidden = F.relu(self.hidden(x)).square()  # B width
        return self.out(F.rms_norm(hidden, (hidden.size(-1),)))

    def lift(self, vectors: Tensor) -> Tensor:
        """What is added to log p of each token that is not written yet [B, V], in nats; nothing where there is no
        vector (zeros: the prior)."""
        found = (self(vectors.float()).log_softmax(dim=-1) - self.frequency).clamp(LOWEST, HIGHEST)  # B V
        known = (vectors != 0).any(dim=-1, keepdim=True)  # B 1
        special = torch.arange(found.size(-1), device=found.device) < SPECIAL  # V
        return STRENGTH * found.masked_fill(special | ~known, 0.0)


def guided(logprobs: Tensor, lift: Tensor) -> Tensor:
    """log p [..., V] of the next token, lifted [..., V]; that of the end stays as it is."""
    end = torch.arange(logprobs.size(-1), device=logprobs.device) == EOS_ID  # V
    ends = logprobs[..., EOS_ID : EOS_ID + 1]  # ..., 1
    others = (logprobs + lift).masked_fill(end, -torch.inf).log_softmax(dim=-1)
    others = others + torch.log(1 - ends.clamp(max=-1e-6).exp())
    return torch.where(end, ends, others)


def unwritten(lift: Tensor, tokens: Tensor) -> Tensor:
    """The lift [B, V] after these tokens [B]: a word need not be said twice."""
    return lift.scatter(1, tokens[:, None], 0.0)


def along(lift: Tensor, text: Tensor) -> Tensor:
    """The lift [B, T, V] at each place of texts [B, T] that are read at once: text[:, t] is what stands before the
    token at t."""
    stands = torch.zeros(*text.shape, lift.size(-1), dtype=torch.int32, device=lift.device)  # B T V
    stands = stands.scatter(2, text[:, :, None], 1).cumsum(dim=1)
    return lift[:, None].masked_fill(stands > 0, 0.0)
