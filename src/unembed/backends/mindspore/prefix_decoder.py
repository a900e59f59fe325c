"""The causal-LM family in MindSpore: a GPT-2 that reads a vector first, as models/prefix_decoder.py has it. The vector
is one position, padded with zeros, or K positions by a projection. Hypothesizers alone: a network that was taught to
correct as well is used as one.

Shapes: B rows, E vector, D model width, K positions of a vector, T text tokens, R = B · n texts, H heads, d head width,
V vocabulary.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from unembed.backends.mindspore.encoder_decoder import IGNORED, Projector
from unembed.backends.mindspore.t5 import MASKED, Table
from unembed.backends.mindspore.weights import Folder
from unembed.errors import CheckpointError


class Conv1D(nn.Cell):
    """GPT-2's matrices are stored [inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = Parameter(ops.zeros((inputs, outputs), ms.float32), name="weight")
        self.bias = Parameter(ops.zeros(outputs, ms.float32), name="bias")
        self.inputs, self.outputs = inputs, outputs

    def construct(self, x: Tensor) -> Tensor:
        flat = ops.matmul(x.reshape(-1, self.inputs), self.weight) + self.bias
        return flat.reshape(x.shape[0], x.shape[1], self.outputs)


class Attention(nn.Cell):
    def __init__(self, width: int, heads: int, dropout: float, inside: float) -> None:
        super().__init__()
        self.c_attn, self.c_proj = Conv1D(width, 3 * width), Conv1D(width, width)
        self.heads, self.head_width = heads, width // heads
        self.dropout, self.inside = nn.Dropout(p=dropout), nn.Dropout(p=inside)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, n, D] → queries, keys and values [B, H, n, d]."""
        rows, n = x.shape[0], x.shape[1]
        parts = self.c_attn(x).reshape(rows, n, 3, self.heads, self.head_width).transpose(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        weights = ops.softmax(self.scores(queries, keys) * (self.head_width**-0.5) + bias, -1)
        found = self.mix(self.inside(weights), values).transpose(0, 2, 1, 3)  # B n H d
        return self.dropout(self.c_proj(found.reshape(found.shape[0], found.shape[1], self.heads * self.head_width)))


class Dense(nn.Cell):
    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.c_fc, self.c_proj = Conv1D(width, inner), Conv1D(inner, width)
        self.dropout = nn.Dropout(p=dropout)

    def construct(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(ops.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Cell):
    def __init__(self, width: int, heads: int, inner: int, dropout: float, inside: float, epsilon: float) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm((width,), epsilon=epsilon), nn.LayerNorm((width,), epsilon=epsilon)
        self.attn = Attention(width, heads, dropout, inside)
        self.mlp = Dense(width, inner, dropout)

    def construct(self, x: Tensor, bias: Tensor) -> Tensor:
        queries, keys, values = self.attn.read(self.ln_1(x))
        x = x + self.attn.attend(queries, keys, values, bias)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Cell):
    """GPT-2 without its head, which is the table of tokens."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        vocab, width = folder.shape("transformer.wte.weight")
        positions, config = folder.shape("transformer.wpe.weight")[0], folder.config
        heads = int(config.get("n_head", 12))
        if width % heads:
            raise CheckpointError(f"{folder.path}: {heads} heads do not divide the width {width}: copy the model again")
        inner = folder.shape("transformer.h.0.mlp.c_fc.weight")[1]
        epsilon = float(config.get("layer_norm_epsilon", 1e-5))
        rates = (float(config.get("resid_pdrop", 0.1)), float(config.get("attn_pdrop", 0.1)))
        layers = folder.count(r"transformer\.h\.(\d+)\.")
        self.wte, self.wpe = Table(vocab, width), Table(positions, width)
        self.h = nn.CellList([Block(width, heads, inner, *rates, epsilon) for _ in range(layers)])
        self.ln_f = nn.LayerNorm((width,), epsilon=epsilon)
        self.dropout = nn.Dropout(p=float(config.get("embd_pdrop", 0.1)))
        self.width, self.positions = width, positions
        self.later = Tensor(np.triu(np.full((positions, positions), MASKED, np.float32), 1))


