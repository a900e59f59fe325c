"""The search loop and the word edits, with an embedder and a model of a few lines behind the real interfaces."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from unembed.embedders import Embedder, EmbedderSpec
from unembed.errors import InputError
from unembed.metrics import token_f1, words
from unembed.models.base import GREEDY, Hypothesis, InversionModel
from unembed.models.lexicon import Lexicon
from unembed.search import loop
from unembed.search.consensus import agreement, by_agreement, by_consensus
from unembed.search.edits import crossover, edit, join, pieces, propose, vocabulary
from unembed.search.lookup import GAPS, LOOSE, rearranged, with_words
from unembed.search.loop import POOL, Search, Target, search
from unembed.search.types import Candidate, SearchConfig

DIM, TOLERANCE = 64, 1e-6
TRUTH = "the cat sat on the mat"
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

    def __init__(self, first, better=(), grown=()):
        self.spec, self.max_tokens = Words.spec, 64
        self.first, self.better, self.grown = first, better, grown
        self.calls = []  # (method, rows, n)
        self.starts = []

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

    def regrow(self, targets, starts, n=1, sampling=GREEDY, seed=0):
        self.calls.append(("regrow", len(targets), n))
        self.starts += starts
        return self._rows(self._lists(self.grown, len(targets)), n)

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
    settings = {
        "corrections": 2,
        "edits": 24,
        "recombinations": 0,
        "rearranged": 0,
        "prior_weight": 0.0,
        **config,
    }  # whatever the defaults are
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
    assert model.count("correct") == model.count("regrow") == 0


def test_a_proposal_of_white_space_is_no_text(embedder, monkeypatch):
    monkeypatch.setattr(Words, "key", lambda self, text: text)  # as beside embedders that tell spaces apart
    [found] = run(Listed([*NEAR[:1], " ", "\n", *NEAR[1:]]), embedder, steps=1)
    assert found.text in NEAR and not [text for text in embedder.asked if not text.strip()]


def test_an_exact_correction_ends_the_search_in_its_round(embedder):
    model = Listed(NEAR[:1], lambda hypotheses: [[NEAR[4]] if h != NEAR[4] else [TRUTH] for h in hypotheses])
    [found] = run(model, embedder, edits=0, sequence_beam_width=1)
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


def test_beyond_eight_words_the_prior_is_a_mean(embedder):
    text = "the cat sat on the mat, and the dog lay on the other one"  # 14 words and a comma
    [found] = run(Listed([text]), embedder, prior_weight=0.01, steps=0)
    [candidate] = found.candidates
    assert candidate.score == pytest.approx(candidate.cosine - 0.01 * len(text) * 8 / 15)


def test_the_prior_is_asked_only_where_it_can_decide(embedder, monkeypatch):
    settings = {"prior_weight": 0.005, "sequence_beam_width": 2, "steps": 8, "patience": 9}
    found = run(Listed(NEAR, NEAR[1:4]), embedder, **settings)
    scored = []

    class Counting(Listed):
        def score(self, texts, targets=None):
            scored.extend(texts)
            return super().score(texts, targets)

    assert run(Counting(NEAR, NEAR[1:4]), embedder, **settings) == found
    assert len(scored) < 0.7 * found[0].queries

    def plain(self, states, judged):
        return [[replace(c, score=c.cosine - 0.005 * len(c.text)) for c in found] for found in judged]

    monkeypatch.setattr(Search, "_weigh", plain)
    [without] = run(Listed(NEAR, NEAR[1:4]), embedder, **settings)
    assert without.candidates == found[0].candidates and without.trace == found[0].trace


def test_variations_are_asked_of_every_kept_text(embedder):
    class Varying(Listed):
        def vary(self, targets, hypotheses, hypothesis_vectors, n=1, seed=0):
            self.calls.append(("vary", len(hypotheses), n))
            assert len(targets) == len(hypotheses) == len(hypothesis_vectors)
            return [[f"the {text}", TRUTH][:n] for text in hypotheses]

    model = Varying(NEAR)
    [found] = run(model, embedder, corrections=0, edits=0, variations=2)
    assert found.exact and found.candidates[0].origin == "variation" and found.steps == 1
    assert model.calls[-1] == ("vary", 4, 2)
    model = Varying(NEAR)
    run(model, embedder, edits=0, variations=0)
    assert not model.count("vary")


def test_a_search_that_stalls_is_given_up(embedder):
    model = Listed(NEAR[4:], NEAR[2:3], NEAR[3:4])
    [found] = run(model, embedder, edits=0, patience=3, steps=50)
    # Round 1 brings a worse text, round 2 the regrown one, later rounds nothing: three rounds without progress.
    assert (found.stopped, found.steps, found.queries, found.text) == ("stalled", 3, 3, NEAR[4])
    assert model.count("correct") == 3 and model.count("regrow") == 2, "regrown only after a round without progress"


def test_regrowth_starts_from_cuts_of_the_best_texts(embedder):
    model = Listed(NEAR[:1], NEAR[:1], NEAR[:1])
    run(model, embedder, edits=0, patience=12, steps=50, sequence_beam_width=1)
    assert all(NEAR[0].startswith(start) for start in model.starts)
    assert len(set(model.starts)) > 2, "the cuts differ"


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
    [found] = run(model, embedder, edits=0, regrown=0, steps=4, sequence_beam_width=1)
    assert (found.stopped, found.steps, found.text) == ("steps", 4, "the cat sat on")
    assert [point.text for point in found.trace] == ladder[:5]


# --- what is asked of the embedder ---


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 20, 41])
def test_the_budget_is_kept_and_counts_distinct_texts(embedder, budget):
    [found] = run(Listed(NEAR, ["the cat", "on the mat"]), embedder, budget=budget, patience=99)
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
    [found] = run(model, embedder, edits=0, regrown=0, steps=6)
    assert embedder.asked == ["A cat", "The cat"] and found.queries == 2
    assert len(found.candidates) == 2


def test_a_text_for_two_targets_is_embedded_once_in_a_round(embedder):
    found = run(Listed(["same text", "other text"]), embedder, ["one", "two"], steps=0, sequence_beam_width=2)
    assert embedder.asked == ["same text", "other text"]
    assert [inversion.queries for inversion in found] == [2, 2], "each target pays for it all the same"


def test_finished_targets_cause_no_more_work(embedder):
    other = "rain in the north"
    model = Listed([[TRUTH], ["snow"]], lambda hypotheses: [["more snow"] for _ in hypotheses])
    found = run(model, embedder, [TRUTH, other], edits=5, regrown=0, patience=4, sequence_beam_width=2)
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


def test_word_edits_alone_put_the_words_in_order(embedder):
    first = ["the cat on the mat", "a dog sat in the sun", "on cat sat the"]
    [found] = run(Listed(first), embedder, steps=30, patience=30, corrections=0, regrown=0, edits=40)
    assert found.exact and found.text.lower() == TRUTH
    assert found.candidates[0].origin in ("crossover", "substitution", "insertion", "deletion", "move")


def test_recombination_alone_finds_what_no_text_had_whole(embedder):
    first = ["the cat on the mat", "cat sat on the mat", "the cat sat on the rug"]
    [found] = run(Listed(first), embedder, steps=10, corrections=0, regrown=0, edits=0, recombinations=8)
    assert found.exact and found.text.lower() == TRUTH and found.candidates[0].origin == "recombination"


def directions(words):
    """A lexicon of the embedder's words, as one fitted to many texts would be: what a word adds to a vector."""
    vectors = Words().encode(words)
    return Lexicon(words, vectors - vectors.mean(axis=0))


