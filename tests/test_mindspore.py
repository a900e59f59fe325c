"""The MindSpore backend where MindSpore is not: it imports, says what is missing, and reads and writes model folders
with numpy alone. What needs MindSpore itself is in test_mindspore_parity.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from test_checkpoints_t5 import load, logits, make, save, tokenizer  # noqa: F401  (a fixture)
from unembed.backends import mindspore
from unembed.backends.mindspore import weights
from unembed.errors import CheckpointError, InputError, MissingExtra, StorageError
from unembed.plots import plot_losses
from unembed.training.t5.config import T5TrainConfig
from unembed.training.t5.run import train
from unembed.training.vectors import VectorFolder


def test_it_imports_without_mindspore_and_torch():
    code = "import sys, unembed.backends.mindspore, unembed.backends.mindspore.weights\n"
    code += "print([name for name in ('torch', 'transformers', 'mindspore') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("versions", "error", "message"),
    [
        ({"numpy": "1.26.4"}, MissingExtra, "pip install 'mindspore>=2.7,<2.11' 'numpy<2'"),
        ({"mindspore": "2.6.0", "numpy": "1.26.4"}, InputError, "MindSpore 2.6 is installed"),
        ({"mindspore": "2.11.0", "numpy": "1.26.4"}, InputError, "MindSpore 2.11 is installed"),
        ({"mindspore": "2.10.0", "numpy": "2.4.1"}, InputError, "2.4 is beside it: pip install 'numpy<2'"),
        ({"mindspore": "2.10.0", "numpy": "1.26.4", "protobuf": "5.29.1"}, InputError, "'protobuf>=7.34.1'"),
    ],
)
def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path, versions, error, message):
    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(error, match=message.replace("(", r"\(")) as caught:
        mindspore.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_right_environment_is_accepted(monkeypatch):
    versions = {"mindspore": "2.7.1", "numpy": "1.26.4", "protobuf": "3.20.3"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    mindspore.require_mindspore()


def test_the_command_says_it_too(monkeypatch, capsys):
    from unembed.backends.mindspore.__main__ import main

    if mindspore._version("mindspore") is not None:
        pytest.skip("MindSpore is installed here")
    assert main(["invert", "--model", "m", "--vectors", "v.npy", "-o", "out.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("error: this needs MindSpore, which is not installed")


@pytest.mark.parametrize(
    ("format", "fields"),
    [
        ("vec2text", {}),
        ("vec2text", {"corrector": True, "masked_start": True}),
        ("nanov2t", {"hidden": 32, "corrector": True}),
        ("nanov2t", {"hidden": 32, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    ],
)
def test_a_folder_is_written_as_it_was_read(tokenizer, tmp_path, format, fields):  # noqa: F811
    net = make(24, **fields)
    if "tie_word_embeddings" in fields:
        net.t5.lm_head.weight = torch.nn.Parameter(torch.randn(16, 32), requires_grad=False)
    save(format, net, tmp_path / "a", tokenizer)
    folder = weights.read(tmp_path / "a")
    assert folder.corrects == net.config.corrector and folder.length == 32
    changed = {name: tensor * (2 if name.startswith("target.") else 1) for name, tensor in folder.tensors.items()}
    weights.write(folder, changed, tmp_path / "b")
    weights.write(folder, changed, tmp_path / "b")  # over itself
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "nothing half-written is left"
    assert (tmp_path / "b" / "config.json").read_bytes() == (tmp_path / "a" / "config.json").read_bytes()
    for parameter in net.target.parameters():
        parameter.mul_(2)
    torch.testing.assert_close(logits(load(format, tmp_path / "b")), logits(net))


def test_what_a_hypothesizer_carries_along_is_kept(tokenizer, tmp_path):  # noqa: F811
    save("vec2text", make(24), tmp_path / "a", tokenizer, embedder_tensors={"x.weight": torch.ones(3)})
    folder = weights.read(tmp_path / "a")
    weights.write(folder, folder.tensors, tmp_path / "b")
    assert load_file(tmp_path / "b" / "model.safetensors")["embedder.x.weight"].tolist() == [1, 1, 1]
    with safe_open(tmp_path / "b" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}, "transformers wants it"


def test_broken_folders_are_named(tokenizer, tmp_path, monkeypatch):  # noqa: F811
    def refused(message, error=CheckpointError):
        with pytest.raises(error, match=message) as caught:
            weights.read(folder)
        assert "\n" not in str(caught.value)

    folder = tmp_path / "none"
    refused("config.json is missing or damaged")
    folder = tmp_path / "m"
    save("vec2text", make(24), folder, tokenizer)
    stored = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())

    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["DAVAEModel"]}))
    refused("a family that this backend does not have .DAVAEModel.: InversionModel")
    (folder / "config.json").write_text(json.dumps({"architectures": ["PrefixDecoder"], "model_type": "llama"}))
    refused("language model of the kind llama: only gpt2")
    (folder / "config.json").write_text(json.dumps(config))

    (folder / "model.safetensors").rename(folder / "kept")
    (folder / "pytorch_model.bin").write_bytes(b"")
    refused(
        "model.safetensors is missing: copy it again; a .bin is turned into safetensors by `unembed models convert`"
    )
    save_torch({name: torch.from_numpy(part).bfloat16() for name, part in stored.items()}, folder / "model.safetensors")
    if "ml_dtypes" in sys.modules:  # which teaches numpy bfloat16
        assert weights.read(folder).tensors["t5.shared.weight"].dtype == np.float32
    else:
        refused("holds numbers that numpy does not know")
    (folder / "model.safetensors").write_bytes((folder / "kept").read_bytes()[:1000])
    refused("cannot be read")

    save_file({name: part for name, part in stored.items() if "3.weight" not in name}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="lacks the tensor target.3.weight"):
        weights.read(folder).shape("target.3.weight")
    wanted = {name: part.shape for name, part in weights.read(folder).tensors.items()}
    weights.check(weights.read(folder), wanted)
    for changed, message in (
        ({"t5.shared.weight": (17, 32)}, r"t5.shared.weight has shape \(16, 32\), not \(17, 32\)"),
        ({"norm.weight": (32,)}, "lacks the tensor norm.weight .1 missing, 0 unknown"),
    ):
        with pytest.raises(CheckpointError, match=message):
            weights.check(weights.read(folder), wanted | changed)
    with pytest.raises(CheckpointError, match="holds a tensor target.0.bias that no such model has"):
        weights.check(weights.read(folder), {k: v for k, v in wanted.items() if k != "target.0.bias"})


def test_a_folder_is_not_written_over_other_things(tokenizer, tmp_path, monkeypatch):  # noqa: F811
    save("vec2text", make(24), tmp_path / "a", tokenizer)
    folder = weights.read(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "letters.txt").write_text("mine")
    with pytest.raises(StorageError, match="exists and is no model"):
        weights.write(folder, folder.tensors, tmp_path / "b")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        weights.write(folder, {}, tmp_path / "a")
    assert weights.read(tmp_path / "a").tensors.keys() == folder.tensors.keys(), "what was there is there"


def test_a_run_is_exported_for_another_framework(minilm, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("".join(f"Letter {i} of the old house, number {i * i}.\n" for i in range(30)))
    recipe = {
        "texts": [{"path": str(tmp_path / "texts.txt")}], "export": str(tmp_path / "export"),
        "scratch": {"d_model": 32, "d_ff": 32, "num_layers": 1, "vocab_size": 100, "dropout_rate": 0.0},
        "max_seq_length": 16, "max_eval_samples": 5, "device": "cpu", "bf16": False, "tracker": "none",
        "num_repeat_tokens": 2,
    }  # fmt: skip
    monkeypatch.setattr("unembed.training.preparation.embedder", lambda *_, **__: minilm)
    made = train(T5TrainConfig.from_dict({"output": str(tmp_path / "run"), **recipe}))
    assert made == tmp_path / "export" and not (tmp_path / "run" / "model").exists(), "nothing was trained"
    rows, held = (load_file(made / f"{name}.safetensors") for name in ("train", "held"))
    assert (
        rows["targets"].shape[1] == 384
        and len(rows["targets"]) + len(held["targets"]) == 30
        and len(held["labels"]) == 3
    )
    folder = weights.read(made / "model")
    assert folder.shape("target.0.weight") == (384, 384)
    used = rows["labels"][0][rows["labels"][0] >= 0]
    assert used[-1] == 1 and 3 < len(used) <= 16 and (rows["labels"][0][len(used) :] == -100).all()
    cut = VectorFolder(tmp_path / "run" / "vectors").texts[:27]  # each the start that fits the decoder
    np.testing.assert_allclose(rows["targets"], minilm.encode(cut), atol=1e-5)
    assert json.loads((made / "recipe.json").read_text())["dropout_rate"] == 0.0
    with pytest.raises(InputError, match="what is exported is precomputed"):
        T5TrainConfig.from_dict({"output": "run", **recipe, "precompute": False})


def test_loss_curves_are_drawn_and_a_wrong_ending_is_named(tmp_path):
    pytest.importorskip("matplotlib")
    curves = {"one": [(1, 3.0), (2, 2.0)], "other": [(1, 3.1), (2, 2.2)]}
    plot_losses(curves, tmp_path / "losses.svg")
    drawn = (tmp_path / "losses.svg").read_text()
    assert drawn.count("stroke-dasharray") >= 1 and "<!-- one -->" in drawn and "<!-- other -->" in drawn
    with pytest.raises(InputError, match="cannot be drawn"):
        plot_losses(curves, tmp_path / "losses.doc")
