"""The guide: a bag of words that helps a network write, from its fit to what it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unembed.checkpoints import load_model, native
from unembed.errors import CheckpointError, InputError, StorageError
from unembed.export.onnx import export
from unembed.models.base import GREEDY, Sampling
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native import guide as guides
from unembed.models.native.generation import generate
from unembed.models.native.guide import HIGHEST, LOWEST, SPECIAL, STRENGTH, Guide, along, guided, unwritten
from unembed.models.native.network import IGNORED, text_and_labels
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID, TextTokenizer
from unembed.models.onnx_runtime import OnnxModel
from unembed.training import guide as fitting
from unembed.training.collected import collected
from unembed.training.config import ModelConfig, SourceConfig, SpanConfig, TrainConfig
from unembed.training.loop import train

CPU, F32 = torch.device("cpu"), torch.float32
DIM, VOCAB = 384, 400


@pytest.fixture(scope="module")
def tokenizer(texts):
    return TextTokenizer.train(texts, VOCAB)


class Texts:
    """A source of the same texts in every chunk, and how often one was asked for."""

    def __init__(self, texts, embedder):
        self.texts, self.vectors, self.asked = texts, embedder.encode(texts), 0

    def chunk(self, number):
        self.asked += 1
        return self.texts, self.vectors


@pytest.fixture(scope="module")
def fitted(texts, tokenizer, minilm, tmp_path_factory):
    """A guide that has seen 200 lines twenty times."""
    source, folder = Texts(texts, minilm), tmp_path_factory.mktemp("spans")
    with collected(source, tokenizer, 20 * len(texts), folder) as (vectors, rows):
        return fitting.fit_guide(vectors, rows, tokenizer.vocab_size, 0, CPU)


@pytest.fixture(scope="module")
def model(minilm, tokenizer, fitted):
    """A small network with random weights, guided."""
    torch.manual_seed(0)
    net = NativeNetwork(NativeConfig(DIM, tokenizer.vocab_size, 32, 1, 2, 3, 2, 12))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made = NativeModel(net.eval().requires_grad_(False), tokenizer, minilm.spec)
    made.guide = fitted
    return made


# --- what it says ---


def test_it_raises_the_tokens_of_the_text(fitted, texts, tokenizer, minilm):
    lift = fitted.lift(torch.from_numpy(minilm.encode(texts[:50])))
    assert lift.shape == (50, tokenizer.vocab_size)
    inside = np.array([lift[i, row].mean() for i, row in enumerate(tokenizer.encode(texts[:50]))])
    assert (inside > lift.mean(dim=1).numpy()).all() and inside.mean() > 0.2
    assert lift.min() >= STRENGTH * LOWEST and lift.max() <= STRENGTH * HIGHEST
    assert not lift[:, :SPECIAL].any()
    assert not fitted.lift(torch.zeros(2, DIM)).any(), "the prior has no vector, and no guide"


def test_the_end_of_a_text_is_left_to_the_network():
    logprobs = torch.randn(3, 7).log_softmax(-1)
    lift = torch.randn(3, 7)
    found = guided(logprobs, lift)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3))
    torch.testing.assert_close(found[:, EOS_ID], logprobs[:, EOS_ID])
    torch.testing.assert_close(guided(logprobs, torch.zeros(3, 7)), logprobs)
    odds = (found - logprobs - lift)[:, [t for t in range(7) if t != EOS_ID]]
    torch.testing.assert_close(odds, odds[:, :1].expand(3, 6))
    sure = torch.full((1, 7), -90.0)
    sure[0, EOS_ID] = 0
    assert guided(sure, lift[:1]).argmax() == EOS_ID and not guided(sure, lift[:1]).isnan().any()


def test_a_token_that_stands_there_is_not_raised_again():
    lift = torch.arange(1.0, 9.0).view(1, 8)
    text = torch.tensor([[BOS_ID, 5, 3]])
    step = unwritten(lift, text[:, 0])
    for place in range(3):
        assert torch.equal(along(lift, text)[:, place], step)
        if place < 2:
            step = unwritten(step, text[:, place + 1])


# --- what it changes ---


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.8, 20, 0.9), Sampling(beams=3)])
def test_texts_read_at_once_score_as_they_were_written_token_by_token(model, minilm, texts, sampling):
    targets = torch.from_numpy(minilm.encode(texts[:6]))
    lift = model.lift(targets)
    written = [row[0] for row in generate(model.net, targets, sampling=sampling, max_tokens=12, lift=lift)]
    text, labels = text_and_labels([one.ids for one in written])
    logits = model.net(targets, text)
    logits[:, :, [PAD_ID, BOS_ID]] = -torch.inf  # never written
    found = guided(logits.log_softmax(dim=-1), along(lift, text))
    chosen = found.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0].masked_fill(labels == IGNORED, 0)
    torch.testing.assert_close(chosen.sum(dim=1), torch.tensor([one.logprob for one in written]), atol=1e-3, rtol=0)


def test_it_is_there_wherever_a_vector_is(model, minilm, texts, monkeypatch):
    vectors, drafts = minilm.encode(texts[:4]), texts[4:8]
    again = minilm.encode(drafts)

    def all_ways():
        return (
            [row[0].text for row in model.hypothesize(vectors)],
            [row[0].text for row in model.correct(vectors, drafts, again)],
            model.vary(vectors, drafts, again, 4),
            model.score(drafts, vectors).tolist(),
        )

    guided, prior = all_ways(), model.score(drafts)
    monkeypatch.setattr(model, "guide", None)
    assert all(a != b for a, b in zip(guided, all_ways(), strict=True))
    np.testing.assert_array_equal(model.score(drafts), prior)


def test_words_come_back_that_the_network_passes_over(minilm, monkeypatch):
    model = load_model("all-MiniLM-L6-v2", CPU)
    # Not the letters: the network was trained on many such, and is helped less there.
    sentences = Path(__file__).parent.parent / "examples" / "sentences.txt"
    vectors = minilm.encode(sentences.read_text(encoding="utf-8").splitlines())

    def cosine():
        found = minilm.encode([row[0].text or "." for row in model.hypothesize(vectors)])
        return float((found * vectors).sum(axis=1).mean())

    with_guide = cosine()
    monkeypatch.setattr(guides, "STRENGTH", 0.0)
    assert with_guide > cosine() + 0.02


def test_an_export_is_guided_alike(model, minilm, texts, tmp_path):
    export(model, tmp_path / "model")
    runner, vectors = OnnxModel.load(tmp_path / "model", threads=1), minilm.encode(texts[:4])
    ours, theirs = runner.hypothesize(vectors), model.hypothesize(vectors)
    assert [row[0].text for row in ours] == [row[0].text for row in theirs]
    np.testing.assert_allclose([row[0].logprob for row in ours], [row[0].logprob for row in theirs], atol=1e-2)


# --- its files ---


@pytest.mark.parametrize("int8", [False, True])
def test_it_is_saved_with_the_model(model, tmp_path, int8, minilm, texts, checked):
    native.save(model, tmp_path / "guided", int8=int8)
    bare = NativeModel(model.net, model.tokenizer, model.spec)
    native.save(bare, tmp_path / "bare", int8=int8)
    loaded, unguided = load_model(tmp_path / "guided", CPU, F32), load_model(tmp_path / "bare", CPU, F32)
    assert loaded.digest != unguided.digest and unguided.guide is None
    targets = torch.from_numpy(minilm.encode(texts[:3]))
    torch.testing.assert_close(loaded.guide.lift(targets), model.guide.lift(targets), atol=0.05 if int8 else 0, rtol=0)
    checked(tmp_path / "guided" / "guide.safetensors")


def test_a_guide_of_other_sizes_is_refused(model, tmp_path):
    other = NativeModel(model.net, model.tokenizer, model.spec)
    other.guide = Guide(DIM, 8, model.tokenizer.vocab_size + 1)
    native.save(other, tmp_path / "model")
    with pytest.raises(CheckpointError, match="guide.safetensors does not fit its config"):
        load_model(tmp_path / "model", CPU)


# --- its fit ---


@pytest.fixture
def recipe(texts, tokenizer, tmp_path, minilm, monkeypatch):
    monkeypatch.setattr("unembed.training.loop.embedder", lambda name, **options: minilm)
    (tmp_path / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    tokenizer.save(tmp_path / "tokenizer.json")
    sizes = ModelConfig(d_model=32, n_layers=1, n_heads=2, target_tokens=3, feedback_tokens=2, max_tokens=24)
    base = TrainConfig(
        str(tmp_path / "run"), corpora=[SourceConfig(str(tmp_path / "corpus.txt"))], model=sizes,
        tokenizer=str(tmp_path / "tokenizer.json"), spans=SpanConfig(max_words=8, lengths=[12, 24]), max_steps=2,
        batch_tokens=96, chunk=32, tracker="none", device="cpu", compile=False,
    )  # fmt: skip
    return lambda name="run", **changed: replace(base, output=str(tmp_path / name), **changed)


def test_training_ends_with_a_guide_and_fine_tuning_keeps_it(recipe):
    first = train(recipe("first", guide_spans=64))
    folder = Path(recipe("first").output)
    assert first.guide and not list(folder.glob("spans-*")), "the vectors are not kept once it is there"
    assert first.lexicon and "The" in first.lexicon.words, "the same spans give a lexicon"
    written = (folder / "model" / "guide.safetensors").stat().st_mtime_ns
    again = train(recipe("first", guide_spans=64))
    assert (folder / "model" / "guide.safetensors").stat().st_mtime_ns == written
    assert torch.equal(again.guide.out.weight, first.guide.out.weight)
    start = str(folder / "model")
    tuned = train(recipe("tuned", init_from=start))
    assert torch.equal(tuned.guide.out.weight, first.guide.out.weight)
    assert np.array_equal(tuned.lexicon.directions, first.lexicon.directions)
    alone = train(recipe("alone", init_from=start, guide_spans=96, max_steps=0, seed=3))
    assert torch.equal(alone.net.embed.weight, first.net.embed.weight), "a guide alone leaves the network as it is"
    assert not torch.equal(alone.guide.out.weight, first.guide.out.weight)
    with pytest.raises(InputError, match="or 0 to fit a guide"):
        train(recipe("none", max_steps=0, guide_spans=8))


def test_a_stopped_fit_does_not_embed_again(texts, tokenizer, minilm, tmp_path):
    source = Texts(texts[:50], minilm)

    with pytest.raises(KeyboardInterrupt), collected(source, tokenizer, 150, tmp_path):
        raise KeyboardInterrupt
    assert source.asked == 3 == len(list(tmp_path.glob("spans-*.npz")))
    with collected(source, tokenizer, 150, tmp_path) as (vectors, rows):
        assert len(vectors) == len(rows) == 150
    assert source.asked == 3 and not list(tmp_path.iterdir())


def test_a_full_disk_is_said_in_one_line(texts, tokenizer, minilm, tmp_path, monkeypatch):
    def full(path, **arrays):
        Path(path).write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    source = Texts(texts[:50], minilm)
    with pytest.raises(StorageError, match="No space left on device"), collected(source, tokenizer, 50, tmp_path):
        pass
    assert not list(tmp_path.iterdir())
