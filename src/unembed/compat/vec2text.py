"""vec2text's interface: `from unembed.compat import vec2text`, and the snippets of its README run.

By default unembed's own search inverts, with the same steps and sequence beam: it keeps the best text it has seen,
embeds each distinct text once, and stops once a text is exact. With `faithful=True` a corrector repeats vec2text's
algorithm step by step (Morris et al., EMNLP 2023, §3) and gives its texts. Where that one is at fault, neither follows:

- `num_steps=0` is no correction, where vec2text makes one.
- `invert_embeddings_and_return_hypotheses` gives as many texts a step as there are embeddings, also for several.
- Fewer distinct children than the beam is wide are no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unembed.checkpoints import PAIRS, load_model
from unembed.checkpoints.vec2text import LONGEST
from unembed.devices import resolve_device
from unembed.embedders import embedder as open_embedder
from unembed.errors import InputError
from unembed.inverter import Inverter
from unembed.models.base import GREEDY, Sampling
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint by name, folder or hub id; it is read by `load_corrector`."""

    name: str

    @classmethod
    def from_pretrained(cls, name: str) -> Checkpoint:
        return cls(str(name))


models = SimpleNamespace(InversionModel=Checkpoint, CorrectorEncoderModel=Checkpoint)


class Corrector:
    """A hypothesizer, its corrector and their embedder, ready to invert."""

    def __init__(self, inverter: Inverter, faithful: bool = False) -> None:
        self.inverter, self.faithful = inverter, faithful
        model = inverter.model
        if faithful and not (isinstance(model, EncoderDecoderModel) and model.corrector):
            raise InputError("faithful repeats vec2text's algorithm and needs a pair of its checkpoints")


def load_corrector(
    inversion_model: Checkpoint | str,
    corrector_model: Checkpoint | str,
    *,
    embedder: str | None = None,
    device: str | None = None,
    faithful: bool = False,
) -> Corrector:
    """A corrector of two checkpoints.

    Args:
        inversion_model, corrector_model: `models.….from_pretrained(name)`, or the names.
        embedder: the embedder, by name; by default the one that the hypothesizer carries or names.
        device: where all of it runs; by default the best there is.
        faithful: repeat vec2text's algorithm step by step instead of searching as unembed does.
    """
    names = [part.name if isinstance(part, Checkpoint) else part for part in (inversion_model, corrector_model)]
    place = resolve_device(device)
    model = load_model("+".join(names), place)
    name = embedder or model.embedder or model.spec.id
    return Corrector(Inverter(model, open_embedder(name, device=place)), faithful)


def load_pretrained_corrector(embedder: str, **options: Any) -> Corrector:  # noqa: ANN401
    """The public corrector of an embedder: `gtr-base` or `text-embedding-ada-002`, as in vec2text, or any other pair
    known by such a name. Options as in `load_corrector`. Raises InputError for an unknown one."""
    if embedder not in PAIRS:
        raise InputError(f"there is no public corrector for '{embedder}': choose from {', '.join(PAIRS)}")
    return load_corrector(*PAIRS[embedder], **options)


def invert_strings(
    strings: Sequence[str], corrector: Corrector, num_steps: int | None = None, sequence_beam_width: int = 0
) -> list[str]:
    """Embed texts and invert their vectors; see `invert_embeddings`."""
    vectors = corrector.inverter.embedder.encode(list(strings))
    return invert_embeddings(vectors, corrector, num_steps, sequence_beam_width)


def invert_embeddings(
    embeddings: Tensor | np.ndarray,
    corrector: Corrector,
    num_steps: int | None = None,
    sequence_beam_width: int = 0,
) -> list[str]:
    """The texts of embeddings [n, d].

    Args:
        embeddings: of the corrector's embedder, on any device.
        corrector: from `load_corrector` or `load_pretrained_corrector`.
        num_steps: rounds of correction; None or 0 is the hypothesizer's greedy text.
        sequence_beam_width: hypotheses kept from round to round; 0 or 1 keeps one.
    """
    return invert_embeddings_and_return_hypotheses(embeddings, corrector, num_steps, sequence_beam_width)[0][-1]


def invert_embeddings_and_return_hypotheses(
    embeddings: Tensor | np.ndarray,
    corrector: Corrector,
    num_steps: int | None = None,
    sequence_beam_width: int = 0,
) -> tuple[list[list[str]], list[np.ndarray]]:
    """The best texts after each step, the hypothesizer's first: (steps + 1 lists of n texts, their embeddings
    [n, d]). Targets that were done earlier keep their text."""
    targets = np.asarray(embeddings.detach().cpu() if isinstance(embeddings, Tensor) else embeddings, dtype=np.float32)
    if targets.ndim == 1:
        targets = targets[None]
    steps, width = num_steps or 0, max(1, sequence_beam_width)
    if corrector.faithful:
        return _faithful(corrector.inverter, targets, num_steps, width)
    inverter = corrector.inverter
    found = inverter.invert(targets, steps, width, consensus=0)
    texts = [[_text_at(inversion.trace, step) for inversion in found] for step in range(steps + 1)]
    return texts, [inverter.embedder.encode([text or "." for text in row]) for row in texts]


def _text_at(trace: Sequence[Any], step: int) -> str:
    """The best text of a search after `step` rounds."""
    return next((point.text for point in reversed(trace) if point.step <= step), "")


def _faithful(
    inverter: Inverter, targets: np.ndarray, num_steps: int | None, width: int
) -> tuple[list[list[str]], list[np.ndarray]]:
    """vec2text's algorithm: all beams are corrected by a token beam search as wide, all children of a target ranked by
    the cosine, the best with distinct tokens kept, parents forgotten."""
    model = inverter.model
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
    texts, made = [model.decode(ids)], [vectors.cpu().numpy()]
    for step in range(1, (num_steps or 0) + 1):
        each = len(ids) // B  # beams of a target: 1, then `width`
        children = write(model.corrector, e.repeat_interleave(each, 0), ids, vectors, n=width, longest=LONGEST)
        found = embed(children)
        each *= width
        cosines = torch.cosine_similarity(found, e.repeat_interleave(each, 0)).view(B, each)
        ranked = cosines.argsort(dim=1, descending=True, stable=True)  # B children
        best = ranked[:, 0] + torch.arange(B, device=ids.device) * each
        texts.append(model.decode(children[best]))
        made.append(found[best].cpu().numpy())
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
