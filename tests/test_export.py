"""Export as ONNX: onnxruntime writes what torch writes, on the weights that ship and on reference checkpoints; and what
goes wrong says so in one line."""

from __future__ import annotations

import errno
import importlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import unembed
from unembed.checkpoints import load_model
from unembed.errors import CheckpointError, InputError, MissingExtra, StorageError, UnembedError, install_line
from unembed.export import onnx as onnx_export
from unembed.export.onnx import export
from unembed.export.parts import FAMILIES
from unembed.models.base import Sampling
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.network import text_and_labels
from unembed.models.native.tokenizer import EOS_ID
from unembed.models.onnx_runtime import OnnxModel, choose
from unembed.models.variations import VARIED

CPU = torch.device("cpu")
TEXTS = [
    "Dr. Ana Lopez prescribed 20 mg of fluoxetine on 3 May.",
    "Please wire 4,200 euros to the account in Zürich",
    "cats",
    "The committee will meet again in Nairobi next spring to vote on the budget of the harbour.",
]


@pytest.fixture(scope="module")
def shipped(minilm, tmp_path_factory):
    """The model that ships, in float32, and its export."""
    model = load_model("all-MiniLM-L6-v2", CPU, torch.float32)
    folder = tmp_path_factory.mktemp("shipped") / "model"
    export(model, folder)
    return model, folder


@pytest.fixture(scope="module")
def runner(shipped):
    return OnnxModel.load(shipped[1], threads=1)


@pytest.fixture(scope="module")
def tiny():
    """Random weights of the native network, for what goes wrong."""
    torch.manual_seed(0)
    trained = load_model("all-MiniLM-L6-v2", CPU, torch.float32)
    config = NativeConfig(384, 8192, d_model=16, n_layers=1, n_heads=2, max_tokens=4)
    return NativeModel(NativeNetwork(config).eval().requires_grad_(False), trained.tokenizer, trained.spec)