def test_a_word_that_nothing_wrote_is_looked_up(embedder):
    model, plain = Listed(["the cat lay on the mat"]), {"corrections": 0, "regrown": 0, "edits": 0, "steps": 6}
    [found] = run(model, embedder, **plain)
    assert not found.exact and found.stopped == "stalled"
    model.lexicon = directions(["dog", "SAT", "lay", "cat", "sun", "the"])
    [found] = run(model, embedder, **plain, lookups=12)
    assert found.exact and found.text == "the cat SAT on the mat" and found.candidates[0].origin == "lookup"
    assert found.steps == 2, "looked up after a round without progress"
    [found] = run(model, embedder, **plain, lookups=0)
    assert not found.exact


def test_words_are_tried_from_the_one_most_lacking_on(embedder):
    lexicon, text = directions(["dog", "sat", "lay", "cat", "sun", "the"]), "the cat lay on the mat"
    truth, there = Words().encode([TRUTH, text])
    tried = list(with_words(text, truth - there, lexicon, np.random.default_rng(0)))
    first = tried[: LOOSE + GAPS]
    assert all("sat" in one.split() for one in first) and "the cat sat on the mat" in first
    assert [len(one.split()) for one in first] == [6] * LOOSE + [7] * GAPS
    new = [next(word for word in one.split() if one.split().count(word) > text.split().count(word)) for one in tried]
    assert set(new) == {"sat", "dog", "sun"}, "what stands there already is not looked up"
    assert list(with_words("", truth, lexicon, np.random.default_rng(0)))[0] == "the", "an empty text has one gap"


