"""Defences: what they do to vectors, and that their numbers are those of their sources."""

from __future__ import annotations

import numpy as np
import pytest

from unembed.errors import InputError
from unembed.privacy.defences import DEFENCES, defence
from unembed.privacy.defences.base import defence_class
from unembed.privacy.defences.purkayastha import Purkayastha

D = 64


def unit(n, d=D, seed=1):
    vectors = np.random.default_rng(seed).standard_normal((n, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def settings(name):
    return defence_class(name).settings(D)


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def made(name, strength):
    if name == "product-quantisation":
        pytest.importorskip("faiss")
    return defence(name, strength).fit(unit(600, seed=2))


@pytest.mark.parametrize("name", DEFENCES)
def test_the_stronger_setting_tells_less(name):
    """What a search sees, the similarities of queries and stored vectors, is nearly that of clean vectors at the
    mildest setting, and less and less so."""
    clean = unit(200)
    asking = clean + 0.05 * np.random.default_rng(5).standard_normal(clean.shape)
    alike = []
    for strength in settings(name):
        guard = made(name, strength)
        stored, asked = guard.apply(clean), guard.queries(asking)
        assert stored.dtype == np.float32 and len(stored) == 200 and stored.shape[1] == asked.shape[1]
        assert np.isfinite(stored).all()
        alike.append(np.corrcoef((asked @ stored.T).ravel(), (asking @ clean.T).ravel())[0, 1])
    mild = 0.7 if name in ("truncation", "pca") else 0.97  # of 64 dimensions half is the first rung
    assert alike[0] > mild and all(a >= b - 0.01 for a, b in zip(alike, alike[1:], strict=False)), alike
    assert name == "rotation" or alike[-1] < alike[0] - 0.001, alike


@pytest.mark.parametrize("name", DEFENCES)
def test_the_same_seed_gives_the_same_and_only_random_ones_differ_between_seeds(name):
    clean, guard = unit(20), made(name, settings(name)[-1])
    assert np.array_equal(guard.apply(clean, seed=3), guard.apply(clean, seed=3))
    assert np.array_equal(guard.apply(clean, seed=3), guard.apply(clean, seed=4)) != guard.random
    assert np.array_equal(clean, unit(20)), "what is given is not changed"


@pytest.mark.parametrize("name", ["masking", "rotation", "scale-and-perturb"])
def test_a_secret_is_one_of_many(name):
    clean = unit(20)
    first, again, other = (defence(name, settings(name)[0], key).apply(clean) for key in (7, 7, 8))
    assert np.array_equal(first, again) and not np.allclose(first, other, atol=1e-3)


def test_noise_that_is_drawn_does_not_depend_on_the_users_seed():
    """Vectors drawn with seed 0 are not the noise that is drawn with seed 0."""
    clean = np.random.default_rng(0).standard_normal((50, D))
    assert abs(cosines(clean, defence("gaussian", 1000.0).apply(clean, seed=0)).mean()) < 0.1


def test_gaussian_noise_has_its_standard_deviation():
    clean = 100 * unit(400)  # long vectors, so that the scaling back changes next to nothing
    noise = defence("gaussian", 0.05).apply(clean) - clean
    assert noise.std() == pytest.approx(0.05, rel=0.02)


def test_laplace_noise_has_a_gamma_length():
    """The length of the noise is Gamma(d, 1/ε): mean d/ε, standard deviation √d/ε."""
    clean = 1e4 * unit(3000)
    length = np.linalg.norm(defence("laplace", 100.0).apply(clean).astype(float) - clean, axis=1)
    # Scaling back takes the one direction out of 64 that points away from the origin.
    assert length.mean() == pytest.approx(D / 100 * np.sqrt(1 - 1 / D), rel=0.01)
    assert length.std() == pytest.approx(np.sqrt(D) / 100, rel=0.1)


def test_the_angle_of_purkayastha_follows_its_density():
    """P(θ) ∝ sin(θ)^(d−2) exp(−ε θ), compared with the quantiles of a numerical integral of another kind."""
    epsilon, d = 300.0, D
    theta = np.linspace(1e-6, np.pi, 400_000)
    density = np.exp((d - 2) * np.log(np.sin(theta)) - epsilon * theta + 200)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    for quantile in (0.1, 0.5, 0.9):
        wanted = np.interp(quantile, mass / mass[-1], theta)
        assert Purkayastha(epsilon).angles(np.array([quantile]), d)[0] == pytest.approx(wanted, rel=1e-3)
    clean = unit(2000)
    angles = np.arccos(np.clip(cosines(clean, Purkayastha(epsilon).apply(clean)), -1, 1))
    assert np.median(angles) == pytest.approx(np.interp(0.5, mass / mass[-1], theta), rel=0.02)


def test_int8_is_what_sentence_transformers_makes():
    """The same codes as its int8 quantisation of the same ranges, up to one level at the borders."""
    from sentence_transformers.util.quantization import quantize_embeddings

    public, clean = unit(600, seed=2).astype(np.float32), 0.5 * unit(50).astype(np.float32)
    theirs = quantize_embeddings(clean, "int8", calibration_embeddings=public).astype(int)
    low, high = public.min(axis=0), public.max(axis=0)
    stored = defence("quantisation", 8).fit(public).apply(clean)
    ours = np.floor((stored - low) / ((high - low) / 256)).astype(int) - 128
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(stored - clean).max() < ((high - low) / 256).max()


def test_pca_keeps_inner_products_best():
    public = unit(600, seed=2) * np.linspace(1, 0.01, D)
    guard = defence("pca", 16).fit(public)
    kept = guard.apply(public)
    assert np.linalg.norm(kept) > 0.99 * np.linalg.norm(public[:, np.argsort(-public.std(axis=0))[:16]])


@pytest.mark.parametrize("name", [name for name in DEFENCES if defence_class(name).continuous])
def test_a_ladder_ends_where_little_is_left(name):
    """Or the strongest setting within a large allowed loss would not be found."""
    clean = unit(100, 384)
    guard = defence(name, defence_class(name).settings(384)[-1])
    seen = guard.queries(clean) @ guard.apply(clean).T  # as a search compares them
    assert cosines(seen, clean @ clean.T).mean() < 0.8


def test_a_rotation_is_a_rotation():
    matrix = defence("rotation", 1, key=3).matrix(D)
    assert np.allclose(matrix @ matrix.T, np.eye(D), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "strength", "said"),
    [
        ("gaussian", -0.1, "give a number from 0 upwards"),
        ("gaussian", float("nan"), "makes no sense"),
        ("quantisation", 2.5, "give a whole number from 1 to 16"),
        ("quantisation", 0, "give a whole number"),
        ("masking", 1.0, "from 0 to 0.999"),
        ("gausian", 0.1, "did you mean 'gaussian'?"),
    ],
)
def test_settings_that_make_no_sense(name, strength, said):
    with pytest.raises(InputError, match="(?s).*" + said.replace("?", r"\?")):
        defence(name, strength)


@pytest.mark.parametrize("name", ["quantisation", "pca", "product-quantisation"])
def test_what_must_be_fitted_says_so(name):
    with pytest.raises(InputError, match="call fit with public vectors"):
        defence(name, 4).apply(unit(3))


def test_bad_vectors():
    bad = unit(5)
    bad[3, 2] = np.nan
    with pytest.raises(InputError, match="vector 3 holds NaN"):
        defence("gaussian", 0.1).apply(bad)
    with pytest.raises(InputError, match=r"shape \[64\]"):
        defence("gaussian", 0.1).apply(unit(5)[0])
    with pytest.raises(InputError, match="fitted to vectors of 64 numbers, given 8"):
        defence("quantisation", 4).fit(unit(9)).apply(unit(5, 8))
    zero = np.zeros((1, D))
    for name in DEFENCES:
        if name != "product-quantisation":
            assert np.isfinite(made(name, settings(name)[0]).apply(zero)).all(), f"{name}: a zero vector stays finite"
