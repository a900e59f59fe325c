"""What is one change away from a text, and in what order it is tried."""

from __future__ import annotations

import numpy as np
import pytest

from test_screening import ALONE, variations
from test_search import TRUTH, Listed, Words, run
from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces
from unembed.search import polishing
from unembed.search.polishing import KNOWN, changes, polished
from unembed.search.screening import Neighbourhood

POLISHING_ALONE = {**ALONE, "screened": 0, "renumbered": 0, "polished": 16}
SENTENCE = "The city council voted on Monday to close the old bridge."


def texts_of(text, words, lexicon=None):
    parts = pieces(f" {text}")
    return [(change.move, change.of(parts)) for change in changes(parts, words, lexicon)]


def test_everything_that_is_one_change_away_is_listed_once():
    lexicon = Lexicon(["walks", "walked", "dog"], np.zeros((3, 2)))
    assert sorted(texts_of("she walks", ["a"], lexicon)) == sorted(
        [
            ("deletion", "walks"),
            ("deletion", "she"),
            ("form", "she walked"),
            ("substitution", "a walks"),
            ("substitution", "she a"),
            ("insertion", "a she walks"),
            ("insertion", "she a walks"),
            ("insertion", "she walks a"),
            ("move", "walks she"),
            ("move", "walks she"),
        ]
    )


def test_phrases_move_whole():
    moved = {text for move, text in texts_of("in may she left", []) if move == "move"}
    assert {"she left in may", "she in may left", "left in may she", "may she left in"} <= moved
    assert "in may she left" not in moved and "left she may in" not in moved, "that is two changes"


def test_a_script_without_spaces_gets_none():
    assert ("insertion", "我很好") in texts_of("我好", ["很"])
    assert ("substitution", "你好") in texts_of("我好", ["你"])


@pytest.mark.parametrize("text", ["", " ", "cat"])
def test_short_texts_are_no_error(text):
    texts, vectors = ["cat", "the cat"], Words().encode(["cat", "the cat"])
    near = Neighbourhood(texts, vectors, vectors[1].astype(np.float64))
    found = near.polished(text, np.zeros(vectors.shape[1]), None, np.random.default_rng(0))
    assert "the cat" in found or "the" in found
    assert text not in found and len(found) == len(set(found))


@pytest.mark.parametrize(
    "near_miss",
    [
        "The city council voted on Monday to close an old bridge.",
        "The city council voted on Monday to close the bridge.",
        "The city council voted on Monday to the close old bridge.",
        "On Monday The city council voted to close the old bridge.",
        "The city council votes on Monday to close the old bridge.",
    ],
)
def test_the_text_itself_is_among_the_first_of_thousands(inverter, near_miss):
    embedder, lexicon = inverter.embedder, inverter.model.lexicon
    rng = np.random.default_rng(0)
    known = [near_miss, *variations(near_miss, 200, rng), *variations(SENTENCE, 100, rng)]
    known = [text for text in known if embedder.key(text) != embedder.key(SENTENCE)]
    vectors, [goal] = embedder.encode(known).astype(np.float64), embedder.encode([SENTENCE]).astype(np.float64)
    order = np.argsort(-(vectors @ goal), kind="stable")
    near = Neighbourhood([known[i] for i in order], vectors[order], goal)
    found = near.polished(near_miss, goal - vectors[0], lexicon, np.random.default_rng(0))
    keys = [embedder.key(text) for text in found]
    assert len(keys) > 2000
    assert keys.index(embedder.key(SENTENCE)) < 256


def test_words_that_the_forecast_does_not_know_have_their_turn(inverter):
    texts = ["the old bridge", "the bridge is old", "old bridge"]
    vectors = inverter.embedder.encode(texts).astype(np.float64)
    near = Neighbourhood(texts, vectors, vectors[0])
    found = near.polished(texts[1], vectors[0] - vectors[1], inverter.model.lexicon, np.random.default_rng(0))
    unknown = [at for at, text in enumerate(found) if not all(unit in near.forecast for unit in text.lower().split())]
    turns = sum(polishing.SHARES.values())
    assert unknown[0] < turns and len([at for at in unknown if at < 10 * turns]) >= 20
    assert polishing.SHARES[KNOWN] > 1


def test_of_a_long_text_another_share_is_looked_at_each_time(monkeypatch):
    texts = [TRUTH, "the cat on the mat", "a dog sat in the sun"]
    vectors = Words().encode(texts).astype(np.float64)
    near = Neighbourhood(texts, vectors, vectors[0])
    monkeypatch.setattr(polishing, "UNITS", 240)

    def look(seed):
        return polished(TRUTH, ["a", "dog"], None, near.forecast, vectors[0], np.random.default_rng(seed))

    assert len(look(0)) <= 40
    assert look(0) == look(0) != look(1)


def test_a_search_by_polishing_alone_mends_a_text():
    near = ["the cat sat on mat the", "the cat on the mat", "sat on the dog", "the rug", "cat sat"]
    [found] = run(Listed(near), Words(), steps=12, patience=12, **POLISHING_ALONE)
    assert found.exact and found.text.lower() == TRUTH and found.candidates[0].origin == "polishing"
    assert found.queries <= len(near) + 16 * found.steps
    [without] = run(Listed(near), Words(), steps=12, patience=12, **{**POLISHING_ALONE, "polished": 0})
    assert not without.exact


def test_it_asks_no_more_than_the_budget():
    [found] = run(Listed(["the cat sat on mat the"]), Words(), steps=20, budget=20, **POLISHING_ALONE)
    assert found.queries <= 20