class PrefixDecoder(nn.Cell):
    corrects = False
    start = fixed = 0

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        config = folder.config
        if config.get("activation_function", "gelu_new") != "gelu_new" or not config.get("tie_word_embeddings", True):
            raise CheckpointError(f"{folder.path} holds a GPT-2 of another activation, or with a head of its own")
        try:
            self.dim = int(config["prefix"]["embedding_dim"])
            self.tokens = int(config["prefix"].get("tokens") or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder.path}/config.json is damaged ({error}): copy the model again") from error
        self.transformer = Transformer(folder)
        self.width, self.end = self.transformer.width, int(config.get("eos_token_id") or 0)
        self.length = max(1, self.tokens)
        if not self.tokens and self.dim > self.width:
            raise CheckpointError(f"{folder.path}: vectors of {self.dim} numbers cannot be padded to {self.width}")
        self.reads = self.tokens > 0
        if self.reads:
            hidden = folder.shape("target.0.weight")[0]
            self.target = Projector(self.dim, hidden, self.tokens * self.width, 0.0)
        self.head = ops.MatMul(transpose_b=True)

    def prefix(self, targets: Tensor) -> Tensor:
        """targets [B, E] → inputs [B, K, D]."""
        if self.reads:
            return self.target(targets).reshape(targets.shape[0], self.tokens, self.width)
        missing = ops.zeros((targets.shape[0], self.width - self.dim), ms.float32)
        return ops.concat((targets, missing), 1).expand_dims(1)

    def logits(self, targets: Tensor, labels: Tensor) -> Tensor:
        """labels int32 [B, T] with end of text, IGNORED where there is no token → [B · T, V]."""
        gpt, T = self.transformer, labels.shape[1]
        before = gpt.wte(ops.maximum(labels, 0)[:, :-1])
        x = ops.concat((self.prefix(targets), before), 1)  # B K+T-1 D
        n = x.shape[1]
        x = gpt.dropout(x + gpt.wpe(ops.arange(n)))
        for block in gpt.h:
            x = block(x, gpt.later[:n, :n])
        x = gpt.ln_f(x)[:, n - T :]
        return self.head(x.reshape(-1, self.width), gpt.wte.weight)

    def construct(self, targets: Tensor, labels: Tensor) -> Tensor:
        """The loss: the mean over the labels that are no IGNORED, in nats."""
        return ops.cross_entropy(self.logits(targets, labels), labels.reshape(-1), ignore_index=IGNORED)

    def begin(self, n: int, room: int, targets: Tensor) -> tuple[Tensor, Any, Any]:
        """As `EncoderDecoder.begin`; what is read of the vector stands in front in the caches."""
        gpt, K = self.transformer, self.length
        x = ops.repeat_interleave(self.prefix(targets), n, 0)
        x = x + gpt.wpe(ops.arange(K))
        empty = ops.zeros((x.shape[0], gpt.h[0].attn.heads, room, gpt.h[0].attn.head_width), ms.float32)
        caches = ()
        for block in gpt.h:
            queries, keys, values = block.attn.read(block.ln_1(x))
            x = x + block.attn.attend(queries, keys, values, gpt.later[:K, :K])
            x = x + block.mlp(block.ln_2(x))
            caches += (ops.concat((keys, empty), 2), ops.concat((values, empty), 2))  # type: ignore[assignment]
        return self.head(gpt.ln_f(x)[:, -1], gpt.wte.weight), (), caches

    def step(self, tokens: Tensor, at: Tensor, fixed: Any, caches: Any) -> tuple[Tensor, Any]:
        """As `EncoderDecoder.step`; the first token of a text is number 1, since none stands in front of it."""
        gpt = self.transformer
        room = caches[0].shape[2]
        place = at + (self.length - 1)
        here = (ops.arange(room) == place).reshape(1, 1, room, 1)
        bias = ops.gather(gpt.later[:room, :room], place.reshape(1), 0)
        x = (gpt.wte(tokens) + gpt.wpe(place.reshape(1))).expand_dims(1)
        new = ()
        for i, block in enumerate(gpt.h):
            queries, keys, values = block.attn.read(block.ln_1(x))
            keys, values = ops.select(here, keys, caches[2 * i]), ops.select(here, values, caches[2 * i + 1])
            x = x + block.attn.attend(queries, keys, values, bias)
            x = x + block.mlp(block.ln_2(x))
            new += (keys, values)  # type: ignore[assignment]
        return self.head(gpt.ln_f(x).reshape(-1, self.width), gpt.wte.weight), new
