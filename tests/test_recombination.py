"""Texts put together from all candidates of a target."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from unembed.metrics import token_f1, words
from unembed.scripts import pieces
from unembed.search.recombination import Recombination

CATS = ["the cat sat on the", "cat sat on the mat", "the cat on the mat", "a dog in the rain"]
CHINESE = ["今天天气很好", "今天气很好。", "天气很好，我们去"]


def expected(text, texts, weights):
    return float(np.dot([token_f1(text, other) for other in texts], weights) / np.sum(weights))


def test_words_that_most_have_come_together_in_their_order():
    known = Recombination(CATS, [0.9, 0.9, 0.9, 0.7])
    for start in CATS[:3]:
        assert known.text(start) == "the cat sat on the mat"


@pytest.mark.parametrize(
    "texts", [CATS, CHINESE, ["one", "two three", "one, two: 3!"], ["word"], ["", "a"], ["?", "!"]]
)
def test_what_comes_out_is_no_worse_and_no_single_change_is_better(texts):
    known = Recombination(texts)
    vocabulary = sorted({word for text in texts for word in words(text)})
    for start in texts:
        found = known.text(start)
        value = expected(found, texts, np.ones(len(texts)))
        assert value >= expected(start, texts, np.ones(len(texts))) - 1e-9
        have = words(found)
        fewer = [have[:i] + have[i + 1 :] for i in range(len(have)) if len(have) > 1]
        more = [[*rest, word] for rest, word in itertools.product([have, *fewer], vocabulary)]
        for other in fewer + more:
            assert expected(" ".join(other), texts, np.ones(len(texts))) <= value + 1e-6, (found, other)


@pytest.mark.parametrize("texts", [CATS, CHINESE, ["don't e-mail me@example.com", "e-mail me, don't wait"]])
def test_no_word_comes_that_no_candidate_has(texts):
    known, have = Recombination(texts), {piece.strip() for text in texts for piece in pieces(text)}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        made = known.text(texts[seed % len(texts)], rng)
        assert {piece.strip() for piece in pieces(made)} <= have and made == made.strip()
        assert "  " not in made and not any(" " in text for text in [made] if texts is CHINESE)


def test_near_candidates_weigh_more():
    texts = ["red fox", "red fox jumps", "green hill", "green hill far", "green hill away"]
    near_red = Recombination(texts, [0.95, 0.95, 0.6, 0.6, 0.6]).text("green hill")
    assert near_red.split()[:2] == ["red", "fox"]
    assert "green" in Recombination(texts).text("red fox")


def test_draws_differ_and_a_seed_repeats_them_in_any_process():
    program = (
        "import numpy as np; from unembed.search.recombination import Recombination\n"
        f"known = Recombination({CATS})\n"
        "rng = np.random.default_rng(0)\n"
        "print([known.text('a dog in the rain', rng) for _ in range(30)])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(set(eval(runs[0]))) > 3
