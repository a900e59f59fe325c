"""How DAVAE's decoder writes: cached, in batches that shrink as texts end, greedily, sampled, or as the original draws.

The original reads all that it has written anew for each token. Here the keys, values and distances' keys are kept
(network.Past); ids and logits are the same up to the order of sums. Where the original changes a token afterwards
(`Quirks.first_mark`), the cache is taken back to it.

Shapes: B rows, T tokens, L latent, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from unembed.errors import InputError
from unembed.models.base import Sampling
from unembed.models.davae.network import LatentDecoder, Past
from unembed.models.decoding import choose

MARK, UNKNOWN = 127, 0
"""Ids of the piece '▁《' and of <unk> in the public vocabulary."""

Choose = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, V] float32, ids so far [B, T]) → next tokens [B]."""


@dataclass(frozen=True)
class Quirks:
    """What the original does and nobody would by design. On for its checkpoints, off for those trained here."""

    doubled_marks: bool = True
    """The encoder reads [CLS] and [SEP] twice each."""
    first_mark: bool = True
    """Two tokens later, a first token 127 ('▁《') becomes 0 (<unk>)."""
    penalty_per_occurrence: bool = True
    """The repetition penalty divides a probability once for each time the token stands in the text; otherwise once."""
    unlearned_end: bool = True
    """In training, the end of text costs nothing, so that it is not learned."""
    filter_noise: bool = True
    """What is written goes through `filter_noise`."""

    @classmethod
    def none(cls) -> Quirks:
        return cls(**dict.fromkeys(asdict(cls()), False))


@dataclass(frozen=True)
class Settings:
    """How to write, by the names of config.json. There, top_k 0 and top_p 0 keep all tokens."""

    max_out_length: int = 128
    """Tokens at most, begin of text and prompt included."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    repetition_penalty: float = 1.0
    std_scale: float = 1.0
    """Share of the posterior's deviation in the latent of a text; 0 takes its mean."""

    def __post_init__(self) -> None:
        if self.max_out_length < 2 or self.temperature <= 0 or self.top_k < 0 or self.repetition_penalty <= 0:
            raise InputError(
                "max_out_length must be 2 or more, temperature and repetition_penalty above 0, top_k 0 or more"
            )


@dataclass(frozen=True)
class Written:
    """One text: its ids after the prompt, without the end, and log p in nats of all that was written, end included."""

    ids: list[int]
    logprob: float