def test_a_phrase_is_moved_and_a_word_left_out(embedder):
    plain = {"corrections": 0, "regrown": 0, "edits": 0, "steps": 9, "patience": 9, "rearranged": 60}
    for wrong in ("on the mat the cat sat", "the cat sat on on the mat"):
        [found] = run(Listed([wrong]), embedder, **plain)
        assert found.exact and found.text == TRUTH and found.candidates[0].origin == "rearrangement"
    tried = list(rearranged("a b, c", np.random.default_rng(0)))
    assert tried[:7] == ["b, c", "a, c", "a b c", "a b,", ", c", "a c", "a b"], "first less one or two of its pieces"
    assert {"b, c a", "c a b,", "a c b,", "c b, a"} <= set(tried[7:])
    assert list(rearranged("word", np.random.default_rng(0))) == [""]


def test_numbers_are_tried_with_every_other_digit():
    tried = list(rearranged("in May 1515", np.random.default_rng(0)))
    assert tried[:5] == ["May 1515", "in 1515", "in May", "1515", "in"]
    numbers = [text for text in tried if text.startswith("in May ") and "1515" not in text]
    assert len(numbers) == len(set(numbers)) == 36 and {"in May 1519", "in May 0515", "in May 1525"} <= set(numbers)


def test_brackets_open_before_what_they_hold():
    assert join(["Los", " Angeles", " (", " at"]) == "Los Angeles (at" and join(["(", " a", ")"]) == "(a)"
    assert join(pieces("„so“ ist es")) == "„so“ ist es", "a quotation mark that opens in English closes in German"


def test_no_text_is_looked_up_or_rearranged_twice(embedder):
    model = Listed(["rain in the north"])
    model.lexicon = directions(["dog", "sat", "cat", "mat"])
    run(model, embedder, corrections=0, regrown=0, edits=0, rearranged=24, lookups=12, steps=8, patience=8)
    assert len(set(keys(embedder))) == len(keys(embedder)) > 20


LIKELIEST = {"sample_corrections": False, "edits": 0, "hypotheses": 0}


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
    [found] = run(Listed(["", "  "], ["\n"], [""]), embedder, patience=4)
    assert (found.text, found.exact, found.queries, found.candidates, found.trace) == ("", False, 0, [], [])
    assert found.stopped == "stalled" and not embedder.asked
    [found] = run(Listed(["", "cat"], [""], [""]), embedder, steps=2, edits=0)
    assert found.text == "cat" and found.queries == 1


def test_the_same_seed_gives_the_same_search(embedder):
    def once(seed):
        found = run(Listed(NEAR, ["the mat"]), embedder, [TRUTH, "rain"], seed=seed, steps=5)
        return found, list(embedder.asked)

    first = once(0)
    assert once(0) == first
    assert once(1)[1] != first[1]


