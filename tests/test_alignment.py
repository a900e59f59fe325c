"""Maps between embedding spaces."""

from __future__ import annotations

import numpy as np
import pytest

from unembed.alignment import align
from unembed.errors import InputError
from unembed.privacy.defences import defence


def unit(n, d, seed):
    vectors = np.random.default_rng(seed).standard_normal((n, d))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosine(a, b):
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def test_a_rotation_is_found_with_hardly_more_pairs_than_dimensions():
    clean = unit(200, 32, 1)
    hidden = 3 * defence("rotation", 1, key=5).apply(clean)
    found = align(hidden[:44], clean[:44])
    assert found.kind == "procrustes" and cosine(found(hidden[44:]), clean[44:]) > 0.999
    assert found.cosine == pytest.approx(1, abs=0.01)


def test_ridge_where_the_map_is_no_rotation():
    rng = np.random.default_rng(2)
    clean = rng.standard_normal((500, 24)) @ np.diag(np.linspace(1, 0.1, 24))
    hidden = clean @ rng.standard_normal((24, 16)) + 0.3 * rng.standard_normal((500, 16)) + 5
    found = align(hidden[:400], clean[:400])
    assert found.kind == "ridge" and found(hidden[400:]).shape == (100, 24)
    reached = cosine(found(hidden[400:]), clean[400:])
    assert reached > 0.8 and found.cosine == pytest.approx(reached, abs=0.05), "what it promises on pairs left out"


def test_few_pairs_do_no_harm_to_vectors_that_were_only_rounded():
    """Towards zero, so few of them would restore less than leaving the vectors as they are."""
    clean = unit(400, 128, 3)
    stored = np.round(clean * 12) / 12
    found = align(stored[:150], clean[:150])
    assert found.kind == "ridge to identity"
    assert cosine(found(stored[150:]), clean[150:]) >= cosine(stored[150:], clean[150:]) - 1e-3
    plain = np.linalg.solve(stored[:150].T @ stored[:150] + 0.5 * np.eye(128), stored[:150].T @ clean[:150])
    assert cosine(stored[150:] @ plain, clean[150:]) < cosine(stored[150:], clean[150:]) - 0.02


def test_as_many_pairs_as_dimensions_are_no_catastrophe(minilm):
    """Plain least squares falls to a cosine near 0 there."""
    texts = [f"{a} {b} {c}" for a in ("red", "old", "wet", "sad") for b in ("cars", "dogs", "laws") for c in "abcdefgh"]
    clean = minilm.encode(texts)
    rng = np.random.default_rng(0)
    hidden = clean @ rng.standard_normal((384, 64)) / 20 + 0.05 * rng.standard_normal((96, 64))
    plain = np.linalg.lstsq(hidden[:64], clean[:64], rcond=None)[0]
    found = align(hidden[:64], clean[:64])
    assert cosine(found(hidden[64:]), clean[64:]) > cosine(hidden[64:] @ plain, clean[64:]) + 0.1


def test_bad_pairs():
    good = unit(20, 8, 1)
    with pytest.raises(InputError, match="9 pairs are too few"):
        align(good[:9], good[:9])
    with pytest.raises(InputError, match=r"\[20, 8\] and \[19, 8\]"):
        align(good, good[:19])
    bad = good.copy()
    bad[0, 0] = np.inf
    with pytest.raises(InputError, match="NaN or infinity"):
        align(good, bad)
    assert np.isfinite(align(np.zeros((20, 8)), good)(np.zeros((2, 8)))).all()
