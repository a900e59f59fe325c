"""The noise floor: how far apart two embeddings of the same text can be. It is what `exact` is measured against.

The same text gives slightly different numbers in another batch, with other padding, on other hardware, and a stored
vector was rounded on top of that. `== 1.0` or a fixed threshold would be a guess; here a fixed list of texts is
embedded several times under different circumstances and the largest distance seen is taken, times a safety factor, plus
the rounding of the store.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.embedders.base import Embedder

NOISE_TEXTS = (
    "Yes",
    "Why not?",
    "Call me tomorrow.",
    "Paris",
    "42",
    "It rained all night.",
    "Order 66-1204 shipped on 12 May 2023 to Rue de Rivoli 8.",
    "Das Wetter in München war gestern überraschend schön.",
    "Где находится ближайшая станция метро?",
    "今天天气很好,我们去公园吧。",
    "مرحبا بكم في مدينتنا",
    "for i in range(10): total += prices[i] * 1.19",
    "jack.morris@example.com wrote: please reset my password",
    "The patient, a 54-year-old man, was given 5 mg of amlodipine daily.",
    "THE MEETING HAS BEEN MOVED TO ROOM 204",
    "She sells sea shells by the sea shore, and the shells she sells are surely sea shells.",
    "No. No! No?",
    "Prices rose by 3.2% in April, the steepest monthly increase since the index was introduced in 1997.",
    "If you can keep your head when all about you are losing theirs, the saying goes, you have not understood the "
    "situation.",
    "A cat is not a dog, and a dog is not a cat, but both of them sleep most of the day and complain about the food.",
    "https://example.org/a/b?q=vector+search&page=2",
    "The committee met for the third time this year and decided, after a discussion of two hours, to postpone the "
    "decision about the new bridge until the engineers have delivered their report on the ground beneath the northern "
    "pier.",
    "Whereas the tenant has paid the deposit, and whereas the landlord has confirmed its receipt in writing, the "
    "parties agree that the lease begins on the first day of the following month and runs for two years, unless either "
    "of them gives notice.",
    "In the beginning the data were kept on paper, then on tape, then on disks that grew smaller every year while what "
    "they held grew larger, until nobody could say any longer where a given record was to be found, who had written "
    "it, or whether the copy in front of them was the last one or merely the newest of many.",
)
"""24 texts of 1 to 60 words: prose, numbers, code, addresses, six scripts."""

SAFETY = 10.0
"""Factor on the largest distance measured in float32. 24 texts do not meet the worst case, and other hardware sums in
another order. On all-MiniLM-L6-v2 (CPU) the floor is 1.5e-6; 300 other texts, another number of threads, other kernels,
other attention and float64 came to at most 1.02 times that. Ten leaves room for a GPU and still keeps 1000 times away
from the nearest other text that we found (60 words less one "of": 0.019)."""

REDUCED_SAFETY = 1.5
"""The same factor between precisions. There the distance is large (bfloat16 0.018, float16 0.002) and systematic: 300
other texts stayed below it. Ten times it would reach other texts; even so, exactness of long texts is better verified
in float32."""

MINIMUM = 2.0**-22
"""Relative distance assumed at least: an API that answers from a cache measures 0, which no arithmetic keeps."""


@dataclass(frozen=True)
class NoiseFloor:
    """What was measured, and the tolerances that follow from it."""

    max_distance: float
    """Largest L2 distance between two embeddings of one text."""
    mean_distance: float
    """Mean of those distances."""
    n: int
    """Number of distances measured."""
    n_texts: int
    """Number of different texts."""
    dim: int
    """Length of a vector."""
    scale: float
    """Largest length (norm) of the vectors seen; 1 for a normalising embedder."""
    peak: float
    """Largest absolute component seen, which sets the step of an int8 code."""
    dtype: str = "float32"
    """Precision of the embedder that was measured."""
    other_dtypes: dict[str, float] = field(default_factory=dict)
    """Largest distance from this embedder's vectors to the same model's in another precision."""
    safety: float = SAFETY
    """Factor on `max_distance`: `SAFETY`, or `REDUCED_SAFETY` for an embedder in reduced precision."""

    def tolerance(
        self, target_dtype: str = "float32", *, step: float | None = None, computed_in: str | None = None
    ) -> float:
        """Largest L2 distance at which a re-embedding still counts as the target.

        Args:
            target_dtype: precision in which the target was stored, as `storage_dtype` names it.
            step: of an int8 or uint8 target, see `integer_step`; without it each vector is taken to be scaled to the
                full range.
            computed_in: precision in which the target's embedder computed, if that was not this embedder's and was
                measured.
        """
        distance = max(self.max_distance, MINIMUM * self.scale)
        if computed_in is not None and computed_in != self.dtype:
            if computed_in not in self.other_dtypes:
                raise InputError(
                    f"the noise of {computed_in} was not measured; "
                    f"use measure_noise(..., other_dtypes=['{computed_in}'])"
                )
            return (
                self.safety * distance
                + REDUCED_SAFETY * self.other_dtypes[computed_in]
                + self.rounding(target_dtype, step)
            )
        return self.safety * distance + self.rounding(target_dtype, step)

    def rounding(self, target_dtype: str, step: float | None = None) -> float:
        """Largest L2 distance that storing a vector in `target_dtype`, rounded to nearest, can move it.

        A strict bound for floating point; for a fixed step the six-sigma bound on a sum of uniform errors, because the
        strict one (every component off by half a step) is 1.7 times as far and would reach other texts with int8.
        """
        # The squared error in steps is a sum over d components of mean 1/12 and variance 1/180.
        steps = math.sqrt(self.dim / 12.0 + 6.0 * math.sqrt(self.dim / 180.0))
        if target_dtype in ("float32", "float64"):
            return 2.0**-24 * self.scale
        if target_dtype == "float16":
            subnormal = math.sqrt(self.dim) * 2.0**-25  # components below 2^-14 keep an absolute precision only
            return 2.0**-11 * self.scale + subnormal
        if target_dtype == "bfloat16":
            return 2.0**-9 * self.scale
        if target_dtype in ("int8", "uint8"):
            return steps * (step if step is not None else self.peak / 127.0)
        if target_dtype.startswith("decimal") and target_dtype[7:].isdecimal():
            return steps * 10.0 ** -int(target_dtype[7:])
        raise InputError(
            f"unknown storage type '{target_dtype}'; use float32, float16, bfloat16, int8, uint8 or decimalK"
        )


def measure_noise(
    embedder: Embedder, other_dtypes: Sequence[str] = (), texts: Sequence[str] = NOISE_TEXTS
) -> NoiseFloor:
    """Embed the same texts together, reversed, one by one and in small mixed batches, and compare the results.

    An embedder in reduced precision is also compared with float32, in which its targets were most likely made.

    Args:
        embedder: counts the texts in `probes`, not in `queries`.
        other_dtypes: precisions to compare with and to report separately; the embedder must have `with_dtype`.
        texts: at least two.
    """
    if len(texts) < 2:
        raise InputError(f"measuring noise takes at least 2 texts, got {len(texts)}; give more")
    count = len(texts)
    mixed = [index for offset in range(5) for index in range(offset, count, 5)]  # long beside short
    fives = [embedder.probe([texts[i] for i in mixed[start : start + 5]]) for start in range(0, count, 5)]
    rounds = [
        embedder.probe(texts),
        embedder.probe(texts[::-1])[::-1],
        np.concatenate([embedder.probe([text]) for text in texts]),
        _in_order(mixed, np.concatenate(fives)),
    ]
    dtype = embedder.spec.dtype
    if dtype != "float32" and hasattr(embedder, "with_dtype"):
        rounds.append(embedder.with_dtype("float32").probe(texts))
    distances = np.array([_distances(a, b) for a, b in combinations(rounds, 2)])  # [pairs, n]
    others = {}
    for other in other_dtypes:
        if not hasattr(embedder, "with_dtype"):
            raise InputError(
                f"embedder {embedder.spec.id} has one precision only; measure its noise without other_dtypes"
            )
        others[other] = float(_distances(rounds[0], embedder.with_dtype(other).probe(texts)).max())
    return NoiseFloor(
        max_distance=float(distances.max()),
        mean_distance=float(distances.mean()),
        n=distances.size,
        n_texts=count,
        dim=rounds[0].shape[1],
        scale=float(np.linalg.norm(rounds[0], axis=1).max()),
        peak=float(np.abs(rounds[0]).max()),
        dtype=dtype,
        other_dtypes=others,
        safety=SAFETY if dtype == "float32" else REDUCED_SAFETY,
    )


def _in_order(positions: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """Put `rows` [n, d], of which row i belongs at `positions[i]`, back in order."""
    ordered = np.empty_like(rows)
    ordered[list(positions)] = rows
    return ordered


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """L2 distances [n] of the rows of two arrays [n, d], in float64 so that they add no noise of their own."""
    return np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1)
