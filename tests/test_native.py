"""The native network and what writes with it: the cached decoder against the plain forward, sampling, beams, scores.

Shapes and numerics are checked on tiny random networks, where every path is taken; the model that ships is used where
real tokens and real vectors matter.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from unembed.checkpoints import load_model, native
from unembed.errors import CheckpointError
from unembed.models.base import GREEDY, Sampling
from unembed.models.decoding import choose, filter_logprobs
from unembed.models.native import NativeModel
from unembed.models.native.generation import Decoder, generate
from unembed.models.native.network import (
    FEW_ROWS,
    IGNORED,
    NativeConfig,
    NativeNetwork,
    attend,
    pad_rows,
    prefix_mask,
    text_and_labels,
)
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID
from unembed.models.variations import change
from unembed.search.types import SearchConfig

DIM = 16
TEXTS = [
    "The patient was given 20 mg of prednisone and sent home on Tuesday.",
    "Please call me back before noon.",
    "Why was I charged twice for the same card payment?",
    "Light travels faster than sound.",
    "Zurich",
]


def tiny(vocab=12, max_tokens=10, seed=0, softcap=8.0, **sizes):
    """A small network with random weights everywhere, so that no path is switched off by a zero initialisation."""
    torch.manual_seed(seed)
    config = NativeConfig(
        DIM, vocab, 32, 2, 2, target_tokens=3, feedback_tokens=2, max_tokens=max_tokens, softcap=softcap, **sizes
    )
    net = NativeNetwork(config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1 / math.sqrt(parameter.size(1)))
            elif not name.endswith("mix"):
                parameter.normal_()
    return net.eval().requires_grad_(False)


def unit(rows, seed=0):
    return torch.nn.functional.normalize(torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def conditions(kind, rows, vocab=12):
    """targets, hypothesis ids (padded where rows differ), hypothesis vectors, and the unpadded rows of ids."""
    targets = unit(rows, 1)
    if kind == "none":
        return targets, None, None, [None] * rows
    lengths = [4] * rows if kind == "hypothesis" else [(3 * i) % 7 for i in range(rows)]  # an empty one among them
    ids = [[3 + (7 * i + j) % (vocab - 3) for j in range(length)] for i, length in enumerate(lengths)]
    return targets, pad_rows(ids), unit(rows, 2), ids


def full_logprobs(net, target, row, ids, vector, dtype=torch.float32):
    """log p of every next token of one text [T + 1, V] by the plain forward of that row alone, without padding."""
    hypothesis = None if ids is None else torch.tensor([ids], dtype=torch.long).view(1, len(ids))
    text = torch.tensor([[BOS_ID, *row]])
    logits = net(target[None], text, hypothesis, None if vector is None else vector[None], dtype)[0]
    logits[:, [PAD_ID, BOS_ID]] = -torch.inf  # never written
    return logits.log_softmax(dim=-1)


def logprob(net, target, row, ids=None, vector=None):
    """log p of a whole text, its end included."""
    rows = full_logprobs(net, target, row, ids, vector)
    return float(rows[torch.arange(len(row) + 1), torch.tensor([*row, EOS_ID])].sum())


@pytest.fixture(scope="module")
def real(two_threads):
    """The model that ships, in float32 whatever the processor can do, with short texts for the sake of time."""
    model = load_model("all-MiniLM-L6-v2", torch.device("cpu"), torch.float32)
    model.max_tokens = 32
    return model


@pytest.fixture(scope="module")
def vectors(minilm):
    return minilm.encode(TEXTS)


# --- the cached decoder ---


@pytest.mark.parametrize("kind", ["none", "hypothesis", "padded"])
@pytest.mark.parametrize("parts", [{}, {"lexical_head": False, "vector_everywhere": False}])
def test_each_cached_step_equals_the_full_forward(kind, parts):
    net = tiny(**parts)
    targets, ids, vectors, plain = conditions(kind, 5)
    text = torch.randint(3, 12, (5, 8), generator=torch.Generator().manual_seed(3))
    decoder = Decoder(net, targets, ids, vectors, 10, torch.float32)
    steps = [decoder.next(tokens) for tokens in torch.cat([torch.full((5, 1), BOS_ID), text], dim=1).unbind(1)]
    for i in range(5):
        expected = full_logprobs(net, targets[i], text[i].tolist(), plain[i], None if vectors is None else vectors[i])
        torch.testing.assert_close(torch.stack([step[i] for step in steps]), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("parts", [{}, {"lexical_head": False, "vector_everywhere": False}])
def test_texts_of_one_target_share_its_prefix_and_need_no_gradient(parts):
    net, targets = tiny(**parts), conditions("none", 5)[0][:1]
    text = torch.randint(3, 12, (5, 8), generator=torch.Generator().manual_seed(3))
    plain = net(targets.expand(5, -1), text)
    with torch.inference_mode():
        torch.testing.assert_close(net(targets.expand(5, -1), text), plain.detach(), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(net.after_one(targets, text), plain.detach(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["none", "padded"])
def test_rows_can_be_dropped_repeated_and_reordered_in_the_middle(kind):
    net = tiny()
    targets, ids, vectors, plain = conditions(kind, 5)
    text = torch.randint(3, 12, (5, 6), generator=torch.Generator().manual_seed(4))
    decoder = Decoder(net, targets, ids, vectors, 10, torch.float32)
    decoder.next(torch.full((5,), BOS_ID))
    for step in range(3):
        decoder.next(text[:, step])
    rows = torch.tensor([4, 1, 1, 3])
    decoder.select(rows)
    last = [decoder.next(text[rows, step]) for step in (3, 4, 5)][-1]
    for at, i in enumerate(rows.tolist()):
        vector = None if vectors is None else vectors[i]
        expected = full_logprobs(net, targets[i], text[i].tolist(), plain[i], vector)[-1]
        torch.testing.assert_close(last[at], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["none", "hypothesis", "padded"])
def test_the_log_probability_of_each_sample_is_that_of_its_text(kind, monkeypatch):
    net, n = tiny(vocab=6, softcap=1.0), 4  # hardly peaked: texts end early and late
    targets, ids, vectors, plain = conditions(kind, 6, 6)
    sizes = []
    select = Decoder.select
    monkeypatch.setattr(Decoder, "select", lambda self, rows: (sizes.append(len(rows)), select(self, rows))[1])
    written = generate(
        net, targets, ids, vectors, n=n, sampling=Sampling(0.9, 4, 0.97), max_tokens=10,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [len(row) for row in written] == [n] * 6
    lengths = {len(text.ids) for row in written for text in row}
    assert len(lengths) > 3 and max(lengths) == 10, "the case is to hold early, late and cut texts"
    assert sizes[0] == 24 and len(sizes) > 2 and sizes == sorted(sizes, reverse=True), "rows are to leave the batch"
    for i, row in enumerate(written):
        assert len({tuple(text.ids) for text in row}) > 1, "the samples of a target are drawn one by one"
        for text in row:
            assert not {PAD_ID, BOS_ID, EOS_ID} & set(text.ids)
            expected = logprob(net, targets[i], text.ids, plain[i], None if vectors is None else vectors[i])
            assert text.logprob == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("kind", ["none", "padded"])
def test_greedy_takes_the_likeliest_token_each_time(kind):
    net = tiny(max_tokens=6)
    targets, ids, vectors, plain = conditions(kind, 4)
    written = generate(net, targets, ids, vectors, sampling=GREEDY, max_tokens=6)
    for i, [text] in enumerate(written):
        expected: list[int] = []
        while len(expected) < 6:
            rows = full_logprobs(net, targets[i], expected, plain[i], None if vectors is None else vectors[i])
            token = int(rows[-1].argmax())
            if token == EOS_ID:
                break
            expected.append(token)
        assert text.ids == expected


# --- beams ---


def test_a_beam_as_wide_as_the_space_finds_the_likeliest_texts_of_all():
    net = tiny(vocab=7, max_tokens=3, seed=3)  # 4 tokens that can be written: 1 + 4 + 16 + 64 texts
    targets = unit(3, 5)
    found = generate(net, targets, n=6, sampling=Sampling(beams=64), max_tokens=3)
    for i, row in enumerate(found):
        texts = [ids for length in range(4) for ids in itertools.product(range(3, 7), repeat=length)]
        ranked = sorted(((logprob(net, targets[i], list(ids)), list(ids)) for ids in texts), reverse=True)[:6]
        assert [text.ids for text in row] == [ids for _, ids in ranked]
        assert [text.logprob for text in row] == pytest.approx([value for value, _ in ranked], abs=1e-4)


@pytest.mark.parametrize("kind", ["none", "padded"])
def test_a_beam_of_one_follows_the_greedy_path_and_ends_where_that_is_likeliest(kind):
    net = tiny(vocab=6, seed=1)
    targets, ids, vectors, plain = conditions(kind, 8, 6)
    greedy = generate(net, targets, ids, vectors, sampling=GREEDY, max_tokens=10)
    beam = generate(net, targets, ids, vectors, sampling=Sampling(beams=1), max_tokens=10)
    same = 0
    for i, ([one], [other]) in enumerate(zip(greedy, beam, strict=True)):
        vector = None if vectors is None else vectors[i]
        ends = [logprob(net, targets[i], one.ids[:k], plain[i], vector) for k in range(len(one.ids) + 1)]
        best = int(np.argmax(ends))
        assert other.ids == one.ids[:best]
        assert other.logprob == pytest.approx(ends[best], abs=2e-4)
        same += other.ids == one.ids
    assert same, "where no earlier end is likelier, the two are one"


def test_beams_on_real_vectors(real, vectors):
    greedy = [row[0].logprob for row in real.hypothesize(vectors, 1, GREEDY)]
    one = [row[0].logprob for row in real.hypothesize(vectors, 1, Sampling(beams=1))]
    rows = real.hypothesize(vectors, 3, Sampling(beams=4))
    assert all(a >= b - 1e-3 for a, b in zip(one, greedy, strict=True))
    for row in rows:
        values = [hypothesis.logprob for hypothesis in row]
        assert len(row) == 3 and values == sorted(values, reverse=True)
        assert len({hypothesis.text for hypothesis in row}) == 3
    assert np.mean([row[0].logprob for row in rows]) >= np.mean(greedy) - 1e-3


# --- sampling ---


def plain_filter(logprobs, temperature, top_k, top_p):
    """Temperature, then top-k, then top-p, one token after the other: {token: probability}."""
    scores = {token: value / temperature for token, value in enumerate(logprobs)}
    kept = sorted(scores, key=lambda token: -scores[token])[: top_k or None]
    total = sum(math.exp(scores[token]) for token in kept)
    out, mass = {}, 0.0
    for token in kept:
        if top_p < 1 and mass >= top_p:
            break
        out[token] = math.exp(scores[token]) / total
        mass += out[token]
    whole = sum(out.values())
    return {token: value / whole for token, value in out.items()}


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 40, 99])
@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 1.0])
def test_filter_equals_the_plain_reference(temperature, top_k, top_p):
    generator = torch.Generator().manual_seed(top_k)
    logprobs = (3 * torch.randn(4, 40, generator=generator)).double().log_softmax(dim=-1)
    scores, tokens = filter_logprobs(logprobs, Sampling(temperature, top_k, top_p))
    for i in range(4):
        mine = {
            token: value
            for token, value in zip(tokens[i].tolist(), scores[i].softmax(dim=-1).tolist(), strict=True)
            if value > 0
        }
        assert mine == pytest.approx(plain_filter(logprobs[i].tolist(), temperature, top_k, top_p))


def test_the_order_of_the_filters_matters_and_is_temperature_top_k_top_p():
    logprobs = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    # Temperature first: 2 flattens 0.5 / 0.3 to 0.37 / 0.29, so that 0.7 needs a third token, not only two.
    assert (filter_logprobs(logprobs, Sampling(2.0, 0, 0.7))[0] > -torch.inf).sum() == 3
    # Top-k before top-p: among the two best the first has 0.625, enough for 0.6, though it has 0.5 of the whole.
    assert (filter_logprobs(logprobs, Sampling(1.0, 2, 0.6))[0] > -torch.inf).sum() == 1


def test_choose_draws_from_what_is_left_in_its_proportions():
    logprobs = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20_000, 4)
    for sampling, expected in (
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.6), [0.625, 0.375, 0, 0]),
        (Sampling(temperature=0.0), [1, 0, 0, 0]),
    ):
        drawn = choose(logprobs, sampling, torch.Generator().manual_seed(0))
        shares = np.bincount(drawn.numpy(), minlength=4) / len(drawn)
        assert shares == pytest.approx(expected, abs=0.015)
        assert all(share == 0 for share, wanted in zip(shares, expected, strict=True) if wanted == 0)


def test_sampling_follows_its_seed_and_nothing_else(real, vectors):
    sampling = Sampling(0.9, 64, 0.95)
    first = real.hypothesize(vectors[:2], 3, sampling, seed=7)
    torch.manual_seed(123)
    torch.rand(5)
    assert real.hypothesize(vectors[:2], 3, sampling, seed=7) == first
    assert real.hypothesize(vectors[:2], 3, sampling, seed=8) != first


# --- the batch ---


def test_greedy_texts_do_not_depend_on_the_batch(real, vectors, monkeypatch):
    together = real.hypothesize(vectors)
    hypotheses = [row[0].text or "." for row in together]
    corrected = real.correct(vectors, hypotheses, vectors[::-1])
    for i in range(len(TEXTS)):
        [[alone]] = real.hypothesize(vectors[i : i + 1])
        assert alone.text == together[i][0].text
        assert alone.logprob == pytest.approx(together[i][0].logprob, abs=2e-3)
        [[alone]] = real.correct(vectors[i : i + 1], hypotheses[i : i + 1], vectors[::-1][i : i + 1])
        assert alone.text == corrected[i][0].text, "its hypothesis was padded in the batch and is not here"
    monkeypatch.setattr(real, "batch_size", 2)
    assert [row[0].text for row in real.hypothesize(vectors)] == [row[0].text for row in together]
    assert [row[0].text for row in real.correct(vectors, hypotheses, vectors[::-1])] == [r[0].text for r in corrected]


def test_no_rows_give_nothing(real):
    assert real.hypothesize(np.zeros((0, 384), np.float32)) == []
    assert real.score([]).shape == (0,)


def test_bfloat16_is_close_to_float32(real, vectors):
    text, labels = text_and_labels(real.tokenizer.encode(TEXTS))
    targets = torch.from_numpy(vectors)
    exact = real.net(targets, text).log_softmax(dim=-1)
    rough = real.net(targets, text, dtype=torch.bfloat16).log_softmax(dim=-1)
    assert rough.dtype == torch.float32
    seen = labels != IGNORED
    wanted = labels.clamp(min=0)[:, :, None]
    difference = (exact.gather(2, wanted) - rough.gather(2, wanted))[:, :, 0][seen].abs()
    assert 0 < difference.mean() < 0.05 and difference.max() < 0.5


# --- scores and the prior ---


def test_score_is_the_log_probability_that_generation_reports(real, vectors):
    targets = torch.from_numpy(vectors)
    lift = real.lift(targets)
    written = [
        *generate(real.net, targets, sampling=GREEDY, max_tokens=32, lift=lift),
        *generate(
            real.net, targets, n=4, sampling=Sampling(0.5), max_tokens=32,
            generator=torch.Generator().manual_seed(0), lift=lift,
        ),
    ]  # fmt: skip
    checked = 0
    for i, row in enumerate(written):
        for text in row:
            [decoded] = real.tokenizer.decode([text.ids])
            if (
                real.tokenizer.encode([decoded])[0] == text.ids
            ):  # else it is read in other tokens than it was written in
                vector = vectors[i % len(TEXTS)][None]
                assert real.score([decoded], vector)[0] == pytest.approx(text.logprob, abs=1e-2)
                checked += 1
    assert checked >= 5


def test_score_does_not_depend_on_the_batch_and_knows_the_vector(real, vectors, monkeypatch):
    together = real.score(TEXTS, vectors)
    assert together.shape == (len(TEXTS),) and (together < 0).all()
    alone = [float(real.score([text], vectors[i : i + 1])[0]) for i, text in enumerate(TEXTS)]
    assert together == pytest.approx(alone, abs=2e-3)
    monkeypatch.setattr("unembed.models.native.model.READ", 2)
    assert real.score(TEXTS, vectors) == pytest.approx(together, abs=2e-3)
    assert together.mean() > real.score(TEXTS, np.roll(vectors, 1, axis=0)).mean()
    assert together.mean() > real.score(TEXTS).mean()


def test_the_prior_is_the_model_at_the_zero_vector(real):
    zeros = np.zeros((len(TEXTS), 384), np.float32)
    assert real.score(TEXTS) == pytest.approx(real.score(TEXTS, zeros), abs=2e-3)
    sampling = Sampling(1.0, 64)
    drawn = real.sample_prior(3, sampling, seed=5)
    assert drawn == [row[0] for row in real.hypothesize(zeros[:3], 1, sampling, seed=5)]
    assert len({hypothesis.text for hypothesis in drawn}) == 3


def test_a_text_beyond_the_limit_is_scored_as_far_as_it_can_be_written(real, vectors):
    ids = real.tokenizer.encode(["word " * 400])[0]
    cut = real.tokenizer.decode([ids[: real.max_tokens]])
    assert real.score(["word " * 400], vectors[:1]) == pytest.approx(real.score(cut, vectors[:1]), abs=1e-3)


# --- the network ---


def test_a_change_is_one_token():
    rng = np.random.default_rng(0)
    found = {tuple(change([5, 6, 7], 1, 9, rng)) for _ in range(20)}
    assert found == {(5, 9, 7), (5, 9, 6, 7)}, "in the stead of what is there, or before it"
    assert change([5, 6, 7], 1, 7, rng) == [5, 7], "the next token: the one before it is left out"
    assert change([5, 6, 7], 3, 9, rng) == [5, 6, 7, 9] and change([], 0, 9, rng) == [9]


def test_variations_come_from_the_target_and_the_hypothesis(real, vectors, minilm, monkeypatch):
    hypotheses = [
        "The patient was given 20 mg of water and sent away.",
        "Please write",
        "",
        "Light",
        "Zurich in winter",
    ]
    embedded = minilm.encode([text or "." for text in hypotheses])
    varied = real.vary(vectors, hypotheses, embedded, 8, seed=3)
    assert [len(row) for row in varied] == [8] * 5
    assert real.vary(vectors, hypotheses, embedded, 8, seed=3) == varied != real.vary(vectors, hypotheses, embedded, 8)
    for text, row in zip(hypotheses, varied, strict=True):
        assert text not in row and len(set(row)) > 4
        assert all(abs(len(new.split()) - len(text.split())) <= 1 for new in row)
    wrong = real.vary(np.roll(vectors, 2, axis=0), hypotheses, embedded, 8, seed=3)

    def cosine(rows):
        return np.mean([(minilm.encode(row) @ target).mean() for row, target in zip(rows, vectors, strict=True)])

    assert cosine(varied) > cosine(wrong)
    monkeypatch.setattr("unembed.models.native.model.READ", 2)
    assert [len(row) for row in real.vary(vectors, hypotheses, embedded, 8)] == [8] * 5
    assert real.vary(vectors[:0], [], embedded[:0]) == []


@pytest.mark.parametrize("masked", [True, False])
def test_attention_and_its_gradients_equal_torch_s_own(masked):
    torch.manual_seed(0)
    q, k, v = (torch.randn(FEW_ROWS, 3, length, 8, requires_grad=True) for length in (5, 7, 7))
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)[None, None] if masked else None
    ours = attend(q, k, v, mask)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for a, b in zip(*(torch.autograd.grad((y * weights).sum(), (q, k, v)) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def narrow(rows, seed):
    """Vectors that all point much the same way, as E5's do: their mean has a length of about 0.9."""
    rng = np.random.default_rng(seed)
    vectors = np.eye(DIM)[0] + rng.normal(size=(rows, DIM)) * 0.4 / math.sqrt(DIM)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_centred_network_sees_how_a_vector_differs_from_the_others():
    net, vectors = tiny(centred=True), narrow(500, 0)
    net.centre_on(vectors)
    scaled = net.scaled(torch.from_numpy(vectors)).numpy()
    assert np.linalg.norm(vectors.mean(axis=0)) > 0.85 and np.abs(scaled.mean(axis=0)).max() < 0.05
    assert np.sqrt((scaled**2).mean()) == pytest.approx(1, abs=0.01)
    plain = tiny().scaled(torch.from_numpy(vectors)).numpy()
    assert np.abs(plain.mean(axis=0)).max() > 3, "what the common direction would fill"
    mixed = torch.from_numpy(np.concatenate([vectors[:1], np.zeros((1, DIM), np.float32)]))
    assert not net.scaled(mixed)[1].any() and net.scaled(mixed)[0].any(), "no condition stays none"


