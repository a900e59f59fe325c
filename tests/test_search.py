"""The search loop and the word edits, with an embedder and a model of a few lines behind the real interfaces."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from unembed.embedders import Embedder, EmbedderSpec
from unembed.errors import InputError
from unembed.metrics import token_f1, words
from unembed.models.base import GREEDY, Hypothesis, InversionModel
from unembed.scripts import pieces
from unembed.search import loop
from unembed.search.consensus import agreement, by_agreement, by_consensus
from unembed.search.edits import edit, exchanged, join, renumbered
from unembed.search.loop import Search, Target, search
from unembed.search.types import SearchConfig

DIM, TOLERANCE = 64, 1e-6
TRUTH = "the cat sat on the mat"
OTHER = "rain in the north"
"""Of other words, so that no search of these texts ends early."""
NEAR = ["a cat sat on a mat", "the cat on the mat", "cat mat", "the dog sat", "the cat sat by the mat"]


class Words(Embedder):
    """The sum of a fixed random vector for each (word, place), uncased; keeps a list of what it was asked."""

    spec = EmbedderSpec("words", DIM, cased=False)

    def __init__(self):
        self.asked = []

    def _embed(self, texts):
        self.asked += texts
        out = np.zeros((len(texts), DIM))
        for row, text in zip(out, texts, strict=True):
            for place, word in enumerate(text.lower().split()):
                for part, weight in ((word, 1.0), (f"{word}@{place}", 0.3)):
                    seed = int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big")
                    row += weight * np.random.default_rng(seed).standard_normal(DIM)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


class Listed(InversionModel):
    """Writes what it is told: `first` for each target, then `better` for whatever it is to correct."""

    def __init__(self, first, better=()):
        self.spec, self.max_tokens = Words.spec, 64
        self.first, self.better = first, better
        self.calls = []  # (method, rows, n)

    @staticmethod
    def _rows(lists, n):
        return [[Hypothesis(texts[i % len(texts)], -1.0) for i in range(n)] if texts else [] for texts in lists]

    def _lists(self, source, rows):
        return [source] * rows if not source or isinstance(source[0], str) else source

    def hypothesize(self, targets, n=1, sampling=GREEDY, seed=0):
        self.calls.append(("hypothesize", len(targets), n))
        lists = self._lists(self.first, len(targets))
        return self._rows([row[:1] if sampling is GREEDY else row[1:] or row for row in lists], n)

    def correct(self, targets, hypotheses, hypothesis_vectors, n=1, sampling=GREEDY, seed=0):
        assert len(targets) == len(hypotheses) == len(hypothesis_vectors)
        self.calls.append(("correct", len(targets), n))
        better = self.better(hypotheses) if callable(self.better) else self._lists(self.better, len(targets))
        return self._rows(better, n)

    def score(self, texts, targets=None):
        return np.array([-float(len(text)) for text in texts])

    def count(self, method):
        return sum(call[0] == method for call in self.calls)


@pytest.fixture
def embedder():
    return Words()


def run(model, embedder, targets=(TRUTH,), first=0, **config):
    """Inversions of the vectors of `targets`; what the embedder is asked is counted from here."""
    vectors = Words().encode(list(targets))
    embedder.asked.clear()
    settings = {"corrections": 2, "screened": 24, "polished": 0, "prior_weight": 0.0, **config}  # not the defaults
    made = Search(model, embedder, SearchConfig(**settings), TOLERANCE)
    return list(made.run(vectors, first))


def by_cosine(texts):
    """Nearest to the truth first."""
    return [texts[i] for i in np.argsort(-(Words().encode(list(texts)) @ Words().encode([TRUTH])[0]))]


def keys(embedder):
    return [embedder.key(text) for text in embedder.asked]


# --- stopping ---


def test_an_exact_hypothesis_ends_the_search_at_once(embedder):
    model = Listed([*NEAR, TRUTH.upper()])
    [found] = run(model, embedder)
    assert (found.text, found.exact, found.stopped, found.steps) == (TRUTH.upper(), True, "exact", 0)
    assert found.cosine == pytest.approx(1.0) and len(found.trace) == 1
    assert model.count("correct") == 0


def test_a_proposal_of_white_space_is_no_text(embedder, monkeypatch):
    monkeypatch.setattr(Words, "key", lambda self, text: text)  # as beside embedders that tell spaces apart
    [found] = run(Listed([*NEAR[:1], " ", "\n", *NEAR[1:]]), embedder, steps=1, screened=0)
    assert found.text in NEAR and not [text for text in embedder.asked if not text.strip()]


def test_an_exact_correction_ends_the_search_in_its_round(embedder):
    model = Listed(NEAR[:1], lambda hypotheses: [[NEAR[4]] if h != NEAR[4] else [TRUTH] for h in hypotheses])
    [found] = run(model, embedder, screened=0, sequence_beam_width=1)
    assert (found.text, found.exact, found.stopped, found.steps) == (TRUTH, True, "exact", 2)
    assert found.candidates[0].origin == "correction" and found.candidates[0].step == 2
    assert model.count("correct") == 2


def test_an_exact_text_goes_before_one_that_the_prior_likes_better(embedder):
    # The prior of this model is minus the length: a shorter text has the better score, but it is not the text.
    [found] = run(Listed(["cat", TRUTH]), embedder, prior_weight=1.0)
    assert found.exact and found.text == TRUTH
    assert found.candidates[1].score > found.candidates[0].score


def test_the_score_is_cosine_and_prior(embedder):
    [found] = run(Listed(NEAR), embedder, prior_weight=0.01, steps=0, sequence_beam_width=5)
    for candidate in found.candidates:
        assert candidate.score == pytest.approx(candidate.cosine - 0.01 * len(candidate.text))


def test_beyond_eight_words_the_prior_of_a_hypothesis_is_a_mean(embedder):
    text = "the cat sat on the mat, and the dog lay on the other one"  # 14 words and a comma
    [found] = run(Listed([text]), embedder, prior_weight=0.01, steps=0)
    [candidate] = found.candidates
    assert candidate.score == pytest.approx(candidate.cosine - 0.01 * len(text) * 8 / 15)


def test_in_rounds_all_texts_count_by_the_length_of_the_hypotheses(embedder):
    """A text that grows pays for its words."""
    long = "the cat sat on the mat, and the dog lay on the other one"  # 14 words and a comma
    model = Listed([long, long, f"{long} today"], better=["the cat", f"{long} in the sun with a bird"])
    alone = {"variations": 0, "screened": 0, "renumbered": 0, "hypotheses": 2, "sequence_beam_width": 8}
    [found] = run(model, embedder, prior_weight=0.01, steps=1, **alone)
    assert len(found.candidates) == 4
    for one in found.candidates:
        assert one.score == pytest.approx(one.cosine - 0.01 * len(one.text) * 8 / ((15 + 15 + 16) / 3)), one.text


def test_the_prior_is_asked_only_where_it_can_decide(embedder, monkeypatch):
    settings = {"prior_weight": 0.0005, "sequence_beam_width": 2, "steps": 8, "patience": 9, "corrections": 0}
    found = run(Listed(NEAR, NEAR[1:4]), embedder, [f"{TRUTH} all day and then slept"], **settings)
    scored = []

    class Counting(Listed):
        def score(self, texts, targets=None):
            scored.extend(texts)
            return super().score(texts, targets)

    assert run(Counting(NEAR, NEAR[1:4]), embedder, [f"{TRUTH} all day and then slept"], **settings) == found
    assert len(scored) < 0.7 * found[0].queries

    def plain(self, states, judged):
        return [[replace(c, score=c.cosine - 0.0005 * len(c.text)) for c in found] for found in judged]

    monkeypatch.setattr(Search, "_weigh", plain)
    [without] = run(Listed(NEAR, NEAR[1:4]), embedder, [f"{TRUTH} all day and then slept"], **settings)
    assert without.candidates == found[0].candidates and without.trace == found[0].trace


def test_variations_are_asked_of_every_kept_text(embedder):
    class Varying(Listed):
        def vary(self, targets, hypotheses, hypothesis_vectors, n=1, seed=0):
            self.calls.append(("vary", len(hypotheses), n))
            assert len(targets) == len(hypotheses) == len(hypothesis_vectors)
            return [[f"the {text}", TRUTH][:n] for text in hypotheses]

    model = Varying(NEAR)
    [found] = run(model, embedder, corrections=0, screened=0, variations=2)
    assert found.exact and found.candidates[0].origin == "variation" and found.steps == 1
    assert model.calls[-1] == ("vary", 4, 2)
    model = Varying(NEAR)
    run(model, embedder, screened=0, variations=0)
    assert not model.count("vary")


def test_a_search_that_stalls_is_given_up(embedder):
    model = Listed(NEAR[4:], NEAR[2:3])
    [found] = run(model, embedder, screened=0, patience=3, steps=50)
    # Round 1 brings a worse text, later rounds nothing: three rounds without progress.
    assert (found.stopped, found.steps, found.queries, found.text) == ("stalled", 3, 2, NEAR[4])
    assert model.count("correct") == 3


def test_without_steps_only_hypotheses_are_judged(embedder):
    model = Listed(NEAR)
    [found] = run(model, embedder, steps=0, sequence_beam_width=3)
    assert found.stopped == "steps" and found.steps == 0 and found.queries == len(embedder.asked) == 3
    assert model.calls == [("hypothesize", 1, 1), ("hypothesize", 1, 2)]
    [found] = run(model, embedder, steps=0, sequence_beam_width=1)
    assert found.queries == 1 and found.text == NEAR[0], "the greedy hypothesis alone"


def test_a_consensus_asks_about_what_is_put_together_and_what_agrees_best(embedder):
    model = Listed(NEAR)
    [found] = run(model, embedder, steps=0, sequence_beam_width=1, consensus=32)
    samples = [NEAR[0], *(row.text for row in model.hypothesize([0], 31, None)[0])]
    assert model.calls[:2] == [("hypothesize", 1, 1), ("hypothesize", 1, 31)]
    assert (
        found.queries == 2
        and embedder.asked == by_consensus(samples)[:2]
        and found.text == by_cosine(embedder.asked)[0]
    )
    assert embedder.asked[1] == by_agreement(samples)[0]
    assert agreement(embedder.asked[:1], samples) > agreement(embedder.asked[1:], samples)
    assert found.agreement == pytest.approx(agreement([found.text], samples)[0])


def test_agreement_is_the_mean_token_f1_with_all_samples():
    samples = ["The cat sat.", "the cat, sat", "a dog", "", "cat cat"]
    for text in [*samples, "bird"]:
        expected = np.mean([token_f1(text, sample) if words(text) or words(sample) else 0.0 for sample in samples])
        assert agreement([text], samples)[0] == pytest.approx(expected)
    assert by_agreement(samples)[:2] == ["The cat sat.", "the cat, sat"], "the first of equals first"
    assert by_agreement(["a", "b", "b"]) == ["b", "a"]
    assert agreement(["a"], []).tolist() == [0.0] and by_agreement([]) == []
    assert by_consensus(["a b", "b a", "a b"])[0] == "a b" and by_consensus(["", ""]) == [""]


def test_all_steps_are_run_while_there_is_progress(embedder):
    ladder = ["x y z", "the y z", "the cat z", "the cat sat", "the cat sat on", "the cat sat on the"]
    following = dict(zip(ladder, ladder[1:], strict=False))
    model = Listed(ladder[:1], lambda hypotheses: [[following.get(h, h)] for h in hypotheses])
    [found] = run(model, embedder, screened=0, steps=4, sequence_beam_width=1)
    assert (found.stopped, found.steps, found.text) == ("steps", 4, "the cat sat on")
    assert [point.text for point in found.trace] == ladder[:5]


# --- what is asked of the embedder ---


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 20, 41])
def test_the_budget_is_kept_and_counts_distinct_texts(embedder, budget):
    [found] = run(Listed(NEAR, ["the cat", "on the mat"]), embedder, [OTHER], budget=budget, patience=99)
    assert found.queries == len(embedder.asked) == len(set(keys(embedder))) <= budget
    assert found.stopped == "budget" and found.queries == budget, "there was enough to ask"
    assert found.trace[-1].queries == budget


def test_a_budget_holds_for_each_target(embedder):
    found = run(Listed(NEAR), embedder, [TRUTH, "another text about rain", "two words"], budget=9, patience=99)
    assert [inversion.queries for inversion in found] == [9, 9, 9]
    assert len(embedder.asked) <= 27 and max(Counter(embedder.asked).values()) <= 3


def test_a_small_budget_draws_no_more_samples_than_it_can_pay(embedder):
    model = Listed(NEAR)
    run(model, embedder, budget=3)
    assert model.calls[:2] == [("hypothesize", 1, 1), ("hypothesize", 1, 2)]
    run(model := Listed(NEAR), embedder, budget=1)
    assert model.calls == [("hypothesize", 1, 1)]


def test_what_the_embedder_cannot_tell_apart_is_asked_once(embedder):
    model = Listed(["A cat", "a  cat", "a cat", "A CAT "], ["a CAT", "The cat"])
    [found] = run(model, embedder, screened=0, steps=6)
    assert embedder.asked == ["A cat", "The cat"] and found.queries == 2
    assert len(found.candidates) == 2


def test_a_text_for_two_targets_is_embedded_once_in_a_round(embedder):
    found = run(Listed(["same text", "other text"]), embedder, ["one", "two"], steps=0, sequence_beam_width=2)
    assert embedder.asked == ["same text", "other text"]
    assert [inversion.queries for inversion in found] == [2, 2], "each target pays for it all the same"


def test_finished_targets_cause_no_more_work(embedder):
    other = "rain in the north"
    model = Listed([[TRUTH], ["snow"]], lambda hypotheses: [["more snow"] for _ in hypotheses])
    found = run(model, embedder, [TRUTH, other], screened=5, patience=4, sequence_beam_width=2)
    assert [inversion.stopped for inversion in found] == ["exact", "stalled"]
    assert found[0].queries == 1 and found[0].steps == 0
    # Later rounds correct the beam of the other target alone: one candidate at first, then at most two.
    assert [rows for method, rows, _ in model.calls if method == "correct"][0] == 1
    assert max(rows for method, rows, _ in model.calls if method == "correct") <= 2
    assert not [text for text in embedder.asked if text != TRUTH and set(text.split()) & set(TRUTH.split())]


# --- what is found ---


def test_the_best_text_ever_seen_is_returned(embedder):
    model = Listed(NEAR[2:4], [NEAR[4], "nothing of the kind", "rain"])
    [found] = run(model, embedder, steps=8, patience=99)
    target = Words().encode([TRUTH])[0]
    cosines = Words().encode(embedder.asked) @ target
    assert found.cosine == pytest.approx(float(cosines.max()), abs=1e-6)
    assert embedder.asked[int(cosines.argmax())] == found.text


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_beam_is_distinct_ordered_and_no_wider_than_asked(embedder, width):
    [found] = run(Listed(NEAR, ["the mat"]), embedder, sequence_beam_width=width, steps=3)
    texts = [candidate.text for candidate in found.candidates]
    scores = [candidate.score for candidate in found.candidates]
    assert len(texts) == width == len({embedder.key(text) for text in texts})
    assert scores == sorted(scores, reverse=True)
    assert (found.text, found.cosine) == (texts[0], found.candidates[0].cosine)


def test_the_trace_never_falls_and_ends_at_the_result(embedder):
    [found] = run(Listed(NEAR[2:4], NEAR), embedder, steps=10)
    assert [point.step for point in found.trace] == list(range(found.steps + 1))
    for before, after in zip(found.trace, found.trace[1:], strict=False):
        assert after.score >= before.score and after.queries >= before.queries
    last = found.trace[-1]
    assert (last.text, last.cosine, last.queries) == (found.text, found.cosine, found.queries)


def test_a_phrase_changes_its_place():
    parts = pieces(" the cat sat on the mat")
    made = {exchanged(parts, np.random.default_rng(seed)) for seed in range(200)}
    assert {"on the mat the cat sat", "cat the sat on the mat", "mat cat sat on the the"} <= made
    assert all(Counter(text.split()) == Counter(TRUTH.split()) for text in made)


def test_numbers_are_tried_with_every_other_digit(embedder):
    tried = list(renumbered("in May 1515", np.random.default_rng(0)))
    assert len(tried) == len(set(tried)) == 36 and {"in May 1519", "in May 0515", "in May 1525"} <= set(tried)
    assert tried != list(renumbered("in May 1515", np.random.default_rng(1)))
    assert list(renumbered("no digit", np.random.default_rng(0))) == []
    truth, model = "it was in May 1515", Listed(["it was in May 1519"])
    [found] = run(model, embedder, [truth], corrections=0, screened=0, renumbered=36)
    assert found.exact and found.text == truth and found.candidates[0].origin == "renumbering"
    assert found.steps > 1, "after a round without progress"
    [found] = run(model, embedder, [truth], corrections=0, screened=0, renumbered=0)
    assert not found.exact and found.stopped == "stalled"


def test_brackets_open_before_what_they_hold():
    assert join(["Los", " Angeles", " (", " at"]) == "Los Angeles (at" and join(["(", " a", ")"]) == "(a)"
    assert join(pieces("„so“ ist es")) == "„so“ ist es", "a quotation mark that opens in English closes in German"


LIKELIEST = {"sample_corrections": False, "screened": 0, "hypotheses": 0}


def test_likeliest_corrections_are_written_once_by_a_beam_search(embedder):
    asked = []

    class Watched(Listed):
        def correct(self, targets, hypotheses, hypothesis_vectors, n=1, sampling=GREEDY, seed=0):
            assert sampling.beams == n == 2 and sampling.temperature == 0
            asked.append(list(hypotheses))
            return super().correct(targets, hypotheses, hypothesis_vectors, n, sampling, seed)

    # From the worst on, each is corrected into the next two.
    chain = ["mat", *reversed(by_cosine(NEAR))]
    model = Watched(chain[:1], better=lambda texts: [chain[chain.index(t) + 1 :][:2] or [t] for t in texts])
    [inversion] = run(model, embedder, steps=30, sequence_beam_width=2, patience=30, **LIKELIEST)
    corrected = [text for texts in asked for text in texts]
    assert len(corrected) == len(set(corrected)) and set(corrected) == set(chain)
    # All that was kept is corrected: more rounds would bring the same, and none is made.
    assert inversion.stopped == "stalled" and inversion.steps < 10 and inversion.queries == len(chain)


def test_what_fell_out_of_the_beam_is_corrected_when_nothing_new_is_in_it(embedder):
    near = by_cosine(NEAR)
    # The best child leads nowhere; the second best, which a beam of one does not keep, leads to the truth.
    better = {near[-1]: [near[0], near[1]], near[0]: [near[0]], near[1]: [TRUTH]}
    model = Listed([near[-1]], better=lambda texts: [better[text] for text in texts])
    [inversion] = run(model, embedder, steps=5, sequence_beam_width=1, **LIKELIEST)
    assert inversion.exact and inversion.steps == 3


def test_a_model_that_writes_nothing(embedder):
    [found] = run(Listed(["", "  "], ["\n"]), embedder, patience=4)
    assert (found.text, found.exact, found.queries, found.candidates, found.trace) == ("", False, 0, [], [])
    assert found.stopped == "stalled" and not embedder.asked
    [found] = run(Listed(["", "cat"], [""]), embedder, steps=2, screened=0)
    assert found.text == "cat" and found.queries == 1


def test_the_same_seed_gives_the_same_search(embedder):
    def once(seed):
        found = run(Listed(NEAR, ["the mat"]), embedder, [TRUTH, "rain"], seed=seed, steps=5)
        return found, list(embedder.asked)

    first = once(0)
    assert once(0) == first
    assert once(1)[1] != first[1]


def test_results_come_in_order_whatever_is_searched_together(embedder):
    targets = [TRUTH, "rain in the north", "a dog sat", "the mat", "snow"]
    together = run(Listed(NEAR), embedder, targets, steps=3)
    model = Listed(NEAR)
    assert run(model, embedder, targets, steps=3, targets_at_once=2) == together, "screening is seeded by the target"
    assert [rows for method, rows, n in model.calls if method == "hypothesize" and n == 1] == [2, 2, 1]
    assert run(Listed(NEAR), embedder, targets[3:], first=3, steps=3) == together[3:], "as a resumed run needs"
    vectors, seen = Words().encode(targets), []
    config = SearchConfig(steps=3, corrections=2, screened=24, prior_weight=0.0)
    assert search(Listed(NEAR), embedder, vectors, config, TOLERANCE, seen.append) == together == seen


def test_only_the_nearest_keep_vectors(embedder, monkeypatch):
    monkeypatch.setattr(loop, "KNOWN", 20)
    state = Target(0, Words().encode([TRUTH])[0])
    made = Search(Listed(NEAR, ["the mat"]), embedder, SearchConfig(steps=12, patience=99), TOLERANCE)
    made._search([state])
    assert state.queries > 40
    arrays = [value for value in vars(state).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 1 and len(state.beam_vectors) == len(state.beam) == 4
    assert len(state.known) == 20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", -1), ("sequence_beam_width", 0), ("hypotheses", -1), ("corrections", -1), ("variations", -1),
        ("screened", -1), ("screened_from", -1), ("forecast", -1), ("continued", -1), ("renumbered", -1),
        ("budget", 0), ("temperature", 0.0), ("top_p", 0.0), ("top_p", 1.5), ("top_k", -1), ("patience", 0),
        ("targets_at_once", 0), ("seed", -1), ("prior_weight", -0.1), ("prior_weight", float("nan")),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(field, value):
    with pytest.raises(InputError, match=field) as caught:
        SearchConfig(**{field: value})
    assert "\n" not in str(caught.value)


# --- word edits ---

TEXTS = [
    "", "word", "Hello, world!", "  leading  and\tdouble\nspaces", "3.14 and 1,250.00 EUR (net)", "a\u00a0b",
    "don't e-mail me@example.com", "你好，世界。第2章 mixed with English", "これはテストです", "naïve café — “quoted”",
    "\U0001f44d\U0001f3fd emoji, e\u0301", "snake_case __init__", "iPhone手机与Android", "مرحبا بالعالم", "नमस्ते",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_give_the_text_back(text):
    assert "".join(pieces(text)) == text.rstrip()
    assert all(piece.strip() for piece in pieces(text))


def test_pieces_are_words_marks_and_single_characters_of_chinese():
    assert pieces("It's 你好, ok") == ["It", "'", "s", " 你", "好", ",", " ok"]


def words_of(*texts):
    return {piece.strip() for text in texts for piece in pieces(text)}


MOVES = ("substitution", "insertion", "deletion", "move")


@pytest.mark.parametrize("a", TEXTS[1:])
@pytest.mark.parametrize("word", ["world", "，", "好"])
def test_edits_make_no_word_that_nobody_wrote(a, word):
    known, parts = words_of(a, word), pieces(a)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        made = [edit(parts, move, word, rng) for move in MOVES]
        if len(parts) > 1:
            made.append(exchanged(parts, rng))
        for text in made:
            assert words_of(text) <= known, text
            assert text == text.strip()


def test_each_move_does_what_its_name_says():
    parts = pieces("the cat sat on the mat")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert len(pieces(edit(parts, "deletion", "dog", rng))) == 5
        assert sorted(edit(parts, "move", "dog", rng).split()) == sorted("the cat sat on the mat".split())
        inserted = edit(parts, "insertion", "dog", rng).split()
        assert len(inserted) == 7 and [word for word in inserted if word != "dog"] == "the cat sat on the mat".split()
        substituted = edit(parts, "substitution", "dog", rng).split()
        assert len(substituted) == 6 and substituted.count("dog") == 1
    assert parts == pieces("the cat sat on the mat"), "the candidate itself is left as it is"
    assert edit([], "deletion", "dog", np.random.default_rng(0)) == ""
