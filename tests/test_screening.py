"""What a search makes of all that it asked: estimates of the target, forecasts of texts, and the choice by both."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from test_search import NEAR, TRUTH, Listed, Words, run
from unembed.inverter import Inverter
from unembed.models.base import GREEDY
from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces
from unembed.search import screening
from unembed.search.edits import exchanged, join
from unembed.search.estimate import Estimator, units
from unembed.search.forecast import BEFORE, FAR, PART, PARTS, RIDGE, SIDE_BY_SIDE, Forecast
from unembed.search.loop import EXPECTED
from unembed.search.screening import Neighbourhood
from unembed.search.types import THOROUGH, SearchConfig

VOCABULARY = ["the", "cat", "sat", "on", "mat", "dog", "a", "rug", "lay", "by", "sun", "in"]
ALONE = {"corrections": 0, "variations": 0, "polished": 0}


def directions(words):
    """A lexicon of the embedder's words, as one fitted to many texts would be: what a word adds to a vector."""
    vectors = Words().encode(words)
    return Lexicon(words, vectors - vectors.mean(axis=0))


def around(n, seed=0):
    """n texts of words of the vocabulary, none of them the truth, and their vectors."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(VOCABULARY, int(rng.integers(3, 9)))) for _ in range(n)]
    return texts, Words().encode(texts)


@pytest.fixture(scope="module")
def target():
    return Words().encode([TRUTH])[0].astype(np.float64)


def variations(text, n, rng):
    """The text with words left out, doubled or exchanged."""
    out = []
    for _ in range(n):
        parts = pieces(f" {text}")
        for at in sorted(rng.choice(len(parts), 2, replace=False).tolist(), reverse=True):
            parts = (
                parts[:at] + parts[at + 1 :]
                if rng.random() < 0.5
                else [*parts[:at], *parts[at : at + 1] * 2, *parts[at + 1 :]]
            )
        out.append(exchanged(pieces(f" {join(parts)}"), rng))
    return list(dict.fromkeys(out))


# --- what the target holds ---


def test_weights_make_one_and_come_close_to_the_target(target):
    texts, vectors = around(400)
    weights = Estimator(texts, vectors, target).weights()
    assert weights.sum() == pytest.approx(1, abs=0.02) and weights.min() < 0
    assert np.linalg.norm(weights @ vectors - target) < 0.1 < np.linalg.norm(vectors - target, axis=1).min()


def test_the_words_are_told_from_texts_of_which_none_has_them_all(target):
    texts, vectors = around(400)
    estimate = Estimator(texts, vectors, target).estimate()
    assert estimate.length == pytest.approx(6, abs=1.5)
    assert max(sum((Counter(units(text)) & Counter(TRUTH.split())).values()) for text in texts) < 6
    assert set(estimate.bag()) == set(TRUTH.split()), "one of two thes may be missed, no word"
    text = estimate.text("a dog lay in the sun")
    assert Counter(units(text)) == estimate.bag()


def test_each_estimate_from_a_share_is_another_one(target):
    texts, vectors = around(60)
    estimator = Estimator(texts, vectors, target)
    counts = [estimator.estimate(np.random.default_rng(seed)).counts for seed in (0, 0, 1)]
    assert np.array_equal(counts[0], counts[1]) and not np.allclose(counts[0], counts[2])


def test_a_text_is_told_what_it_lacks(target):
    texts, vectors = around(400)
    estimate = Estimator(texts, vectors, target).estimate()
    assert set(estimate.lacking("the cat sat", 3)) == {"on", "mat", "the"}, "a second one, too"
    assert estimate.lacking("dog", 1) in [["the"], ["cat"], ["sat"], ["on"], ["mat"]]
    assert not {"on", "mat", "sat"} & set(estimate.lacking(TRUTH, 6)), "little is left that is expected"


@pytest.mark.parametrize("texts", [["cat"], ["", "cat"], ["", " "], ["cat", "cat"]])
def test_few_texts_and_empty_ones_are_no_error(texts, target):
    vectors = np.stack([target] * len(texts))
    estimate = Estimator(texts, vectors, target).estimate(np.random.default_rng(0))
    assert np.isfinite(estimate.counts).all() and isinstance(estimate.text("the dog"), str)
    assert np.isfinite(Forecast(texts, vectors).cosines(["the dog", ""], target)).all()


def test_zero_vectors_are_no_error(target):
    zero = np.zeros((3, len(target)))
    assert np.isfinite(Estimator(NEAR[:3], zero, zero[0]).estimate().counts).all()
    assert np.array_equal(Forecast(NEAR[:3], zero).cosines(NEAR, target), np.zeros(len(NEAR)))


# --- what a text would give ---


def test_forecasts_of_the_real_embedder_put_unseen_texts_in_order(minilm):
    rng = np.random.default_rng(0)
    text = "The city council voted on Monday to close the old bridge."
    texts = variations(text, 400, rng)
    vectors, [goal] = minilm.encode(texts).astype(np.float64), minilm.encode([text]).astype(np.float64)
    known, new = slice(0, 300), slice(300, None)
    cosines = vectors[new] @ goal
    forecast = Forecast(texts[known], vectors[known]).cosines(texts[new], goal)
    ranks = [np.argsort(np.argsort(values)) for values in (cosines, forecast)]
    assert np.corrcoef(*ranks)[0, 1] > 0.6
    best = np.argsort(-forecast)[:10]
    assert cosines[best].mean() > np.quantile(cosines, 0.8)


def test_order_is_part_of_a_forecast(target):
    rng = np.random.default_rng(1)
    texts = list(dict.fromkeys(" ".join(rng.permutation(TRUTH.split())) for _ in range(200)))
    texts = [text for text in texts if text != TRUTH]
    cosines = Forecast(texts, Words().encode(texts)).cosines([TRUTH, "mat the on sat cat the"], target)
    assert cosines[0] > cosines[1] + 0.05


def test_features_are_numbered_as_a_plain_count_would(target):
    texts, vectors = around(50)
    new = [*around(20, seed=1)[0], "zebra cat", "", TRUTH]
    made = Forecast(texts, vectors)
    plain = [plain_features(text) for text in texts]
    columns = {key: column for column, key in enumerate(dict.fromkeys(key for row in plain for key in row))}

    def matrix(rows):
        out = np.zeros((len(rows), len(columns)))
        for row, found in zip(out, rows, strict=True):
            for key, value in found.items():
                if key in columns:
                    row[columns[key]] = value
        return out

    known, others = matrix(plain), matrix([plain_features(text) for text in new])
    mean = vectors.mean(axis=0)
    solved = np.linalg.solve(known @ known.T + RIDGE * np.eye(len(texts)), vectors - mean)
    forecast = others @ known.T @ solved + mean
    expected = forecast @ target / np.linalg.norm(forecast, axis=1)
    np.testing.assert_allclose(made.cosines(new, target), expected, atol=1e-6)


def plain_features(text):
    """What stands in a text, and how much it counts, one after the other."""
    own, out = units(text), Counter()
    for at, unit in enumerate(own):
        out[unit] += 1
        for later, other in enumerate(own[at + 1 : at + FAR]):
            out[unit, other] += BEFORE
            if not later:
                out[unit, other, "side by side"] += SIDE_BY_SIDE
        part, rest = divmod(at / max(1, len(own) - 1) * (PARTS - 1), 1)
        out[unit, part] += PART * (1 - rest)
        out[unit, part + 1] += PART * rest
    return out


# --- the choice ---


def chosen(n, known=60, untried=lambda text: True, lexicon=None, seed=0, nearest=0, continuations=None, continued=0):
    texts, vectors = around(known)
    [goal] = Words().encode([TRUTH])
    best = np.argsort(-(vectors @ goal))[:4].tolist()
    beam, missed = [texts[i] for i in best], goal - vectors[best[0]]
    known_ones = Neighbourhood(texts, vectors, goal)
    config, rng = SearchConfig(screened=n, screened_from=nearest, continued=continued), np.random.default_rng(seed)
    return known_ones.screened(beam, missed, lexicon, continuations, config, rng, untried)


def test_as_many_are_chosen_as_asked_for_all_different_and_the_same_again():
    texts = chosen(40)
    assert len(texts) == len(set(texts)) == 40
    assert texts == chosen(40) != chosen(40, seed=1)


def test_what_was_tried_is_not_chosen():
    tried = set(chosen(40)[::2])
    assert not tried & set(chosen(40, untried=lambda text: text not in tried))
    assert chosen(40, untried=lambda text: False) == []


def test_the_nearest_texts_are_varied_where_that_is_asked_for(monkeypatch):
    varied = []
    monkeypatch.setattr(screening, "_varied", lambda text, *_: varied.append(text) or text)
    texts, _ = around(60)
    chosen(40, nearest=30)
    assert set(varied) == set(texts[:30])
    chosen(40, known=5, nearest=30)  # more than there are
    varied.clear()
    chosen(40)
    assert len(set(varied)) <= 4  # the beam


def test_nothing_known_but_empty_texts_is_no_error(target):
    missed, rng = np.zeros(len(target)), np.random.default_rng(0)
    nothing = Neighbourhood([""], target[None], target)
    texts = nothing.screened([""], missed, None, None, SearchConfig(screened=8), rng, lambda text: bool(text))
    assert texts == []


def test_a_word_that_no_text_has_comes_from_the_lexicon():
    assert not any("Zebra" in text for text in chosen(80))
    assert any("Zebra" in text for text in chosen(80, lexicon=directions(["Zebra", "cat"])))


def test_other_forms_of_a_word():
    lexicon = Lexicon(["discharge", "Discharges", "discharged", "disc", "Consist", "on"], np.zeros((6, 2)))
    assert set(lexicon.forms("discharge", 3)) == {"Discharges", "discharged"}
    assert lexicon.forms("consisting", 3) == ["Consist"]
    assert lexicon.forms("on", 3) == lexicon.forms("1999", 3) == lexicon.forms("", 3) == []


def test_a_search_by_screening_alone_finds_the_text():
    embedder = Words()
    first = ["the cat on the mat", "a dog sat in the sun", "on cat sat the"]
    [found] = run(Listed(first), embedder, steps=12, patience=12, screened=24, **ALONE)
    assert found.exact and found.text.lower() == TRUTH and found.candidates[0].origin == "screening"
    assert found.queries <= len(first) + 24 * found.steps
    [without] = run(Listed(first), embedder, steps=12, patience=12, screened=0, **ALONE)
    assert not without.exact


def test_no_more_than_the_budget_is_asked():
    [found] = run(Listed(NEAR[3:4]), Words(), steps=20, screened=24, budget=30, **ALONE)
    assert found.queries <= 30


def test_a_model_that_takes_words_is_told_what_its_texts_lack():
    told = []

    class Told(Listed):
        takes_words = True

        def correct(self, targets, hypotheses, hypothesis_vectors, n=1, sampling=GREEDY, seed=0, words=None):
            told.extend(zip(hypotheses, words, strict=True))
            return super().correct(targets, hypotheses, hypothesis_vectors, n, sampling, seed)

    around = ["the cat sat", "the mat", "on the mat", "cat on a mat", "a dog sat on a mat", "dog", "sat on", "the", "a"]
    run(Told(around), Words(), steps=2, screened=8, sequence_beam_width=2, renumbered=0)
    assert told and all(len(words) <= EXPECTED for _, words in told)
    assert any(set(words) & set(TRUTH.split()) for _, words in told)
    told.clear()
    run(Told(around), Words(), steps=2, screened=0, sequence_beam_width=2)
    assert told and not any(words for _, words in told), "nothing is known of the neighbourhood without screening"


def test_a_search_from_the_nearest_texts_finds_the_text():
    first = ["the cat on the mat", "a dog sat in the sun", "on cat sat the"]
    [found] = run(Listed(first), Words(), **{**THOROUGH, "screened": 24, **ALONE})
    assert found.exact
    assert found.text == TRUTH


def test_thorough_is_only_where_nothing_else_was_said():
    config = Inverter.search_config(steps=7, seed=3, thorough=True)
    assert config == SearchConfig(**{**THOROUGH, "steps": 7, "seed": 3})
    assert Inverter.search_config(thorough=True) == SearchConfig(**THOROUGH)
    assert Inverter.search_config() == SearchConfig()
    assert Inverter.search_config(steps=0, thorough=True).most_queries() == SearchConfig(steps=0).most_queries()
