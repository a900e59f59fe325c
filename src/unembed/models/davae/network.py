"""The network of DAVAE: a BERT that gives a latent, and a Transformer-XL decoder that reads it at every position.

Described in the model card of IDEA-CCNL/Randeng-DAVAE-1.2B-General-Chinese (Fengshenbang-LM); wiring and names of the
tensors as in its public checkpoint.

Notable:
- The posterior is N(mean, exp(logvar)), both from one line on BERT's pooled state.
- The latent, as wide as the decoder, is added to the token embeddings and once more after every layer.
- Positions are relative (Dai et al., ACL 2019, §3.3): the score of a key depends on its distance and not on where it
  stands, so keys, values and the distances' own keys can all be kept while a text grows.
- The table of token embeddings is the output layer as well.

Shapes: B rows, T tokens of a text, t of them new, S tokens in the encoder, L latent, D decoder width, H heads, d head
width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import BertModel

EPS = 1e-5
Keep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
FIRST_ROOM = 32
"""Tokens that a Past holds at first; it doubles when it is full."""


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder, by the names of the public format."""

    vocab_size: int = 50048
    hidden_size: int = 1600
    num_layers: int = 32
    num_attention_heads: int = 25
    embedding_dropout_prob: float = 0.1
    output_dropout_prob: float = 0.1
    max_sequence_length: int = 512


@dataclass(frozen=True)
class DAVAEConfig:
    """Sizes of the whole network. encoder: keyword arguments of transformers' BertConfig."""

    encoder: dict[str, Any]
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    latent_size: int = 128


class Past:
    """Keys and values of the tokens so far, [2, B, H, room, d] a layer, and the keys of all distances, [H, room, d] a
    layer, farthest first, which no text changes."""

    def __init__(self, decoder: LatentDecoder, rows: int, room: int) -> None:
        weight, config = decoder.word_embeddings.weight, decoder.config
        heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.length, self.room = 0, room
        self.layers = [weight.new_empty(2, rows, heads, min(FIRST_ROOM, room), width) for _ in decoder.layers]
        self.distances = decoder.distances(room)

    def keep(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, t, d] of new tokens in a layer → those of all its tokens [B, H, T, d]."""
        end = self.length + k.size(2)
        while (now := self.layers[layer].size(3)) < end:
            more = torch.empty_like(self.layers[layer][:, :, :, : min(now, self.room - now)])
            self.layers[layer] = torch.cat([self.layers[layer], more], dim=3)
        kept = self.layers[layer][:, :, :, :end]
        kept[0, :, :, self.length :], kept[1, :, :, self.length :] = k, v
        return kept[0], kept[1]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows [B'] alone."""
        self.layers = [layer.index_select(1, rows) for layer in self.layers]


class Attention(nn.Module):
    """Causal self-attention with relative positions; no dropout on its weights, as in the original."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.heads = config.num_attention_heads
        self.query_key_value = nn.Linear(D, 3 * D)
        self.relative = nn.Linear(D, D)
        self.dense = nn.Linear(D, D)

    def split(self, x: Tensor) -> Tensor:
        """[B, T, D] → [B, H, T, d]."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, far: Tensor, content_bias: Tensor, distance_bias: Tensor, keep: Keep | None) -> Tensor:
        """x [B, t, D], keys of the distances [H, T, d] farthest first, biases [H, d], and how this layer keeps keys and
        values, None where x is all there is → [B, t, D]."""
        q, k, v = (self.split(part) for part in self.query_key_value(x).chunk(3, dim=-1))  # B H t d
        if keep is not None:
            k, v = keep(k, v)
        t, T = x.size(1), k.size(2)
        scores = (q + content_bias[:, None]) @ k.transpose(-1, -2)  # B H t T
        scores = scores + shifted((q + distance_bias[:, None]) @ far.transpose(-1, -2))
        scores = scores / math.sqrt(q.size(-1))
        if t > 1:
            later = torch.ones(t, T, dtype=torch.bool, device=x.device).triu(T - t + 1)
            scores = scores.masked_fill(later, -torch.inf)
        found = scores.float().softmax(dim=-1).to(v.dtype) @ v  # B H t d
        return self.dense(found.transpose(1, 2).flatten(2))


def shifted(scores: Tensor) -> Tensor:
    """Scores [B, H, t, T] of the last t of T tokens by distance, farthest (T − 1) first → by key; what stands at keys
    after the token means nothing."""
    t, T = scores.shape[2:]
    if t == 1:
        return scores
    padded = torch.nn.functional.pad(scores, (1, 0)).flatten(2)  # each row begins one place later than the one above
    return padded[:, :, t:].unflatten(2, (t, T))


