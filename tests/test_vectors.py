"""Vectors from outside: what is accepted, what is refused, and in which precision they were stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unembed.embedders import EmbedderSpec, storage_dtype, validate_vectors
from unembed.embedders.vectors import integer_step
from unembed.errors import InputError

DIM = 8
SPEC = EmbedderSpec(id="sentence-transformers/all-MiniLM-L6-v2", dim=DIM)
FREE = EmbedderSpec(id="free", dim=DIM, normalized=False)


@pytest.fixture
def unit() -> np.ndarray:
    """Three unit vectors, float32 [3, 8]."""
    rows = np.random.default_rng(0).normal(size=(3, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_float32_passes_and_is_copied(unit: np.ndarray) -> None:
    result = validate_vectors(unit, SPEC)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    np.testing.assert_allclose(result, unit, atol=1e-7)
    result[0] = 0.0
    assert unit[0].any()


@pytest.mark.parametrize(
    "form",
    [
        lambda v: v.tolist(),
        lambda v: tuple(map(tuple, v.tolist())),
        lambda v: list(v),
        lambda v: v.astype(np.float64),
        lambda v: np.asfortranarray(v),
        lambda v: np.repeat(v, 2, axis=0)[::2],
        lambda v: torch.from_numpy(v.copy()),
        lambda v: torch.from_numpy(v.copy()).double().requires_grad_(),
        lambda v: list(torch.from_numpy(v.copy())),
        lambda v: v.astype(">f4"),
    ],
)
def test_every_form_of_the_same_numbers_is_the_same(unit: np.ndarray, form) -> None:
    np.testing.assert_allclose(validate_vectors(form(unit), SPEC), unit, atol=1e-7)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        (lambda v: v.astype(np.float16), 2.0**-11),
        (lambda v: torch.from_numpy(v.copy()).half(), 2.0**-11),
        (lambda v: torch.from_numpy(v.copy()).bfloat16(), 2.0**-8),
        (lambda v: list(torch.from_numpy(v.copy()).bfloat16()), 2.0**-8),
    ],
)
def test_half_precision_is_accepted_and_renormalised(unit: np.ndarray, form, error: float) -> None:
    result = validate_vectors(form(unit), SPEC)
    np.testing.assert_allclose(result, unit, atol=error)
    np.testing.assert_allclose(np.linalg.norm(result, axis=1), 1.0, atol=1e-6)


def test_one_vector_becomes_one_row(unit: np.ndarray) -> None:
    assert validate_vectors(unit[0], SPEC).shape == (1, DIM)
    assert validate_vectors(unit[0].tolist(), SPEC).shape == (1, DIM)
    assert validate_vectors(torch.from_numpy(unit[0]), SPEC).shape == (1, DIM)


def test_integers_need_normalize(unit: np.ndarray) -> None:
    codes = np.round(unit * 127 / np.abs(unit).max()).astype(np.int8)
    with pytest.raises(InputError, match=r"integers \(int8\).*normalize=True \(--normalize\)"):
        validate_vectors(codes, SPEC)
    with pytest.raises(InputError, match="integers"):
        validate_vectors([[1] * DIM], SPEC)
    np.testing.assert_allclose(validate_vectors(codes, SPEC, normalize=True), unit, atol=0.01)
    shifted = (codes.astype(np.int16) + 128).astype(np.uint8)
    np.testing.assert_array_equal(
        validate_vectors(shifted, SPEC, normalize=True), validate_vectors(codes, SPEC, normalize=True)
    )


def test_lengths_off_by_more_than_a_hundredth_are_refused_with_the_range(unit: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"lengths from 2 to 2.*normalize=True \(--normalize\)"):
        validate_vectors(unit * 2, SPEC)
    np.testing.assert_allclose(validate_vectors(unit * 2, SPEC, normalize=True), unit, atol=1e-7)
    np.testing.assert_allclose(validate_vectors(unit * 1.005, SPEC), unit, atol=1e-7)
    one_long = unit.copy()
    one_long[1] *= 1.5
    with pytest.raises(InputError, match=r"from 1 to 1\.5"):
        validate_vectors(one_long, SPEC)


def test_an_embedder_that_does_not_normalise_keeps_its_lengths(unit: np.ndarray) -> None:
    np.testing.assert_allclose(validate_vectors(unit * 7, FREE), unit * 7, rtol=1e-6)
    np.testing.assert_allclose(validate_vectors(unit * 7, FREE, normalize=True), unit, atol=1e-7)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "vector 1 contains NaN or infinity"),
        (np.inf, "vector 1 contains NaN or infinity"),
        (-np.inf, "vector 1 contains NaN or infinity"),
    ],
)
def test_not_finite_names_the_row(unit: np.ndarray, bad: float, message: str) -> None:
    unit[1, 3] = bad
    for normalize in (False, True):
        with pytest.raises(InputError, match=message):
            validate_vectors(unit, SPEC, normalize=normalize)


def test_zero_vector_names_the_row_and_how_many_more(unit: np.ndarray) -> None:
    unit[1:] = 0.0
    with pytest.raises(InputError, match=r"vector 1 is zero.*\(and 1 more\)"):
        validate_vectors(unit, SPEC)
    with pytest.raises(InputError, match="vector 0 is zero"):
        validate_vectors(np.full((1, DIM), 128, dtype=np.uint8), SPEC, normalize=True)


def test_wrong_dimension_names_both_and_the_embedder(unit: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"6 dimensions, embedder sentence-transformers/all-MiniLM-L6-v2 has 8"):
        validate_vectors(unit[:, :6], SPEC)
    with pytest.raises(InputError, match="5 dimensions"):
        validate_vectors([0.1] * 5, SPEC)
    with pytest.raises(InputError, match="transposed"):
        validate_vectors(unit.T, SPEC)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "got NoneType"),
        ("0.1 0.2", "got str"),
        ({"a": 1}, "got dict"),
        ([["a"] * DIM], "text"),
        ([["0.5"] * DIM], "text"),
        ([[None] * DIM], "NoneType"),
        ([[0.1] * DIM, [0.1] * 3], r"differ in length \(3, 8\)"),
        ([[0.1] * DIM, 3.0], "differ in length"),
        ([[[0.1] * DIM] * 2, [[0.1] * DIM]], "differ in length"),
        ([torch.tensor(0.5), torch.ones(DIM)], "differ in length"),
        ([], "empty"),
        ([[]], "empty"),
        (np.zeros((0, DIM)), "empty"),
        (np.zeros((3, 0)), "empty"),
        (np.ones((2, 2, DIM)), "3 axes"),
        (0.5, "0 axes"),
        (np.ones((1, DIM), dtype=complex), "complex"),
        (torch.ones(1, DIM, dtype=torch.complex64), "complex"),
        (np.ones((1, DIM), dtype=bool), "true/false"),
        (np.full((1, DIM), 1e300), "too large"),
        ((x for x in [1.0]), "generator"),
        (b"abc", "bytes"),
    ],
)
def test_everything_else_is_one_line(bad: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        validate_vectors(bad, FREE)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (lambda v: v, "float32"),
        (lambda v: v.astype(np.float64), "float32"),
        (lambda v: v.tolist(), "float32"),
        (lambda v: v.astype(np.float16), "float16"),
        (lambda v: v.astype(np.float16).astype(np.float32), "float16"),
        (lambda v: v.astype(np.float16).tolist(), "float16"),
        (lambda v: torch.from_numpy(v.copy()).bfloat16(), "bfloat16"),
        (lambda v: torch.from_numpy(v.copy()).bfloat16().double().numpy(), "bfloat16"),
        (lambda v: list(torch.from_numpy(v.copy()).half()), "float16"),
        (lambda v: np.round(v * 127).astype(np.int8), "int8"),
        (lambda v: np.round(v * 127 + 128).astype(np.uint8), "uint8"),
        (lambda v: torch.from_numpy(np.round(v * 127)).to(torch.int8), "int8"),
        (lambda v: np.round(v.astype(np.float64), 6), "decimal6"),
        (lambda v: np.round(v.astype(np.float64), 4).astype(np.float32), "decimal4"),
        (lambda v: np.round(v.astype(np.float64), 7).astype(np.float32), "decimal7"),
        (lambda v: np.zeros((0, 3)), "float32"),
    ],
)
def test_storage_dtype_is_read_off_the_values(form, name: str) -> None:
    rows = np.random.default_rng(1).normal(size=(4, 384)) / 20
    assert storage_dtype(form(rows.astype(np.float32))) == name


def test_integer_step_bounds_the_rounding_of_codes() -> None:
    rows = np.random.default_rng(2).normal(size=(50, 384))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for scale in (127.0, 127.0 / np.abs(rows).max()):
        codes = np.round(rows * scale).astype(np.int8)
        restored = validate_vectors(codes, EmbedderSpec(id="x", dim=384), normalize=True)
        error = np.linalg.norm(restored - rows, axis=1).max()
        assert 0.4 < error / (integer_step(codes) * np.sqrt(384 / 12)) < 1.3
    with pytest.raises(InputError, match="zero"):
        integer_step(np.zeros((2, 4), dtype=np.int8))
