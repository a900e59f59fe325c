"""T5 in MindSpore: encoder and decoder, named as transformers names them, so that a state dict fits as it is.

Notable:
- Written for GRAPH mode: no branch on a tensor's value, no shape that changes from batch to batch. A step is compiled
  once for each shape of its inputs, so batches are padded to one length.
- Both kinds: ReLU (1.0, tied head, outputs scaled by D^-0.5) and gated GELU (1.1, a head of its own).
- `rate` of a dropout is the share that is dropped. MindSpore's first positional argument was once the share that is
  kept; here it is always given by name.

Shapes: B rows, L encoder inputs, T text tokens, D width, H heads, d head width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

MASKED = -1e9
"""Added to the scores of what is not to be seen."""
LONGEST = 512
"""Positions whose distances are tabulated."""


@dataclass(frozen=True)
class T5Sizes:
    """What its tensors say of a T5 (see `weights.t5_sizes`), and its dropout."""

    vocab: int
    width: int
    heads: int
    head_width: int
    inner: int
    encoder_layers: int
    decoder_layers: int
    buckets: int = 32
    gated: bool = False
    tied: bool = True
    dropout: float = 0.1
    epsilon: float = 1e-6


class Linear(nn.Dense):
    """A matrix without an initialisation of its own: it is always filled."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, weight_init="zeros", bias_init="zeros", has_bias=bias)


class Table(nn.Cell):
    """Rows by number: ids [...] → [..., width]."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = Parameter(ops.zeros((rows, width), ms.float32), name="weight")

    def construct(self, ids: Tensor) -> Tensor:
        return ops.gather(self.weight, ids, 0)


class Norm(nn.Cell):
    """T5's: divided by the root mean square, no mean taken off, no bias."""

    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.weight = Parameter(ops.ones(sizes.width, ms.float32), name="weight")
        self.epsilon = sizes.epsilon

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.rsqrt(ops.mean(ops.square(x), -1, True) + self.epsilon) * self.weight


class Attention(nn.Cell):
    """T5 does not scale its scores. One layer of a stack holds the bias by distance, for all of it."""

    def __init__(self, sizes: T5Sizes, biased: bool = False) -> None:
        super().__init__()
        inner = sizes.heads * sizes.head_width
        self.q, self.k, self.v = (Linear(sizes.width, inner) for _ in range(3))
        self.o = Linear(inner, sizes.width)
        self.heads, self.head_width = sizes.heads, sizes.head_width
        self.dropout = nn.Dropout(p=sizes.dropout)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        if biased:
            self.relative_attention_bias = Table(sizes.buckets, sizes.heads)

    def split(self, x: Tensor) -> Tensor:
        """[B, n, D] → [B, H, n, d]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.head_width).transpose(0, 2, 1, 3)

    def keys(self, x: Tensor) -> Tensor:
        return self.split(self.k(x))

    def values(self, x: Tensor) -> Tensor:
        return self.split(self.v(x))

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Queries of x [B, q, D] to keys and values [B, H, k, d], with bias [B or 1, H or 1, q or 1, k]."""
        weights = ops.softmax(self.scores(self.split(self.q(x)), keys) + bias, -1)  # B H q k
        found = self.mix(self.dropout(weights), values).transpose(0, 2, 1, 3)  # B q H d
        return self.o(found.reshape(x.shape[0], x.shape[1], self.heads * self.head_width))

    def construct(self, x: Tensor, source: Tensor, bias: Tensor) -> Tensor:
        return self.attend(x, self.keys(source), self.values(source), bias)


class SelfAttention(nn.Cell):
    def __init__(self, sizes: T5Sizes, biased: bool) -> None:
        super().__init__()
        self.SelfAttention = Attention(sizes, biased)
        self.layer_norm = Norm(sizes)
        self.dropout = nn.Dropout(p=sizes.dropout)

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        normed = self.layer_norm(x)
        return x + self.dropout(self.SelfAttention(normed, normed, bias))


class CrossAttention(nn.Cell):
    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.EncDecAttention = Attention(sizes)
        self.layer_norm = Norm(sizes)
        self.dropout = nn.Dropout(p=sizes.dropout)

    def construct(self, x: Tensor, states: Tensor, bias: Tensor) -> Tensor:
        return x + self.dropout(self.EncDecAttention(self.layer_norm(x), states, bias))


class Dense(nn.Cell):
    """The feed-forward layer of T5 1.0."""

    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.wi, self.wo = Linear(sizes.width, sizes.inner), Linear(sizes.inner, sizes.width)
        self.dropout = nn.Dropout(p=sizes.dropout)

    def construct(self, x: Tensor) -> Tensor:
        return self.wo(self.dropout(ops.relu(self.wi(x))))


