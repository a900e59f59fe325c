"""Metrics against values worked out by hand, and against sacrebleu and rouge-score where they define the figure."""

from __future__ import annotations

import json
import random
import re
import sys

import numpy as np
import pytest

from unembed import metrics
from unembed.errors import InputError, MissingExtra, install_line

CAT = "the cat sat on the mat"


# --- words and exact match ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't PANIC -- it's 42!", ["don", "t", "panic", "it", "s", "42"]),
        ("snake_case", ["snake", "case"]),
        ("Caf\u00e9 Cafe\u0301", ["caf\u00e9", "caf\u00e9"]),  # composed and decomposed
        ("Привет, МИР", ["привет", "мир"]),
        ("今天 GPT-4 很好。", ["今", "天", "gpt", "4", "很", "好"]),
        ("カタカナ", ["カ", "タ", "カ", "ナ"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs and virama stay in the word
        ("ใช่", ["ใ", "ช่"]),
        ("co\u00adoperate", ["cooperate"]),
        ("GROSSE Größe", ["grosse", "grösse"]),
        ("👍 !!", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert metrics.words(text) == expected


def test_words_on_ascii_are_those_of_rouge():
    from rouge_score.tokenize import tokenize

    text = "A well-known fact: $3.50 isn't 4_000 (e.g. U.S.A.)\tEND"
    assert metrics.words(text) == tokenize(text, None)


def test_exact_match():
    assert metrics.exact_match("  a\n b\u00a0c ", "a b c")
    assert metrics.exact_match("caf\u00e9", "cafe\u0301")
    assert not metrics.exact_match("A b", "a b")
    assert metrics.exact_match("A b", "a B", cased=False)
    assert metrics.exact_match("STRASSE", "Straße", cased=False)
    assert not metrics.exact_match("a b", "ab", cased=False)
    assert not metrics.exact_match("a", "")
    assert metrics.exact_match("", " ")


# --- one pair ---


def test_token_f1_by_hand():
    # bags: {the 2, cat, sat, on, mat} and {the 2, cat, dog}: 3 in common of 6 and 4
    assert metrics.token_f1(CAT, "the cat the dog") == pytest.approx(0.6)
    assert metrics.token_f1(CAT, "MAT the ON sat CAT the!") == 1.0
    assert metrics.token_f1(CAT, "") == 0.0
    assert metrics.token_f1("", CAT) == 0.0
    # {the} once against twice: naming a word once is not enough
    assert metrics.token_f1("the the", "the") == pytest.approx(2 / 3)
    assert metrics.token_f1("今天天气很好", "今天天气不好") == pytest.approx(5 / 6)
    assert metrics.token_f1("Мама мыла раму", "мама мыла") == pytest.approx(0.8)
    assert metrics.token_f1("!!!", "!!!") == 1.0
    assert metrics.token_f1("!!!", "???") == 0.0


def test_token_set_f1_by_hand():
    # sets: {the, cat, sat, on, mat} and {the, cat, dog}: 2 in common
    assert metrics.token_set_f1(CAT, "the cat the dog") == pytest.approx(0.5)
    assert metrics.token_set_f1("the the", "the") == 1.0
    assert metrics.token_set_f1("The end.", "the end.") == pytest.approx(2 / 3)  # cased; the full stop is a token
    assert metrics.token_set_f1("end.", "end") == pytest.approx(2 / 3)
    assert metrics.token_set_f1("", "") == 1.0
    assert metrics.token_set_f1("a", "") == 0.0


def test_rouge_l_by_hand():
    # longest common subsequence "the cat the": 3 of 6 and of 4
    assert metrics.rouge_l(CAT, "the cat the dog") == pytest.approx(0.6)
    assert metrics.rouge_l("今天天气很好", "今天天气不好") == pytest.approx(5 / 6)
    assert metrics.rouge_l("a b", "b a") == pytest.approx(0.5)
    assert metrics.rouge_l(CAT, "") == 0.0
    assert metrics.rouge_l("?!", "?!") == 1.0


def test_rouge_l_agrees_with_rouge_score_on_english():
    from rouge_score.rouge_scorer import RougeScorer

    reference, prediction = "It's the best of times, the worst.", "The best times: it's the worst of times"
    theirs = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert metrics.rouge_l(reference, prediction) == pytest.approx(theirs)


def test_chrf_by_hand():
    # "ab" and "ac": 1 of 2 characters, 0 of 1 pairs; the mean of both orders is 1/4, for precision and recall
    assert metrics.chrf("ab", "ac") == pytest.approx(25.0)
    assert metrics.chrf("今天很好", "今天很好") == pytest.approx(100.0)
    assert metrics.chrf("abc", "") == 0.0


def test_sentence_bleu_by_hand():
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert metrics.sentence_bleu(CAT, "the cat sat on a mat") == pytest.approx(expected)
    assert metrics.sentence_bleu("今天天气很好", "今天天气不好") == pytest.approx(expected)  # "zh" chosen by itself
    assert metrics.sentence_bleu("今天天气很好", "今天天气不好", tokenize="13a") == 0.0
    assert metrics.sentence_bleu("Hello", "Hello") == pytest.approx(100.0)  # shorter than four tokens
    assert metrics.sentence_bleu(CAT, "") == 0.0


def test_bleu_tokenizer():
    assert metrics.bleu_tokenizer_for(["plain English", "with 一 word"]) == "13a"
    assert metrics.bleu_tokenizer_for(["今天用 GPT", "天气很好"]) == "zh"
    assert metrics.bleu_tokenizer_for(["123"]) == "13a"
    with pytest.raises(InputError, match="unknown BLEU tokeniser 'zz'; sacrebleu knows: 13a, .*zh"):
        metrics.sentence_bleu("a", "a", tokenize="zz")


def _noisy_corpus(n, seed):
    rng = random.Random(seed)
    vocabulary = "the a cat dog sat ran on under mat tree , . big red house".split()
    references = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 14))) for _ in range(n)]
    predictions = []
    for text in references:
        tokens = [rng.choice(vocabulary) if rng.random() < 0.3 else token for token in text.split()]
        predictions.append(" ".join(tokens[: rng.randint(0, len(tokens))] if rng.random() < 0.3 else tokens))
    return references, predictions


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("seed", range(6))
def test_corpus_bleu_is_that_of_sacrebleu(n, seed):
    import sacrebleu

    references, predictions = _noisy_corpus(n, seed)
    theirs = sacrebleu.corpus_bleu(predictions, [references], force=True).score
    assert metrics.corpus_bleu(references, predictions) == pytest.approx(theirs, abs=1e-9)