class Layer(nn.Module):
    """Pre-norm: attention, then a feed-forward of four times the width."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.input_layernorm = nn.LayerNorm(D, eps=EPS)
        self.attention = Attention(config)
        self.post_attention_layernorm = nn.LayerNorm(D, eps=EPS)
        self.mlp = nn.ModuleDict({"dense_h_to_4h": nn.Linear(D, 4 * D), "dense_4h_to_h": nn.Linear(4 * D, D)})
        self.dropout = nn.Dropout(config.output_dropout_prob)

    def forward(self, x: Tensor, far: Tensor, content_bias: Tensor, distance_bias: Tensor, keep: Keep | None) -> Tensor:
        attended = self.attention(self.input_layernorm(x), far, content_bias, distance_bias, keep)
        x = x + self.dropout(attended)
        hidden = nn.functional.gelu(self.mlp["dense_h_to_4h"](self.post_attention_layernorm(x)), approximate="tanh")
        return x + self.dropout(self.mlp["dense_4h_to_h"](hidden))


class LatentDecoder(nn.Module):
    """Latent and tokens → logits of the next token."""

    frequencies: Tensor

    def __init__(self, config: DecoderConfig, latent_size: int) -> None:
        super().__init__()
        self.config = config
        D, H = config.hidden_size, config.num_attention_heads
        self.word_embeddings = nn.Embedding(config.vocab_size, D)
        self.r_w_bias = nn.Parameter(torch.zeros(H, D // H))
        self.r_r_bias = nn.Parameter(torch.zeros(H, D // H))
        self.linear_emb = nn.Linear(latent_size, D, bias=False)
        self.dropout = nn.Dropout(config.embedding_dropout_prob)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(D, eps=EPS)
        # Not computed anew on loading: a float16 file holds them rounded, and was trained so.
        self.register_buffer("frequencies", frequencies(D), persistent=False)

    def distances(self, length: int) -> list[Tensor]:
        """Keys of the distances length − 1 … 0, [H, length, d] for each layer."""
        positions = torch.arange(length - 1, -1, -1, device=self.frequencies.device, dtype=torch.float32)
        angles = positions[:, None] * self.frequencies.float()  # T D/2
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.word_embeddings.weight.dtype)  # T D
        attentions = (cast(Layer, layer).attention for layer in self.layers)
        return [attention.split(attention.relative(waves[None]))[0] for attention in attentions]

    def forward(self, ids: Tensor, latents: Tensor, past: Past | None = None) -> Tensor:
        """ids [B, t] and latents [B, L] → logits [B, t, V]. With a past, ids are what comes after it, and it grows."""
        condition = self.linear_emb(latents.to(self.word_embeddings.weight.dtype))[:, None]  # B 1 D
        x = self.dropout(self.word_embeddings(ids) + condition)
        if past is None:
            distances = self.distances(ids.size(1))
        else:
            end = past.length + ids.size(1)
            distances = [far[:, past.room - end :] for far in past.distances]
        for i, (layer, far) in enumerate(zip(self.layers, distances, strict=True)):
            keep = None if past is None else partial(past.keep, i)
            x = layer(x, far, self.r_w_bias, self.r_r_bias, keep) + condition
        if past is not None:
            past.length = end
        return nn.functional.linear(self.final_layernorm(x), self.word_embeddings.weight)


class DAVAENetwork(nn.Module):
    """Encoder, posterior, decoder, and the discriminator of the adversarial loss."""

    def __init__(self, config: DAVAEConfig) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        self.config = config
        bert = BertConfig(**config.encoder)
        self.bert: BertModel = BertModel(bert)
        self.posterior = nn.Linear(bert.hidden_size, 2 * config.latent_size, bias=False)
        self.decoder = LatentDecoder(config.decoder, config.latent_size)
        L = config.latent_size
        self.discriminator = nn.Sequential(nn.Linear(L, 4 * L), nn.ReLU(), nn.Linear(4 * L, 1))
        self.embedding_noise = 0.0
        """Standard deviation of the noise on the encoder's input embeddings, in training."""
        self.bert.embeddings.register_forward_hook(self._disturb)

    def _disturb(self, module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        if not (self.embedding_noise and self.training):
            return embedded
        return embedded + self.embedding_noise * torch.randn_like(embedded)

    @property
    def device(self) -> torch.device:
        return self.posterior.weight.device

    def encode(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids [B, S], 0 where there is none → mean and logvar of the latent's posterior, each [B, L]."""
        pooled = self.bert(input_ids=ids, attention_mask=(ids > 0).long()).pooler_output  # B E
        mean, logvar = self.posterior(pooled).chunk(2, dim=-1)
        return mean, logvar

    def initialise(self) -> None:
        """Fresh weights for decoder and posterior. Their deviation falls with the width (0.02 at the public model's),
        that of a layer's outputs with the number of layers as well."""
        spread = 0.8 * self.config.decoder.hidden_size**-0.5
        small = spread / math.sqrt(2 * self.config.decoder.num_layers)
        for name, parameter in self.decoder.named_parameters():
            if parameter.ndim > 1 and not name.startswith("r_"):
                nn.init.normal_(parameter, std=small if name.endswith(("dense.weight", "4h_to_h.weight")) else spread)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        mean, logvar = self.posterior.weight.chunk(2)
        nn.init.normal_(mean, std=mean.size(1) ** -0.5)  # as far apart as the prior is wide
        nn.init.normal_(logvar, std=0.02)


def frequencies(width: int) -> Tensor:
    """Of the waves that tell distances apart, [width / 2]."""
    return 1 / 10000 ** (torch.arange(0.0, width, 2.0) / width)


def reparameterise(
    mean: Tensor, logvar: Tensor, scale: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """A latent drawn from N(mean, exp(logvar)), its deviation times `scale`; 0 gives the mean. All [B, L]."""
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + noise * (0.5 * logvar).exp() * scale