def original(settings: Settings, quirks: Quirks, generator: torch.Generator | None) -> Choose:
    """The original's choice: temperature, top-k, top-p, softmax, then the penalty on probabilities, which do not add up
    to 1 any more, then a draw from all of the vocabulary."""

    def pick(logits: Tensor, ids: Tensor) -> Tensor:
        scores = logits / settings.temperature
        if settings.top_k:
            least = scores.topk(min(settings.top_k, scores.size(1)))[0][:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        if settings.top_p > 0:
            ordered, order = scores.sort(dim=1, descending=True)
            reached = ordered.softmax(1).cumsum(1) > settings.top_p
            beyond = torch.nn.functional.pad(reached[:, :-1], (1, 0))  # the token that reaches top_p stays
            scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
        chances = scores.softmax(1)
        if settings.repetition_penalty != 1:
            times = torch.zeros_like(chances).scatter_add_(1, ids, torch.ones_like(ids, dtype=chances.dtype))
            times = times if quirks.penalty_per_occurrence else times.clamp(max=1)
            chances = chances / settings.repetition_penalty**times
        return chances.multinomial(1, generator=generator)[:, 0]

    return pick


def drawn(sampling: Sampling, generator: torch.Generator | None) -> Choose:
    """The choice that all other families make."""
    return lambda logits, ids: choose(logits, sampling, generator)


@torch.inference_mode()
def write(
    decoder: LatentDecoder,
    latents: Tensor,
    starts: Sequence[Sequence[int]],
    pick: Choose,
    *,
    end: int,
    longest: int,
    first_mark: bool = False,
) -> list[Written]:
    """One text for each latent.

    Args:
        decoder: in evaluation mode.
        latents: [B, L].
        starts: begin of text and prompt of each row; a row with a longer one than others is held to it token by token,
            which draws as much as if it were free.
        pick: `original` or `drawn`.
        end: id of the end of text.
        longest: tokens of a text at most, its start included.
        first_mark: see Quirks.
    """
    B, device = len(starts), latents.device
    lengths = torch.tensor([len(start) for start in starts], device=device)
    ids = torch.full((B, longest), end, dtype=torch.long, device=device)
    for i, start in enumerate(starts):
        ids[i, : len(start)] = torch.tensor(start, device=device)
    first = int(lengths.min())
    rows, ends = torch.arange(B, device=device), torch.full((B,), longest, device=device)
    logprobs = torch.zeros(B, device=device)
    past, fed = Past(decoder, B, longest), 0
    for at in range(first, longest):
        if first_mark and at == first + 2 and bool((marked := ids[rows, first] == MARK).any()):
            ids[rows[marked], first] = UNKNOWN
            past.length = fed = first
        logits = decoder(ids[rows, fed:at], latents, past)[:, -1].float()
        fed = at
        tokens = pick(logits, ids[rows, :at])
        gained = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1)
        held = lengths > at
        tokens = ids[rows, at].where(held, tokens)
        logprobs[rows] += gained.masked_fill(held, 0)
        ids[rows, at] = tokens
        over = tokens == end
        if over.any():
            ends[rows[over]] = at
            kept = (~over).nonzero()[:, 0]
            if not len(kept):
                break
            rows, latents, lengths = rows[kept], latents[kept], lengths[kept]
            past.select(kept)
    return [
        Written(row[len(start) : stop], logprob)
        for row, start, stop, logprob in zip(ids.tolist(), starts, ends.tolist(), logprobs.tolist(), strict=True)
    ]


@torch.inference_mode()
def beam_search(
    decoder: LatentDecoder, latents: Tensor, bos: int, n: int, width: int, *, end: int, longest: int
) -> list[list[Written]]:
    """The n best texts of each latent [B, L] by a beam search of `width`, best log p over length first."""
    B, device = len(latents), latents.device
    ids = torch.full((B * width, longest), end, dtype=torch.long, device=device)
    ids[:, 0] = bos
    past, latents = Past(decoder, B * width, longest), latents.repeat_interleave(width, 0)
    scores = torch.full((B, width), -torch.inf, device=device)
    scores[:, 0] = 0  # all beams start alike: one of them counts
    ended: list[list[Written]] = [[] for _ in range(B)]
    for at in range(1, longest + 1):
        if at == longest:
            going = scores.flatten().tolist()
            for place, (row, score) in enumerate(zip(ids.tolist(), going, strict=True)):
                ended[place // width].append(Written(row[1:], score))
            break
        logits = decoder(ids[:, at - 1 : at], latents, past)[:, -1].float()
        grown = scores[:, :, None] + logits.log_softmax(1).view(B, width, -1)  # B n V
        best, where = grown.flatten(1).topk(2 * width)
        parents, tokens = where // grown.size(2), where % grown.size(2)
        for i, place in (tokens == end).nonzero().tolist():
            if place < width:  # what ends further down would not have been kept
                row = ids[i * width + int(parents[i, place]), 1:at].tolist()
                ended[i].append(Written(row, float(best[i, place])))
        scores, order = best.masked_fill(tokens == end, -torch.inf).topk(width)
        kept = (parents.gather(1, order) + torch.arange(B, device=device)[:, None] * width).flatten()
        ids = ids[kept]
        ids[:, at] = tokens.gather(1, order).flatten()
        past.select(kept)
        # Done when what runs best, ended here, would be no better than the n best that have ended.
        if all(
            len(found) >= n and sorted(map(mean, found))[-n] >= score / at
            for found, score in zip(ended, scores[:, 0].tolist(), strict=True)
        ):
            break
    return [sorted(found, key=mean, reverse=True)[:n] for found in ended]


def mean(text: Written) -> float:
    """log p for each token written, the end counted."""
    return text.logprob / (len(text.ids) + 1)
