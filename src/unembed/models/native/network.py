"""The native network: ONE small network that is hypothesizer, corrector and unconditional prior.

Notable:
- Decoder-only with a bidirectional prefix: [soft tokens of the target e] and, when there is a hypothesis, [soft tokens
  of its embedding ê and of e − ê] [the hypothesis' tokens]; then the text, token by token, causally.
- A hypothesis' token i and the text's token i share rotary position i, so that "copy the hypothesis" is attention at
  a constant offset and a correction has to learn only where to differ.
- A *reader*, one wide hidden layer, sees the vector once a text; what it finds is added at every position, and a
  *lexical head* maps it straight to vocabulary logits (the bag-of-words classifier of Song & Raghunathan, CCS 2020,
  inside the network) which each position gates: which words there are is learned in minutes, at the cost of a product
  a text instead of one a token, and the blocks spend their capacity on order and grammar.
- An absent condition (the prior log p(x)) is the zero vector.
- RoPE, gainless RMSNorm, QK-norm, ReLU², zero-initialised output projections, per-layer mixing with the input
  embedding, logit soft-cap. No dropout: no text is seen twice in the same cut.

Differences from vec2text (EMNLP 2023): one network of ~10M parameters instead of two of 235M, no pretrained T5, and
the corrector is trained on-policy. Shapes: B rows, T text tokens, P prefix tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unembed.errors import CheckpointError
from unembed.models.native.pointer import Pointer, Shown
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID

IGNORED = -100  # target id that carries no loss
SHARED = ("embed", "head", "reader", "target_in", "slots", "lexical_in", "lexical_gate", "centre", "spread")
"""What a corrector has in common with the network beside which it was trained: what knows words and vectors."""
READERS = ("feedback_in", "reader", "everywhere_in", "lexical_in")  # they see the vector once a text
FEW_ROWS = 16  # below, each operation costs more than what it computes


@dataclass(frozen=True)
class NativeConfig:
    """Sizes of the network; saved as the `network` part of config.json."""

    embedding_dim: int
    """Dimension of the vectors to invert."""
    vocab_size: int = 8192
    d_model: int = 256
    n_layers: int = 6
    n_heads: int = 4
    target_tokens: int = 8
    """Soft tokens made of the target e."""
    feedback_tokens: int = 4
    """Soft tokens made of ê, and again of e − ê, when there is a hypothesis."""
    max_tokens: int = 128
    """Longest text, in tokens of this model."""
    softcap: float = 15.0
    """Logits are softcap · tanh(logits / softcap)."""
    reader_width: int = 0
    """Hidden units of the reader, whose output stands beside the vector wherever it is used; 0: the vector alone."""
    lexical_head: bool = True
    """Map the vector straight to vocabulary logits, gated at each position."""
    vector_everywhere: bool = True
    """Add the projected vector to every text position."""
    pointer: bool = False
    """Copy tokens of a hypothesis: for correctors."""
    centred: bool = False
    """Take vectors relative to the mean of the training texts', at the scale of their spread around it."""

    def __post_init__(self) -> None:
        if self.d_model % self.n_heads or (self.d_model // self.n_heads) % 2:
            raise CheckpointError(
                f"d_model={self.d_model} and n_heads={self.n_heads} do not fit: choose heads of an even, whole width"
            )

    @property
    def prefix_slots(self) -> int:
        """Rotary positions that are kept for soft tokens; text starts after them."""
        return self.target_tokens + 2 * self.feedback_tokens

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def norm(x: Tensor) -> Tensor:
    """RMSNorm without a gain."""
    return F.rms_norm(x, (x.size(-1),))


class Linear(nn.Linear):
    """Bias-free linear layer that computes in its input's dtype: weights stay float32 for the optimiser and are cast
    where they are used, so the precision of every product is visible in the code instead of hidden in autocast."""

    weight: nn.Parameter

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Cache:
    """Keys and values of all layers for incremental decoding, [L][B, heads, S, head_dim], filled up to `length`."""

    def __init__(self, config: NativeConfig, rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (rows, config.n_heads, size, config.d_model // config.n_heads)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.n_layers)]
        self.length = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v [B, heads, t, head_dim] of one layer and return everything up to and including them."""
        end = self.length + k.size(2)
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep (or repeat) the given rows, in that order: compaction, expansion to n samples, beam reordering."""
        self.keys = [self._kept(k, rows) for k in self.keys]
        self.values = [self._kept(v, rows) for v in self.values]

    def _kept(self, stored: Tensor, rows: Tensor) -> Tensor:
        """`rows` of keys or values; only what is filled is copied."""
        out = stored.new_empty((len(rows), *stored.shape[1:]))
        out[:, :, : self.length] = stored[:, :, : self.length].index_select(0, rows)
        return out


class Block(nn.Module):
    def __init__(self, config: NativeConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_heads = layer, config.n_heads
        self.qkv = Linear(config.d_model, 3 * config.d_model)
        self.attention_out = Linear(config.d_model, config.d_model)
        self.mlp_in = Linear(config.d_model, 4 * config.d_model)
        self.mlp_out = Linear(4 * config.d_model, config.d_model)
        self.mix = nn.Parameter(torch.tensor([1.0, 0.0]))  # of the residual stream and of the input embedding

    def forward(
        self, x: Tensor, x0: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        B, T, D = x.shape
        mix = self.mix.to(x.dtype)
        x = mix[0] * x + mix[1] * x0
        q, k, v = self.qkv(norm(x)).view(B, T, 3, self.n_heads, D // self.n_heads).permute(2, 0, 3, 1, 4)  # B H T d
        q, k = rotate(norm(q), rope), rotate(norm(k), rope)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        y = attend(q, k, v, mask)  # B H T d
        x = x + self.attention_out(y.transpose(1, 2).reshape(B, T, D))
        return x + self.mlp_out(F.relu(self.mlp_in(norm(x))).square())


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q [B, H, T, d] to k, v [B, H, S, d] where mask (True: may look) allows it.

    On a CPU it is written out, unless the rows are few: for texts this short torch's fused kernel is slower, and its
    backward pass in bfloat16 takes two to five times as long (docs/lab.md).
    """
    if q.device.type != "cpu" or q.size(0) < FEW_ROWS:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.size(-1))  # B H T S
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of x [B, H, T, d] by (cos, sin), each [T, d/2]."""
    cos, sin = rope
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


@dataclass
class Prefix:
    """What the text is conditioned on, as a sequence: x [B, P, D], positions [P], keys [B, P] (False = padding)."""

    x: Tensor
    positions: Tensor
    keys: Tensor | None


@dataclass
class Condition:
    """What is added outside the prefix: a vector at every position [B, 1, D] and lexical logits [B, 1, V]."""

    everywhere: Tensor | None
    lexical: Tensor | None

    def select(self, rows: Tensor) -> Condition:
        pick = lambda t: None if t is None else t.index_select(0, rows)  # noqa: E731
        return Condition(pick(self.everywhere), pick(self.lexical))


class NativeNetwork(nn.Module):
    """e (and a hypothesis) → logits over the next token. Vectors in any scale; e is used at unit RMS."""

    def __init__(self, config: NativeConfig) -> None:
        super().__init__()
        self.config = config
        self.centre: Tensor
        self.spread: Tensor
        D, V, E = config.d_model, config.vocab_size, config.embedding_dim
        self.embed = nn.Embedding(V, D)
        self.blocks: Sequence[Block] = nn.ModuleList([Block(config, i) for i in range(config.n_layers)])  # type: ignore[assignment]
        self.head = Linear(D, V)
        if config.reader_width:
            self.reader = Linear(2 * E, config.reader_width)
        read = 2 * E + config.reader_width  # e, e − ê and what the reader makes of them
        self.target_in = Linear(E, config.target_tokens * D)
        self.feedback_in = Linear(2 * E, 2 * config.feedback_tokens * D)
        self.slots = nn.Parameter(torch.empty(config.prefix_slots, D))  # which soft token is which
        self.hypothesis_mark = nn.Parameter(torch.empty(D))  # a token of the hypothesis, not of the text
        if config.vector_everywhere:
            self.everywhere_in = Linear(read, D)
        if config.lexical_head:
            self.lexical_in = Linear(read, V)
            self.lexical_gate = Linear(D, 1)
        if config.pointer:
            self.pointer = Pointer(D)
        if config.centred:
            self.register_buffer("centre", torch.zeros(E))
            self.register_buffer("spread", torch.full((1,), 1 / math.sqrt(E)))
        self.init_weights()

    def init_weights(self) -> None:
        """All initialisation in one place. Output projections start at zero, so that every block starts as identity;
        the head and the lexical head start at zero, so that the first loss is exactly log V."""
        D = self.config.d_model
        nn.init.normal_(self.embed.weight, std=1.0)
        nn.init.normal_(self.slots, std=1.0)
        nn.init.normal_(self.hypothesis_mark, std=1.0)
        for block in self.blocks:
            for layer in (block.qkv, block.mlp_in):
                nn.init.uniform_(layer.weight, -math.sqrt(3 / D), math.sqrt(3 / D))  # std 1/√D, bounded
            nn.init.zeros_(block.attention_out.weight)
            nn.init.zeros_(block.mlp_out.weight)
        for name in ("target_in", "feedback_in", "reader"):
            if hasattr(self, name):
                layer = getattr(self, name)
                nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
        nn.init.zeros_(self.head.weight)
        for name in ("everywhere_in", "lexical_in", "lexical_gate"):
            if hasattr(self, name):
                nn.init.zeros_(getattr(self, name).weight)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by what trains them: `matrices` (hidden, for Muon); for AdamW `embed`, `head`, `reader` (what
        reads the vector once a text) and `vectors` (small ones)."""
        hidden = [*self.blocks, *([self.pointer] if self.config.pointer else [])]
        matrices: list[nn.Parameter] = [p for module in hidden for p in module.parameters() if p.ndim == 2]
        readers: list[Linear] = [getattr(self, name) for name in READERS if hasattr(self, name)]
        groups: dict[str, list[nn.Parameter]] = {
            "matrices": [*matrices, self.target_in.weight],
            "embed": list(self.embed.parameters()),
            "head": [self.head.weight],
            "reader": [layer.weight for layer in readers],
        }
        chosen = {id(p) for group in groups.values() for p in group}
        return {**groups, "vectors": [p for p in self.parameters() if id(p) not in chosen]}

    def corrects_beside(self, other: NativeNetwork) -> NativeNetwork:
        """This network, as a corrector that takes what is SHARED from `other`."""
        for name in SHARED:
            if hasattr(other, name):
                setattr(self, name, getattr(other, name))
        return self

    def own_state(self) -> dict[str, Tensor]:
        """The weights of a corrector that are its own."""
        return {name: weight for name, weight in self.state_dict().items() if name.split(".")[0] not in SHARED}

    @torch.no_grad()
    def take_over(self, other: NativeNetwork) -> None:
        """Take the weights of a network of the same sizes, or of one without the reader that this one has: this one's
        reader is kept, the columns that take from it are zero, and so it computes what the other does (as Chen et al.
        2016, Net2Net)."""
        mine, theirs = self.state_dict(), other.state_dict()
        for name, weight in theirs.items():
            if mine[name].shape != weight.shape:
                mine[name].zero_()
            mine[name][tuple(slice(size) for size in weight.shape)] = weight

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def rope(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        d = self.config.d_model // self.config.n_heads
        frequencies = 1000.0 ** (-torch.arange(0, d, 2, device=positions.device) / d)  # texts are short: base 1000
        angles = positions[:, None].float() * frequencies[None, :]  # T, d/2
        return angles.cos().to(dtype), angles.sin().to(dtype)

    @torch.no_grad()
    def centre_on(self, vectors: np.ndarray) -> None:
        """Take mean and spread from vectors [n, E] of training texts. Both are rounded to bfloat16, so that they are
        the same in every precision that the network is run in."""
        values = torch.from_numpy(vectors).double()
        mean = values.mean(dim=0)
        self.centre.copy_(mean.bfloat16())
        self.spread.copy_((values - mean).square().mean().sqrt().bfloat16())

    def scaled(self, vectors: Tensor) -> Tensor:
        """Vectors [B, E] at about unit RMS, where all of them have about one length; the zero vector, which stands for
        no condition, stays zero."""
        if not self.config.centred:
            return vectors * math.sqrt(self.config.embedding_dim)
        known = (vectors != 0).any(dim=-1, keepdim=True)
        return torch.where(known, (vectors - self.centre.float()) / self.spread.float(), 0.0)

    def read(self, e: Tensor, difference: Tensor) -> Tensor:
        """e and e − ê [B, E], at the scale of `condition` → what is known of the text [B, E + E + reader width]."""
        both = torch.cat([e, difference], dim=-1)
        if not self.config.reader_width:
            return both
        return torch.cat([both, norm(F.relu(norm(self.reader(both))).square())], dim=-1)

    def condition(
        self,
        targets: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Prefix, Condition]:
        """targets [B, E]; hypothesis_ids [B, H] (right-padded with PAD), hypothesis_vectors [B, E] → what to attend to.

        The difference e − ê is scaled up as e is, so near the goal it fades: "almost right" looks like it.
        """
        config = self.config
        B, device = targets.size(0), targets.device
        e = self.scaled(targets).to(dtype)
        soft = self.target_in(e).view(B, config.target_tokens, -1)  # B K D
        slots = self.slots.to(dtype)
        if hypothesis_ids is None or hypothesis_vectors is None:
            difference = torch.zeros_like(e)
            x = soft + slots[: config.target_tokens]
            prefix = Prefix(x, torch.arange(config.target_tokens, device=device), None)
        else:
            h = self.scaled(hypothesis_vectors).to(dtype)
            difference = e - h
            feedback = self.feedback_in(torch.cat([h, difference], dim=-1)).view(B, 2 * config.feedback_tokens, -1)
            tokens = self.embed(hypothesis_ids).to(dtype) + self.hypothesis_mark.to(dtype)
            x = torch.cat([torch.cat([soft, feedback], dim=1) + slots, tokens], dim=1)  # B P D
            positions = torch.arange(config.prefix_slots + hypothesis_ids.size(1), device=device)
            keys = torch.ones(x.shape[:2], dtype=torch.bool, device=device)
            keys[:, config.prefix_slots :] = hypothesis_ids != PAD_ID
            prefix = Prefix(x, positions, keys)
        known = self.read(e, difference)
        everywhere = self.everywhere_in(known)[:, None] if config.vector_everywhere else None
        lexical = self.lexical_in(known)[:, None] if config.lexical_head else None
        return prefix, Condition(everywhere, lexical)

    def bag(self, targets: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the lexical head alone makes of targets [B, E]: logits [B, V] of the words, whatever their order."""
        e = self.scaled(targets).to(dtype)
        return self.lexical_in(self.read(e, torch.zeros_like(e)))

    def text_input(self, ids: Tensor, condition: Condition, dtype: torch.dtype) -> Tensor:
        x = self.embed(ids).to(dtype)  # B T D
        return x if condition.everywhere is None else x + condition.everywhere

    def shown(self, x: Tensor, hypothesis_ids: Tensor | None) -> Shown | None:
        """What a pointer has to choose from: of what `run` made of the prefix [B, P, D], the hypothesis' part."""
        if hypothesis_ids is None or not self.config.pointer:
            return None
        return self.pointer.show(norm(x[:, self.config.prefix_slots :]), hypothesis_ids)

    def logits(self, x: Tensor, condition: Condition, shown: Shown | None = None) -> Tensor:
        """x [B, T, D] → capped logits [B, T, V] in float32, or where there is something to copy log p."""
        x = norm(x)
        logits = self.head(x)
        if condition.lexical is not None:
            logits = torch.addcmul(logits, 1 + self.lexical_gate(x), condition.lexical)
        cap, logits = self.config.softcap, logits.float()
        # Where no gradient needs what was there before, without a copy: at these sizes copies take most of the time.
        capped = cap * torch.tanh(logits / cap) if torch.is_grad_enabled() else logits.div_(cap).tanh_().mul_(cap)
        return capped if shown is None else self.pointer(x, capped, shown)

    def run(self, x: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None = None) -> Tensor:
        x = x0 = norm(x)
        rope = self.rope(positions, x.dtype)
        for block in self.blocks:
            x = block(x, x0, rope, mask, cache)
        if cache is not None:
            cache.length += x.size(1)
        return x

    def forward(
        self,
        targets: Tensor,
        text_ids: Tensor,
        hypothesis_ids: Tensor | None = None,
        hypothesis_vectors: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Logits [B, T, V] of the token after each of text_ids [B, T] (beginning with BOS), all positions at once."""
        prefix, condition = self.condition(targets, hypothesis_ids, hypothesis_vectors, dtype)
        P, T = prefix.x.size(1), text_ids.size(1)
        x = torch.cat([prefix.x, self.text_input(text_ids, condition, dtype)], dim=1)  # B P+T D
        text_positions = self.config.prefix_slots + torch.arange(T, device=x.device)
        mask = prefix_mask(P, T, x.device)
        if prefix.keys is not None:
            keys = F.pad(prefix.keys, (0, T), value=True)  # B P+T
            mask = mask & keys[:, None, None, :]
        x = self.run(x, torch.cat([prefix.positions, text_positions]), mask)
        return self.logits(x[:, P:], condition, self.shown(x[:, :P], hypothesis_ids))

    def after_one(self, target: Tensor, text_ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """`forward` for texts [B, T] of one target [1, E], whose prefix is run but once: logits [B, T, V]."""
        prefix, condition = self.condition(target, dtype=dtype)
        (B, T), P = text_ids.shape, prefix.x.size(1)
        cache = Cache(self.config, 1, P + T, dtype, target.device)
        self.run(prefix.x, prefix.positions, None, cache)
        cache.select(torch.zeros(B, dtype=torch.long, device=target.device))
        positions = self.config.prefix_slots + torch.arange(T, device=target.device)
        mask = prefix_mask(P, T, target.device)[:, :, P:]  # 1 1 T S
        return self.logits(self.run(self.text_input(text_ids, condition, dtype), positions, mask, cache), condition)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy in nats over labels [B, T] that are not IGNORED."""
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def prefix_mask(prefix: int, text: int, device: torch.device) -> Tensor:
    """Who sees whom, [1, 1, S, S]: the prefix sees the prefix, the text sees the prefix and its own past."""
    mask = torch.ones(prefix + text, prefix + text, dtype=torch.bool, device=device).tril()
    mask[:prefix, :prefix] = True
    return mask[None, None]


def pad_rows(rows: list[list[int]], value: int = PAD_ID, length: int | None = None) -> Tensor:
    """Rows of ids → [B, T], right-padded with `value` to `length` or to the longest row."""
    width = length or max(1, max(map(len, rows), default=1))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows], dtype=torch.long)


def text_and_labels(rows: list[list[int]], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Token rows → (BOS + tokens, tokens + EOS), each [B, T]; labels of the padding are IGNORED."""
    width = None if length is None else length + 1
    text = pad_rows([[BOS_ID, *row] for row in rows], PAD_ID, width)
    labels = pad_rows([[*row, EOS_ID] for row in rows], IGNORED, width)
    return text, labels
