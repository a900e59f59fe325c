"""vec2text's algorithm, step by step (Morris et al., EMNLP 2023, §3), as its package runs it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unembed.checkpoints.vec2text import LONGEST
from unembed.errors import InputError
from unembed.inverter import Inverter
from unembed.models.base import GREEDY, InversionModel, Sampling
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork


def check(model: InversionModel) -> None:
    """Raise InputError unless `model` is a pair of vec2text's."""
    if not (isinstance(model, EncoderDecoderModel) and model.corrector and model.corrector.config.masked_start):
        raise InputError("faithful repeats vec2text's algorithm and needs a pair of its checkpoints")


def refine(
    inverter: Inverter, targets: np.ndarray, num_steps: int | None, width: int
) -> tuple[list[list[str]], list[Tensor]]:
    """The best texts of targets [n, d] after each step, the hypothesizer's first, and their embeddings [n, d].

    All beams are corrected by a token beam search as wide, all children of a target ranked by the cosine, the best with
    distinct tokens kept, parents forgotten.
    """
    model = inverter.model
    check(model)
    assert isinstance(model, EncoderDecoderModel) and model.corrector is not None

    def embed(ids: Tensor) -> Tensor:
        texts = [text if text.strip() else "." for text in model.decode(ids)]
        return torch.from_numpy(inverter.embedder.encode(texts)).to(model.device)

    def write(net: EncoderDecoderNetwork, *condition: Tensor, n: int = 1, longest: int) -> Tensor:
        sampling = Sampling(temperature=0.0, beams=n) if n > 1 else GREEDY
        return net.generate(*condition, n=n, sampling=sampling, max_length=longest)[0]

    e = model.tensor(targets)  # B E
    B = len(e)
    first = write(model.hypothesizer, e, longest=LONGEST if num_steps is None else model.hypothesis_tokens)
    ids, vectors = first, embed(first)
    texts, made = [model.decode(ids)], [vectors.cpu()]
    for step in range(1, (num_steps or 0) + 1):
        each = len(ids) // B  # beams of a target: 1, then `width`
        children = write(model.corrector, e.repeat_interleave(each, 0), ids, vectors, n=width, longest=LONGEST)
        found = embed(children)
        each *= width
        cosines = torch.cosine_similarity(found, e.repeat_interleave(each, 0)).view(B, each)
        ranked = cosines.argsort(dim=1, descending=True, stable=True)  # B children
        best = ranked[:, 0] + torch.arange(B, device=ids.device) * each
        texts.append(model.decode(children[best]))
        made.append(found[best].cpu())
        if step == num_steps:
            break
        keep = torch.tensor([_distinct(children[i * each :], ranked[i].tolist(), width, i * each) for i in range(B)])
        keep = keep.flatten().to(ids.device)
        ids, vectors = children[keep], found[keep]
    return texts, made


def _distinct(children: Tensor, order: list[int], width: int, offset: int) -> list[int]:
    """The first `width` children in `order` whose tokens differ, as rows of the whole batch; the last one again where
    there are fewer."""
    kept: dict[tuple[int, ...], int] = {}
    for child in order:
        kept.setdefault(tuple(children[child].tolist()), child + offset)
    rows = list(kept.values())[:width]
    return rows + rows[-1:] * (width - len(rows))
