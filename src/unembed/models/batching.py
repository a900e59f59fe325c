"""Working through rows in batches that fit into memory: one that does not is halved, and later ones stay that small."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch

from unembed.devices import release_memory
from unembed.errors import InputError

T = TypeVar("T")
log = logging.getLogger(__name__)
SAID = ("out of memory", "can't allocate memory", "not enough memory")
"""How backends without an error class of their own say it: the CPU, mps, npu."""


class Batched(Protocol):
    """A model that works on about `batch_size` texts at a time; it is lowered where that is too much."""

    batch_size: int


def in_batches(model: Batched, total: int, each: int, work: Callable[[slice], Sequence[T]]) -> list[T]:
    """The results of `work` on the rows 0 … total − 1, of which each makes `each` texts, in order.

    Raises InputError when a single row does not fit.
    """
    out: list[T] = []
    asked = model.batch_size
    while len(out) < total:
        rows = min(max(1, model.batch_size // each), total - len(out))
        done = _try(work, slice(len(out), len(out) + rows))
        if done is not None:
            out += done
        elif rows == 1:
            raise InputError(
                f"{each} texts of one vector do not fit into memory: lower hypotheses or sequence_beam_width, or name "
                "another device"
            )
        else:
            model.batch_size = rows // 2 * each
    if model.batch_size < asked:
        log.warning("%d texts at a time do not fit into memory: %d from here on", asked, model.batch_size)
    return out


def _try(work: Callable[[slice], Sequence[T]], part: slice) -> Sequence[T] | None:
    """None when memory ran out. What the attempt held is free on return, as no traceback keeps it."""
    try:
        return work(part)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(said in str(error) for said in SAID):
            raise
    release_memory()
    return None
