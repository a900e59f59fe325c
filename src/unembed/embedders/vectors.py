"""Vectors from outside: whatever a user or a store hands over becomes float32 [n, d], or one line that says what is
wrong.

Also here: in which precision such vectors were stored, because rounding is part of what `exact` must tolerate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.embedders.spec import EmbedderSpec

NORM_TOLERANCE = 0.01
"""Lengths of vectors of a normalising embedder may be this far from 1; int8 or a foreign scale is further off."""
UNIT_TOLERANCE = 1e-3
"""So near 1 all lengths are where vectors were normalised and stored in half precision at worst."""
MAX_DECIMALS = 7
"""Rounding to more decimals than this cannot be told from float32."""
SAMPLE = 1024
"""Rows looked at to find out how vectors were stored."""
UINT8_ZERO = 128.0
"""Zero-point of uint8 codes: unsigned quantisation is the signed one shifted by 128."""


def validate_vectors(vectors: Any, spec: EmbedderSpec, *, normalize: bool = False, first: int = 0) -> np.ndarray:
    """Check vectors against an embedder and bring them into the one form everything else works with.

    Args:
        vectors: [n, d] or a single [d]: nested lists, numpy arrays of any real type, torch tensors (bfloat16 too) on
            any device, or lists of those. Integers are quantised codes and need `normalize`; uint8 is centred on 128.
        spec: of the embedder they are said to come from.
        normalize: scale every row to length 1 instead of insisting that it has it.
        first: number of the first vector, for messages, where these are part of a longer list.

    Returns:
        float32 [n, d], C-contiguous, a copy. Rows have length 1 if `spec.normalized` or `normalize`.

    Raises:
        InputError: one line with what is wrong (which row, which dimension, which lengths) and what to do.
    """
    array = _as_array(vectors)
    if array.ndim == 1 and array.size:
        array = array[None, :]
    if array.size == 0:
        raise InputError("there are no vectors: the array is empty; give at least one vector")
    if array.ndim != 2:
        raise InputError(
            f"vectors have {array.ndim} axes (shape {array.shape}); give one row for each vector, [n, {spec.dim}]"
        )
    if array.shape[1] != spec.dim:
        hint = "they look transposed" if array.shape[0] == spec.dim else "use the embedder that made them"
        raise InputError(f"vectors have {array.shape[1]} dimensions, embedder {spec.id} has {spec.dim}; {hint}")
    if array.dtype.kind in "iu" and not normalize:
        raise InputError(
            f"vectors are integers ({array.dtype}), quantised codes without their scale; "
            "add normalize=True (--normalize)"
        )
    values = array.astype(np.float64)  # [n, d], a copy
    if array.dtype == np.uint8:
        values -= UINT8_ZERO
    _refuse(~np.isfinite(values).all(axis=1), "contains NaN or infinity", "remove it or embed its text again", first)
    _refuse(np.abs(values).max(axis=1) > 1e30, "is too large for float32", "check how it was stored", first)
    norms = np.linalg.norm(values, axis=1)  # [n]
    _refuse(norms < 1e-12, "is zero: it has no direction", "remove it or embed its text again", first)
    if normalize or spec.normalized:
        if not normalize and np.abs(norms - 1.0).max() > NORM_TOLERANCE:
            raise InputError(
                f"vectors have lengths from {norms.min():.4g} to {norms.max():.4g}, embedder {spec.id} gives length 1; "
                "if they were only scaled, add normalize=True (--normalize)"
            )
        values /= norms[:, None]
    return np.ascontiguousarray(values, dtype=np.float32)


def refuse_foreign_length(vectors: np.ndarray, spec: EmbedderSpec, longest: float) -> None:
    """Raise InputError for vectors [n, d] that all have length 1 where the embedder does not normalise: GTR from a
    vector store, say, given to an inverter of the raw one.

    longest: length of the longest vector that was seen of the embedder. Near 1 nothing can be told.
    """
    norms = np.linalg.norm(vectors, axis=1)
    if not spec.normalized and abs(longest - 1) > 5 * NORM_TOLERANCE and np.abs(norms - 1).max() < UNIT_TOLERANCE:
        raise InputError(
            f"vectors have length 1, embedder {spec.id} gives up to {longest:.4g}: they come from a normalising one; "
            "use an inverter of that, or add normalize=True (--normalize) if they were only scaled"
        )


def unit(vectors: np.ndarray) -> np.ndarray:
    """At length 1, float32 [n, d]: a cosine sees directions alone. Zero vectors stay."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def storage_dtype(vectors: Any) -> str:
    """In which precision the vectors were stored at some time, read off the values themselves.

    Call it on what was handed over, before `validate_vectors`: scaling hides the rounding. float32 or float64 arrays
    whose values all fit a narrower type are reported as that type: that is what half-precision stores, and JSON with
    rounded numbers, look like.

    Returns:
        `float32`, `float16`, `bfloat16`, `int8`, `uint8` or `decimalK` (rounded to K decimals); what
        `NoiseFloor.tolerance` takes.
    """
    name = str(getattr(vectors, "dtype", "")).rpartition(".")[2]
    if name in ("float16", "bfloat16", "uint8"):
        return name
    array = _as_array(vectors)
    if array.dtype.kind in "iu":
        return "uint8" if array.dtype == np.uint8 else "int8"
    values = np.atleast_2d(array)[:SAMPLE].astype(np.float64)
    if not values.size or not np.isfinite(values).all():
        return "float32"
    single = values.astype(np.float32)
    if np.array_equal(single, values):  # came from at most float32
        if not (single.view(np.uint32) & 0xFFFF).any():
            return "bfloat16"
        with np.errstate(over="ignore"):
            if np.array_equal(single.astype(np.float16).astype(np.float32), single):
                return "float16"
    for decimals in range(1, MAX_DECIMALS + 1):
        # A number rounded to `decimals` is, in float32, within half a unit in the last place of it.
        slack = 2.0**-24 * np.abs(values) + 1e-15
        if (np.abs(values - np.round(values, decimals)) <= slack).all():
            return f"decimal{decimals}"
    return "float32"


