"""How an attacker brings stored vectors back into the space that an inverter reads.

Each attacker knows more than the one before. What it gives back goes through the same inverter and the same look-up, so
that they are compared by what they know alone.

Shapes: n attacked vectors, m public texts, p known pairs; d numbers of a clean vector, s of a stored one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unembed.alignment import align
from unembed.embedders.vectors import unit
from unembed.privacy.defences.base import Defence

TIMES = 10
"""Storings of one vector that the averaging attacker has seen."""


@dataclass(frozen=True)
class View:
    """What attackers may look at; each takes what its threat model gives it."""

    defence: Defence
    """As the store's owner fitted it: what it learned lies beside the codes, or is published. Its key is the owner's
    alone."""
    stored: list[np.ndarray]
    """The attacked vectors [n, s] as they were stored once, twice, …: what changes between them is the defence's
    random numbers."""
    public: np.ndarray
    """Clean vectors [m, d] of texts that are not in the store."""
    known: tuple[np.ndarray, np.ndarray]
    """Vectors of texts in the store that the attacker knows: clean [p, d], and stored [p, s]."""
    seed: int = 0

    def simulated(self, clean: np.ndarray, times: int = 1) -> np.ndarray:
        """Clean vectors [k, d] as the defence would store them [k, s], the mean of so many times."""
        return np.mean([self.defence.apply(clean, seed=self.seed + 1000 + i) for i in range(times)], axis=0)

    def denoiser(self, times: int = 1) -> Callable[[np.ndarray], np.ndarray]:
        """Stored vectors, or the mean of so many storings of them, float [k, s] → clean ones [k, d]: the linear map
        that is best on public texts."""
        moved = align(unit(self.simulated(self.public, times)), self.public, self.seed)
        return lambda stored: moved(unit(stored))

    @cached_property
    def undo(self) -> Callable[[np.ndarray], np.ndarray]:
        """`denoiser` of single storings, fitted once for all who use it."""
        return self.denoiser()

    def round_trip(self, clean: np.ndarray) -> np.ndarray:
        """Clean vectors [k, d] → what the denoising attacker would restore of them [k, d]."""
        return self.undo(self.simulated(clean))


@dataclass(frozen=True)
class Attacker:
    """Stored vectors → clean ones, float32 [n, d]; None where it knows nothing that helps against this defence."""

    name: str
    knows: str
    restore: Callable[[View], np.ndarray | None]
    pairs: int = 0
    """Known pairs that it needs."""
    simulates: bool = False
    """Whether it knows what a text of its own would be stored as (`Inverter.behind`)."""
    trains: bool = False
    """Whether it trains an inverter on public texts that went through the same (`unembed.privacy.comparison.aware`)."""


def static(view: View) -> np.ndarray:
    """The stored vectors as they are, filled up with zeros where the defence left out dimensions."""
    return filled(view.stored[0], view.public.shape[1])


def denoising(view: View) -> np.ndarray | None:
    """The linear map from simulated to clean vectors that is best on public texts."""
    if view.defence.secret:
        return None
    return view.undo(view.stored[0])


def averaging(view: View) -> np.ndarray | None:
    """The mean of several storings, then denoised as such."""
    if not view.defence.random or view.defence.secret or len(view.stored) < 2:
        return None
    return view.denoiser(len(view.stored))(np.mean(view.stored, axis=0))


def aligning(pairs: int) -> Callable[[View], np.ndarray | None]:
    """The linear map that is best on so many known pairs; needs neither the mechanism nor the key."""

    def restore(view: View) -> np.ndarray | None:
        clean, stored = view.known
        if len(clean) < pairs:
            return None
        return align(unit(stored[:pairs]), clean[:pairs], view.seed)(unit(view.stored[0]))

    return restore


def attackers(pairs: Sequence[int] = (100, 1000), aware: bool = False) -> list[Attacker]:
    """All of them, from the one that knows least; the one that trains only if `aware`."""
    knows = "as denoising, and trains its inverter on what that restores"
    trains = Attacker("aware", knows, denoising, simulates=True, trains=True)
    return [
        Attacker("static", "the stored vectors and the embedder's name", static),
        Attacker(
            "denoising", "also the defence, its setting and what it learned, not its key", denoising, simulates=True
        ),
        *([trains] if aware else []),
        Attacker("averaging", f"also {TIMES} storings of each text", averaging),
        *(
            Attacker(f"{n} pairs", f"{n} texts in the store and which vectors are theirs", aligning(n), n)
            for n in pairs
        ),
    ]


def filled(stored: np.ndarray, d: int) -> np.ndarray:
    """[n, s] → [n, d]: zeros where dimensions are missing."""
    out = np.zeros((len(stored), d), dtype=np.float32)
    out[:, : stored.shape[1]] = stored
    return out


def look_up(restored: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """For each restored vector [n, d] the row of the nearest of the candidates' clean vectors [c, d], by cosine: the
    attacker holds a collection of texts and asks which of them this one is."""
    return (unit(restored) @ unit(candidates).T).argmax(axis=1)
