"""p-values, their corrections, and how well scores tell two kinds of rows apart."""

from __future__ import annotations

import numpy as np
import pytest

from unembed.errors import InputError
from unembed.privacy.probes.significance import auc, benjamini_hochberg, estimate, holm, p_among, p_values, tpr


def test_p_counts_those_as_high():
    null = np.array([0.1, 0.2, 0.2, 0.3])
    assert p_values(np.array([0.0, 0.2, 0.3, 0.4]), null).tolist() == [1.0, 0.8, 0.4, 0.2]
    scores = np.array([3.0, 1.0, 2.0, 3.0])
    assert p_among(scores).tolist() == [0.5, 1.0, 0.75, 0.5]
    by_hand = [p_values(scores[i : i + 1], np.delete(scores, i))[0] for i in range(4)]
    assert p_among(scores).tolist() == by_hand, "the others are the null"


def test_p_is_uniform_where_there_is_nothing_to_find():
    rng = np.random.default_rng(0)
    p = np.concatenate([p_values(rng.standard_normal(20), rng.standard_normal(99)) for _ in range(500)])
    for level in (0.01, 0.05, 0.5, 0.9):
        assert (p <= level).mean() == pytest.approx(level, abs=0.01)


def test_corrections_by_hand():
    p = np.array([0.04, 0.01, 0.03, 0.5])
    assert holm(p) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert benjamini_hochberg(p) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.5])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0], "never above 1"


def test_corrections_keep_what_they_promise():
    rng = np.random.default_rng(1)
    wrong, shares = 0, []
    for _ in range(300):
        p = np.concatenate([rng.uniform(size=40), rng.uniform(size=10) / 2000])
        wrong += bool((holm(p)[:40] <= 0.1).any())
        named = benjamini_hochberg(p) <= 0.1
        shares.append(named[:40].sum() / max(1, named.sum()))
    assert wrong / 300 <= 0.1 + 0.05 and np.mean(shares) <= 0.1 + 0.02


def test_auc_and_the_rate_at_a_false_positive_rate():
    found, others = np.array([3.0, 2.0, 2.0]), np.array([1.0, 2.0])
    assert auc(found, others) == pytest.approx((2 + 1.5 + 1.5) / 6)
    many = np.arange(200.0)
    assert tpr(np.array([196.5, 197.0, 197.5, 500]), many) == 0.5, "two of 200 may pass: 198 and 199"
    assert tpr(np.array([198.0, 199.5]), many[:50]) == 1.0 and tpr(np.array([49.0, 50.0]), many[:50]) == 0.5
    one = estimate(auc, np.arange(50.0) + 20, np.arange(50.0))
    assert one.low < one.value < one.high and one.n == 100
    assert estimate(auc, found[:1], others).low is None
    with pytest.raises(InputError, match="0 rows with a finding and 2 without"):
        estimate(auc, found[:0], others)