def test_a_centred_network_is_the_same_in_every_precision_and_after_saving(tmp_path, real, vectors):
    net = tiny(vocab=real.tokenizer.vocab_size, centred=True)
    net.centre_on(narrow(500, 0))
    targets = torch.from_numpy(narrow(4, 1))
    before, loss = net.scaled(targets), net(targets, torch.tensor([[BOS_ID, 5]] * 4))
    model = NativeModel(net, real.tokenizer, replace(real.spec, dim=DIM, fingerprint=None))
    for int8 in (False, True):
        native.save(model, tmp_path / "model", int8=int8)
        again = native.load(tmp_path / "model", torch.device("cpu"), torch.float32).net
        assert torch.equal(again.scaled(targets), before)
    assert 0.1 < model.search_fields(4)["prior_weight"] / SearchConfig().prior_weight < 0.2, "1 - |mean|²"
    assert real.search_fields(4) == {"corrections": 1, "variations": 7}
    native.save(model, tmp_path / "model")
    half = native.load(tmp_path / "model", torch.device("cpu"), torch.bfloat16).net
    assert torch.equal(half.scaled(targets), before)
    start = tiny(vocab=real.tokenizer.vocab_size, centred=True, seed=1)
    start.take_over(net)
    assert torch.equal(start(targets, torch.tensor([[BOS_ID, 5]] * 4)), loss)


