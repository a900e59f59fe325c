"""Model folders: what is saved comes back, and whatever is wrong with one is said in one line before it is used."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from unembed.checkpoints import SHIPPED, load_model, native, resolve
from unembed.embedders import EmbedderSpec
from unembed.errors import CheckpointError, InputError, SpecMismatch, StorageError
from unembed.inverter import Inverter, load
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.network import text_and_labels
from unembed.models.native.tokenizer import TextTokenizer

CPU = torch.device("cpu")
TEXTS = ["The cat sat on the mat.", "Invoice 4711 is due on Monday.", "Größe 你好"]
SPEC = EmbedderSpec("toy", 16, cased=False, prefix="query: ", fingerprint=(0.5, -1.25))


@pytest.fixture(scope="module")
def model():
    tokenizer = TextTokenizer.train(TEXTS * 3, 320)
    torch.manual_seed(0)
    net = NativeNetwork(NativeConfig(16, tokenizer.vocab_size, 64, 2, 2, 3, 2, 12))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made = NativeModel(net.eval().requires_grad_(False), tokenizer, SPEC)
    made.controls = ["one text", "zweiter Text\nwith a break 你好"]
    return made


@pytest.fixture
def folder(model, tmp_path):
    native.save(model, tmp_path / "model", card="# Card\n", training={"steps": 3})
    return tmp_path / "model"


def refused(kind, folder, match):
    """The one line with which `folder` is refused."""
    with pytest.raises(kind, match=match) as caught:
        load_model(folder, CPU, torch.float32)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


def change_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def rehash(folder):
    """Make the hashes fit the files again, so that what comes after the hash is reached."""
    change_config(
        folder, lambda config: config["sha256"].update({n: native.sha256(folder / n) for n in config["sha256"]})
    )


# --- there and back ---


def test_float32_comes_back_exactly(model, folder):
    loaded = load_model(folder, CPU, torch.float32)
    before, after = model.net.state_dict(), loaded.net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.net.config == model.net.config
    assert loaded.spec == SPEC and loaded.max_tokens == 12
    assert loaded.tokenizer.encode(TEXTS) == model.tokenizer.encode(TEXTS)
    assert list(loaded.controls) == list(model.controls)
    assert not loaded.net.training and not any(parameter.requires_grad for parameter in loaded.net.parameters())
    targets = np.eye(3, 16, dtype=np.float32)
    assert loaded.hypothesize(targets) == model.hypothesize(targets)
    assert (folder / "README.md").read_text(encoding="utf-8") == "# Card\n"
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["training"] == {"steps": 3}


def test_a_model_without_card_and_controls(model, tmp_path):
    bare = NativeModel(model.net, model.tokenizer, SPEC)
    native.save(bare, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert list(load_model(tmp_path, CPU).controls) == []


def test_int8_is_a_quarter_of_the_size_and_close(model, folder, tmp_path):
    native.save(model, tmp_path / "small", int8=True)
    sizes = [(path / "model.safetensors").stat().st_size for path in (tmp_path / "small", folder)]
    assert sizes[0] < 0.35 * sizes[1]
    loaded = load_model(tmp_path / "small", CPU, torch.float32)
    for name, weight in model.net.state_dict().items():
        rough = loaded.net.state_dict()[name]
        assert rough.dtype == torch.float32 and rough.shape == weight.shape
        # Half a step of the row's scale, and the rounding of that scale itself to float16.
        room = weight.abs().amax(dim=-1, keepdim=True) / 127 * 0.5 * 1.2 if weight.ndim == 2 else torch.tensor(0.0)
        assert ((rough - weight).abs() <= room + 1e-6).all(), name
    text, _ = text_and_labels(model.tokenizer.encode(TEXTS))
    targets = torch.nn.functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    exact, rough = (made.net(targets, text).log_softmax(dim=-1) for made in (model, loaded))
    assert (exact - rough).abs().mean() < 0.05


def test_quantising_rows_of_zeros_and_of_wide_range():
    spread = torch.randn(64, 8) * torch.logspace(-6, 4, 64)[:, None]
    weights = {"a": torch.zeros(64, 8), "b": spread, "c": torch.ones(3)}
    back = native.dequantise(native.quantise(weights))
    assert back.keys() == weights.keys() and all(tensor.isfinite().all() for tensor in back.values())
    assert torch.equal(back["a"], weights["a"]) and torch.equal(back["c"], weights["c"])
    wide = spread[20:]  # the smallest rows are below what a float16 scale can tell apart
    assert ((back["b"][20:] - wide).abs() <= wide.abs().amax(dim=1, keepdim=True) / 127).all()


def test_the_precision_is_chosen_on_loading(folder):
    assert load_model(folder, CPU, torch.bfloat16).dtype == torch.bfloat16
    assert load_model(folder, CPU).dtype == native.inference_dtype(CPU)


def test_what_ships_loads_by_any_of_its_names():
    [(name, part)] = SHIPPED.items()
    for alias in (name, name.upper(), "minilm", "sentence-transformers/all-MiniLM-L6-v2"):
        assert resolve(alias).name == part
    loaded = load_model(name, CPU)
    assert loaded.spec.dim == 384 and loaded.spec.fingerprint is not None
    files = sorted(file.name for file in resolve(name).iterdir())
    assert not [file for file in files if not file.endswith((".json", ".safetensors", ".jsonl", ".md"))], "no pickles"


# --- damage ---


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    message = refused(CheckpointError, folder, "missing")
    assert name in message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_truncated_file(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert name in refused(CheckpointError, folder, "SHA-256")
    rehash(folder)
    assert name in refused(CheckpointError, folder, "again")


def test_a_single_changed_byte(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert "model.safetensors" in refused(CheckpointError, folder, "not the file it was")


def test_weights_of_other_sizes(folder):
    change_config(folder, lambda config: config["network"].update(d_model=32))
    refused(CheckpointError, folder, "does not fit its config")


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.pop("network"),
        lambda config: config.pop("embedder"),
        lambda config: config.pop("sha256"),
        lambda config: config.pop("version"),
        lambda config: config.update(version="one"),
        lambda config: config.update(sha256=["model.safetensors"]),
        lambda config: config.update(sha256=None),
        lambda config: config.update(network=7),
        lambda config: config.update(network={"embedding_dim": 16, "surprise": 1}),
        lambda config: config["network"].update(n_heads=7),
        lambda config: config["embedder"].update(surprise=1),
        lambda config: config["embedder"].update(dim="wide"),
        lambda config: config.update(embedder=[]),
    ],
)
def test_a_damaged_config(folder, change):
    change_config(folder, change)
    with pytest.raises((CheckpointError, InputError)) as caught:
        load_model(folder, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", '{"format": "something-else", "version": 1}', "\x00"])
def test_a_config_that_is_no_config_of_ours(folder, content):
    (folder / "config.json").write_text(content)
    refused(CheckpointError, folder, "damaged or of a format that this version does not know")


def test_an_unknown_architecture_is_named(folder):
    (folder / "config.json").write_text('{"architectures": ["InversionFromLogitsModel"]}')
    refused(CheckpointError, folder, r"does not know \(InversionFromLogitsModel\)")


def test_a_format_from_the_future(folder):
    change_config(folder, lambda config: config.update(version=native.VERSION + 1))
    assert "pip install -U unembed" in refused(CheckpointError, folder, f"version {native.VERSION + 1}")


def test_damaged_controls(folder):
    (folder / "controls.jsonl").write_text('"whole"\n"cut sho', encoding="utf-8")
    assert "controls.jsonl" in refused(CheckpointError, folder, "again")


def test_a_folder_with_a_pickle_only(tmp_path):
    torch.save({"weights": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    refused(CheckpointError, tmp_path, "config.json is missing")


# --- names ---


@pytest.mark.parametrize(
    ("name", "near"), [("all-MiniLM-L6-v3", "all-MiniLM-L6-v2"), ("minilmm", "minilm"), ("zzzz", "all-MiniLM-L6-v2")]
)
def test_an_unknown_name_gets_the_nearest(name, near):
    message = refused(InputError, name, "unknown model")
    assert f"'{name}'" in message and f"did you mean '{near}'" in message


def test_a_file_is_no_model(folder):
    message = refused(InputError, folder / "model.safetensors", "is a file")
    assert "folder" in message


def test_a_hub_id_without_a_network_is_one_line():
    refused(InputError, "nobody/no-such-inverter", "cannot be fetched")


@pytest.mark.parametrize("path", ["./no/such/folder", "/no/such/folder", "~/no-such-folder-here"])
def test_a_path_that_leads_nowhere_is_not_looked_for_on_the_hub(path):
    refused(InputError, path, "unknown model")


# --- saving ---


def test_saving_onto_a_full_disk(model, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    native.save(model, tmp_path / "older")
    monkeypatch.setattr(native, "save_file", full)
    for name in ("older", "model"):
        with pytest.raises(StorageError, match="No space left on device.*free space"):
            native.save(model, tmp_path / name)
    assert [folder.name for folder in tmp_path.iterdir()] == ["older"]
    assert load_model(tmp_path / "older", CPU).digest


def test_saving_takes_the_place_of_an_older_model_and_of_nothing_else(model, tmp_path):
    native.save(model, tmp_path / "model", card="# First\n")
    native.save(model, tmp_path / "model")
    assert not (tmp_path / "model" / "README.md").exists() and load_model(tmp_path / "model", CPU).digest
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is no model of unembed's own kind: choose another folder"):
        native.save(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_saving_where_a_file_is_in_the_way(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="choose another folder"):
        native.save(model, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# --- which embedder ---


def test_a_model_and_another_embedder_are_named_both(inverter, minilm, model):
    other_dim = replace(inverter.model.spec, dim=768, id="acme/big-embedder", fingerprint=None)
    turned = replace(inverter.model.spec, fingerprint=tuple(-value for value in inverter.model.spec.fingerprint))
    for spec, words in (
        (other_dim, ["dimension 768 against 384", "acme/big-embedder", "all-MiniLM-L6-v2"]),
        (turned, ["fingerprints", "all-MiniLM-L6-v2"]),
        (replace(inverter.model.spec, normalized=False), ["normalized"]),
        (replace(inverter.model.spec, prefix="query: "), ["prefix", "query: "]),
        (replace(inverter.model.spec, pooling="cls"), ["pooling", "cls", "mean"]),
        (SPEC, ["toy", "all-MiniLM-L6-v2"]),
    ):
        stranger = NativeModel(model.net, model.tokenizer, spec)
        with pytest.raises(SpecMismatch) as caught:
            Inverter(stranger, minilm)
        message = str(caught.value)
        assert "\n" not in message
        assert "the model's embedder" in message and "the embedder given" in message
        assert all(word in message for word in words), message


def test_loading_with_an_embedder_that_does_not_fit(folder, minilm, tmp_path):
    with pytest.raises(SpecMismatch, match="toy.*all-MiniLM-L6-v2"):
        load(folder, embedder=minilm)
    shutil.copytree(resolve("all-MiniLM-L6-v2"), tmp_path / "copy")
    assert load(tmp_path / "copy", embedder=minilm).embedder is minilm  # a copied folder is as good as the name