def test_corpus_bleu_edges():
    import sacrebleu

    for references, predictions in [(["a b c d e"], [""]), (["a b"], ["a b"]), (["a b c d"], ["x y z w"])]:
        theirs = sacrebleu.corpus_bleu(predictions, [references]).score
        assert metrics.corpus_bleu(references, predictions) == pytest.approx(theirs)


# --- the bootstrap ---


def test_bootstrap_agrees_with_the_normal_interval():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=2000)
    estimate = metrics.bootstrap(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.01)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.01)
    assert estimate.n == 2000


def test_bootstrap_is_the_plain_procedure():
    values = np.array([0.0, 1.0, 1.0, 3.0, 10.0])
    rng = np.random.default_rng(7)
    draws = rng.integers(0, 5, size=(500, 5))
    low, high = np.quantile(values[draws].mean(axis=1), [0.05, 0.95])
    estimate = metrics.bootstrap(values, resamples=500, confidence=0.9, seed=7)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(200):
        estimate = metrics.bootstrap(rng.random(60), resamples=400)
        hits += estimate.low <= 0.5 <= estimate.high
    assert 180 <= hits <= 200


def test_bootstrap_is_seeded():
    values = np.random.default_rng(0).random(30)
    assert metrics.bootstrap(values, seed=1) == metrics.bootstrap(values, seed=1)
    assert metrics.bootstrap(values, seed=1) != metrics.bootstrap(values, seed=2)


def test_bootstrap_in_chunks_is_the_same(monkeypatch):
    counts = np.concatenate(list(metrics._resampled_counts(50, 300, 0)))
    assert counts.shape == (300, 50)
    assert (counts.sum(axis=1) == 50).all()
    big = metrics._resampled_counts(2_000_000, 5, 0)
    assert [len(chunk) for chunk in big] == [2, 2, 1]


def test_equal_values_have_an_interval_of_width_zero():
    estimate = metrics.bootstrap([0.7] * 37)
    assert estimate.low == estimate.high == estimate.value == 0.7


def test_one_value_has_no_interval():
    estimate = metrics.bootstrap([0.25])
    assert estimate == metrics.Estimate(0.25, None, None, 1)
    assert json.loads(json.dumps(estimate.to_dict())) == {"value": 0.25, "low": None, "high": None, "n": 1}
    assert str(estimate) == "0.25 (no interval, n=1)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "0 rows"),
        ([1.0, float("nan")], "row 1 is nan"),
        ([1.0, float("inf")], "row 1 is inf"),
        ([[1.0]], "one number per row"),
        (["a"], "not a list of numbers"),
    ],
)
def test_bootstrap_refuses(values, message):
    with pytest.raises(InputError, match=message):
        metrics.bootstrap(values)


def test_bootstrap_refuses_settings():
    with pytest.raises(InputError, match="resamples=0"):
        metrics.bootstrap([1.0], resamples=0)
    with pytest.raises(InputError, match="confidence=95"):
        metrics.bootstrap([1.0], confidence=95)


def test_paired_difference_sees_what_single_intervals_hide():
    rng = np.random.default_rng(5)
    base = rng.random(100)
    better = base + 0.05
    first, second = metrics.bootstrap(better), metrics.bootstrap(base)
    assert first.low < second.high  # the two intervals overlap
    difference = metrics.paired_difference(better, base)
    assert difference.value == pytest.approx(0.05)
    assert difference.low > 0
    nothing = metrics.paired_difference(base, rng.permutation(base))
    assert nothing.low < 0 < nothing.high
    with pytest.raises(InputError, match="got 2 and 3"):
        metrics.paired_difference([1, 2], [1, 2, 3])


# --- cosine ---