@pytest.fixture(scope="module")
def small(tiny, tmp_path_factory):
    """The export of `tiny`; not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "model"
    export(tiny, folder)
    return folder


def same(ours, theirs, atol=1e-2):
    """Whether both wrote the same texts, with the same log p."""
    assert [[h.text for h in row] for row in ours] == [[h.text for h in row] for row in theirs]
    found = [[h.logprob for row in rows for h in row] for rows in (ours, theirs)]
    np.testing.assert_allclose(*found, atol=atol)
    return True


# --- onnxruntime writes what torch writes ---


def test_the_model_that_ships_writes_and_corrects_the_same(shipped, runner, minilm):
    model, folder = shipped
    vectors = minilm.encode(TEXTS)
    written = model.hypothesize(vectors)
    assert same(runner.hypothesize(vectors), written) and len({row[0].text for row in written}) == len(TEXTS)
    texts = [row[0].text for row in written]
    assert runner.texts(vectors.tolist()) == texts
    again = minilm.encode(texts)
    assert same(runner.correct(vectors, texts, again), model.correct(vectors, texts, again))
    assert runner.takes_words and model.takes_words and runner.lexicon.words == model.lexicon.words
    words = [["fluoxetine", "Lopez"], ["euros"], [], ["Nairobi"]]
    told = runner.correct(vectors, texts, again, words=words)
    assert same(told, model.correct(vectors, texts, again, words=words))
    assert told != runner.correct(vectors, texts, again)
    # Other numbers of rows, and a hypothesis longer than the network reads.
    assert same(
        runner.correct(vectors[:1], ["word " * 300], again[:1]), model.correct(vectors[:1], ["word " * 300], again[:1])
    )
    np.testing.assert_allclose(runner.score(TEXTS, vectors), model.score(TEXTS, vectors), atol=1e-2)
    np.testing.assert_allclose(runner.score(TEXTS), model.score(TEXTS), atol=1e-2)


def test_the_model_that_ships_varies_and_is_searched_the_same(shipped, runner, minilm):
    """Its chances of other tokens are those of one forward pass along each text, and each draw is one change."""
    model, folder = shipped
    vectors, written = minilm.encode(TEXTS), ["Dr. Ana Lopez prescribed", "cats", "Please wire", "the harbour"]
    again = minilm.encode(written)
    rows = model.tokenizer.encode(written)
    with torch.inference_mode():
        text, labels = text_and_labels(rows)
        aims = model.tensor(vectors)
        theirs = model._read(aims, text, model.lift(aims), *model.feedback(vectors, written, again)).exp().numpy()
    [batch] = runner._feedback(vectors, written, again, 1)
    weights, likely = (found.reshape(len(rows), -1, VARIED) for found in runner._doubts(batch, rows))
    for i, row in enumerate(rows):
        for place, own in enumerate([*row, EOS_ID]):
            assert own not in likely[i, place] and EOS_ID not in likely[i, place]
            np.testing.assert_allclose(weights[i, place], theirs[i, place, likely[i, place]], rtol=0.02, atol=1e-4)
        assert not weights[i, len(row) + 1 :].any(), "nothing behind the end"
    varied = runner.vary(vectors, written, again, 6, seed=1)
    assert varied == runner.vary(vectors, written, again, 6, seed=1) != runner.vary(vectors, written, again, 6, seed=2)
    for own, texts in zip(rows, varied, strict=True):
        assert len(texts) == 6
        assert all(abs(len(model.tokenizer.encode([text])[0]) - len(own)) <= 3 for text in texts)
    assert runner.search_fields(4) == model.search_fields(4) == {"corrections": 1, "variations": 7}
    found = [load_model(name, CPU) for name in (folder, "all-MiniLM-L6-v2")]
    assert found[0].calibration.good == found[1].calibration.good is not None


def test_all_graphs_share_one_file_of_weights(shipped):
    model, folder = shipped
    weights = sum(p.numel() * 4 for part in (model.net, model.guide) for p in part.parameters())
    weights += sum(p.numel() * 4 for p in model.corrector.own_state().values()) + model.lexicon.directions.nbytes
    # The network's own way of reading hypotheses is nowhere used.
    assert 0.97 * weights < sum(path.stat().st_size for path in folder.iterdir()) < 1.03 * weights
    assert sorted(path.name for path in folder.glob("*.onnx")) == [
        "correct.onnx", "correct_step.onnx", "hypothesize.onnx", "hypothesize_step.onnx",
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["vec2text", "nanov2t"])
def test_reference_pairs_write_and_correct_the_same(family, parity_dir, tmp_path):
    if family == "vec2text":
        one, two = (parity_dir / "vec2text" / "jxm" / name for name in ("gtr__nq__32", "gtr__nq__32__correct"))
        vectors = np.load(parity_dir / "vec2text" / "reference.npz")["embeddings"]
        known = json.loads((parity_dir / "vec2text" / "reference.json").read_text(encoding="utf-8"))["results"]
        reference = known["steps=None,beam=0"]["texts"]
    else:
        from safetensors.numpy import load_file

        one, two = (parity_dir / "nanov2t" / name for name in ("stage1", "stage2"))
        vectors = load_file(parity_dir / "nanov2t" / "reference_tensors.safetensors")["target_embeddings"]
        reference = None
    model = load_model(f"{one}+{two}", CPU, torch.float32, packed=False)
    export(model, tmp_path / "model")
    runner = OnnxModel.load(tmp_path / "model", threads=1)
    written = model.hypothesize(vectors)
    assert same(runner.hypothesize(vectors), written)
    texts = [row[0].text for row in written]
    assert reference is None or texts == reference
    texts[0] = "a much longer hypothesis " * 20  # than the corrector reads
    assert same(runner.correct(vectors, texts, vectors[::-1]), model.correct(vectors, texts, vectors[::-1]))
    np.testing.assert_allclose(runner.score(texts[1:], vectors[1:]), model.score(texts[1:], vectors[1:]), atol=1e-3)
    with pytest.raises(InputError, match="no prior"):
        runner.score(texts)
    assert isinstance(load_model(tmp_path / "model", CPU), OnnxModel)


def test_a_hypothesizer_alone(parity_dir, tmp_path):
    model = load_model(parity_dir / "nanov2t" / "stage1", CPU, torch.float32, packed=False)
    export(model, tmp_path / "model")
    runner = OnnxModel.load(tmp_path / "model")
    vectors = np.eye(model.spec.dim, dtype=np.float32)[:2]
    assert same(runner.hypothesize(vectors), model.hypothesize(vectors))
    assert runner.correct(vectors, ["a", "b"], vectors) == runner.vary(vectors, ["a", "b"], vectors) == [[], []]


# --- the runner ---


def test_a_search_runs_on_an_export_as_on_any_model(shipped, runner, minilm):
    """Samples, corrections and the prior, and better than the first hypothesis."""
    inverter = unembed.load(shipped[1])
    assert isinstance(inverter.model, OnnxModel) and inverter.model.digest == runner.digest
    vectors = minilm.encode(TEXTS[:2])
    first, found = (inverter.invert(vectors, steps=steps, hypotheses=4) for steps in (0, 2))
    assert all(b.cosine > a.cosine for a, b in zip(first, found, strict=True))
    assert {c.origin for one in found for c in one.candidates} - {"hypothesis"}


def test_samples_are_seeded_and_cut_as_asked(runner, minilm):
    vectors = minilm.encode(TEXTS[:2])
    sampling = Sampling(temperature=0.9, top_k=20, top_p=0.9)
    one, again, other = (runner.hypothesize(vectors, 3, sampling, seed) for seed in (1, 1, 2))
    assert one == again != other and all(len(row) == 3 for row in one)
    with pytest.raises(InputError, match="not by beam search"):
        runner.hypothesize(vectors, 2, Sampling(beams=2))


def test_choosing_keeps_the_order_of_temperature_top_k_top_p():
    logits = np.log(np.tile([[0.5, 0.3, 0.15, 0.05]], (4000, 1))).astype(np.float32)
    rng = np.random.default_rng(0)
    assert set(choose(logits, Sampling(temperature=0), rng)) == {0}
    shares = np.bincount(choose(logits, Sampling(), rng), minlength=4) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    assert set(choose(logits, Sampling(top_k=2), rng)) == {0, 1}
    assert set(choose(logits, Sampling(top_p=0.79), rng)) == {0, 1}
    assert set(choose(logits, Sampling(top_p=0.4), rng)) == {0}
    cold = np.bincount(choose(logits, Sampling(temperature=0.5), rng), minlength=4) / 4000
    assert cold[0] == pytest.approx(0.25 / 0.365, abs=0.03)


def test_the_runner_needs_no_torch(small, tiny):
    """In a process that may not import it: the same texts, and a search with an embedder that is not torch's."""
    program = f"""
import sys
for name in ("torch", "transformers", "sentence_transformers", "safetensors"):
    sys.modules[name] = None
import numpy as np
from unembed import Inverter
from unembed.embedders import Embedder
from unembed.models.onnx_runtime import OnnxModel

class Toy(Embedder):
    spec = OnnxModel.load({str(small)!r}).spec

    def _embed(self, texts):
        return np.eye(384, dtype=np.float32)[[sum(text.encode()) % 384 for text in texts]]

model = OnnxModel.load({str(small)!r})
print(model.texts(np.eye(384)[:2]))
found = Inverter(model, Toy()).invert(np.eye(384)[:2], steps=1)
assert all(inversion.steps == 1 and inversion.candidates for inversion in found), found
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    vectors = np.eye(384, dtype=np.float32)[:2]
    assert done.stdout.strip() == str([row[0].text for row in tiny.hypothesize(vectors)])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((1, 383)), "383 dimensions"),
        (np.full((1, 384), np.nan), "NaN"),
        (np.zeros((1, 384)), "is zero"),
        (np.ones((1, 384)), "lengths from"),
        (np.zeros((0, 384)), "no vectors"),
    ],
)
def test_vectors_that_are_not_this_embedders(small, vectors, message):
    with pytest.raises(InputError, match=message):
        OnnxModel.load(small).texts(vectors)


@pytest.fixture
def copied(small, tmp_path):
    return shutil.copytree(small, tmp_path / "copy")


@pytest.mark.parametrize("name", ["weights.bin", "hypothesize.onnx", "tokenizer.json"])
def test_a_damaged_export_names_the_file(copied, name):
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=f"{name} is not the file it was"):
        OnnxModel.load(copied)
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        OnnxModel.load(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "pip install -U unembed"),
        ({"sha256": None}, "config.json is missing or damaged"),
        ({"architectures": ["T5"]}, "no exported model"),
        ({"writers": {"hypothesize": dict(read="other.onnx", step="other.onnx")}}, "cannot be opened"),
        ({"embedder": {"id": "x"}}, "config.json is missing or damaged"),
        ({"max_tokens": None}, "config.json is missing or damaged"),
    ],
)
def test_a_damaged_config(copied, change, message):
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        OnnxModel.load(copied)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="config.json is missing"):
        OnnxModel.load(tmp_path)


# --- what cannot be exported ---


def test_an_export_replaces_an_export_and_nothing_else(tiny, copied, tmp_path):
    before = (copied / "config.json").read_bytes()
    export(tiny, copied)
    assert (copied / "config.json").read_bytes() == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="notes exists"):
        export(tiny, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_what_was_there(tiny, copied, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    monkeypatch.setattr(onnx_export.Shelf, "_offset", full)
    with pytest.raises(StorageError, match="No space left"):
        export(tiny, copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_models_that_cannot_be_exported(tiny, tmp_path, monkeypatch, parity_dir):
    class Other:
        family = "crystal-ball"

    with pytest.raises(InputError, match="family 'crystal-ball' cannot be exported"):
        export(Other(), tmp_path / "a")
    with pytest.raises(InputError, match="float32"):
        export(load_model("all-MiniLM-L6-v2", CPU, torch.bfloat16), tmp_path / "a")
    spread = load_model(parity_dir / "nanov2t" / "stage1", CPU, torch.float32, device_map={"": "cpu"})
    with pytest.raises(InputError, match="without device_map"):
        export(spread, tmp_path / "a")
    packed = load_model(parity_dir / "nanov2t" / "stage1", CPU, torch.int8)
    with pytest.raises(InputError, match="packed=False"):
        export(packed, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_graph_that_gives_something_else_is_refused(tiny, tmp_path, monkeypatch):
    """Sizes that became constants of the graph, and wrong numbers: found before anything is written."""
    module = importlib.import_module(FAMILIES["native"])
    step = module.NativeWriter.step

    def constant(self, tokens, state):
        logits, changed = step(self, tokens, state)
        return logits + torch.zeros(len(tokens), 1), changed

    monkeypatch.setattr(module.NativeWriter, "step", constant)
    with pytest.raises(UnembedError, match="hypothesize.onnx"):
        export(tiny, tmp_path / "model")
    monkeypatch.setattr(
        module.NativeWriter, "step", lambda self, *a: (step(self, *a)[0] + torch.rand(1).item(), step(self, *a)[1])
    )
    with pytest.raises(UnembedError, match="gives another logits"):
        export(tiny, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_the_extra_is_missing(tiny, small, tmp_path, monkeypatch, package):
    import_module = importlib.import_module

    def absent(name, *rest):
        if name == package:
            raise ImportError(name)
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=re.escape(install_line("onnx"))):
        export(tiny, tmp_path / "model")
    if package == "onnxruntime":
        with pytest.raises(MissingExtra, match=re.escape(install_line("onnx"))):
            OnnxModel.load(small)


def test_as_a_command(command, refused, parity_dir, tmp_path):
    source = parity_dir / "nanov2t" / "stage1"
    code, out, err = command("models", "export", source, "--onnx", tmp_path / "model")
    assert code == 0 and out.strip() == str(tmp_path / "model"), err
    assert OnnxModel.load(tmp_path / "model").spec == load_model(source, CPU).spec
    code, out, _ = command("models", "info", tmp_path / "model")
    assert code == 0 and "ONNX" in out and "33 tokens" in out
    assert "--onnx FOLDER" in refused("models", "export", source)
    assert "is a corrector" in refused("models", "export", parity_dir / "nanov2t" / "stage2", "--onnx", tmp_path / "b")
