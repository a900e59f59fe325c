"""The encoder-decoder family in MindSpore: a T5 that reads projected vectors, wired as models/encoder_decoder.py.

Shapes: B rows, E vector, D model width, k soft tokens of a vector, S hypothesis tokens, T text tokens, R = B · n texts,
H heads, d head width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from unembed.backends.mindspore.t5 import T5, Linear, T5Sizes, hide
from unembed.backends.mindspore.weights import HEAD, TABLE, Folder
from unembed.errors import CheckpointError

IGNORED = -100
END = 1


def t5_sizes(folder: Folder) -> T5Sizes:
    """The sizes of a folder's T5, from its tensors. Raises CheckpointError: one is missing."""
    bias = folder.shape("t5.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    vocab, width = folder.shape(TABLE)
    gated = "t5.encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in folder.tensors
    inner = folder.shape(f"t5.encoder.block.0.layer.1.DenseReluDense.{'wi_0' if gated else 'wi'}.weight")[0]
    heads = folder.shape("t5.encoder.block.0.layer.0.SelfAttention.q.weight")[0]
    return T5Sizes(
        vocab, width, bias[1], heads // bias[1], inner, folder.count(r"t5\.encoder\.block\.(\d+)\."),
        folder.count(r"t5\.decoder\.block\.(\d+)\."), buckets=bias[0], gated=gated,
        tied=HEAD not in folder.tensors, dropout=float(folder.config.get("dropout_rate", 0.1)),
    )  # fmt: skip


class Projector(nn.SequentialCell):
    """A vector [B, E] → k soft tokens [B, k · D]. The layers keep the numbers that they have on disk."""

    def __init__(self, dim: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__(
            Linear(dim, hidden, True), nn.Dropout(p=dropout), nn.GELU(False), Linear(hidden, outputs, True)
        )


class EncoderDecoder(nn.Cell):
    """Hypothesizer or corrector, of vec2text's wiring or nanoV2T's."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        sizes = t5_sizes(folder)
        hidden, self.dim = folder.shape("target.0.weight")
        outputs = folder.shape("target.3.weight")[0]
        if outputs % sizes.width:
            raise CheckpointError(
                f"{folder.path}: the projector's output is no multiple of the T5's width {sizes.width}"
            )
        self.width, self.tokens, self.corrects = sizes.width, outputs // sizes.width, folder.corrects
        self.feedback = not folder.config.get("corrector_ignore_hypothesis_embedding")
        self.start = int(folder.family == "vec2text")  # a masked token in front of a hypothesis
        self.normed = "norm.weight" in folder.tensors
        self.t5 = T5(sizes)
        self.fixed = 1 + 2 * sizes.decoder_layers  # tensors that stay as they are while a text is written
        self.target = Projector(self.dim, hidden, outputs, sizes.dropout)
        if self.corrects:
            self.difference = Projector(self.dim, hidden, outputs, sizes.dropout)
            self.hypothesis = Projector(self.dim, hidden, outputs, sizes.dropout)
            if self.normed:
                self.norm = nn.LayerNorm((sizes.width,), epsilon=1e-5)

    def inputs(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """targets [B, E], and for the corrector hypothesis_ids [B, S] (padded with 0 to one length) and
        hypothesis_vectors [B, E] → encoder inputs [B, L, D] and their mask [B, L]; L is k, or 3k + 4 + S."""
        rows = targets.shape[0]
        soft = self.target(targets).reshape(rows, self.tokens, self.width)
        if not self.corrects:
            return soft, ops.ones((rows, self.tokens), ms.float32)
        vectors = hypothesis_vectors if self.feedback else targets
        sep = self.t5.shared(ops.full((rows, 1), END, dtype=ms.int32))
        theirs = self.hypothesis(vectors).reshape(rows, self.tokens, self.width)
        between = self.difference(targets - vectors).reshape(rows, self.tokens, self.width)
        x = ops.concat((sep, soft, sep, theirs, sep, between, sep, self.t5.shared(hypothesis_ids)), 1)
        if self.normed:
            x = self.norm(x)
        known = (hypothesis_ids != 0).astype(ms.float32)  # type: ignore[union-attr]
        return x, ops.concat((ops.ones((rows, 3 * self.tokens + 4), ms.float32), known), 1)

    def logits(
        self,
        targets: Tensor,
        labels: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
    ) -> Tensor:
        """labels int32 [B, T], IGNORED where there is no token → [B · T, V]."""
        x, mask = self.inputs(targets, hypothesis_ids, hypothesis_vectors)
        before = ops.maximum(labels, 0)[:, :-1]
        ids = ops.concat((ops.zeros((labels.shape[0], 1), ms.int32), before), 1)
        return self.t5(x, mask, ids)

    def construct(
        self,
        targets: Tensor,
        labels: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
    ) -> Tensor:
        """The loss: the mean over the labels that are no IGNORED, in nats."""
        logits = self.logits(targets, labels, hypothesis_ids, hypothesis_vectors)
        return ops.cross_entropy(logits, labels.reshape(-1), ignore_index=IGNORED)

    def begin(self, n: int, room: int, *condition: Tensor) -> tuple[Tensor, Any, Any]:
        """Before the first token: the logits of n texts of each row [R, V], what stays as it is while `room`
        tokens are written, and the keys and values of the tokens so far."""
        x, mask = self.inputs(*condition)
        hidden = hide(mask)
        states = self.t5.encoder(x, hidden)
        fixed = (ops.repeat_interleave(hidden, n, 0),)
        for block in self.t5.decoder.block:
            cross = block.layer[1].EncDecAttention
            fixed += (  # type: ignore[assignment]
                ops.repeat_interleave(cross.keys(states), n, 0),
                ops.repeat_interleave(cross.values(states), n, 0),
            )
        rows, sizes = n * x.shape[0], self.t5.sizes
        empty = ops.zeros((rows, sizes.heads, room, sizes.head_width), ms.float32)
        caches = (empty, empty) * sizes.decoder_layers
        logits, caches = self.step(ops.zeros(rows, ms.int32), Tensor(0, ms.int32), fixed, caches)
        return logits, fixed, caches

    def step(self, tokens: Tensor, at: Tensor, fixed: Any, caches: Any) -> tuple[Tensor, Any]:
        """One token of each text [R], which is number `at` of it → logits of the next [R, V], and the
        keys and values with it."""
        decoder = self.t5.decoder
        room = caches[0].shape[2]
        here = (ops.arange(room) == at).reshape(1, 1, room, 1)
        # A row of the table of distances: [1, H, 1, room].
        bias = ops.gather(decoder.bias(room, room) + decoder.later[:room, :room], at.reshape(1), 2)
        x = self.t5.shared(tokens).expand_dims(1)  # R 1 D
        new = ()
        for i, block in enumerate(decoder.block):
            own, cross, feed = block.layer[0], block.layer[1], block.layer[2]
            normed = own.layer_norm(x)
            keys = ops.select(here, own.SelfAttention.keys(normed), caches[2 * i])
            values = ops.select(here, own.SelfAttention.values(normed), caches[2 * i + 1])
            x = x + own.SelfAttention.attend(normed, keys, values, bias)
            normed = cross.layer_norm(x)
            x = x + cross.EncDecAttention.attend(normed, fixed[2 * i + 1], fixed[2 * i + 2], fixed[0])
            x = feed(x)
            new += (keys, values)  # type: ignore[assignment]
        x = decoder.final_layer_norm(x)
        return self.t5.logits(x.reshape(-1, self.width)), new