def test_cosine():
    first = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    second = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, -1.0]], dtype=np.float32)
    assert metrics.cosine(first, second) == pytest.approx([1.0, 0.0, -1.0])
    assert np.abs(metrics.cosine(first, second)).max() <= 1.0
    with pytest.raises(InputError, match="one shape"):
        metrics.cosine(first, second[:2])
    with pytest.raises(InputError, match="one shape"):
        metrics.cosine(first[0], second[0])
    for bad in (0.0, np.nan, np.inf):
        second[1] = bad
        with pytest.raises(InputError, match="row 1 has no direction"):
            metrics.cosine(first, second)


# --- score_pairs ---


def test_score_pairs():
    references = [CAT, "Привет, мир", "今天天气很好"]
    predictions = ["the cat sat on a mat", "привет, МИР", ""]
    scores = metrics.score_pairs(references, predictions, [0.9, 1.0, 0.2])
    assert set(scores.rows) == {*metrics.METRICS, "cosine"}
    assert set(scores.summary) == {*scores.rows, "corpus_bleu"}
    assert scores.rows["exact"].tolist() == [0, 0, 0]
    assert scores.rows["exact_uncased"].tolist() == [0, 1, 0]
    assert scores.rows["token_f1"] == pytest.approx([5 / 6, 1.0, 0.0])  # 5 words in common of 6 and 6
    assert scores.summary["token_f1"].value == pytest.approx((5 / 6 + 1) / 3)
    assert scores.summary["cosine"].value == pytest.approx(0.7)
    assert scores.summary["cosine"].low < 0.7 < scores.summary["cosine"].high
    assert scores.n == 3
    assert scores.summary["corpus_bleu"].value == pytest.approx(metrics.corpus_bleu(references, predictions))
    assert scores.settings == {"resamples": 2000, "confidence": 0.95, "seed": 0, "bleu_tokenize": "13a"}
    # the summary of a metric is the bootstrap of its rows
    assert scores.summary["chrf"] == metrics.bootstrap(scores.rows["chrf"])
    assert metrics.score_pairs(references, predictions, [0.9, 1.0, 0.2]).summary == scores.summary


def test_corpus_bleu_interval_is_the_plain_procedure():
    import sacrebleu

    references, predictions = _noisy_corpus(12, 1)
    scores = metrics.score_pairs(references, predictions, metrics=["bleu"], resamples=50, seed=4)
    rng = np.random.default_rng(4)
    samples = []
    for draw in rng.integers(0, 12, size=(50, 12)):
        drawn = [predictions[i] for i in draw], [[references[i] for i in draw]]
        samples.append(sacrebleu.corpus_bleu(*drawn, force=True).score)
    low, high = np.quantile(samples, [0.025, 0.975])
    assert scores.summary["corpus_bleu"].low == pytest.approx(low)
    assert scores.summary["corpus_bleu"].high == pytest.approx(high)


def test_scores_to_dict_is_json():
    scores = metrics.score_pairs(["a b", "c"], ["a b", "d"], [1.0, 0.5])
    plain = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert plain["n"] == 2
    assert plain["summary"]["exact"]["value"] == 0.5
    assert "rows" not in plain
    plain = json.loads(json.dumps(scores.to_dict(rows=True), allow_nan=False))
    assert plain["rows"]["exact"] == [1.0, 0.0]
    json.dumps(metrics.score_pairs(["a"], ["a"]).to_dict(), allow_nan=False)  # one pair: no interval, no NaN


def test_score_pairs_takes_only_what_is_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    scores = metrics.score_pairs(["a b"], ["a c"], metrics=["token_f1", "exact"])
    assert set(scores.summary) == {"token_f1", "exact"}
    for name in ("bleu", "chrf", "rouge_l"):
        with pytest.raises(MissingExtra, match=re.escape(install_line("evaluate"))):
            metrics.score_pairs(["a"], ["a"], metrics=[name])
    assert set(metrics.score_pairs(["a"], ["a"], [0.5], metrics=[]).summary) == {"cosine"}


@pytest.mark.parametrize(
    ("references", "predictions", "options", "message"),
    [
        ([], [], {}, "0 pairs"),
        (["a"], ["a", "b"], {}, "1 references but 2 predictions"),
        (["a", None], ["a", "b"], {}, "references: row 1 is NoneType"),
        (["a"], [3], {}, "predictions: row 0 is int"),
        ("abc", "abc", {}, "one text where a list"),
        (["a"], ["a"], {"cosines": [0.1, 0.2]}, "2 cosines for 1 pairs"),
        (["a"], ["a"], {"cosines": [float("nan")]}, "cosines: row 0 is nan"),
        (["a"], ["a"], {"metrics": ["blue"]}, "unknown metric 'blue'; choose from exact"),
        (["a"], ["a"], {"metrics": []}, "no metric chosen"),
        (["a"], ["a"], {"confidence": 2}, "confidence=2"),
    ],
)
def test_score_pairs_refuses(references, predictions, options, message):
    with pytest.raises(InputError, match=message) as caught:
        metrics.score_pairs(references, predictions, **options)
    assert "\n" not in str(caught.value)
