"""The public face, on the real embedder: what vectors are taken, what is refused, and what a search is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import unembed
from unembed.errors import InputError
from unembed.evaluation import cut_texts, evaluate
from unembed.inverter import Inverter, path_between
from unembed.lengths import WHOLE
from unembed.models.base import GREEDY, Hypothesis, InversionModel, Sampling
from unembed.search.types import Inversion, SearchConfig

EXAMPLES = Path(__file__).parent.parent / "examples" / "sentences.txt"
SHORT = ["The cat sat on the mat.", "Please call me back before noon."]
QUICK = {"steps": 1, "sequence_beam_width": 2, "hypotheses": 4, "corrections": 1, "screened": 6}


class Told(InversionModel):
    """Knows the answers: exactness is then a matter of the embedder and of how the vectors were stored."""

    def __init__(self, spec, texts):
        self.spec, self.max_tokens, self.texts = spec, 128, texts

    def hypothesize(self, targets, n=1, sampling=GREEDY, seed=0):
        return [[Hypothesis(text, -1.0)] * n for text in self.texts]

    def correct(self, targets, hypotheses, hypothesis_vectors, n=1, sampling=GREEDY, seed=0):
        return [[] for _ in hypotheses]

    def score(self, texts, targets=None):
        return np.zeros(len(texts))


@pytest.fixture(scope="module", autouse=True)
def short_texts(inverter):
    """A model that is not good yet writes on and on: keep it short, for the sake of time."""
    limit, inverter.model.max_tokens = inverter.model.max_tokens, 24
    yield
    inverter.model.max_tokens = limit


@pytest.fixture(scope="module")
def sentences():
    return [text for text in EXAMPLES.read_text(encoding="utf-8").splitlines() if len(text.split()) > 5]


@pytest.fixture(scope="module")
def vectors(minilm):
    return minilm.encode(SHORT)


@pytest.fixture(scope="module")
def plain(inverter, vectors):
    return inverter.invert(vectors, **QUICK)


# --- which vectors are taken ---


@pytest.mark.parametrize(
    "form",
    [
        lambda v: v.tolist(),
        lambda v: list(v),
        lambda v: v.astype(np.float64),
        lambda v: torch.from_numpy(v),
        lambda v: torch.from_numpy(v).double().requires_grad_(),
        lambda v: [torch.from_numpy(row) for row in v],
        lambda v: np.asfortranarray(v),
        lambda v: np.repeat(v, 2, axis=0)[::2],
        lambda v: v.astype(">f4"),
    ],
)
def test_the_same_numbers_in_any_form_give_the_same_result(inverter, vectors, plain, form):
    assert inverter.invert(form(vectors), **QUICK) == plain


def test_scaled_vectors_are_the_same_once_normalised(inverter, vectors, plain):
    found = inverter.invert(vectors * 37.5, normalize=True, **QUICK)
    assert [inversion.text for inversion in found] == [inversion.text for inversion in plain]


def test_a_single_vector(inverter, vectors):
    [found] = inverter.invert(vectors[0], steps=0, sequence_beam_width=1)
    assert isinstance(found, Inversion) and found.steps == 0 and found.queries == 1
    assert found.cosine == pytest.approx(float(inverter.embedder.encode([found.text])[0] @ vectors[0]), abs=1e-5)


def int8(vectors):
    return np.round(vectors / np.abs(vectors).max() * 127).astype(np.int8)


@pytest.mark.parametrize(
    ("stored", "normalize"),
    [
        (lambda v: v, False),
        (lambda v: v.astype(np.float16), False),
        (lambda v: v.astype(np.float16).astype(np.float32), False),
        (lambda v: torch.from_numpy(v).bfloat16(), False),
        (lambda v: np.round(v, 4), False),
        (int8, True),
        (lambda v: (int8(v).astype(np.int16) + 128).astype(np.uint8), True),
    ],
)
def test_the_right_text_is_exact_however_the_vectors_were_stored(minilm, inverter, sentences, stored, normalize):
    wrong = [text.replace(" the ", " a ").replace("my", "his") + " Not." for text in sentences]
    kept = stored(minilm.encode(sentences))
    right = Inverter(Told(inverter.model.spec, sentences), minilm).invert(kept, normalize=normalize)
    assert all(found.exact and found.stopped == "exact" and found.queries == 1 for found in right)
    assert [found.text for found in right] == sentences
    others = Inverter(Told(inverter.model.spec, wrong), minilm).invert(kept, steps=0, normalize=normalize)
    assert not any(found.exact for found in others)


def test_case_is_not_seen_by_this_embedder_and_does_not_count(minilm, inverter, sentences):
    told = Told(inverter.model.spec, [text.upper() for text in sentences])
    assert all(found.exact for found in Inverter(told, minilm).invert(minilm.encode(sentences)))


# --- which are refused ---


def _with(row, column, value):
    def change(vectors):
        vectors = vectors.copy()
        vectors[row, column] = value
        return vectors

    return change


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (_with(1, 3, np.nan), ["vector 1", "NaN"]),
        (_with(0, 3, np.inf), ["vector 0", "infinity"]),
        (_with(1, slice(None), 0.0), ["vector 1", "zero"]),
        (lambda v: v[:, :100], ["100", "384", "dimensions"]),
        (lambda v: v.T, ["384", "transposed"]),
        (lambda v: v * 3, ["normalize"]),
        (lambda v: int8(v), ["int8", "normalize"]),
        (lambda v: v[:0], ["empty"]),
        (lambda v: v[None], ["axes"]),
        (lambda v: [v[0], v[1][:5]], ["differ in length"]),
        (lambda v: "text", ["str"]),
        (lambda v: None, ["None"]),
        (lambda v: v.astype(complex), ["complex"]),
        (lambda v: v.astype(str), ["text"]),
    ],
)
def test_vectors_that_are_refused_in_one_line(inverter, vectors, broken, words):
    before = inverter.embedder.queries
    with pytest.raises(InputError) as caught:
        inverter.invert(broken(vectors))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert inverter.embedder.queries == before, "nothing was embedded"


def test_a_broken_vector_is_named_by_its_number_in_the_whole(inverter, vectors):
    bad = _with(1, 0, np.nan)(vectors)
    with pytest.raises(InputError, match="vector 41 "):
        list(inverter.stream(bad, SearchConfig(steps=0), first=40))


@pytest.mark.parametrize(
    "fields", [{"stepz": 3}, {"steps": -1}, {"budget": 0}, {"sequence_beam_width": 0}, {"steps": "x"}]
)
def test_settings_that_are_refused(inverter, vectors, fields):
    with pytest.raises(InputError, match="|".join([*fields, "not supported"])) as caught:
        inverter.invert(vectors, **fields)
    assert "\n" not in str(caught.value)


def test_an_unknown_device_is_one_line():
    with pytest.raises(InputError, match="unknown device 'gpu7'"):
        unembed.load(device="gpu7")


# --- what a search is worth ---


@pytest.fixture(scope="module")
def searched(inverter, minilm, sentences):
    targets = minilm.encode(sentences)
    first = inverter.invert(targets, steps=0, sequence_beam_width=1)
    return targets, first, inverter.invert(targets, steps=2, sequence_beam_width=3, hypotheses=8)


def test_search_comes_closer_than_the_first_guess(searched):
    _, first, found = searched
    assert all(after.cosine >= before.cosine - 1e-5 for before, after in zip(first, found, strict=True))
    assert (
        np.mean([inversion.cosine for inversion in found]) > np.mean([inversion.cosine for inversion in first]) + 0.01
    )
    assert all(inversion.steps == 0 and inversion.queries == 1 for inversion in first)
    assert all(0 < inversion.steps <= 2 or inversion.exact for inversion in found)


def test_search_beats_texts_that_do_not_look_at_the_vector(searched, inverter, minilm, sentences):
    targets, first, found = searched
    drawn = inverter.model.sample_prior(len(sentences), Sampling(), seed=1)
    prior = (minilm.encode([hypothesis.text.strip() or "." for hypothesis in drawn]) * targets).sum(axis=1)
    others = (targets * np.roll(targets, 1, axis=0)).sum(axis=1)
    for inversions in (first, found):
        cosines = [inversion.cosine for inversion in inversions]
        assert np.mean(cosines) > prior.mean() + 0.1 and np.mean(cosines) > others.mean() + 0.1


def test_every_figure_of_a_result_can_be_checked(searched, minilm):
    targets, _, found = searched
    for target, inversion in zip(targets, found, strict=True):
        again = minilm.encode([candidate.text for candidate in inversion.candidates]) @ target
        assert [candidate.cosine for candidate in inversion.candidates] == pytest.approx(again.tolist(), abs=1e-5)
        assert inversion.candidates[0].text == inversion.text and len(inversion.candidates) == 3
        assert inversion.trace[-1].queries == inversion.queries
        assert inversion.exact == (np.linalg.norm(minilm.encode([inversion.text])[0] - target) < 1e-4)


def test_queries_are_what_the_embedder_was_asked(inverter, vectors):
    before = inverter.embedder.queries
    [found] = inverter.invert(vectors[:1], **QUICK)
    assert inverter.embedder.queries - before == found.queries > 1
    [cheap] = inverter.invert(vectors[:1], steps=3, budget=5)
    assert cheap.queries <= 5


def test_the_same_seed_gives_the_same_results(inverter, vectors, plain):
    torch.manual_seed(99)
    assert inverter.invert(vectors, **QUICK) == plain
    assert inverter.invert(vectors, seed=1, **QUICK) != plain


def test_results_are_reported_as_they_come(inverter, vectors):
    seen = []
    found = inverter.invert(vectors, steps=0, progress=seen.append)
    assert seen == found and len(found) == 2
    assert list(inverter.stream(vectors, SearchConfig(steps=0))) == found


# --- interpolation ---


def test_a_path_on_the_sphere(vectors):
    path = path_between(vectors[0], vectors[1], 5, spherical=True)
    assert path.shape == (5, 384) and path.dtype == np.float32
    assert np.linalg.norm(path, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    np.testing.assert_allclose(path[[0, -1]], vectors, atol=1e-6)
    angles = np.arccos(np.clip((path[:-1] * path[1:]).sum(axis=1), -1, 1))
    assert angles == pytest.approx(np.full(4, np.arccos(vectors[0] @ vectors[1]) / 4), abs=1e-3)


def test_a_path_between_vectors_of_any_length_is_straight():
    a, b = np.array([2.0, 0.0], np.float32), np.array([0.0, 4.0], np.float32)
    assert path_between(a, b, 3, spherical=False).tolist() == [[2, 0], [1, 2], [0, 4]]
    assert path_between(a, a, 3, spherical=False).tolist() == [[2, 0]] * 3


def test_a_path_to_itself_and_to_the_opposite(vectors):
    still = path_between(vectors[0], vectors[0], 4, spherical=True)
    np.testing.assert_allclose(still, np.repeat(vectors[:1], 4, axis=0), atol=1e-6)
    with pytest.raises(InputError, match="opposite"):
        path_between(vectors[0], -vectors[0], 4, spherical=True)


def test_interpolation_leads_from_one_text_to_the_other(inverter, minilm, vectors):
    found = inverter.interpolate(vectors[0], vectors[1], n=3, **QUICK)
    assert len(found) == 3 and all(isinstance(inversion, Inversion) for inversion in found)
    made = minilm.encode([inversion.text for inversion in found])
    assert made[0] @ vectors[0] > made[0] @ vectors[1]
    assert made[2] @ vectors[1] > made[2] @ vectors[0]
    told = Inverter(Told(inverter.model.spec, [SHORT[0], "something between", SHORT[1]]), minilm)
    assert [inversion.exact for inversion in told.interpolate(*vectors, n=3, steps=0)] == [True, False, True]


def test_the_ends_may_have_any_form(inverter, vectors):
    few = {"steps": 0, "sequence_beam_width": 1, "n": 2}
    expected = inverter.interpolate(vectors[0], vectors[1], **few)
    assert inverter.interpolate(vectors[:1], vectors[1].tolist(), **few) == expected
    assert inverter.interpolate(torch.from_numpy(vectors[0]), vectors[1].astype(np.float64), **few) == expected
    assert len(inverter.interpolate(torch.from_numpy(vectors[0]).bfloat16(), vectors[1], **few)) == 2
    assert len(inverter.interpolate(vectors[0] * 5, vectors[1], normalize=True, **few)) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b: (a, b, 1), "2 ends"),
        (lambda a, b: (a[:5], b, 3), "dim"),
        (lambda a, b: (a[:5], b[:5], 3), "dim"),
        (lambda a, b: (a, b * np.nan, 3), "NaN"),
        (lambda a, b: (a * 9, b, 3), "normalize"),
        (lambda a, b: (np.stack([a, b]), b, 3), "one vector"),
        (lambda a, b: (a, -a, 3), "opposite"),
    ],
)
def test_interpolations_that_are_refused(inverter, vectors, change, words):
    a, b, n = change(*vectors)
    with pytest.raises(InputError, match=words) as caught:
        inverter.interpolate(a, b, n)
    assert "\n" not in str(caught.value)


def test_an_evaluation_reads_no_more_texts_than_it_needs(inverter):
    taken = []

    def endless():
        while True:
            taken.append(f"The {len(taken)}th letter was sent to the old house by the river.")
            yield taken[-1]

    rows = list(cut_texts(inverter, endless(), [4, 8], 3))
    assert [row[1] for row in rows] == [4] * 3 + [8] * 3 and len(taken) <= 4
    assert [row[0] for row in rows[:3]] == ["4/0", "4/1", "4/2"]


def test_whole_texts_are_measured_beside_cut_ones(inverter):
    texts = ["A letter that goes on for a good while longer.", " ", "Hello there"]
    rows = list(cut_texts(inverter, texts, [4, WHOLE], 3))
    assert [row[2] for row in rows if row[1] == WHOLE] == [texts[0], texts[2]]
    config = SearchConfig(steps=0, sequence_beam_width=1, consensus=1)
    report = evaluate(inverter, texts, config, lengths=[WHOLE, 4], n=2).to_dict()
    assert list(report["lengths"]) == ["4", "whole"] and report["lengths"]["whole"]["n"] == 2
