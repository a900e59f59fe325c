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
    known = Recombination(CATS)
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
    for start in texts:
        made = known.text(start)
        assert {piece.strip() for piece in pieces(made)} <= have and made == made.strip()
        assert "  " not in made and not any(" " in text for text in [made] if texts is CHINESE)


def test_it_is_the_same_in_any_process():
    program = (
        "from unembed.search.recombination import Recombination\n"
        f"print([Recombination({CATS}).text(start) for start in {CATS}])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.decode()
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and len(eval(runs[0])) == len(CATS)
