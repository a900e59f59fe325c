"""What every defence offers, and the registry.

A defence turns clean vectors into what the store holds; `apply` gives them as a reader of the store decodes them. It
has one knob, which is what a comparison at matched utility turns.

To add one: one new file with a subclass of `Defence`, and one line in `DEFENCES`.

Shapes: n vectors, d numbers of a clean vector, s numbers of a stored one.
"""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from unembed.errors import InputError

# name -> "module:class"
DEFENCES: dict[str, str] = {
    "gaussian": "unembed.privacy.defences.gaussian:Gaussian",
    "uniform": "unembed.privacy.defences.uniform:Uniform",
    "laplace": "unembed.privacy.defences.laplace:Laplace",
    "purkayastha": "unembed.privacy.defences.purkayastha:Purkayastha",
    "rounding": "unembed.privacy.defences.rounding:Rounding",
    "quantisation": "unembed.privacy.defences.quantisation:Quantisation",
    "product-quantisation": "unembed.privacy.defences.product_quantisation:ProductQuantisation",
    "truncation": "unembed.privacy.defences.truncation:Truncation",
    "pca": "unembed.privacy.defences.pca:Pca",
    "masking": "unembed.privacy.defences.masking:Masking",
    "rotation": "unembed.privacy.defences.rotation:Rotation",
    "scale-and-perturb": "unembed.privacy.defences.scale_and_perturb:ScaleAndPerturb",
}

CLEAN = "none"
"""What reports call vectors without a defence."""

OURS = int.from_bytes(b"unembed", "big")


class Defence(ABC):
    """A defence at one setting of its knob."""

    name: ClassVar[str]
    knob: ClassVar[str]
    """What the number means."""
    source: ClassVar[str]
    """Where it is described."""
    ladder: ClassVar[tuple[float, ...]]
    """Settings from the mildest to the strongest (rising or falling), between which a comparison looks."""
    continuous: ClassVar[bool] = False
    """Whether settings between those of the ladder make sense."""
    random: ClassVar[bool] = False
    """Whether the same vector is stored differently each time, so that averaging helps an attacker."""
    secret: ClassVar[bool] = False
    """Whether it rests on a key without which an attacker cannot simulate it."""

    fewest: ClassVar[int] = 0
    """Vectors that it can be fitted to at least."""
    changes_space: ClassVar[bool] = False
    """Whether queries must be changed as stored vectors are; noise and codes stay on the store's side."""

    def __init__(self, strength: float, key: int = 0) -> None:
        """strength: the knob. key: the secret, of those that have one. Raises InputError beyond what makes sense."""
        self.strength, self.key = float(strength), key
        if not np.isfinite(self.strength) or problem(self):
            raise InputError(f"defence {self.name}: {self.knob} {strength:g} makes no sense{problem(self)}")

    @classmethod
    def settings(cls, d: int) -> list[float]:
        """Those of the ladder that make sense for vectors of d numbers."""
        return [float(strength) for strength in cls.ladder]

    def allowed(self) -> tuple[float, float]:
        """The smallest and the largest setting."""
        return 0.0, float("inf")

    def fit(self, vectors: np.ndarray) -> Self:
        """Learn from public vectors [n, d] what the defence needs of their distribution; most need nothing."""
        return self

    def apply(self, vectors: np.ndarray, seed: int = 0) -> np.ndarray:
        """Clean vectors [n, d] → stored ones, float32 [n, s]. `seed` is of the random numbers, if any; another seed is
        another time of storing."""
        return self._apply(checked(vectors), self._random(seed)).astype(np.float32)

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        """What a search compares the stored vectors with, float32 [n, s]: the query's own vector, or what the defence
        makes of it where it changes the space."""
        return self.apply(vectors) if self.changes_space else checked(vectors).astype(np.float32)

    def _random(self, *numbers: int) -> np.random.Generator:
        """Random numbers that depend on the key and `numbers`, and are none that somebody seeded with 0 has drawn."""
        return np.random.default_rng([OURS, self.key, len(numbers), *numbers])

    @abstractmethod
    def _apply(self, vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """float64 [n, d] → [n, s]."""

    def __str__(self) -> str:
        return f"{self.name} ({self.knob} {self.strength:g})"


def problem(defence: Defence) -> str:
    """What is wrong with a setting, as the end of a sentence; nothing if it is fine."""
    low, high = defence.allowed()
    if low <= defence.strength <= high and (defence.continuous or defence.strength == int(defence.strength)):
        return ""
    kind = "a number" if defence.continuous else "a whole number"
    return f": give {kind} from {low:g}" + (f" to {high:g}" if np.isfinite(high) else " upwards")


def defence(name: str, strength: float, key: int = 0) -> Defence:
    """A defence by name, at one setting. Raises InputError with the nearest name."""
    if name not in DEFENCES:
        near = difflib.get_close_matches(name.lower(), DEFENCES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"choose {', '.join(DEFENCES)}"
        raise InputError(f"no defence is called '{name}': {hint}")
    return defence_class(name)(strength, key)


def defence_class(name: str) -> type[Defence]:
    """The class of a known defence."""
    module, cls = DEFENCES[name].split(":")
    found: Any = getattr(importlib.import_module(module), cls)
    return found


def checked(vectors: np.ndarray) -> np.ndarray:
    """float64 [n, d]; InputError for another shape or for numbers that are none."""
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise InputError(f"vectors of shape {list(vectors.shape)}: give [n, d]")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(f"vector {row} holds NaN or infinity: leave it out")
    return vectors


def sphere(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """n directions, uniform on the sphere, float64 [n, d]."""
    directions = rng.standard_normal((n, d))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def as_long_as(changed: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Changed vectors at the length of the clean ones [n, d]: a search by cosine sees directions alone, and a store of
    unit vectors stays one."""
    lengths = np.linalg.norm(changed, axis=1, keepdims=True)
    return changed * (np.linalg.norm(clean, axis=1, keepdims=True) / np.maximum(lengths, np.finfo(float).tiny))