class GatedDense(nn.Cell):
    """The feed-forward layer of T5 1.1."""

    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.wi_0, self.wi_1 = Linear(sizes.width, sizes.inner), Linear(sizes.width, sizes.inner)
        self.wo = Linear(sizes.inner, sizes.width)
        self.dropout = nn.Dropout(p=sizes.dropout)

    def construct(self, x: Tensor) -> Tensor:
        return self.wo(self.dropout(ops.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)))


class FeedForward(nn.Cell):
    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.DenseReluDense = GatedDense(sizes) if sizes.gated else Dense(sizes)
        self.layer_norm = Norm(sizes)
        self.dropout = nn.Dropout(p=sizes.dropout)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.DenseReluDense(self.layer_norm(x)))


class Block(nn.Cell):
    """One layer of a stack; `layer` has the numbers that the tensors have."""

    def __init__(self, sizes: T5Sizes, decodes: bool, first: bool) -> None:
        super().__init__()
        cross = [CrossAttention(sizes)] if decodes else []
        self.layer = nn.CellList([SelfAttention(sizes, first), *cross, FeedForward(sizes)])


class Stack(nn.Cell):
    """Encoder or decoder, from vectors [B, n, D] on."""

    def __init__(self, sizes: T5Sizes, decodes: bool) -> None:
        super().__init__()
        layers = sizes.decoder_layers if decodes else sizes.encoder_layers
        self.block = nn.CellList([Block(sizes, decodes, i == 0) for i in range(layers)])
        self.final_layer_norm = Norm(sizes)
        self.dropout = nn.Dropout(p=sizes.dropout)
        self.buckets = Tensor(buckets(LONGEST, sizes.buckets, not decodes), ms.int32)

    def bias(self, queries: int, keys: int) -> Tensor:
        """Of distances [1, H, q, k]; in a decoder all that comes later is hidden by the caller."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        return table(self.buckets[:queries, :keys]).transpose(2, 0, 1).expand_dims(0)


class Encoder(Stack):
    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__(sizes, decodes=False)

    def construct(self, x: Tensor, hidden: Tensor) -> Tensor:
        """x [B, L, D] and what hides its padding [B, 1, 1, L] → states [B, L, D]."""
        bias = self.bias(x.shape[1], x.shape[1]) + hidden
        x = self.dropout(x)
        for block in self.block:
            x = block.layer[1](block.layer[0](x, bias))
        return self.dropout(self.final_layer_norm(x))


class Decoder(Stack):
    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__(sizes, decodes=True)
        self.later = Tensor(np.triu(np.full((LONGEST, LONGEST), MASKED, np.float32), 1))

    def construct(self, x: Tensor, states: Tensor, hidden: Tensor) -> Tensor:
        """x [B, T, D], the encoder's states and what hides their padding → [B, T, D]."""
        length = x.shape[1]
        bias = self.bias(length, length) + self.later[:length, :length]
        x = self.dropout(x)
        for block in self.block:
            x = block.layer[2](block.layer[1](block.layer[0](x, bias), states, hidden))
        return self.dropout(self.final_layer_norm(x))


class T5(nn.Cell):
    """Encoder inputs and text tokens → logits."""

    def __init__(self, sizes: T5Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.shared = Table(sizes.vocab, sizes.width)
        self.encoder, self.decoder = Encoder(sizes), Decoder(sizes)
        self.scale = sizes.width**-0.5 if sizes.tied else 1.0
        if not sizes.tied:
            self.lm_head = Linear(sizes.width, sizes.vocab)
        self.head = ops.MatMul(transpose_b=True)

    def logits(self, x: Tensor) -> Tensor:
        """[R, D] → [R, V]."""
        return self.head(x * self.scale, self.shared.weight if self.sizes.tied else self.lm_head.weight)

    def construct(self, x: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """x [B, L, D], mask [B, L] of ones and zeros, ids [B, T] (start token first) → logits [B · T, V]."""
        hidden = hide(mask)
        states = self.encoder(x, hidden)
        found = self.decoder(self.shared(ids), states, hidden)
        return self.logits(found.reshape(-1, self.sizes.width))


def hide(mask: Tensor) -> Tensor:
    """A mask [B, L] → what is added to scores [B, 1, 1, L]."""
    return ((1.0 - mask.astype(ms.float32)) * MASKED).expand_dims(1).expand_dims(1)


def buckets(length: int, count: int, both_ways: bool, furthest: int = 128) -> np.ndarray:
    """The bucket of each distance (Raffel et al., JMLR 2020): int [length, length]; small distances have one each,
    larger ones share by their logarithm."""
    distance = np.arange(length)[None] - np.arange(length)[:, None]  # key − query
    offset = np.zeros_like(distance)
    if both_ways:
        count //= 2
        offset = (distance > 0) * count
        distance = np.abs(distance)
    else:
        distance = -np.minimum(distance, 0)
    exact = count // 2
    # In float32, as transformers computes it: at the edge of a bucket the last bit decides.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(np.log(furthest / exact))
    far = np.minimum(exact + (ratio * (count - exact)).astype(np.int64), count - 1)
    return offset + np.where(distance < exact, distance, far)
