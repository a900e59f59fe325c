"""`Inverter`: a model, the embedder it inverts, and the search between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.confidence import evidence
from unembed.devices import resolve_device
from unembed.embedders import Embedder, embedder, validate_vectors
from unembed.embedders.spec import check_match
from unembed.embedders.stored_form import StoredForm
from unembed.embedders.vectors import integer_step, refuse_foreign_length, storage_dtype
from unembed.errors import InputError
from unembed.search.loop import Search
from unembed.search.types import THOROUGH, Inversion, SearchConfig

if TYPE_CHECKING:
    import torch

    from unembed.models.base import InversionModel


class Inverter:
    """Turns vectors back into texts.

    Raises SpecMismatch when `embedder` is not the one that `model` was trained on.
    """

    def __init__(self, model: InversionModel, embedder: Embedder) -> None:
        check_match(model.spec, embedder.spec, expected_name="the model's embedder", actual_name="the embedder given")
        self.model, self.embedder = model, embedder

    def invert(
        self,
        vectors: Any,  # noqa: ANN401  (anything that validate_vectors reads)
        steps: int = 20,
        sequence_beam_width: int = 4,
        budget: int | None = None,
        *,
        seed: int = 0,
        normalize: bool = False,
        progress: Callable[[Inversion], None] | None = None,
        **search: Any,  # noqa: ANN401
    ) -> list[Inversion]:
        """Invert vectors.

        Args:
            vectors: [n, d] or [d], of the embedder's space: numpy or torch of any real dtype, or lists.
            steps: rounds of correction; 0 is the hypothesizer alone.
            sequence_beam_width: distinct hypotheses kept from round to round.
            budget: embedder queries allowed for each target.
            seed: same seed, same vectors, same results.
            normalize: scale the vectors to unit length instead of insisting that they have it.
            progress: called with each result as soon as it is there.
            search: `thorough=True` for the longer search, and further fields of `SearchConfig`; those not given are as
                the model's family is best searched.

        Returns:
            One Inversion for each vector, in order.

        Raises:
            InputError: vectors that are not this embedder's (dimension, NaN, zero, length), in one line.
        """
        search = {**self.model.search_fields(sequence_beam_width), **search}
        config = self.search_config(
            steps=steps, sequence_beam_width=sequence_beam_width, budget=budget, seed=seed, **search
        )
        out = []
        for inversion in self.stream(vectors, config, normalize=normalize):
            out.append(inversion)
            if progress:
                progress(inversion)
        return out

    def stream(
        self,
        vectors: Any,  # noqa: ANN401
        config: SearchConfig,
        *,
        normalize: bool = False,
        first: int = 0,
    ) -> Iterator[Inversion]:
        """Like `invert`, one result at a time. `first` is the number of the first vector, which seeds its search."""
        for targets, found in self.batches(vectors, config, normalize=normalize, first=first):
            if self.model.calibration is not None:
                found = self.model.calibration.rate(found, evidence(self.model, targets, found))
            yield from found

    def batches(
        self,
        vectors: Any,  # noqa: ANN401
        config: SearchConfig,
        *,
        normalize: bool = False,
        first: int = 0,
    ) -> Iterator[tuple[np.ndarray, list[Inversion]]]:
        """(targets [b, d], their inversions without confidence), as many at a time as the search ends together."""
        targets = validate_vectors(vectors, self.embedder.spec, normalize=normalize, first=first)
        stored = storage_dtype(vectors)
        step = integer_step(vectors) if stored in ("int8", "uint8") else None
        noise = self.embedder.noise_floor()
        if not normalize:
            refuse_foreign_length(targets, self.embedder.spec, noise.scale)
        tolerance = noise.tolerance(stored, step=step)
        found = Search(self.model, self.embedder, config, tolerance).run(targets, first)
        for start in range(0, len(targets), config.targets_at_once):
            part = targets[start : start + config.targets_at_once]
            yield part, list(islice(found, len(part)))

    @staticmethod
    def search_config(*, thorough: bool = False, **fields: Any) -> SearchConfig:  # noqa: ANN401
        """A SearchConfig, with `thorough` the longer search where the fields are silent; an unknown field is an
        InputError."""
        try:
            config = SearchConfig(**fields)
        except TypeError as error:
            known = ", ".join(SearchConfig.__dataclass_fields__)
            raise InputError(f"{str(error).split('__init__() ')[-1]}; the search knows: {known}") from error
        return config.filled(THOROUGH) if thorough else config

    def suited(self, config: SearchConfig) -> SearchConfig:
        """`config`, and where it is silent what this model's family is best searched with."""
        return config.filled(self.model.search_fields(config.sequence_beam_width))

    def behind(self, code: Callable[[np.ndarray], np.ndarray] | None) -> Inverter:
        """The same inverter for vectors that a store keeps as fixed codes: candidates go through the code as well, so
        that like is compared with like.

        code: clean vectors float32 [n, d] → what is read of them [n, d], the same each time; None for none.
        """
        return self if code is None else Inverter(self.model, StoredForm(self.embedder, code))

    def interpolate(
        self,
        a: Any,  # noqa: ANN401
        b: Any,  # noqa: ANN401
        n: int = 9,
        **invert: Any,  # noqa: ANN401
    ) -> list[Inversion]:
        """Invert n vectors on the way from a [d] to b [d], both ends included.

        For a normalised embedder the way is the great circle (slerp), otherwise the straight line.
        """
        if n < 2:
            raise InputError(f"n is {n}: an interpolation has at least its 2 ends")
        normalize = invert.get("normalize", False)
        ends = [validate_vectors(end, self.embedder.spec, normalize=normalize) for end in (a, b)]
        if any(len(end) != 1 for end in ends):
            raise InputError("an interpolation goes from one vector to one vector: give a and b of shape [d]")
        return self.invert(path_between(ends[0][0], ends[1][0], n, spherical=self.embedder.spec.normalized), **invert)


