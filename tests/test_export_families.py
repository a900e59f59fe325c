"""Export as ONNX of the causal-LM family and of DAVAE: onnxruntime writes what torch writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

import davae_fixtures
from unembed.checkpoints import load_model
from unembed.checkpoints.davae import load
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import InputError
from unembed.export.onnx import export
from unembed.export.pieces import tokenizer as converted
from unembed.models.davae.generation import Quirks
from unembed.models.onnx_runtime import OnnxModel
from unembed.models.prefix_decoder import PrefixConfig, PrefixDecoderModel, PrefixNetwork
from unembed.training.causal.prepare import train_tokenizer

CPU = torch.device("cpu")
E, LONGEST = 24, 8
TEXTS = ["Привет, мир!", "", "hello world", "мир " * 20]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
KINDS = {
    "gpt2": {"bos_token_id": 0, "eos_token_id": 0, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64},
    "llama": SIZES,
    "mistral": SIZES | {"num_key_value_heads": 1, "sliding_window": 5},  # shorter than the texts
    "mixtral": SIZES | {"num_key_value_heads": 1},
    "lfm2": SIZES | {"num_key_value_heads": 1, "layer_types": ["conv"]},
}
ODD = ["x  y\n z ", " ☃ zebra <unk> <s> <0x41>", "", "Ⅳ ﬁne ①２３", "a<n>b <n> 中 国 【c】"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter(["Привет, мир! hello world"] * 5), 280, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def build(kind, tokens=0, **wiring):
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, vocab_size=len(tokenizer), **KINDS[kind])
        lm = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # some texts end
            lm.get_output_embeddings().weight.mul_(8)
        net = PrefixNetwork(lm, PrefixConfig(E, tokens, 40 if tokens else 0, **wiring))
        net.eval().requires_grad_(False)
        return PrefixDecoderModel(net, tokenizer, EmbedderSpec("toy", E), max_tokens=LONGEST)

    return build


def vectors(rows, width=E, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def same(ours, theirs):
    """Whether both wrote the same texts, with the same log p."""
    assert [[h.text for h in row] for row in ours] == [[h.text for h in row] for row in theirs]
    found = [[h.logprob for row in rows for h in row] for rows in (ours, theirs)]
    np.testing.assert_allclose(*found, atol=2e-3)
    return True


@pytest.mark.parametrize(("kind", "tokens"), [("gpt2", 3), ("mistral", 0)])
def test_a_language_model_writes_and_corrects_the_same(make, kind, tokens, tmp_path):
    """Hypotheses of different lengths in a batch among them, and texts that end or fill their room."""
    model = make(kind, tokens, corrector=True, prior=True)
    export(model, tmp_path / "model")
    runner = OnnxModel.load(tmp_path / "model", threads=1)
    targets, others = vectors(16), vectors(4, seed=1)
    written = model.hypothesize(targets)
    assert same(runner.hypothesize(targets), written) and len({row[0].text for row in written}) > 4
    corrected = model.correct(targets[:4], TEXTS, others)
    assert same(runner.correct(targets[:4], TEXTS, others), corrected)
    assert corrected != model.correct(targets[:4], TEXTS[::-1], others)  # hypotheses are read
    assert same(runner.correct(targets[:1], [""], others[:1]), model.correct(targets[:1], [""], others[:1]))
    np.testing.assert_allclose(runner.score(TEXTS, others), model.score(TEXTS, others), atol=1e-3)
    np.testing.assert_allclose(runner.score(TEXTS), model.score(TEXTS), atol=1e-3)


def test_a_language_model_without_corrector_and_prior(make, tmp_path):
    model = make("llama")
    export(model, tmp_path / "model")
    runner = load_model(tmp_path / "model", CPU)
    assert same(runner.hypothesize(vectors(3)), model.hypothesize(vectors(3)))
    assert runner.correct(vectors(1), ["a"], vectors(1)) == [[]]
    with pytest.raises(InputError, match="no prior"):
        runner.score(TEXTS)


@pytest.mark.parametrize(
    ("kind", "message"), [("mixtral", "beyond ONNX: .*histc"), ("lfm2", "lfm2 remembers more than keys and values")]
)
def test_language_models_that_cannot_be_exported(make, kind, message, tmp_path, capfd):
    with pytest.raises(InputError, match=message) as raised:
        export(make(kind), tmp_path / "model")
    assert "\n" not in str(raised.value) and "graph(" not in "".join(capfd.readouterr())
    assert not list(tmp_path.iterdir())


def test_a_davae_with_a_map_writes_and_corrects_the_same(tmp_path):
    spec = EmbedderSpec("some/embedder", 10, fingerprint=None)
    model = load(davae_fixtures.folder(tmp_path / "parts", quirks=Quirks.none(), spec=spec), CPU)
    bytes_ = [i for i in range(model.vae.pieces.eos_id) if model.vae.pieces.pieces.is_byte(i)]
    with torch.inference_mode():  # bytes at random are no text
        model.vae.net.decoder.word_embeddings.weight[bytes_] = 0
    export(model, tmp_path / "onnx")
    runner = OnnxModel.load(tmp_path / "onnx", threads=1)
    targets, others = vectors(6, 10), vectors(6, 10, seed=1)
    written = model.hypothesize(targets)
    assert same(runner.hypothesize(targets), written) and len({row[0].text for row in written}) > 2
    texts = [*davae_fixtures.TEXTS[:5], davae_fixtures.TEXTS[0] * 9]  # the last is longer than the encoder reads
    corrected = model.correct(targets, texts, others)
    assert same(runner.correct(targets, texts, others), corrected) and corrected != written
    np.testing.assert_allclose(runner.score(texts, targets), model.score(texts, targets), atol=1e-3)


def test_the_reference_davae_inverts_its_latents_the_same(parity_dir, tmp_path):
    """With all quirks of the original."""
    model = load(parity_dir / "davae", CPU)
    export(model, tmp_path / "onnx")
    runner = OnnxModel.load(tmp_path / "onnx", threads=1)
    texts = davae_fixtures.TEXTS[:4]
    latents, _ = model.vae.posterior(texts)
    assert same(runner.hypothesize(latents), model.hypothesize(latents))
    assert same(runner.correct(latents, texts, latents[::-1]), model.correct(latents, texts, latents[::-1]))
    np.testing.assert_allclose(runner.score(texts, latents), model.score(texts, latents), atol=5e-3)


@pytest.mark.parametrize("quirks", [Quirks.none(), Quirks()], ids=["ours", "quirks"])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_pieces_are_cut_and_joined_as_sentencepiece_does(kind, quirks, request, tmp_path):
    if kind == "bpe":
        vae = load(request.getfixturevalue("parity_dir") / "davae", CPU).vae
    else:
        vae = load(davae_fixtures.folder(tmp_path / "parts"), CPU).vae
    vae.quirks = quirks
    found = converted(vae.pieces, quirks)
    found.encode_special_tokens = True  # as the runner has it
    for text in [*davae_fixtures.TEXTS, *ODD]:
        assert found.encode(text, add_special_tokens=False).ids == vae.pieces.encode([text])[0], text
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, vae.pieces.size + 2, 5).tolist() for _ in range(400)]
    rows += [vae.pieces.encode([text])[0] for text in ODD]
    texts = [vae.text(row) for row in rows]
    kept = [(row, text) for row, text in zip(rows, texts, strict=True) if "\ufffd" not in text]  # see export.pieces
    assert len(kept) > 20
    assert [found.decode(row) for row, _ in kept] == [text for _, text in kept]
