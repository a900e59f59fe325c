"""`EmbedderSpec`: everything about an embedder that changes the geometry of its vectors.

It is saved beside every model, every result and every report, and it is compared before vectors of one embedder meet a
model trained for another. Names can lie (two folders, two servers, two revisions), so a spec may carry a `fingerprint`:
a few numbers measured from the embedder's own vectors. When both sides have one, it is the fingerprint that decides
whether they are the same embedder, and the name is only a label.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unembed.errors import InputError, SpecMismatch

if TYPE_CHECKING:
    import numpy as np

DTYPES = ("float32", "bfloat16", "float16")
UNKNOWN = "unknown"
"""The pooling of an embedder that one can only see from outside (an API). It matches any pooling."""

FINGERPRINT_TOLERANCE = 0.05
"""Largest relative distance between two fingerprints of one embedder. Measured on all-MiniLM-L6-v2 against float32 on a
CPU: float16 0.001, bfloat16 0.009; but weights disturbed by 3% 0.09, a prefix 0.3, CLS instead of mean pooling 0.7."""

FINGERPRINT_TEXTS = (
    "The cat sat on the mat.",
    "Invoice 4711: 1,250.00 EUR due on 3 May 2024",
    "NASA engineers in Houston met Maria Müller",
    "def add(a, b): return a + b",
    "Где находится вокзал?",
    "I never said she stole my money, and yet everybody in the room believed that I had.",
)
"""What is embedded to take a fingerprint: prose, digits, capitals and accents, code, another script. Changing a single
character here invalidates the fingerprints of every saved model."""

_DIRECTIONS = 8


@dataclass(frozen=True)
class EmbedderSpec:
    """What one has to know about an embedder to compare, invert or reproduce its vectors."""

    id: str
    """Name by which the embedder is found again: a hub id, a folder, `openai:MODEL` or `api:URL#MODEL`."""
    dim: int
    """Length of a vector."""
    revision: str | None = None
    """Commit of the weights, where one is known."""
    pooling: str = "mean"
    """How token states become one vector: `mean`, `cls`, `lasttoken`, ..., joined by `+`, or `unknown` (an API)."""
    normalized: bool = True
    """Whether every vector has length 1."""
    prefix: str = ""
    """Text put in front of every input, such as `"query: "` for the E5 family."""
    max_tokens: int = 256
    """Longest input in the embedder's own tokens, special tokens included."""
    truncation: bool = True
    """Whether longer inputs are cut (True) or refused (False)."""
    dtype: str = "float32"
    """Precision the network computes in: float32, bfloat16 or float16."""
    cased: bool = True
    """Whether the embedder can tell `Turkey` from `turkey`."""
    fingerprint: tuple[float, ...] | None = None
    """Projections of the vectors of a few fixed texts (see `take_fingerprint`), or None when not measured."""

    def __post_init__(self) -> None:
        """Refuse values that cannot describe an embedder; raises InputError."""
        for name in ("id", "pooling", "prefix", "dtype"):
            if not isinstance(getattr(self, name), str):
                raise InputError(
                    f"embedder spec: {name} must be a string, got {getattr(self, name)!r}; correct the spec"
                )
        if not self.id.strip():
            raise InputError("embedder spec: id is empty; give the name of the embedder, such as all-MiniLM-L6-v2")
        for name in ("dim", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(
                    f"embedder spec: {name} must be a whole number of at least 1, got {value!r}; correct it"
                )
        for name in ("normalized", "truncation", "cased"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(
                    f"embedder spec: {name} must be true or false, got {getattr(self, name)!r}; correct it"
                )
        if self.revision is not None and not isinstance(self.revision, str):
            raise InputError(f"embedder spec: revision must be a string or null, got {self.revision!r}; correct it")
        if self.dtype not in DTYPES:
            raise InputError(f"embedder spec: unknown dtype {self.dtype!r}; use one of {', '.join(DTYPES)}")
        if self.fingerprint is not None:
            object.__setattr__(self, "fingerprint", _floats(self.fingerprint))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values; `from_dict` reverses it."""
        values = dataclasses.asdict(self)
        if self.fingerprint is not None:
            values["fingerprint"] = list(self.fingerprint)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EmbedderSpec:
        """Build a spec from what `to_dict` wrote.

        Raises InputError for anything unknown or missing: a key that is ignored today is a wrong geometry tomorrow.
        """
        if not isinstance(values, dict):
            raise InputError(f"embedder spec: expected a mapping, got {type(values).__name__}; write it as key: value")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(str(key) for key in set(values) - known):
            raise InputError(f"embedder spec: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if missing := [key for key in ("id", "dim") if key not in values]:
            raise InputError(f"embedder spec: {' and '.join(missing)} missing; add it")
        return cls(**values)


def _floats(values: Any) -> tuple[float, ...]:
    """`values` as a tuple of finite floats, or InputError."""
    try:
        floats = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        floats = ()
    if not floats or not all(math.isfinite(value) for value in floats):
        raise InputError("embedder spec: fingerprint must be a list of finite numbers or null; measure it again")
    return floats


def normalize_id(name: str) -> str:
    """What identifies an embedder in its name: `sentence-transformers/all-MiniLM-L6-v2` -> `all-minilm-l6-v2`."""
    name = name.strip().rstrip("/").lower()
    return name.removeprefix("st:").removeprefix("sentence-transformers/")


def same_id(a: str, b: str) -> bool:
    """Whether two names mean one embedder. A folder goes by its own name, so that a copy on the disk is recognised."""
    a, b = normalize_id(a), normalize_id(b)
    folders = [name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 for name in (a, b)]
    if any(folders) and "://" not in a + b:
        a, b = (re.split(r"[/\\]", name)[-1] for name in (a, b))
    return a == b


def take_fingerprint(vectors: np.ndarray) -> tuple[float, ...]:
    """Reduce the vectors of `FINGERPRINT_TEXTS` to a few numbers that another embedder will not reproduce.

    Every vector is projected on fixed pseudo-random directions of +1 and -1, so the numbers depend on the axes (a
    rotated space has another fingerprint) and on the scale, and their RMS estimates the length of the vectors.

    Args:
        vectors: float [len(FINGERPRINT_TEXTS), d], the vectors of those texts in that order.

    Returns:
        `len(FINGERPRINT_TEXTS) * 8` floats.
    """
    import numpy as np

    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(FINGERPRINT_TEXTS):
        raise InputError(
            f"fingerprint: expected the vectors of {len(FINGERPRINT_TEXTS)} probe texts, got an array of shape "
            f"{vectors.shape}; embed FINGERPRINT_TEXTS, one vector each"
        )
    # RandomState, not default_rng: its stream is frozen, so that a fingerprint means the same under every numpy.
    signs = np.random.RandomState(20240229).randint(0, 2, size=(vectors.shape[1], _DIRECTIONS)) * 2.0 - 1.0  # [d, 8]
    # Four decimals: far below the tolerance, above the noise of float32, and short in a config file.
    return tuple(round(float(value), 4) for value in (vectors @ signs).ravel())


def fingerprint_distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Relative distance of two fingerprints: 0 for the same, about 1.4 if unrelated, inf if of another size."""
    if len(a) != len(b):
        return math.inf
    scale = max(math.hypot(*a), math.hypot(*b))
    return math.dist(a, b) / scale if scale > 0 else 0.0


def check_match(
    expected: EmbedderSpec,
    actual: EmbedderSpec,
    *,
    expected_name: str = "the model",
    actual_name: str = "the embedder",
) -> None:
    """Raise `SpecMismatch` unless vectors of `actual` can stand in for vectors of `expected`.

    Compared are dim, normalisation, prefix, pooling, name and fingerprint. Where both sides carry a fingerprint it
    replaces the comparison of the names, because a folder or a server may call the same weights anything. Precision and
    hardware are not compared: they are noise, not geometry.

    Args:
        expected: what is needed, for instance the spec saved with a model.
        actual: what is there.
        expected_name: how to call the first in the message, such as "model my-inverter".
        actual_name: how to call the second.
    """
    differences = []
    for field, label in (("dim", "dimension"), ("normalized", "normalized"), ("prefix", "prefix")):
        mine, theirs = getattr(expected, field), getattr(actual, field)
        if mine != theirs:
            differences.append(f"{label} {mine!r} against {theirs!r}")
    if UNKNOWN not in (expected.pooling, actual.pooling) and expected.pooling != actual.pooling:
        differences.append(f"pooling {expected.pooling!r} against {actual.pooling!r}")
    if expected.fingerprint is not None and actual.fingerprint is not None:
        distance = fingerprint_distance(expected.fingerprint, actual.fingerprint)
        if distance > FINGERPRINT_TOLERANCE:
            differences.append(f"fingerprints {distance:.2g} apart, at most {FINGERPRINT_TOLERANCE} allowed")
    elif not same_id(expected.id, actual.id):
        differences.append(f"id {expected.id!r} against {actual.id!r}")
    if differences:
        raise SpecMismatch(
            f"{expected_name} (embedder {expected.id}) and {actual_name} (embedder {actual.id}) do not match: "
            f"{'; '.join(differences)}; use the embedder {expected.id} as it was used there, or a model trained for "
            f"{actual.id}"
        )
