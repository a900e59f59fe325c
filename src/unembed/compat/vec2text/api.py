"""The functions of vec2text's package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unembed.checkpoints import PAIRS, load_model, precision
from unembed.compat.vec2text.faithful import check, refine
from unembed.devices import resolve_device
from unembed.embedders import Embedder, validate_vectors
from unembed.embedders import embedder as open_embedder
from unembed.embedders.spec import UNKNOWN
from unembed.errors import InputError
from unembed.inverter import Inverter
from unembed.models.base import InversionModel
from unembed.search.types import Inversion


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint by name, folder or hub id; it is read by `load_corrector`."""

    name: str

    @classmethod
    def from_pretrained(cls, name: str) -> Checkpoint:
        return cls(str(name))


models = SimpleNamespace(InversionModel=Checkpoint, CorrectorEncoderModel=Checkpoint)


class Corrector:
    """A hypothesizer, its corrector (if there is one) and their embedder, ready to invert.

    Args:
        model: of any family.
        embedder: the one that it inverts. SpecMismatch when it is another.
        faithful: repeat vec2text's algorithm; InputError unless `model` is a pair of its checkpoints.
    """

    def __init__(self, model: InversionModel, embedder: Embedder, faithful: bool = False) -> None:
        self.model, self.embedder, self.faithful = model, embedder, faithful
        if faithful:
            check(model)
        if model.spec.pooling != UNKNOWN:  # an API is asked, and needs its key, only once a text has to be embedded
            _ = self.inverter

    @cached_property
    def inverter(self) -> Inverter:
        return Inverter(self.model, self.embedder)


def load_corrector(
    inversion_model: Checkpoint | str,
    corrector_model: Checkpoint | str | None = None,
    *,
    embedder: str | Embedder | None = None,
    device: str | None = None,
    dtype: str = "float32",
    faithful: bool = False,
) -> Corrector:
    """A corrector of two checkpoints, or of a pair that is known by the name of its embedder.

    Args:
        inversion_model, corrector_model: `models.….from_pretrained(name)`, or the names. Without a corrector the first
            is a name such as `gtr-base`, or a hypothesizer that stands alone.
        embedder: the embedder, by name or as an object; by default the one that the hypothesizer carries or names.
        device: where all of it runs; by default the best there is.
        dtype: precision of hypothesizer and corrector; bfloat16 is faster where the machine has it, int8 on any CPU,
            and their texts may differ. The embedder stays in float32.
        faithful: repeat vec2text's algorithm step by step instead of searching as unembed does.
    """
    given = [part for part in (inversion_model, corrector_model) if part is not None]
    names = [part.name if isinstance(part, Checkpoint) else str(part) for part in given]
    place = resolve_device(device)
    model = load_model("+".join(names), place, precision(dtype))
    if not isinstance(embedder, Embedder):
        embedder = open_embedder(embedder or model.embedder or model.spec.id, device=place)
    return Corrector(model, embedder, faithful)


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
    vectors = corrector.inverter.embedder.encode(strings)
    return invert_embeddings(vectors, corrector, num_steps, sequence_beam_width)


def invert_embeddings(
    embeddings: Tensor | np.ndarray | Sequence[Any],
    corrector: Corrector,
    num_steps: int | None = None,
    sequence_beam_width: int = 0,
) -> list[str]:
    """The texts of embeddings [n, d].

    Args:
        embeddings: of the corrector's embedder: a tensor on any device, an array or lists; [d] is one of them. Mixtures
            need not have the length that the embedder gives.
        corrector: from `load_corrector` or `load_pretrained_corrector`.
        num_steps: rounds of correction; None or 0 is the hypothesizer's greedy text, for which nothing is embedded.
        sequence_beam_width: hypotheses kept from round to round; 0 or 1 keeps one.

    Raises:
        InputError: what is no embedding of this embedder (dimension, NaN, no numbers), in one line.
    """
    if not num_steps and (corrector.faithful or sequence_beam_width <= 1):
        rows = corrector.model.hypothesize(_targets(embeddings, corrector))
        return [row[0].text for row in rows]
    if corrector.faithful:
        return refine(corrector.inverter, _targets(embeddings, corrector), num_steps, max(1, sequence_beam_width))[0][
            -1
        ]
    return [inversion.text for inversion in _search(embeddings, corrector, num_steps or 0, sequence_beam_width)]


def invert_embeddings_and_return_hypotheses(
    embeddings: Tensor | np.ndarray | Sequence[Any],
    corrector: Corrector,
    num_steps: int | None = None,
    sequence_beam_width: int = 0,
) -> tuple[list[list[str]], list[Tensor]]:
    """The best texts after each step, the hypothesizer's first: (steps + 1 lists of n texts, their embeddings
    [n, d]). Targets that were done earlier keep their text. Scores are in `corrector.inverter.invert(…)`'s trace."""
    if corrector.faithful:
        return refine(corrector.inverter, _targets(embeddings, corrector), num_steps, max(1, sequence_beam_width))
    steps = num_steps or 0
    found = _search(embeddings, corrector, steps, sequence_beam_width)
    texts = [[_text_at(inversion, step) for inversion in found] for step in range(steps + 1)]
    distinct = list(dict.fromkeys(text or "." for row in texts for text in row))
    vectors = dict(zip(distinct, torch.from_numpy(corrector.embedder.encode(distinct)), strict=True))
    return texts, [torch.stack([vectors[text or "."] for text in row]) for row in texts]


def _search(embeddings: Any, corrector: Corrector, steps: int, width: int) -> list[Inversion]:  # noqa: ANN401
    """What unembed's own search finds; mixtures of unit vectors are brought to unit length."""
    normalize = corrector.model.spec.normalized
    return corrector.inverter.invert(embeddings, steps, max(1, width), normalize=normalize)


def _targets(embeddings: Any, corrector: Corrector) -> np.ndarray:  # noqa: ANN401
    """The embeddings as float32 [n, d], of the length they have where vec2text's algorithm is to be repeated."""
    spec = corrector.model.spec
    if corrector.faithful:
        return validate_vectors(embeddings, replace(spec, normalized=False))
    return validate_vectors(embeddings, spec, normalize=spec.normalized)


def _text_at(inversion: Inversion, step: int) -> str:
    """The best text of a search after `step` rounds."""
    return next((point.text for point in reversed(inversion.trace) if point.step <= step), "")
