"""How the native network writes: its state while a batch is being written, under the loops of `models.decoding`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unembed.models.base import Sampling
from unembed.models.decoding import Written, write
from unembed.models.native.guide import guided, unwritten
from unembed.models.native.network import Cache, NativeNetwork
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID


class Decoder:
    """A batch that is being written; see `models.decoding.Decoder`."""

    def __init__(
        self,
        net: NativeNetwork,
        targets: Tensor,
        hypothesis_ids: Tensor | None,
        hypothesis_vectors: Tensor | None,
        max_tokens: int,
        dtype: torch.dtype,
        lift: Tensor | None = None,
    ) -> None:
        prefix, self.condition = net.condition(targets, hypothesis_ids, hypothesis_vectors, dtype)
        rows, P = prefix.x.shape[:2]
        self.net, self.dtype, self.step, self.rows, self.lift = net, dtype, 0, rows, lift
        self.cache = Cache(net.config, rows, P + max_tokens + 1, dtype, targets.device)
        self.keys = prefix.keys  # B P, or None when no row is padded
        seen = None if self.keys is None else self.keys[:, None, None, :]
        self.shown = net.shown(net.run(prefix.x, prefix.positions, seen, self.cache), hypothesis_ids)

    def next(self, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            tokens = torch.full((self.rows,), BOS_ID, device=self.net.device)
        x = self.net.text_input(tokens[:, None], self.condition, self.dtype)  # B 1 D
        position = torch.tensor([self.net.config.prefix_slots + self.step], device=x.device)
        mask = None if self.keys is None else F.pad(self.keys, (0, self.step + 1), value=True)[:, None, None, :]
        x = self.net.run(x, position, mask, self.cache)
        self.step += 1
        logits = self.net.logits(x, self.condition, self.shown)[:, 0]
        logits[:, [PAD_ID, BOS_ID]] = -torch.inf
        logprobs = logits.log_softmax(dim=-1)
        if self.lift is None:
            return logprobs
        self.lift = unwritten(self.lift, tokens)
        return guided(logprobs, self.lift)

    def select(self, rows: Tensor) -> None:
        self.rows = len(rows)
        self.cache.select(rows)
        self.condition = self.condition.select(rows)
        self.shown = None if self.shown is None else self.shown.select(rows)
        self.keys = None if self.keys is None else self.keys.index_select(0, rows)
        self.lift = None if self.lift is None else self.lift.index_select(0, rows)


@torch.inference_mode()
def generate(
    net: NativeNetwork,
    targets: Tensor,
    hypothesis_ids: Tensor | None = None,
    hypothesis_vectors: Tensor | None = None,
    *,
    n: int = 1,
    sampling: Sampling,
    max_tokens: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    lift: Tensor | None = None,
) -> list[list[Written]]:
    """Write n texts for each target [B, E]; `lift` [B, V] guides (`Guide.lift`)."""
    decoder = Decoder(net, targets, hypothesis_ids, hypothesis_vectors, max_tokens, dtype, lift)
    return write(
        decoder, len(targets), n=n, sampling=sampling, max_tokens=max_tokens, eos=EOS_ID, device=targets.device,
        generator=generator,
    )  # fmt: skip
