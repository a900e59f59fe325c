"""The causal-LM family: the vector in front of any causal language model, its writing, its prior, and its folder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unembed.checkpoints import load_model, prefix
from unembed.checkpoints.card import describe
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError, InputError, StorageError
from unembed.models.base import GREEDY, IGNORED, Sampling
from unembed.models.prefix_decoder import Decoder, PrefixConfig, PrefixDecoderModel, PrefixNetwork
from unembed.training.causal.prepare import train_tokenizer

CPU = torch.device("cpu")
E, LONGEST = 24, 10
TEXTS = ["Привет, мир!", "", "hello world", "мир"]
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    # A window shorter than the texts: what is padded must not take up room in it.
    "mistral": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 2, "sliding_window": 5},
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter(["Привет, мир! hello world"] * 5), 280, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def make(tokenizer):
    def build(kind="gpt2", tokens=0, **options):
        torch.manual_seed(0)
        sizes = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **KINDS[kind])
        lm = transformers.AutoModelForCausalLM.from_config(sizes)
        with torch.no_grad():  # some texts end
            lm.get_output_embeddings().weight.mul_(8)
        wiring = PrefixConfig(E, tokens, 40 if tokens else 0, **{"corrector": True, "prior": True, **options})
        net = PrefixNetwork(lm, wiring).eval().requires_grad_(False)
        return PrefixDecoderModel(net, tokenizer, EmbedderSpec("toy", E), max_tokens=LONGEST)

    return build


@pytest.fixture(scope="module")
def model(make):
    return make()


@pytest.fixture(scope="module")
def saved(make, tmp_path_factory):
    """A folder with projected vectors."""
    folder = tmp_path_factory.mktemp("models") / "model"
    model = make(tokens=3)
    prefix.save(model.net, folder, tokenizer=model.tokenizer, spec=model.spec, max_tokens=LONGEST)
    return folder


def vectors(rows, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, E)).astype(np.float32)


def uncached(net, targets, hypothesis_ids, hypothesis_vectors, eos):
    """Greedy ids by reading all anew at each step, one row at a time, and log p of each."""
    out = []
    for i in range(len(targets)):
        condition = [targets[i : i + 1]]
        if hypothesis_ids is not None:
            row = hypothesis_ids[i]
            condition += [row[row != IGNORED][None], hypothesis_vectors[i : i + 1]]
        ids, total = [], 0.0
        for _ in range(LONGEST):
            logits = net(condition[0], torch.tensor([[*ids, eos]]), *condition[1:]).logits[0, -1]
            total += float(logits.log_softmax(-1).max())
            if int(logits.argmax()) == eos:
                break
            ids.append(int(logits.argmax()))
        else:
            logits = net(condition[0], torch.tensor([[*ids, eos]]), *condition[1:]).logits[0, -1]
            total += float(logits.log_softmax(-1)[eos])
        out.append((ids, total))
    return out


@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_ids_are_the_uncached_ones(make, kind, tokens):
    """Hypotheses of different lengths in one batch among them: what is padded changes nothing."""
    model = make(kind, tokens)
    targets, others = (torch.from_numpy(vectors(4, seed)) for seed in (1, 2))
    ids = model.pad(model.tokens(TEXTS))
    for condition in ((None, None), (ids, others)):
        written = model.net.generate(targets, *condition, max_tokens=LONGEST, eos=model.eos)
        expected = uncached(model.net, targets, *condition, model.eos)
        assert [text.ids for [text] in written] == [row for row, _ in expected]
        assert [text.logprob for [text] in written] == pytest.approx([total for _, total in expected], abs=1e-3)


def test_samples_are_seeded_and_filtered_by_temperature_then_top_k_then_top_p(model):
    targets = torch.from_numpy(vectors(3))

    def draw(seed, **options):
        sampling = Sampling(**{"temperature": 1.5, "top_k": 50, "top_p": 0.85, **options})
        return model.net.generate(targets, n=4, sampling=sampling, max_tokens=LONGEST, eos=model.eos, seed=seed)

    assert draw(1) == draw(1) != draw(2)
    assert len({tuple(text.ids) for text in draw(1)[0]}) == 4
    greedy = model.net.generate(targets, max_tokens=LONGEST, eos=model.eos)
    assert all(text.ids == row[0].ids for row, drawn in zip(greedy, draw(1, top_k=1), strict=True) for text in drawn)
    # Each token is among those that transformers' own filters leave, in the same order of filters.
    filters = transformers.TemperatureLogitsWarper(1.5), transformers.TopKLogitsWarper(50)
    own = transformers.LogitsProcessorList([*filters, transformers.TopPLogitsWarper(0.85)])
    for row, drawn in enumerate(draw(3)):
        for text in drawn:
            labels = torch.tensor([[*text.ids, model.eos]])
            left = own(None, model.net(targets[row : row + 1], labels).logits[0])
            kept = left.isfinite().gather(1, labels.T)
            assert kept[: len(text.ids)].all() and not left.isfinite().all()


def test_log_probabilities_are_those_of_the_texts(model):
    """Of samples and beams, as `score` gives them; texts that were cut off are counted with their end as well."""
    targets = vectors(3)
    for sampling in (Sampling(1.2, 40, 0.9), Sampling(beams=5), GREEDY):
        rows = model.net.generate(
            torch.from_numpy(targets), n=3, sampling=sampling, max_tokens=LONGEST, eos=model.eos, seed=4
        )
        for target, row in zip(targets, rows, strict=True):
            labels = model.pad([text.ids for text in row])
            logits = model.net(torch.from_numpy(target).expand(3, -1), labels).logits.log_softmax(-1)
            chosen = logits.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0].masked_fill(labels == IGNORED, 0)
            assert [text.logprob for text in row] == pytest.approx(chosen.sum(1).tolist(), abs=1e-3)
    best = model.hypothesize(targets, 3)
    assert all(len({text.text for text in row}) > 1 for row in best), "of several greedy texts, the likeliest"
    assert all(row == sorted(row, key=lambda text: -text.logprob) for row in best)


def test_the_vector_is_what_counts_and_the_prior_does_without(model):
    scores = model.score(TEXTS * 2, np.concatenate([vectors(4, 1), vectors(4, 2)]))
    assert not np.allclose(scores[:4], scores[4:], atol=1e-3)
    assert np.array_equal(model.score(TEXTS), model.score(TEXTS, np.zeros((4, E), dtype=np.float32)))
    assert model.sample_prior(2, Sampling())[0].text
    assert model.hypothesize(vectors(0)) == [] == model.correct(vectors(0), [], vectors(0))


def test_without_prior_or_corrector(make):
    plain = make(corrector=False, prior=False)
    assert plain.correct(vectors(2), ["a", "b"], vectors(2)) == [[], []] and not plain.has_prior
    with pytest.raises(InputError, match="prior_weight"):
        plain.score(TEXTS)


def test_texts_are_cut_by_tokens_and_their_special_tokens_are_text(model):
    assert model.cut("hello world", len(model.tokens(["hello"])[0])) == "hello" and model.cut("hello", 99) is None
    [ids] = model.tokens(["<eos>"])
    assert model.eos not in ids and model.decode([ids]) == ["<eos>"]


def test_zero_padding_is_vector2texts_wiring(model):
    """inputs_embeds = [v ++ zeros; token embeddings], labels shifted by the language model itself."""
    v, net = torch.from_numpy(vectors(1)), model.net
    labels = model.pad(model.tokens(["Привет"]))
    x = torch.cat([torch.nn.functional.pad(v, (0, 32 - E))[:, None], net.lm.transformer.wte(labels)], dim=1)
    theirs = net.lm(inputs_embeds=x, labels=torch.cat([torch.tensor([[IGNORED]]), labels], dim=1))
    assert net(v, labels).loss.item() == pytest.approx(theirs.loss.item(), abs=1e-6)


def test_rows_that_have_ended_leave_the_batch(model, monkeypatch):
    sizes, step = [], Decoder.next

    def ending(self, tokens):
        out = step(self, tokens)
        sizes.append(len(out))
        out[:, model.eos] += 4  # a sixth of the texts or so ends at each step
        return out

    monkeypatch.setattr(Decoder, "next", ending)
    targets = torch.from_numpy(vectors(30))
    written = model.net.generate(targets, sampling=Sampling(2.0), max_tokens=30, eos=model.eos, seed=1)
    assert sizes[0] == 30 > sizes[-1] and sizes == sorted(sizes, reverse=True)
    assert len({len(row[0].ids) for row in written}) > 3


# --- the folder ---


def test_a_folder_gives_the_same_model_back(saved, make, tokenizer):
    loaded, model = load_model(saved, CPU), make(tokens=3)
    assert loaded.spec == model.spec and loaded.max_tokens == LONGEST and loaded.digest and loaded.has_prior
    condition = vectors(4), TEXTS, vectors(4, 1)
    for found, own in zip(loaded.correct(*condition, 2), model.correct(*condition, 2), strict=True):
        assert [text.text for text in found] == [text.text for text in own]
        assert [text.logprob for text in found] == pytest.approx([text.logprob for text in own], abs=1e-4)
    # The language model alone is any transformers program's to load.
    plain = transformers.AutoModelForCausalLM.from_pretrained(saved)
    assert torch.equal(plain.transformer.h[1].mlp.c_fc.weight, model.net.lm.transformer.h[1].mlp.c_fc.weight)
    facts = describe(saved)
    assert facts["language model"] == "gpt2" and "corrector" in facts["model"] and "3 projected" in facts["vector"]
    assert load_model(saved, CPU, torch.bfloat16).hypothesize(vectors(2))[0][0].text is not None


def changed(saved, tmp_path, change):
    folder = tmp_path / "broken"
    shutil.copytree(saved, folder)
    change(folder)
    return folder


def tensors(name, change):
    def apply(folder):
        state = load_file(folder / name)
        change(state)
        save_file(state, folder / name, metadata={"format": "pt"})

    return apply


def fields(**values):
    def apply(folder):
        config = json.loads((folder / "config.json").read_text())
        config.update(values)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def settings(**values):
    return lambda folder: (folder / "tokenizer_config.json").write_text(json.dumps(values))


def wiring(**values):
    def apply(folder):
        fields(prefix={**json.loads((folder / "config.json").read_text())["prefix"], **values})(folder)

    return apply


WEIGHTS, MATRIX = "model.safetensors", "transformer.h.0.mlp.c_fc.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tensors(WEIGHTS, lambda state: state.pop(MATRIX)), f"lacks the tensor {MATRIX}"),
        (tensors(WEIGHTS, lambda state: state.update(more=torch.zeros(1))), "holds a tensor more"),
        (tensors(WEIGHTS, lambda state: state.update({MATRIX: torch.zeros(3)})), r"has shape \(3,\), not \(32, 128\)"),
        (tensors(prefix.PROJECTOR, lambda state: state.pop("target.0.bias")), "lacks the tensor target.0.bias"),
        (tensors(prefix.PROJECTOR, lambda state: state.update({"target.0.bias": torch.zeros(3)})), "target.0.bias has"),
        (lambda folder: (folder / prefix.PROJECTOR).unlink(), "projector.safetensors is missing"),
        (lambda folder: (folder / prefix.PROJECTOR).write_bytes(b"{"), "projector.safetensors cannot be read"),
        (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"{" * 99), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json is damaged"),
        (settings(tokenizer_class="PreTrainedTokenizerFast"), "names no eos_token"),
        (settings(tokenizer_class="PreTrainedTokenizerFast", eos_token="<end>"), "its tokenizer has 281 tokens"),
        (fields(model_type="gpt77"), r"does not know \(gpt77\)"),
        (fields(prefix=None), "config.json is damaged"),
        (wiring(hidden_size=3), "config.json is damaged"),
        (fields(embedder_spec={"id": "toy", "dim": 25}), "25 numbers and of 24"),
    ],
)
def test_broken_folders_are_named(saved, tmp_path, change, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        load_model(changed(saved, tmp_path, change), CPU)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_what_was_there(saved, tmp_path, make, monkeypatch):
    model = make()
    given = {"tokenizer": model.tokenizer, "spec": model.spec, "max_tokens": LONGEST}
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr(prefix, "write_tokenizer", full)
        prefix.save(model.net, folder, **given)
    assert before == sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    prefix.save(model.net, folder, **given)
    assert not (folder / prefix.PROJECTOR).exists() and load_model(folder, CPU).hypothesize(vectors(1))
    # A language model that lies there is not taken for one of ours.
    model.net.lm.save_pretrained(tmp_path / "gpt2")
    with pytest.raises(StorageError, match="choose another folder"):
        prefix.save(model.net, tmp_path / "gpt2", **given)


# --- what cannot be ---


def test_what_does_not_fit_is_refused(make, model):
    lm = model.net.lm
    with pytest.raises(InputError, match="prefix_tokens"):
        PrefixNetwork(lm, PrefixConfig(33))
    assert PrefixNetwork(lm, PrefixConfig(33, 2, 32)).prefix(torch.zeros(1, 33))[0].shape == (1, 2, 32)
    for wrong in (E - 1, E + 1):
        with pytest.raises(InputError, match=f"vectors of {wrong} numbers"):
            model.hypothesize(np.zeros((1, wrong), dtype=np.float32))
    with pytest.raises(InputError, match="looks ahead"):
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        bert = transformers.BertLMHeadModel(transformers.BertConfig(vocab_size=60, **sizes))
        PrefixNetwork(bert, PrefixConfig(E))
    with pytest.raises(InputError, match="past_key_values"):
        sizes = {"hidden_size": 32, "num_hidden_layers": 1}
        PrefixNetwork(transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=60, **sizes)), PrefixConfig(E))
