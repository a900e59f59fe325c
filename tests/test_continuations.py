"""How words go on: from what the embedder does with its tokens to the texts that a search makes of it."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest

from test_screening import chosen
from test_search import DIM, TRUTH, Listed, Words, run
from unembed.models.lexicon import Lexicon
from unembed.search import continuations as module
from unembed.search.continuations import CARRIER, Continuations, continuations, measure
from unembed.search.continuing import LIKELY, Continued, continued
from unembed.search.edits import edit
from unembed.search.loop import Search
from unembed.search.screening import Neighbourhood
from unembed.search.types import SearchConfig

NAMES = [
    ("He married Johannes Bugen", "hagen", " in the month of June"),
    ("the ball was caught by Kuech", "ly", " and he ran for ten yards"),
    ("In 1755 six governors met with General Edward Brad", "dock", " in North America"),
    ("Two attempts were made by French Huguen", "ots", " to settle on the coast"),
    ("the master feed is transmitted in 720", "p", " high definition"),
    ("Ms Kowal", "czyk", " has an appointment on Monday"),
    ("the flight to Ljublj", "ana", " was cancelled"),
    ("he was born in Schleswig and died in Wup", "pertal", " in 1901"),
]
"""What stands before a piece of a word, the piece, and what stands behind."""


@pytest.fixture(scope="module")
def measured(minilm):
    return measure(minilm)


def rank(asked, known, piece):
    return int((asked > asked[known.pieces.index(piece)]).sum())


def test_it_has_the_tokens_that_go_on_a_word(measured, minilm):
    assert 4000 < len(measured.pieces) < 8000 and len(measured.known) == len(measured.pieces)
    assert {"gen", "dock", "s", "7"} <= measured.known and not any(piece.startswith("##") for piece in measured.pieces)
    np.testing.assert_allclose(np.linalg.norm(measured.directions, axis=1), 1, atol=1e-5)
    one = minilm.count_tokens([CARRIER.format("")])[0] + 1
    assert set(minilm.count_tokens([CARRIER.format(piece) for piece in measured.pieces[::50]])) == {one}


def test_a_text_asks_for_the_piece_of_a_word_that_it_lacks(measured, minilm):
    ranks = []
    for before, piece, behind in NAMES:
        whole, less = minilm.encode([before + piece + behind, before + behind])
        if piece in measured.known:
            ranks.append(rank(measured.wanted(whole - less, np.eye(384)), measured, piece))
    assert len(ranks) >= 5 and np.median(ranks) < 4, ranks


def test_it_is_found_behind_other_errors_once_it_is_known_how_they_vary(measured, minilm):
    """Two words are wrong beside the piece; variations of the text say what such errors look like."""
    rng = np.random.default_rng(0)
    plain, white = [], []
    for before, piece, behind in NAMES:
        if piece not in measured.known:
            continue
        text = before + behind
        for _ in range(2):
            text = edit(text.replace(" ", "\n ").split("\n"), "substitution", "window", rng)
        texts = [text, *(edit(text.replace(" ", "\n ").split("\n"), move, "garden", rng)
                         for move in ("deletion", "insertion", "substitution", "move") * 15)]  # fmt: skip
        vectors, [target] = minilm.encode(texts), minilm.encode([before + piece + behind])
        around = Neighbourhood(texts, vectors, target)
        missed = target - vectors[0]
        plain.append(rank(measured.wanted(missed, np.eye(384)), measured, piece))
        white.append(rank(measured.wanted(missed, around.whitening), measured, piece))
    assert np.mean(np.log1p(white)) < np.mean(np.log1p(plain)), (plain, white)


def test_an_embedder_without_tokens_has_none_and_is_searched_without():
    assert measure(Words()) is None
    [found] = run(Listed(["the cat on the mat", "on cat sat the"]), Words(), steps=12, patience=12, continued=8)
    assert found.exact and found.text == TRUTH


def test_of_many_tokens_the_first_are_measured(minilm, monkeypatch):
    monkeypatch.setattr(module, "MOST", 40)
    few = measure(minilm)
    assert len(few.pieces) == 40 and {"s", "t"} <= few.known


def test_they_are_measured_once_for_an_embedder_and_are_no_queries(minilm):
    before = minilm.queries
    once = continuations(minilm)
    probes = minilm.probes
    assert continuations(minilm) is once and minilm.probes == probes and minilm.queries == before


def test_a_search_comes_near_a_name_that_nothing_else_proposes(minilm):
    """Without a network that corrects, what is nowhere in the known texts comes from the tokens or not at all."""
    [target] = minilm.encode(["The ball was caught by Kuechly"])
    model = Listed(["The ball was caught by Kue", "The ball was caught by", "caught the ball by Kue"])
    model.spec = minilm.spec
    alone = {"corrections": 0, "variations": 0, "renumbered": 0, "prior_weight": 0.0, "patience": 12, "steps": 12}
    tolerance = minilm.noise_floor().tolerance()
    [found], [without] = (
        Search(model, minilm, SearchConfig(continued=n, **alone), tolerance).run(target[None]) for n in (16, 0)
    )
    assert found.cosine > 0.94 > 0.9 > without.cosine
    assert "ly" in found.text and "ly" not in without.text


# --- in a search ---


def test_a_piece_goes_behind_a_word_or_before_its_end_or_in_its_place():
    rng = np.random.default_rng(0)
    made = {continued(" Kuechen", "ly", {"en", "n"}, rng) for _ in range(200)}
    assert made == {" Kuechenly", " Kuechlyen", " Kuechly", " Kuechelyn", " Kuechely"}
    assert {continued("a", "b", {"a"}, rng) for _ in range(20)} == {"ab"}, "a word keeps its beginning"


def test_rare_words_are_chosen_more_often_than_common_ones_and_marks_never():
    known = Continuations(["ly", "gen"], np.eye(2, dtype=np.float32))
    within = Continued(known, np.array([1.0, 0.5]), Lexicon(["the", "Ball"], np.zeros((2, 2))))
    rng = np.random.default_rng(0)
    texts = [within.text("the ball, Kuech!", rng) for _ in range(600)]
    assert all(text.startswith(("the", "thely", "thegen")) and "!" in text and "," in text for text in texts)
    rare = sum("Kuechl" in text or "Kuechg" in text for text in texts)
    assert 320 < rare < 480  # 4 of 6
    assert within.text("?!", rng) == "?!"


def test_only_the_likely_pieces_are_drawn_the_likeliest_most():
    many = [f"p{i}" for i in range(3 * LIKELY)]
    within = Continued(Continuations(many, np.eye(3 * LIKELY)), np.arange(3.0 * LIKELY), None)
    assert within.likely == many[: 2 * LIKELY - 1 : -1]
    rng = np.random.default_rng(0)
    drawn = Counter(within.text("word", rng).removeprefix("word") for _ in range(400))
    assert set(drawn) <= set(within.likely) and drawn[many[-1]] > 2 * drawn[many[-5]] > 0


def test_a_share_of_the_texts_of_a_round_goes_on_a_word():
    known = Continuations(["zq", "qz"], np.eye(2, DIM, dtype=np.float32))
    some = partial(chosen, 40, continuations=known)
    made = some(continued=10)
    assert len(made) == len(set(made)) == 40
    assert sum("zq" in text or "qz" in text for text in made) == 10
    assert not any("zq" in text or "qz" in text for text in some(continued=0))
    assert not any("zq" in text for text in some(continued=10, untried=lambda text: "zq" not in text))
    assert len(some(continued=100)) == 40


def test_one_known_text_varies_in_nothing():
    [vector] = Words().encode(["the cat"])
    around = Neighbourhood(["the cat"], vector[None], vector)
    assert np.isfinite(around.whitening).all()