def test_prefix_mask():
    mask = prefix_mask(2, 3, torch.device("cpu"))[0, 0].int().tolist()
    assert mask == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_who_depends_on_whom():
    net = tiny()
    targets, vectors = unit(1, 1), unit(1, 2)
    text, hypothesis = torch.tensor([[BOS_ID, 5, 6, 7]]), torch.tensor([[8, 9, 10]])
    base = net(targets, text, hypothesis, vectors)

    def moved(*arguments):
        return (net(*arguments) - base)[0].abs().amax(dim=-1) > 1e-5  # [T]

    later = text.clone()
    later[0, 2] = 11
    assert moved(targets, later, hypothesis, vectors).tolist() == [False, False, True, True]
    other = hypothesis.clone()
    other[0, 2] = 11  # the last token of the hypothesis is seen from the very first position
    assert moved(targets, text, other, vectors).all()
    assert moved(targets, text, hypothesis, targets).all()
    assert moved(vectors, text, hypothesis, vectors).all()
    padded = torch.cat([hypothesis, torch.full((1, 4), PAD_ID)], dim=1)
    assert not moved(targets, text, padded, vectors).any()


def test_a_fresh_network_knows_nothing_and_every_parameter_has_its_optimiser():
    net = NativeNetwork(NativeConfig(DIM, 100, 32, 2, 2, 3, 2, 10))
    text, labels = text_and_labels([[5, 6, 7], [8]], 6)
    assert text.shape == labels.shape == (2, 7)
    loss = net.loss(net(unit(2), text), labels)
    assert loss.item() == pytest.approx(math.log(100), abs=1e-5)
    groups = net.parameter_groups()
    flat = [id(parameter) for group in groups.values() for parameter in group]
    assert len(flat) == len(set(flat)) and set(flat) == {id(parameter) for parameter in net.parameters()}
    assert all(parameter.ndim == 2 for name in groups if name != "vectors" for parameter in groups[name])


def test_heads_that_do_not_fit_the_width():
    for width, heads in ((32, 5), (30, 10)):  # not whole; whole but odd
        with pytest.raises(CheckpointError, match="d_model"):
            NativeConfig(DIM, d_model=width, n_heads=heads)
