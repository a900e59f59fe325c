"""Writing with a T5: the same ids as transformers' `generate`, rows that leave, samples, and what must not be kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unembed.checkpoints import nanov2t, vec2text
from unembed.models.base import GREEDY, Sampling
from unembed.models.t5_generation import Decoder, beam_search, write

CPU = torch.device("cpu")
LONGEST = 20


def small_t5(**options):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **options,
    )  # fmt: skip
    t5 = T5ForConditionalGeneration(config)
    with torch.no_grad():  # as they are made, the embeddings drown the layers: every text is one token, repeated
        t5.shared.weight.mul_(0.05)
        t5.decoder.final_layer_norm.weight.mul_(40)
        t5.shared.weight[1] *= 1.6  # and hardly any ends
    return t5.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def t5():
    return small_t5()


def inputs(rows=9, length=11, seed=1):
    """Encoder inputs of which some are padded, so that the mask matters."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length, 32, generator=generator)
    mask = (torch.arange(length) < torch.randint(3, length + 1, (rows, 1), generator=generator)).long()
    return x, mask


def plain(t5, x, mask, n=1, longest=LONGEST, **options):
    """transformers' own way."""
    ids = t5.generate(
        inputs_embeds=x, attention_mask=mask, num_return_sequences=n, max_length=longest, min_length=1,
        early_stopping=False, length_penalty=1.0, do_sample=False, **{"num_beams": 1, **options},
    )  # fmt: skip
    return ids.masked_fill(behind_the_end(ids), 0)  # its beam search pads with the end of text


def behind_the_end(ids):
    ends = (ids == 1).long()
    return ends.cumsum(1) > ends


def logprobs(t5, x, mask, ids):
    """log p of ids by one forward pass, up to the end of each text."""
    n = len(ids) // len(x)
    out = t5(
        inputs_embeds=x.repeat_interleave(n, 0), attention_mask=mask.repeat_interleave(n, 0),
        decoder_input_ids=ids[:, :-1],
    )  # fmt: skip
    chosen = out.logits.log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    return chosen.masked_fill(behind_the_end(ids)[:, 1:], 0).sum(1)


@pytest.mark.parametrize("options", [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}])
def test_greedy_is_that_of_transformers(options):
    t5 = small_t5(**options)
    x, mask = inputs(40)
    ids, found = write(t5, x, mask, 1, GREEDY, LONGEST)
    assert torch.equal(ids, plain(t5, x, mask))
    torch.testing.assert_close(found, logprobs(t5, x, mask, ids), atol=1e-4, rtol=1e-4)
    ends = (ids == 1).any(1)
    assert ends.any() and not ends.all()  # some rows left early, some ran to the end


@pytest.mark.parametrize(("width", "n"), [(4, 4), (2, 1), (5, 3)])
def test_beams_are_those_of_transformers(t5, width, n):
    x, mask = inputs(30)
    ids, found = beam_search(t5, x, mask, n, width, LONGEST)
    expected = plain(t5, x, mask, n, num_beams=width)
    assert torch.equal(ids, expected)
    torch.testing.assert_close(found, logprobs(t5, x, mask, ids), atol=1e-4, rtol=1e-4)
    ends = (ids == 1).any(1)
    assert ends.any() and not ends.all()


def test_pairs_write_what_transformers_writes(parity_dir):
    """The reference checkpoints, hypothesizer and corrector: greedy ids and all beams."""

    nano = nanov2t.load_pair(parity_dir / "nanov2t" / "stage1", parity_dir / "nanov2t" / "stage2", CPU, None)
    folder = parity_dir / "vec2text" / "jxm"
    pair = vec2text.load_pair(folder / "gtr__nq__32", folder / "gtr__nq__32__correct", CPU, None)
    for made, dim in ((nano, 40), (pair, 768)):
        generator = torch.Generator().manual_seed(0)
        targets, others = torch.randn(2, 12, dim, generator=generator)
        read = torch.randint(2, 200, (12, 9), generator=generator)
        read[::2, 6:] = 0
        for net, condition in ((made.hypothesizer, ()), (made.corrector, (read, others))):
            x, mask = net.inputs(targets, *condition)
            assert torch.equal(net.generate(targets, *condition, max_length=34)[0], plain(net.t5, x, mask, longest=34))
            ids, _ = net.generate(targets, *condition, n=4, sampling=Sampling(beams=4), max_length=34)
            assert torch.equal(ids, plain(net.t5, x, mask, 4, 34, num_beams=4))