def integer_step(vectors: Any) -> float:
    """The rounding step of integer vectors on the scale of unit vectors: what `NoiseFloor.tolerance` takes as
    `step`."""
    values = _as_array(vectors).astype(np.float64)
    if np.asarray(vectors).dtype == np.uint8:
        values -= UINT8_ZERO
    shortest = float(np.linalg.norm(np.atleast_2d(values), axis=1).min())
    if shortest == 0.0:
        raise InputError("a vector is zero: it has no direction; remove it or embed its text again")
    return 1.0 / shortest


def _refuse(bad: Any, what: str, fix: str, first: int) -> None:
    """Raise InputError for the first row marked in `bad`, bool [n], of which row 0 is number `first`."""
    if bad.any():
        more = int(bad.sum()) - 1
        others = f" (and {more} more)" if more else ""
        raise InputError(f"vector {first + int(np.argmax(bad))} {what}{others}; {fix}")


def _as_array(vectors: Any) -> np.ndarray:
    """`vectors` as a numpy array of real numbers of any shape, or InputError."""
    if vectors is None or isinstance(vectors, (str, bytes, dict, set)):
        raise InputError(f"expected vectors, got {type(vectors).__name__}; give an array [n, d] of numbers")
    if isinstance(vectors, (list, tuple)):
        vectors = [_plain(row) for row in vectors]
        lengths = {_length(row) for row in vectors}
        if len(lengths) > 1:
            shown = ", ".join(sorted("a single value" if size is None else str(size) for size in lengths)[:4])
            raise InputError(f"vectors differ in length ({shown}); all must have the same dimension")
    try:
        array = np.asarray(_plain(vectors))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"these vectors are not a table of numbers ({' '.join(str(error).split())[:120]}); give [n, d]"
        ) from error
    if array.dtype.name == "bfloat16":  # ml_dtypes, unknown to numpy itself
        array = array.astype(np.float32)
    if array.dtype.kind == "c":
        raise InputError("vectors are complex numbers; give real ones")
    if array.size and array.dtype.kind not in "fiu":
        raise InputError(f"vectors hold {_contents(array)}, not numbers; give an array [n, d] of floats")
    return array


def _plain(value: Any) -> Any:
    """A torch tensor as a numpy array, everything else unchanged; torch itself is not imported."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return value


def _length(row: Any) -> int | None:
    """Number of components of a row, None for a single value."""
    try:
        return None if isinstance(row, (str, bytes)) else len(row)
    except TypeError:  # a number, or an array without axes
        return None


def _contents(array: np.ndarray) -> str:
    """What an array that holds no numbers holds instead, for the message."""
    if array.dtype.kind in "US":
        return "text"
    if array.dtype.kind == "b":
        return "true/false"
    culprit = next((value for value in array.flat if not isinstance(value, (int, float))), array.flat[0])
    return f"objects of type {type(culprit).__name__}"