def path_between(a: np.ndarray, b: np.ndarray, n: int, *, spherical: bool) -> np.ndarray:
    """n points [n, d] from a [d] to b [d], evenly spaced in angle (spherical) or along the line."""
    t = np.linspace(0.0, 1.0, n)[:, None]
    a, b = a.astype(np.float64), b.astype(np.float64)
    angle = float(np.arccos(np.clip(a @ b, -1.0, 1.0)))
    if not spherical or angle < 1e-6:
        points = (1 - t) * a + t * b
        return (points / np.linalg.norm(points, axis=1, keepdims=True) if spherical else points).astype(np.float32)
    if np.pi - angle < 1e-6:
        raise InputError(
            "the two vectors point in opposite directions: no way between them is the shortest; choose others"
        )
    return ((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)).astype(np.float32)


def load(
    model: str | Path = "all-MiniLM-L6-v2",
    embedder: str | Embedder | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    model_dtype: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[Any, Any] | None = None,
) -> Inverter:
    """Load an inverter.

    Args:
        model: name of a shipped model, a folder, or a hub id.
        embedder: the embedder to invert, by name or as an object; None takes the one the model was trained on.
        device: where both run; None takes the best there is.
        dtype: precision of the embedder. Exactness is judged against the noise of this precision.
        model_dtype: precision of the model: float32, bfloat16 or float16; None takes its family's own. int8 rounds the
            weights of a T5 on a CPU: faster and a quarter of the memory, but its texts may change.
        device_map: for a T5 that fits no single device: "auto", or a mapping of its modules to devices and "disk"
            (`unembed.checkpoints.placement.Placement`).
        max_memory: for "auto": what each network may take of each device, such as {0: "20GiB", "cpu": "60GiB"}.

    Raises:
        InputError: an unknown name (with the nearest known one). CheckpointError: damaged files. SpecMismatch: an
        embedder that the model does not invert.
    """
    # Here, since it needs torch, which an Inverter of an exported model does without.
    from unembed.checkpoints import load_model, precision

    place = resolve_device(device)
    loaded = load_model(model, place, precision(model_dtype), device_map=device_map, max_memory=max_memory)
    if not isinstance(embedder, Embedder):
        embedder = _embedder(embedder or loaded.embedder or loaded.spec.id, place, dtype, loaded.spec.prefix)
    return Inverter(loaded, embedder)


def _embedder(name: str, device: torch.device, dtype: str, prefix: str) -> Embedder:
    """With the prefix that the model was trained on, where it has one: any other would be refused."""
    return embedder(name, device=device, dtype=dtype, **({"prefix": prefix} if prefix else {}))
