"""The lexicon: which words a text lacks, from its fit to its file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unembed.checkpoints import load_model, native
from unembed.errors import CheckpointError
from unembed.inverter import load
from unembed.models.lexicon import Lexicon
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training import lexicon as fitting
from unembed.training.lexicon import fit_lexicon

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer(texts):
    return TextTokenizer.train(texts, 400)


def rows(tokenizer, texts):
    return [np.array(ids) for ids in tokenizer.encode(texts)]


@pytest.fixture(scope="module")
def frames(minilm):
    """Short sentences of few words in all combinations, and their vectors."""
    texts = [
        f"{who} {does} the {what}."
        for who in ("Anna", "the doctor", "a soldier", "my neighbour")
        for does in ("sold", "painted", "broke", "lost")
        for what in ("piano", "bridge", "letter", "red car")
    ]
    return texts, minilm.encode(texts)


@pytest.fixture(scope="module")
def fitted(frames, tokenizer):
    texts, vectors = frames
    return fit_lexicon(vectors.astype(np.float16), rows(tokenizer, texts), tokenizer)


def test_it_knows_the_word_that_a_text_lacks(fitted, frames):
    texts, vectors = frames
    places = {text: row for row, text in enumerate(texts)}
    asked = 0
    for text in texts:
        other = text.replace("piano", "bridge")
        if other == text:
            continue
        wanted = fitted.wanted(vectors[places[text]] - vectors[places[other]])
        piano, bridge = fitted.words.index("piano"), fitted.words.index("bridge")
        assert wanted.argmax() == piano and wanted.argmin() == bridge
        asked += 1
    assert asked == 16


def test_words_keep_their_usual_case_and_marks_count(fitted):
    assert "Anna" in fitted.words and "." in fitted.words and "doctor" in fitted.words
    assert len({word.lower() for word in fitted.words}) == len(fitted.words)
    assert fitted.directions.shape == (len(fitted.words), 384) and np.isfinite(fitted.directions).all()


def test_the_sums_of_parts_are_those_of_all(frames, tokenizer, fitted, monkeypatch):
    texts, vectors = frames
    monkeypatch.setattr(fitting, "PART", 7)
    parts = fit_lexicon(vectors.astype(np.float16), rows(tokenizer, texts), tokenizer)
    assert parts.words == fitted.words
    np.testing.assert_allclose(parts.directions, fitted.directions, atol=1e-3 * np.abs(fitted.directions).max())


def test_long_texts_and_rare_words_teach_nothing(frames, tokenizer, minilm):
    texts, _ = frames
    more = [*texts, *["zebra in a text " + "that goes on and on " * 8] * 9, *["one quagga came"] * (fitting.FEWEST - 1)]
    found = fit_lexicon(minilm.encode(more), rows(tokenizer, more), tokenizer)
    assert "zebra" not in found.words and "quagga" not in found.words and "piano" in found.words
    few = ["every word here", "stands alone once"]
    assert fit_lexicon(minilm.encode(few), rows(tokenizer, few), tokenizer) is None


@pytest.mark.parametrize("int8", [False, True])
def test_it_is_saved_with_the_model(fitted, tokenizer, minilm, tmp_path, int8, checked):
    torch.manual_seed(0)
    net = NativeNetwork(NativeConfig(384, tokenizer.vocab_size, 32, 1, 2, 3, 2, 12))
    model = NativeModel(net.eval(), tokenizer, minilm.spec)
    native.save(model, tmp_path / "bare", int8=int8)
    # More words than the fixture has, as only larger matrices are stored as int8.
    model.lexicon = Lexicon([*fitted.words, *(f"word{i}" for i in range(80))], np.concatenate(
        [fitted.directions, np.random.default_rng(0).normal(size=(80, 384)).astype(np.float32)]
    ))  # fmt: skip
    native.save(model, tmp_path / "model", int8=int8)
    loaded, bare = load_model(tmp_path / "model", CPU), load_model(tmp_path / "bare", CPU)
    assert loaded.lexicon.words == model.lexicon.words and bare.lexicon is None and loaded.digest != bare.digest
    scale = np.abs(model.lexicon.directions).max()
    np.testing.assert_allclose(loaded.lexicon.directions, model.lexicon.directions, atol=scale / 100 if int8 else 0)
    checked(tmp_path / "model" / "lexicon.safetensors")


def test_a_lexicon_of_other_vectors_is_refused(tokenizer, minilm, tmp_path):
    net = NativeNetwork(NativeConfig(384, tokenizer.vocab_size, 32, 1, 2, 3, 2, 12))
    model = NativeModel(net.eval(), tokenizer, minilm.spec)
    model.lexicon = Lexicon(["one", "two"], np.ones((2, 16), dtype=np.float32))
    native.save(model, tmp_path / "model")
    with pytest.raises(CheckpointError, match="lexicon.safetensors does not fit its config"):
        load_model(tmp_path / "model", CPU)


def test_the_shipped_one_finds_words_of_a_real_text(minilm):
    lexicon = load("all-MiniLM-L6-v2").model.lexicon
    pairs = [
        ("The Normans thereafter", "The Normans subsequently", "thereafter"),
        ("The committee met in the old library.", "The committee met in the old museum.", "library"),
        ("She plays the violin in an orchestra.", "She plays in an orchestra.", "violin"),
        ("Prices rose by seven percent.", "Prices rose by nine percent.", "seven"),
    ]
    for truth, text, word in pairs:
        vectors = minilm.encode([truth, text])
        row = [known.lower() for known in lexicon.words].index(word)
        wanted = lexicon.wanted(vectors[0] - vectors[1])
        assert (wanted > wanted[row]).sum() < 8, word