def test_another_process_proposes_the_same():
    program = (
        "import numpy as np; from unembed.search.edits import propose; from unembed.search.types import Candidate\n"
        f"pool = [Candidate(text, 0.5, 0.5, False, 'hypothesis', 0) for text in {NEAR}]\n"
        "print(propose(pool, pool, 30, np.random.default_rng(0)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and b"cat" in runs[0]


def test_results_come_in_order_whatever_is_searched_together(embedder):
    targets = [TRUTH, "rain in the north", "a dog sat", "the mat", "snow"]
    together = run(Listed(NEAR), embedder, targets, steps=3)
    model = Listed(NEAR)
    assert run(model, embedder, targets, steps=3, targets_at_once=2) == together, "edits are seeded by the target"
    assert [rows for method, rows, n in model.calls if method == "hypothesize" and n == 1] == [2, 2, 1]
    assert run(Listed(NEAR), embedder, targets[3:], first=3, steps=3) == together[3:], "as a resumed run needs"
    vectors, seen = Words().encode(targets), []
    config = SearchConfig(steps=3, corrections=2, edits=24, recombinations=0, rearranged=0, prior_weight=0.0)
    assert search(Listed(NEAR), embedder, vectors, config, TOLERANCE, seen.append) == together == seen


def test_only_the_beam_keeps_vectors(embedder, monkeypatch):
    monkeypatch.setattr(loop, "POOL", 20)
    state = Target(0, Words().encode([TRUTH])[0])
    made = Search(Listed(NEAR, ["the mat"]), embedder, SearchConfig(steps=12, patience=99), TOLERANCE)
    made._search([state])
    assert state.queries > 40
    arrays = [value for value in vars(state).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 1 and len(state.beam_vectors) == len(state.beam) == 4
    assert len(state.pool) == 20 < POOL
    assert not any(isinstance(value, np.ndarray) for candidate in state.pool for value in vars(candidate).values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", -1), ("sequence_beam_width", 0), ("hypotheses", -1), ("corrections", -1), ("variations", -1),
        ("edits", -1), ("recombinations", -1), ("budget", 0), ("regrown", -1), ("lookups", -1),
        ("rearranged", -1), ("temperature", 0.0), ("top_p", 0.0),
        ("top_p", 1.5), ("top_k", -1), ("patience", 0),
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


@pytest.mark.parametrize("a", TEXTS[1:])
@pytest.mark.parametrize("b", ["Hello, world!", "你好，世界。", "one two three"])
def test_edits_make_no_word_that_nobody_wrote(a, b):
    known = words_of(a, b)
    pool = [Candidate(text, 0.5, 0.5, False, "hypothesis", 0) for text in (a, b)]
    words, weights = vocabulary(pool)
    assert set(words) == known and weights.sum() == pytest.approx(1)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        made = [crossover(pieces(a), pieces(b), rng)]
        made += [
            edit(pieces(a), move, words, weights, rng) for move in ("substitution", "insertion", "deletion", "move")
        ]
        for text in made:
            assert words_of(text) <= known, text
            assert text == text.strip()


def test_each_move_does_what_its_name_says():
    parts = pieces("the cat sat on the mat")
    words, weights = ["dog"], np.ones(1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert len(pieces(edit(parts, "deletion", words, weights, rng))) == 5
        assert sorted(edit(parts, "move", words, weights, rng).split()) == sorted("the cat sat on the mat".split())
        inserted = edit(parts, "insertion", words, weights, rng).split()
        assert len(inserted) == 7 and [word for word in inserted if word != "dog"] == "the cat sat on the mat".split()
        substituted = edit(parts, "substitution", words, weights, rng).split()
        assert len(substituted) == 6 and substituted.count("dog") == 1
    assert parts == pieces("the cat sat on the mat"), "the candidate itself is left as it is"
    assert edit([], "deletion", words, weights, np.random.default_rng(0)) == ""


def test_proposals_come_from_beam_and_pool_and_follow_the_generator():
    candidates = [Candidate(text, 0.9 - i / 10, 0.9 - i / 10, False, "hypothesis", 0) for i, text in enumerate(NEAR)]
    made = propose(candidates[:2], candidates, 200, np.random.default_rng(3))
    assert made == propose(candidates[:2], candidates, 200, np.random.default_rng(3))
    assert {move for _, move in made} == {"crossover", "substitution", "insertion", "deletion", "move"}
    assert 150 < len(made) <= 200 and all(text.strip() for text, _ in made)
    assert words_of(*[text for text, _ in made]) <= words_of(*NEAR)
    assert vocabulary([])[0] == []
