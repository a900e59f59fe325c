"""Writing with a T5: what transformers' `generate` gives by greedy choice, beam search or sampling, for less work.

Notable:
- The encoder runs once for each row and not once for each beam or sample of it, and so do the keys and values of the
  cross-attention: all texts of a row attend to the same ones, which are never copied or reordered.
- The cache of the self-attention is written in place; a beam search reorders its filled part and nothing else.
- Rows that have ended leave the batch: their cache shrinks with them.
- log p of what is chosen is summed on the way. Nothing is kept of a step's logits, so memory grows with the texts being
  written and not with their number times their length times the vocabulary.

The layers, their norms and feed-forwards are those of transformers; `generate` is the plain path that the tests hold
this one to.

Shapes: B rows, n texts of each, R = B · n texts, L encoder inputs, D model width, H heads, d head width, T text tokens,
V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unembed.devices import own_random_numbers
from unembed.models.base import Sampling
from unembed.models.decoding import choose

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

COMPACT_BELOW = 0.85  # shrink the batch once fewer than this share of it is still being written
FIRST_ROOM = 32  # tokens that the cache holds at first; it doubles when it is full
NEVER = -1e9  # a score that no text has


class Decoder:
    """The state of one batch that is being written: caches and position. Texts can be dropped, repeated, reordered."""

    def __init__(self, t5: T5ForConditionalGeneration, x: Tensor, mask: Tensor, n: int, longest: int) -> None:
        """x [B, L, D] and mask [B, L]: inputs of the encoder. longest: tokens of a text at most, start included."""
        states = t5.encoder(inputs_embeds=x, attention_mask=mask).last_hidden_state  # B L D
        self.t5, self.n, self.step = t5, n, 0
        first = t5.decoder.block[0].layer[0].SelfAttention
        self.heads, self.width = first.n_heads, first.key_value_proj_dim
        self.bias = first.compute_bias(longest, longest)[0]  # H T T
        self.mask = None if mask.all() else mask_to_bias(mask, x.dtype)  # B 1 1 L
        self.cross = []
        for block in t5.decoder.block:
            attention = block.layer[1].EncDecAttention
            self.cross.append(
                (self._heads(attention.k(states), x.size(1)), self._heads(attention.v(states), x.size(1)))
            )
        room = min(FIRST_ROOM, longest)
        self.cache = [x.new_empty(2, len(x) * n, self.heads, room, self.width) for _ in t5.decoder.block]

    def _heads(self, x: Tensor, tokens: int) -> Tensor:
        """[…, D] as rows of `tokens` tokens → [rows, H, tokens, d]."""
        return x.view(-1, tokens, self.heads, self.width).transpose(1, 2)

    def next(self, tokens: Tensor) -> Tensor:
        """Feed one token a text [R]; the logits of the token after it, float32 [R, V]."""
        t5, R, at = self.t5, len(tokens), self.step
        self.step += 1
        if self.step > self.cache[0].size(3):
            self.cache = [torch.cat([layer, torch.empty_like(layer)], dim=3) for layer in self.cache]
        bias = self.bias[:, at : at + 1, : self.step]  # H 1 t
        x = t5.shared(tokens)  # R D
        for block, cache, (keys, values) in zip(t5.decoder.block, self.cache, self.cross, strict=True):
            own, cross, feed = block.layer
            attention, normed = own.SelfAttention, own.layer_norm(x)
            cache[0, :, :, at] = attention.k(normed).view(R, self.heads, self.width)
            cache[1, :, :, at] = attention.v(normed).view(R, self.heads, self.width)
            past = cache[:, :, :, : self.step]
            found = attend(self._heads(attention.q(normed), 1), past[0], past[1], bias)  # R H 1 d
            x = x + attention.o(found.reshape(R, -1))
            attention = cross.EncDecAttention
            # The n texts of a row are n queries to its one set of keys.
            found = attend(self._heads(attention.q(cross.layer_norm(x)), self.n), keys, values, self.mask)  # B H n d
            x = x + attention.o(found.transpose(1, 2).reshape(R, -1))
            x = feed(x)
        x = t5.decoder.final_layer_norm(x)
        if t5.config.scale_decoder_outputs:
            x = x * t5.model_dim**-0.5
        return t5.lm_head(x).float()

    def select(self, texts: Tensor) -> None:
        """Go on with these texts alone [B', n'], each line of them of one row."""
        rows, n = texts[:, 0] // self.n, texts.size(1)
        if len(rows) < len(self.cross[0][0]):
            self.cross = [(keys[rows], values[rows]) for keys, values in self.cross]
            self.mask = None if self.mask is None else self.mask[rows]
        self.n, flat = n, texts.flatten()
        for i, layer in enumerate(self.cache):
            kept = layer[:, :, :, : self.step].index_select(1, flat)
            if len(flat) < layer.size(1):
                self.cache[i] = layer = layer.new_empty(2, len(flat), *layer.shape[2:])
            layer[:, :, :, : self.step] = kept


def mask_to_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask [B, L] of ones and zeros → what is added to scores [B, 1, 1, L]."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None]


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """[.., H, q, d], [.., H, k, d] twice → [.., H, q, d]. T5 does not scale its scores."""
    scores = queries @ keys.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return nn.functional.softmax(scores, dim=-1) @ values


@torch.inference_mode()
def write(
    t5: T5ForConditionalGeneration, x: Tensor, mask: Tensor, n: int, sampling: Sampling, longest: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """n texts of each row, greedily or sampled.

    Args:
        t5: in evaluation mode.
        x, mask: inputs of its encoder [B, L, D] and their mask [B, L].
        n: texts of each row.
        sampling: temperature 0 is greedy.
        longest: ids of a text at most, the start token included.
        generator: draws the samples; on the device of x.

    Returns:
        ids [B · n, T], start token first, padded with 0, and log p [B · n] in nats, end of text included where it came.
    """
    B, eos = len(x), t5.config.eos_token_id
    decoder = Decoder(t5, x, mask, n, longest)
    texts = torch.arange(B * n, device=x.device).view(B, n)  # which text each place in the batch is writing
    alive = torch.ones_like(texts, dtype=torch.bool)
    ids = torch.zeros(B * n, longest, dtype=torch.long, device=x.device)
    logprobs = torch.zeros(B * n, device=x.device)
    tokens = ids[:, 0]
    for step in range(1, longest):
        logits = decoder.next(tokens)
        tokens = choose(logits, sampling, generator)
        gained = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
        flat, going = texts.flatten(), alive.flatten()
        tokens = tokens.where(going, 0)
        logprobs[flat] += gained.where(going, 0)
        ids[flat, step] = tokens
        alive &= (tokens != eos).view_as(alive)
        rows = alive.any(1).nonzero()[:, 0]
        if not len(rows):
            return ids[:, : step + 1], logprobs
        most = int(alive.sum(1).max())
        if len(rows) * most < COMPACT_BELOW * alive.numel():
            places = alive[rows].sort(dim=1, descending=True, stable=True)[1][:, :most]
            kept = places + rows[:, None] * alive.size(1)
            decoder.select(kept)
            tokens, texts, alive = tokens[kept.flatten()], texts.flatten()[kept], alive.flatten()[kept]
    return ids, logprobs


@torch.inference_mode()
def beam_search(
    t5: T5ForConditionalGeneration, x: Tensor, mask: Tensor, n: int, width: int, longest: int
) -> tuple[Tensor, Tensor]:
    """The n best texts of each row by a beam search of `width`, ranked by log p over length, as transformers does it
    with early_stopping=False and length_penalty=1. Arguments and what is returned as in `write`; best texts first."""
    B, eos, device = len(x), t5.config.eos_token_id, x.device
    decoder = Decoder(t5, x, mask, width, longest)
    rows = torch.arange(B, device=device)  # which row each place in the batch belongs to
    running = torch.zeros(B, width, longest, dtype=torch.long, device=device)
    scores = torch.full((B, width), NEVER, device=device)
    scores[:, 0] = 0  # all beams start alike: one of them counts
    ended = torch.zeros_like(running)  # the best texts that have ended, best first, and of each log p and its mean
    sums, means = torch.zeros_like(scores), torch.full_like(scores, NEVER)
    for step in range(1, longest):
        logprobs = decoder.next(running[:, :, step - 1].flatten()).log_softmax(1).view(len(rows), width, -1)
        best, where = (logprobs + scores[:, :, None]).flatten(1).topk(2 * width)
        parents, tokens = where // logprobs.size(2), where % logprobs.size(2)
        grown = running.gather(1, parents[:, :, None].expand(-1, -1, longest))
        grown[:, :, step] = tokens
        ends = tokens == eos
        if step == longest - 1:
            ends = torch.ones_like(ends)
        # Only what ends among the best `width` counts as an ended text.
        new = (best / step)[:, :width].where(ends[:, :width], NEVER)
        means[rows], order = torch.cat([means[rows], new], 1).topk(width)
        sums[rows] = torch.cat([sums[rows], best[:, :width]], 1).gather(1, order)
        both = torch.cat([ended[rows], grown[:, :width]], 1)
        ended[rows] = both.gather(1, order[:, :, None].expand(-1, -1, longest))
        if step == longest - 1:
            break
        scores, order = best.where(~ends, NEVER).topk(width)
        running = grown.gather(1, order[:, :, None].expand(-1, -1, longest))
        # A row is done when its best running text, ended here, would be no better than the worst that has ended.
        open_rows = (scores[:, 0] / step > means[rows, -1]).nonzero()[:, 0]
        if not len(open_rows):
            break
        texts = parents.gather(1, order) + torch.arange(len(rows), device=device)[:, None] * width
        if len(open_rows) < len(rows):
            rows, running, scores, texts = rows[open_rows], running[open_rows], scores[open_rows], texts[open_rows]
        decoder.select(texts)
    return ended[:, :n, : step + 1].flatten(0, 1), sums[:, :n].flatten()


@torch.inference_mode()
def plain(
    t5: T5ForConditionalGeneration, x: Tensor, mask: Tensor, n: int, sampling: Sampling, longest: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The same by transformers' `generate`, for a T5 that `accelerate` has spread over several devices: what is needed
    is moved when a layer is called as a whole. Arguments and what is returned as in `write`."""
    options: dict[str, Any] = {"num_beams": 1, "do_sample": False}
    if sampling.beams or (n > 1 and sampling.temperature == 0):
        options["num_beams"] = max(n, sampling.beams)
    elif sampling.temperature > 0:
        options |= {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
        options["top_p"] = sampling.top_p
    with own_random_numbers(x.device, seed):
        ids = t5.generate(
            inputs_embeds=x, attention_mask=mask, num_return_sequences=n, max_length=longest, min_length=1,
            early_stopping=False, length_penalty=1.0, no_repeat_ngram_size=0, **options,
        )  # fmt: skip
    tokens = ids[:, 1:]  # R T
    x, mask = x.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)
    logits = t5(inputs_embeds=x, attention_mask=mask, decoder_input_ids=ids[:, :-1]).logits.float()  # R T V
    chosen = logits.log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]
    return ids, chosen.masked_fill(tokens == 0, 0).sum(1)