def test_samples_are_seeded_and_their_log_probabilities_those_of_the_model(t5):
    x, mask = inputs(6)
    sampling = Sampling(temperature=1.3, top_k=20, top_p=0.9)

    def draw(seed):
        return write(t5, x, mask, 5, sampling, LONGEST, torch.Generator().manual_seed(seed))

    (ids, found), (again, _), (other, _) = draw(1), draw(1), draw(2)
    assert torch.equal(ids, again) and ids.shape[0] == 30 and not torch.equal(ids[:, :5], other[:, :5])
    # Of the model itself, whatever the temperature; texts left at different steps, so places were moved on the way.
    torch.testing.assert_close(found, logprobs(t5, x, mask, ids), atol=1e-4, rtol=1e-4)
    assert len({row.index(1) if 1 in row else -1 for row in ids.tolist()}) > 3


def test_rows_that_have_ended_leave_and_take_their_cache_along(t5, monkeypatch):
    x, mask = inputs(40)
    sizes, step = [], Decoder.next

    def watched(self, tokens):
        assert all(len(tokens) == layer.size(1) for layer in self.cache)
        assert all(len(tokens) == self.n * len(keys) for keys, _ in self.cross)
        sizes.append(len(tokens))
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "next", watched)
    ids, _ = write(t5, x, mask, 1, GREEDY, LONGEST)
    ends = (ids == 1).any(1).sum()
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 40 and sizes[-1] <= 40 - ends / 2
    sizes.clear()
    beam_search(t5, x, mask, 4, 4, LONGEST)
    assert sizes[0] == 160 and sizes[-1] < 160


def test_one_beam_is_greedy(parity_dir):
    net = nanov2t.load_pair(parity_dir / "nanov2t" / "stage1", None, CPU, None).hypothesizer
    targets = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    (one, _), (greedy, _) = (net.generate(targets, sampling=s, max_length=30) for s in (Sampling(beams=1), GREEDY))
    assert torch.equal(one, greedy)


def test_memory_is_that_of_the_texts_not_of_their_square(t5):
    """The cache of a beam search: as many texts as beams, and of the encoder one copy a row."""
    x, mask = inputs(2)
    narrow, wide = (Decoder(t5, x, mask, n, LONGEST) for n in (2, 8))
    assert wide.cache[0].numel() == 4 * narrow.cache[0].numel()
    assert wide.cross[0][0].numel() == narrow.cross[0][0].numel()


def test_hypotheses_of_any_length_in_any_order(parity_dir):
    """Batches are made of hypotheses of like length; what is written and its order do not depend on it."""
    folder = parity_dir / "vec2text" / "jxm"
    model = vec2text.load_pair(folder / "gtr__nq__32", folder / "gtr__nq__32__correct", CPU, None).model()
    vectors = np.random.default_rng(0).normal(size=(7, 768)).astype(np.float32)
    texts = ["Bob.", "Alice repairs the broken car in Zurich.", "", "Judy reads", "a " * 60, "the loud car", "Erin"]
    together = model.correct(vectors, texts, vectors[::-1], 2, Sampling(beams=2))
    for i, text in enumerate(texts):
        [alone] = model.correct(vectors[i : i + 1], [text], vectors[::-1][i : i + 1], 2, Sampling(beams=2))
        assert [hypothesis.text for hypothesis in together[i]] == [hypothesis.text for hypothesis in alone]
    assert model.correct(vectors[:0], [], vectors[:0]) == [] == model.hypothesize(vectors[:0])


def test_half_precision_writes_texts_of_its_own(t5):
    x, mask = inputs(4)
    half = small_t5().to(torch.bfloat16)
    ids, found = write(half, x.bfloat16(), mask, 1, GREEDY, LONGEST)
    assert ids.shape[0] == 4 and found.dtype == torch.float32 and bool(found.isfinite().all())
