"""Copies tokens of a hypothesis: at each place a corrector either writes a token of its vocabulary, or points at one
that is shown to it (pointer-generator networks: See, Liu & Manning, ACL 2017).

What a search corrects has most of the right words. Without a pointer, layers must learn for each token how to get from
its row of the token table to its row of the output layer, which small ones do not (docs/lab.md).

Shapes: B rows, T text tokens, H hypothesis tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unembed.models.native.tokenizer import PAD_ID

WIDTH = 64
SELDOM = -1.0
"""Of the gate before it has learned anything."""
LEAST = 1e-9
"""No token is less likely than this."""


@dataclass
class Shown:
    """What can be pointed at: keys [B, H, WIDTH] and token ids [B, H]; padding cannot."""

    keys: Tensor
    ids: Tensor

    def select(self, rows: Tensor) -> Shown:
        return Shown(self.keys.index_select(0, rows), self.ids.index_select(0, rows))


class Pointer(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.ask = nn.Linear(d_model, WIDTH, bias=False)
        self.offer = nn.Linear(d_model, WIDTH, bias=False)
        self.gate = nn.Parameter(torch.zeros(d_model))
        self.often = nn.Parameter(torch.tensor([SELDOM]))
        for layer in (self.ask, self.offer):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(d_model))

    def show(self, x: Tensor, ids: Tensor) -> Shown:
        """From what the last layer makes of the hypothesis [B, H, D], at unit RMS."""
        return Shown(nn.functional.linear(x, self.offer.weight.to(x.dtype)), ids)

    def forward(self, x: Tensor, logits: Tensor, shown: Shown) -> Tensor:
        """x [B, T, D] at unit RMS and the network's logits [B, T, V] → log p [B, T, V] in float32."""
        asked = nn.functional.linear(x, self.ask.weight.to(x.dtype))  # B T WIDTH
        fit = (asked @ shown.keys.transpose(1, 2)).float() / math.sqrt(WIDTH)  # B T H
        pointed = fit.masked_fill((shown.ids == PAD_ID)[:, None], -torch.inf).softmax(dim=-1)
        copies = torch.sigmoid(x.float() @ self.gate.float() + self.often.float())[..., None]  # B T 1
        p = (1 - copies) * logits.float().softmax(dim=-1)  # B T V
        ids = shown.ids[:, None].expand(-1, p.size(1), -1)  # B T H
        return p.scatter_add(2, ids, copies * pointed).clamp(min=LEAST).log()
