"""DAVAE's format: written and read again, half precision, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import davae_fixtures
from davae_fixtures import TEXTS
from test_davae import SPEC
from unembed.checkpoints import FORMATS, load_model, members
from unembed.checkpoints.card import describe
from unembed.checkpoints.davae import WAVES, Checkpoint, load, recognise, save
from unembed.compat.davae import DAVAEModel
from unembed.errors import CheckpointError, InputError, StorageError
from unembed.models.davae.generation import Quirks, Settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return davae_fixtures.folder(tmp_path_factory.mktemp("davae") / "parts", spec=SPEC, quirks=Quirks.none())


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / "copy")


def change(folder, *path, value):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    place = config
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_what_is_written_is_read_again(written, tmp_path):
    assert recognise(written) and "unembed.checkpoints.davae" in FORMATS
    model = load_model(written, CPU)
    assert model.spec == SPEC and model.digest
    assert model.vae.quirks == Quirks.none() and model.vae.settings == Settings(24, top_k=1, std_scale=0.0)
    checkpoint = Checkpoint(written)
    save(
        model.vae.net, tmp_path / "again", reader=model.vae.reader, pieces=model.vae.pieces,
        settings=model.vae.settings, quirks=model.vae.quirks, latent_map=model.latent_map, spec=model.spec,
    )  # fmt: skip
    first, again = (load_file(path / "model.safetensors") for path in (written, tmp_path / "again"))
    assert first.keys() == again.keys() and all(first[name].equal(again[name]) for name in first)
    assert (tmp_path / "again" / "vocab.txt").read_bytes() == (written / "vocab.txt").read_bytes()
    names = {name for name in first if not name.startswith("latent_map.")}
    assert names == {"vae_model." + name.removeprefix("vae_model.") for name in names} and WAVES in names
    assert checkpoint.sizes == model.vae.net.config
    assert describe(written)["format"] == "DAVAE" and describe(written)["dimensions"] == "10"


def test_names_are_those_of_the_public_format(parity_dir, written):
    """Every tensor of the reference has its place in what is written here, and no other is there."""
    public = json.loads((parity_dir / "davae" / "state_dict_manifest.json").read_text(encoding="utf-8"))
    ours = [name for name in load_file(written / "model.safetensors") if not name.startswith("latent_map.")]
    assert {name for name in public} == {name for name in ours if ".layers.2." not in name}  # ours has a third layer


def test_reference_rewritten_is_the_same(parity_dir, tmp_path):
    source = DAVAEModel.from_pretrained(parity_dir / "davae")
    vae = source.vae
    save(vae.net, tmp_path / "m", reader=vae.reader, pieces=vae.pieces, settings=vae.settings, quirks=vae.quirks)
    again = DAVAEModel.from_pretrained(tmp_path / "m")
    assert again.vae.settings == vae.settings and again.vae.quirks == Quirks()
    texts = ["馆内的藏品也让人非常震撼！", "网上订票去的，"]
    assert again.simulate_batch(None, None, texts) == source.simulate_batch(None, None, texts)


def test_half_precision_files(folder):
    """The public file is float16 and a .bin: read as float32, or as it is, with its rounded frequencies."""
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    change(folder, "torch_dtype", value="float16")
    whole, half = load(folder, CPU), load(folder, CPU, torch.float16)
    assert whole.vae.net.posterior.weight.dtype == torch.float32
    assert half.vae.net.posterior.weight.dtype == torch.float16
    assert whole.vae.net.decoder.frequencies.float().equal(tensors[WAVES].float())
    near = whole.vae.posterior(TEXTS)[0]
    np.testing.assert_allclose(half.vae.posterior(TEXTS)[0], near, atol=0.05)
    half = load(folder, CPU, torch.bfloat16)
    assert len(half.vae.decode(near)) == len(TEXTS)


def test_old_files_hold_positions(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["vae_model.encoder.embeddings.position_ids"] = torch.arange(40)[None]
    del tensors[WAVES]
    save_file(tensors, folder / "model.safetensors")
    assert len(load(folder, CPU).vae.encode(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("decoder", "hidden_size"), 32, r"decoder.hidden_size is 32, and the tensor .*word_embeddings.weight says 24"),
        (("decoder", "num_layers"), 4, r"decoder.num_layers is 4, and the tensor .*transformer.layers.* says 3"),
        (("decoder", "num_attention_heads"), 4, r"num_attention_heads is 4, and the tensor .*r_w_bias says 3"),
        (("decoder", "vocab_size"), 50048, r"decoder.vocab_size is 50048"),
        (("latent_size",), 128, r"latent_size is 128, and the tensor .*linear_emb.weight says 8"),
        (("encoder", "hidden_size"), 768, r"encoder.hidden_size is 768"),
        (("encoder", "num_hidden_layers"), 12, r"num_hidden_layers is 12, and the tensor .*encoder.layer.\* says 2"),
        (("decoder",), None, "says nothing of the decoder"),
        (("embedder_spec",), None, "holds a map, and config.json no embedder_spec"),
        (("quirks",), {"odd": True}, "names unknown quirks"),
        (("temperature",), 0, "config.json cannot be used .*temperature"),
    ],
)  # fmt: skip
def test_a_config_that_contradicts_the_tensors(folder, path, value, said):
    change(folder, *path, value=value)
    with pytest.raises(CheckpointError, match=said):
        load(folder, CPU)


def test_sizes_that_are_not_named_come_from_the_tensors(folder):
    before = load(folder, CPU).vae.decode(np.ones((2, 8)))
    for field in ("hidden_size", "num_layers", "num_attention_heads", "vocab_size"):
        change(folder, "decoder", field, value=None)
    assert load(folder, CPU).vae.decode(np.ones((2, 8))) == before


@pytest.mark.parametrize(
    "name",
    [
        "vae_model.encoder.linear.weight",
        "vae_model.decoder.word_embeddings.weight",
        "vae_model.decoder.transformer.layers.1.attention.relative.bias",
        "latent_map.1.weight",
    ],
)
def test_a_missing_tensor_is_named(folder, name):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    # A map without its first matrix is taken for tensors that do not belong there.
    with pytest.raises(CheckpointError, match=r"latent_map" if "map" in name else r"lacks the tensor"):
        load(folder, CPU)


class Evil:
    def __reduce__(self):
        return (print, ("run!",))


def test_what_is_damaged(folder, capsys):
    for name, said in (("vocab.txt", "vocab.txt is missing"), ("spiece.model", "spiece.model is missing")):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=said):
            load(folder, CPU)
        (folder / name).write_bytes(kept)
    kept = (folder / "spiece.model").read_bytes()
    (folder / "spiece.model").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no SentencePiece model"):
        load(folder, CPU)
    (folder / "spiece.model").write_bytes(kept)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(CheckpointError, match="was not run"):
        load(folder, CPU)
    assert "run!" not in capsys.readouterr().out


def test_a_full_disk_leaves_the_older_model(folder, monkeypatch):
    model = load(folder, CPU)
    before = (folder / "model.safetensors").read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.save_torch_state_dict", full)
    with pytest.raises(StorageError, match="No space left"):
        save(
            model.vae.net, folder, reader=model.vae.reader, pieces=model.vae.pieces, settings=model.vae.settings,
            quirks=model.vae.quirks,
        )  # fmt: skip
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_names():
    assert members("Randeng-DAVAE") == ["IDEA-CCNL/Randeng-DAVAE-1.2B-General-Chinese"]
    with pytest.raises(InputError, match="is no DAVAE"):
        DAVAEModel.from_pretrained("all-MiniLM-L6-v2")


def test_the_command_describes_it(written, command):
    code, out, err = command("models", "info", written)
    assert code == 0 and "DAVAE" in out and "auto-encoder with a map from vectors" in out, err
