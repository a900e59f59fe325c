"""The corrector: the texts that it learns from, the pointer that copies, its training and its file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from test_native import conditions, full_logprobs, tiny, unit
from test_training import Stop, stop_at
from unembed.checkpoints import load_model, native
from unembed.errors import InputError
from unembed.metrics import token_f1
from unembed.models.base import GREEDY
from unembed.models.lexicon import Lexicon
from unembed.models.native import NativeModel, NativeNetwork
from unembed.models.native.generation import Decoder
from unembed.models.native.network import SHARED
from unembed.models.native.tokenizer import BOS_ID, PAD_ID, TextTokenizer
from unembed.models.wording import LACKING, behind
from unembed.scripts import pieces
from unembed.training.config import ModelConfig, ObjectiveConfig, SourceConfig, SpanConfig, TrainConfig
from unembed.training.corruption import Corruption
from unembed.training.loop import Trainer, train

CPU, F32 = torch.device("cpu"), torch.float32


# --- texts made wrong ---


@pytest.fixture(scope="module")
def corruption(inverter, texts):
    return Corruption(inverter.model.lexicon, inverter.embedder.encode(texts).mean(axis=0))


def test_drafts_have_most_of_the_words_and_few_are_whole(corruption, inverter, texts):
    drafts = corruption.drafts(texts, inverter.embedder.encode(texts), np.random.default_rng(0))
    shared = [token_f1(text, draft) for text, draft in zip(texts, drafts, strict=True)]
    assert 0.6 < np.mean(shared) < 0.9 and min(shared) < 0.4
    assert np.mean([text == draft for text, draft in zip(texts, drafts, strict=True)]) < 0.1
    assert drafts == corruption.drafts(texts, inverter.embedder.encode(texts), np.random.default_rng(0))
    assert drafts != corruption.drafts(texts, inverter.embedder.encode(texts), np.random.default_rng(1))


def test_the_words_brought_in_are_such_as_the_vector_seems_to_ask_for(corruption, inverter, texts):
    vectors = inverter.embedder.encode(texts)
    drafts = corruption.drafts(texts, vectors, np.random.default_rng(0))
    lexicon, asked, chance = inverter.model.lexicon, [], []
    places = {word.lower(): row for row, word in enumerate(lexicon.words)}
    for text, draft, vector in zip(texts, drafts, vectors, strict=True):
        wanted = lexicon.wanted(vector - corruption.mean)
        new = Counter(part.strip() for part in pieces(draft)) - Counter(part.strip() for part in pieces(text))
        asked += [wanted[places[word.lower()]] for word in new if word.lower() in places]
        chance.append(wanted.mean())
    assert len(asked) > 200 and np.mean(asked) > np.mean(chance) + 0.5 * np.std(asked)


@pytest.mark.parametrize("text", ["a", ".", "漢字", "שלום עולם", "two words", "🙂"])
def test_whatever_the_text_a_draft_is_not_empty(corruption, inverter, text):
    vector = inverter.embedder.encode([text])
    rng = np.random.default_rng(0)
    assert all(corruption.drafts([text], vector, rng)[0].strip() for _ in range(50))


def test_words_that_are_lacking_are_named_behind_a_hypothesis(inverter):
    text, draft = "The patient was given prednisone.", "The patient was given."
    target, vector = inverter.embedder.encode([text, draft])
    [words] = inverter.model.lexicon.lacking([draft], (target - vector)[None], LACKING)
    assert len(words) == LACKING and "prednisone" in words and not {"patient", "given"} & set(words)
    assert behind([["a", "b"], []]) == ["\n a b", "\n "]


def test_a_small_lexicon_names_what_it_has():
    lexicon = Lexicon(["cat", "dog"], np.eye(2, dtype=np.float32))
    assert lexicon.lacking(["a cat", "x"], np.ones((2, 2)), 12) == [["dog"], ["cat", "dog"]]


# --- the pointer ---


@pytest.mark.parametrize("kind", ["none", "hypothesis", "padded"])
def test_each_cached_step_equals_the_full_forward(kind):
    net, rows = tiny(pointer=True), 4
    targets, ids, vectors, plain = conditions(kind, rows)
    if kind == "padded":  # one of them without any token: there is nothing to point at
        plain[0], ids[0, 0] = [3], 3
    decoder = Decoder(net, targets, ids, vectors, 6, F32)
    text = torch.randint(3, 12, (rows, 5), generator=torch.Generator().manual_seed(0))
    for step in range(5):
        found = decoder.next(None if step == 0 else text[:, step - 1])
        for row in range(rows):
            vector = None if vectors is None else vectors[row]
            whole = full_logprobs(net, targets[row], text[row, :step].tolist(), plain[row], vector)
            torch.testing.assert_close(found[row], whole[-1], atol=2e-4, rtol=1e-4)


def test_what_is_pointed_at_adds_to_the_chance_of_its_token_alone():
    net = tiny(pointer=True)
    targets, vectors, text = unit(2, 1), unit(2, 2), torch.tensor([[BOS_ID, 5]] * 2)
    ids = torch.tensor([[4, 7, PAD_ID], [9, 9, 9]])
    found = net(targets, text, ids, vectors)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 2))
    with torch.no_grad():
        net.pointer.often.fill_(-40.0)
        net.pointer.gate.zero_()
    change = (found.exp() - net(targets, text, ids, vectors).exp()).sign()
    for row, shown in enumerate([{4, 7}, {9}]):
        others = [token for token in range(12) if token not in shown]
        assert (change[row][:, others] <= 0).all() and (change[row][:, list(shown)].sum(-1) > 0).all()


def test_without_a_hypothesis_it_changes_nothing():
    net, plain = tiny(pointer=True), tiny()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("pointer")})
    text = torch.tensor([[BOS_ID, 5, 3]])
    torch.testing.assert_close(net(unit(1), text), plain(unit(1), text))


# --- training and files ---


@pytest.fixture(scope="module")
def start(texts, minilm, tmp_path_factory):
    """A small network with a guide and a lexicon, and how it was trained."""
    folder = tmp_path_factory.mktemp("corrector")
    (folder / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    TextTokenizer.train(texts, 400).save(folder / "tokenizer.json")
    sizes = ModelConfig(d_model=32, n_layers=1, n_heads=2, target_tokens=3, feedback_tokens=2, max_tokens=24)
    recipe = TrainConfig(
        str(folder / "first"), corpora=[SourceConfig(str(folder / "corpus.txt"))], model=sizes,
        tokenizer=str(folder / "tokenizer.json"), spans=SpanConfig(max_words=8, lengths=[12, 24]), max_steps=2,
        batch_tokens=192, chunk=64, tracker="none", device="cpu", guide_spans=256,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unembed.training.loop.embedder", lambda name, **options: minilm)
        train(recipe)
    return recipe


@pytest.fixture
def recipe(start, minilm, tmp_path, monkeypatch):
    monkeypatch.setattr("unembed.training.loop.embedder", lambda name, **options: minilm)
    init = str(Path(start.output) / "model")

    def made(name="run", **changed):
        base = replace(start, guide_spans=0, init_from=init, objective=ObjectiveConfig(corrector=True), max_steps=4)
        return replace(base, output=str(tmp_path / name), **changed)

    return made


def state(net: NativeNetwork):
    return {name: weight.clone() for name, weight in net.state_dict().items()}


def test_training_a_corrector_leaves_the_network_as_it_is(recipe, minilm, texts):
    made = train(recipe())
    before = load_model(recipe().init_from, CPU, F32)
    after = load_model(Path(recipe().output) / "model", CPU, F32)
    for name, weight in state(before.net).items():
        assert torch.equal(weight, after.net.state_dict()[name]) and torch.equal(weight, made.net.state_dict()[name])
    own = after.corrector.own_state()
    assert own and not any(name.split(".")[0] in SHARED for name in own)
    assert any(not torch.equal(weight, before.net.state_dict()[name]) for name, weight in own.items()
               if name in before.net.state_dict())  # fmt: skip
    assert after.corrector.embed is after.net.embed and after.digest != before.digest
    vectors, drafts = minilm.encode(texts[:3]), texts[3:6]
    again = minilm.encode(drafts)
    assert before.hypothesize(vectors) == after.hypothesize(vectors)
    assert before.correct(vectors, drafts, again) != after.correct(vectors, drafts, again)
    made.max_tokens = after.max_tokens
    made.net.eval(), made.corrector.eval()
    assert made.correct(vectors, drafts, again) == after.correct(vectors, drafts, again)


def test_a_run_that_was_stopped_comes_to_the_same_corrector(recipe, monkeypatch):
    whole = train(recipe("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_clock", lambda self, saved, began: (self.position.step == 2, False))
        stop_at(3)
        with pytest.raises(Stop):
            train(recipe("parts"))
    parts, again = train(recipe("parts")), train(recipe("whole"))
    for other in (parts, again):
        assert other.corrector.own_state().keys() == whole.corrector.own_state().keys()
        for name, weight in other.corrector.own_state().items():
            assert torch.equal(weight, whole.corrector.own_state()[name]), name


def test_a_corrector_needs_a_model_with_a_lexicon(recipe, tmp_path):
    with pytest.raises(InputError, match="needs init_from: a model with a lexicon"):
        train(recipe("none", init_from=None))
    model = load_model(recipe().init_from, CPU, F32)
    model.lexicon = None
    native.save(model, tmp_path / "bare")
    with pytest.raises(InputError, match="needs init_from: a model with a lexicon"):
        train(recipe("bare", init_from=str(tmp_path / "bare")))


@pytest.mark.parametrize("int8", [False, True])
def test_its_file_is_checked(recipe, tmp_path, int8, checked):
    model = train(recipe(max_steps=1))
    native.save(model, tmp_path / "model", int8=int8)
    loaded = load_model(tmp_path / "model", CPU, F32)
    for name, weight in model.corrector.own_state().items():
        torch.testing.assert_close(loaded.corrector.own_state()[name], weight, atol=0.05 if int8 else 0, rtol=0)
    checked(tmp_path / "model" / "corrector.safetensors")


def test_the_one_that_ships_mends_drafts(inverter, corruption):
    """Sentences that nothing was trained on: what is wrong with them becomes less, without a query."""
    path = Path(__file__).parent.parent / "examples" / "sentences.txt"
    sentences = path.read_text(encoding="utf-8").splitlines() * 4
    vectors = inverter.embedder.encode(sentences)
    drafts = corruption.drafts(sentences, vectors, np.random.default_rng(0))
    again = inverter.embedder.encode(drafts)
    mended = [row[0].text for row in inverter.model.correct(vectors, drafts, again, 1, GREEDY)]
    before, after = (
        np.mean([token_f1(a, b) for a, b in zip(sentences, texts, strict=True)]) for texts in (drafts, mended)
    )
    cosines = (vectors * inverter.embedder.encode(mended)).sum(axis=1)
    assert after > before and cosines.mean() > (vectors * again).sum(axis=1).mean()


def test_a_model_without_one_corrects_by_its_network(recipe, minilm, texts):
    model = load_model(recipe().init_from, CPU, F32)
    assert isinstance(model, NativeModel) and model.corrector is None
    vectors = minilm.encode(texts[:2])
    assert len(model.correct(vectors, texts[2:4], minilm.encode(texts[2:4]))) == 2
