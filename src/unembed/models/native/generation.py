"""KV-cached, batched decoding for the native network: greedy, sampling (temperature, top-k, top-p) and beam search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unembed.models.base import Sampling
from unembed.models.native.network import Cache, NativeNetwork
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID

COMPACT_BELOW = 0.75  # drop finished rows from the cache once fewer than this share is still being written


@dataclass(frozen=True)
class Written:
    """One generated text: token ids without special tokens, and log p in nats with the end of text."""

    ids: list[int]
    logprob: float


class Decoder:
    """The state of one batch that is being written: cache, condition and position. Rows can be dropped or repeated."""

    def __init__(
        self,
        net: NativeNetwork,
        targets: Tensor,
        hypothesis_ids: Tensor | None,
        hypothesis_vectors: Tensor | None,
        max_tokens: int,
        dtype: torch.dtype,
    ) -> None:
        prefix, self.condition = net.condition(targets, hypothesis_ids, hypothesis_vectors, dtype)
        rows, P = prefix.x.shape[:2]
        self.net, self.dtype, self.step = net, dtype, 0
        self.cache = Cache(net.config, rows, P + max_tokens + 1, dtype, targets.device)
        self.keys = prefix.keys  # B P, or None when no row is padded
        net.run(prefix.x, prefix.positions, None if self.keys is None else self.keys[:, None, None, :], self.cache)

    def next(self, tokens: Tensor) -> Tensor:
        """Feed one token a row [B]; log-probabilities of the token after it, float32 [B, V]."""
        x = self.net.text_input(tokens[:, None], self.condition, self.dtype)  # B 1 D
        position = torch.tensor([self.net.config.prefix_slots + self.step], device=x.device)
        mask = None if self.keys is None else F.pad(self.keys, (0, self.step + 1), value=True)[:, None, None, :]
        x = self.net.run(x, position, mask, self.cache)
        self.step += 1
        logits = self.net.logits(x, self.condition)[:, 0]
        logits[:, [PAD_ID, BOS_ID]] = -torch.inf
        return logits.log_softmax(dim=-1)

    def select(self, rows: Tensor) -> None:
        self.cache.select(rows)
        self.condition = self.condition.select(rows)
        self.keys = None if self.keys is None else self.keys.index_select(0, rows)


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
    starts: list[list[int]] | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[list[Written]]:
    """Write n texts for each target [B, E]; `starts` (one row of ids a target) are kept as each text's beginning."""
    if sampling.beams:
        if starts is not None:
            raise ValueError("beam search does not take starts: sample instead")
        return beam_search(net, targets, hypothesis_ids, hypothesis_vectors, n, sampling.beams, max_tokens, dtype)
    B, device = targets.size(0), targets.device
    decoder = Decoder(net, targets, hypothesis_ids, hypothesis_vectors, max_tokens, dtype)
    if n > 1:
        decoder.select(torch.arange(B, device=device).repeat_interleave(n))
    rows = torch.arange(B * n, device=device)  # which text each row of the batch is writing
    alive = torch.ones(B * n, dtype=torch.bool, device=device)  # ended rows stay until the next compaction
    tokens = torch.full((B * n,), BOS_ID, device=device)
    written = torch.full((B * n, max_tokens), PAD_ID, device=device)
    logprob = torch.zeros(B * n, device=device)
    forced = forced_tokens(starts, n, max_tokens).to(device) if starts is not None else None
    for step in range(max_tokens + 1):
        logprobs = decoder.next(tokens)
        if step == max_tokens:  # out of room: the text ends here
            tokens = torch.full_like(tokens, EOS_ID)
        else:
            tokens = choose(logprobs, sampling, generator)
            if forced is not None and step < forced.size(1):
                tokens = torch.where(forced[rows, step] >= 0, forced[rows, step], tokens)
        logprob[rows] += torch.where(alive, logprobs.gather(1, tokens[:, None])[:, 0], 0)
        alive = alive & (tokens != EOS_ID)
        left = int(alive.sum())
        if left == 0:
            break
        written[rows[alive], step] = tokens[alive]
        if left < COMPACT_BELOW * len(rows):
            keep = alive.nonzero()[:, 0]
            decoder.select(keep)
            rows, tokens, alive = rows[keep], tokens[keep], alive[keep]
    texts = [
        Written([t for t in ids if t != PAD_ID], lp) for ids, lp in zip(written.tolist(), logprob.tolist(), strict=True)
    ]
    return [texts[row * n : (row + 1) * n] for row in range(B)]


def forced_tokens(starts: list[list[int]], n: int, max_tokens: int) -> Tensor:
    """Starts, each repeated n times → [rows · n, longest start]; −1 where the model writes for itself."""
    width = min(max_tokens, max(map(len, starts), default=0))
    rows = [start[:width] + [-1] * (width - len(start)) for start in starts for _ in range(n)]
    return torch.tensor(rows, dtype=torch.long).view(len(rows), width)


@torch.inference_mode()
def beam_search(
    net: NativeNetwork,
    targets: Tensor,
    hypothesis_ids: Tensor | None,
    hypothesis_vectors: Tensor | None,
    n: int,
    beams: int,
    max_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> list[list[Written]]:
    """The n likeliest texts found with `beams` live beams a target, best first; scores are summed log p, no length
    penalty, so that the order is the model's own. A target stops when no live beam can still beat its n-th best."""
    B, W, V, device = targets.size(0), max(beams, n), net.config.vocab_size, targets.device
    decoder = Decoder(net, targets, hypothesis_ids, hypothesis_vectors, max_tokens, dtype)
    decoder.select(torch.arange(B, device=device).repeat_interleave(W))
    scores = torch.full((B, W), -torch.inf, device=device)
    scores[:, 0] = 0  # all beams of a target are equal at first: only one may branch
    tokens = torch.full((B * W,), BOS_ID, device=device)
    history = torch.empty((B, W, 0), dtype=torch.long, device=device)
    done: list[list[Written]] = [[] for _ in range(B)]
    for step in range(max_tokens + 1):
        logprobs = decoder.next(tokens).view(B, W, V)
        ended = scores + logprobs[:, :, EOS_ID]
        for row in range(B):
            for beam in range(W):
                if ended[row, beam] > -torch.inf:
                    done[row].append(Written(history[row, beam].tolist(), float(ended[row, beam])))
            done[row] = sorted(done[row], key=lambda text: -text.logprob)[:n]
        if step == max_tokens:
            break
        logprobs[:, :, EOS_ID] = -torch.inf
        scores, flat = (scores[:, :, None] + logprobs).view(B, W * V).topk(W, dim=-1)
        source, token = flat // V, flat % V  # B W
        history = torch.cat([history.gather(1, source[:, :, None].expand(-1, -1, step)), token[:, :, None]], dim=-1)
        worst = torch.tensor([texts[-1].logprob if len(texts) == n else -torch.inf for texts in done], device=device)
        if bool((scores[:, 0] <= worst).all()):
            break
        decoder.select((torch.arange(B, device=device)[:, None] * W + source).flatten())
        tokens = token.flatten()
    return done
