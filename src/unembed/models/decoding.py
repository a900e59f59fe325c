"""Writing with a decoder that keeps its keys and values, for every decoder-only family: greedy, sampling (temperature,
top-k, top-p) and beam search. Rows that have ended leave the batch and take their cache along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unembed.models.base import Sampling

COMPACT_BELOW = 0.75  # drop finished rows from the cache once fewer than this share is still being written
NOTHING = -1  # stands where a text has no token


class Decoder(Protocol):
    """The state of one batch that is being written: cache, condition and position. Rows can be dropped or repeated."""

    def next(self, tokens: Tensor | None) -> Tensor:
        """Feed one token a row [B], or None at the start; log p of the token after it, float32 [B, V], which the caller
        may write into."""

    def select(self, rows: Tensor) -> None:
        """Go on with these rows alone, in this order; one may come several times."""


@dataclass(frozen=True)
class Written:
    """One generated text: token ids without special tokens, and log p in nats with the end of text."""

    ids: list[int]
    logprob: float


def filter_logprobs(logprobs: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Temperature, then top-k, then top-p on [B, V]: (scores, tokens), each [B, k or V], likeliest first; what is cut
    off has score −inf. Sorting only the top k is what makes sampling cheap beside the network."""
    width = sampling.top_k if 0 < sampling.top_k < logprobs.size(-1) else logprobs.size(-1)
    scores, tokens = (logprobs / sampling.temperature).topk(width, dim=-1)
    if sampling.top_p < 1:
        probabilities = scores.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities  # mass of the tokens ahead: the first is always kept
        scores = scores.masked_fill(before >= sampling.top_p, -torch.inf)
    return scores, tokens


def choose(logprobs: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token a row [B] from log-probabilities [B, V]."""
    if sampling.temperature == 0:
        return logprobs.argmax(dim=-1)
    if sampling.top_k == 0 and sampling.top_p >= 1:
        return (logprobs / sampling.temperature).softmax(dim=-1).multinomial(1, generator=generator)[:, 0]
    scores, tokens = filter_logprobs(logprobs, sampling)
    return tokens.gather(1, scores.softmax(dim=-1).multinomial(1, generator=generator))[:, 0]


def write(
    decoder: Decoder,
    rows: int,
    *,
    n: int,
    sampling: Sampling,
    max_tokens: int,
    eos: int,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> list[list[Written]]:
    """Write n texts for each of a decoder's rows.

    Args:
        decoder: at its start, `rows` rows wide.
        n: texts of each row.
        sampling: temperature 0 is greedy; with `beams` the texts are the likeliest found, best first.
        max_tokens: of a text, the end of text not counted.
        eos: id of the end of text.
        device: of the decoder's log-probabilities.
        generator: draws the samples; on `device`.
    """
    if sampling.beams:
        return beam_search(decoder, rows, n, sampling.beams, max_tokens, eos, device)
    if n > 1:
        decoder.select(torch.arange(rows, device=device).repeat_interleave(n))
    places = torch.arange(rows * n, device=device)  # which text each row of the batch is writing
    alive = torch.ones(rows * n, dtype=torch.bool, device=device)  # ended rows stay until the next compaction
    tokens: Tensor | None = None
    written = torch.full((rows * n, max_tokens), NOTHING, device=device)
    logprob = torch.zeros(rows * n, device=device)
    for step in range(max_tokens + 1):
        logprobs = decoder.next(tokens)
        if step == max_tokens:  # out of room: the text ends here
            tokens = torch.full_like(places, eos)
        else:
            tokens = choose(logprobs, sampling, generator)
        logprob[places] += torch.where(alive, logprobs.gather(1, tokens[:, None])[:, 0], 0)
        alive = alive & (tokens != eos)
        left = int(alive.sum())
        if left == 0:
            break
        written[places[alive], step] = tokens[alive]
        if left < COMPACT_BELOW * len(places):
            keep = alive.nonzero()[:, 0]
            decoder.select(keep)
            places, tokens, alive = places[keep], tokens[keep], alive[keep]
    texts = [
        Written([t for t in ids if t != NOTHING], lp)
        for ids, lp in zip(written.tolist(), logprob.tolist(), strict=True)
    ]
    return [texts[row * n : (row + 1) * n] for row in range(rows)]


def beam_search(
    decoder: Decoder, rows: int, n: int, beams: int, max_tokens: int, eos: int, device: torch.device
) -> list[list[Written]]:
    """The n likeliest texts found with `beams` live beams a row, best first; scores are summed log p, no length
    penalty, so that the order is the model's own. A row stops when no live beam can still beat its n-th best."""
    B, W = rows, max(beams, n)
    decoder.select(torch.arange(B, device=device).repeat_interleave(W))
    scores = torch.full((B, W), -torch.inf, device=device)
    scores[:, 0] = 0  # all beams of a row are equal at first: only one may branch
    tokens: Tensor | None = None
    history = torch.empty((B, W, 0), dtype=torch.long, device=device)
    done: list[list[Written]] = [[] for _ in range(B)]
    for step in range(max_tokens + 1):
        logprobs = decoder.next(tokens).view(B, W, -1)
        ended = scores + logprobs[:, :, eos]
        for row in range(B):
            for beam in range(W):
                if ended[row, beam] > -torch.inf:
                    done[row].append(Written(history[row, beam].tolist(), float(ended[row, beam])))
            done[row] = sorted(done[row], key=lambda text: -text.logprob)[:n]
        if step == max_tokens:
            break
        logprobs[:, :, eos] = -torch.inf
        V = logprobs.size(2)
        scores, flat = (scores[:, :, None] + logprobs).view(B, W * V).topk(W, dim=-1)
        source, token = flat // V, flat % V  # B W
        history = torch.cat([history.gather(1, source[:, :, None].expand(-1, -1, step)), token[:, :, None]], dim=-1)
        worst = torch.tensor([texts[-1].logprob if len(texts) == n else -torch.inf for texts in done], device=device)
        if bool((scores[:, 0] <= worst).all()):
            break
        decoder.select((torch.arange(B, device=device)[:, None] * W + source).flatten())
        tokens = token.flatten()
    return done
