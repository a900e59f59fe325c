"""Training of the DAVAE family: what the measures of collapse see, both stages, resuming, recipes that are refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from unembed.checkpoints import load_model
from unembed.errors import CheckpointError, InputError
from unembed.models.base import IGNORED
from unembed.training.config import SourceConfig
from unembed.training.davae.config import BetaConfig, DAVAESizes, DAVAETrainConfig
from unembed.training.davae.data import PieceRows, cut_texts
from unembed.training.davae.measures import Measures, active_units, mean_kl, mutual_information
from unembed.training.davae.run import MEASURES, DAVAETrainer, train
from unembed.training.families import config_class

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
WHO, WHAT, WHERE = "我 你 他 她".split(), "吃饭 喝茶 看书 睡觉 跑步".split(), "家里 学校 公园 北京 上海 山上".split()
TEXTS = [f"{who}在{where}{what}。" for who, what, where in product(WHO, WHAT, WHERE)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    corpus = tmp_path_factory.mktemp("corpus") / "zh.txt"
    corpus.write_text("\n".join(np.random.default_rng(0).permutation(TEXTS)), encoding="utf-8")
    return DAVAETrainConfig(
        output="", texts=[SourceConfig(str(corpus))], max_seq_length=10,
        sizes=DAVAESizes(8, 32, 1, 2, 320, 32, 1, 2, 300, 0.0), learning_rate=0.01, warmup_steps=5, max_steps=100,
        batch_size=20, max_eval_samples=12, bf16=False, device="cpu", eval_steps=50, save_steps=50, logging_steps=50,
        tracker="none", beta=BetaConfig("trapezoid", 0.1), free_bits=0.05, embedding_noise=0.01,
    )  # fmt: skip


@pytest.fixture(scope="module")
def healthy(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("healthy") / "run"
    train(replace(base, output=str(output)))
    return output


def measured(output):
    return json.loads((output / MEASURES).read_text(encoding="utf-8"))


def as_measures(entry):
    return Measures(**{name: entry[name] for name in Measures.__dataclass_fields__})


def test_measures_catch_a_collapsed_run(base, healthy, tmp_path, caplog):
    """The same recipe, with a KL that costs more than the latent can ever save."""
    with caplog.at_level("WARNING", "unembed.train"):
        heavy = BetaConfig("constant", 30.0)
        train(replace(base, output=str(tmp_path / "run"), beta=heavy, free_bits_mode=0, free_bits=0.0))
    dead, alive = as_measures(measured(tmp_path / "run")[-1]), as_measures(measured(healthy)[-1])
    assert dead.collapsed and not alive.collapsed
    assert "posterior collapse" in caplog.text
    assert dead.active_units == 0 < alive.active_units
    assert dead.mutual_information < 0.1 < 1 < alive.mutual_information <= math.log(alive.n)
    assert abs(dead.reconstruction_wrong - dead.reconstruction) < 0.01
    assert alive.reconstruction_wrong - alive.reconstruction > 0.3
    assert alive.reconstruction < dead.reconstruction
    logged = json.loads((healthy / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert [entry["eval_active_units"] for entry in logged if "eval_kl" in entry] == [
        entry["active_units"] for entry in measured(healthy)
    ]


def test_measures_on_known_posteriors():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(400, 3, generator=generator) * torch.tensor([1.0, 0.05, 0.0])
    assert active_units(means) == 1
    narrow = torch.full_like(means, -12.0)  # each latent tells its text: log n
    assert mutual_information(3 * torch.randn(400, 3, generator=generator), narrow) == pytest.approx(
        math.log(400), abs=0.1
    )
    assert abs(mutual_information(torch.zeros(400, 3), torch.zeros(400, 3))) < 1e-5
    # One dimension, mean N(0, 1), deviation 1: ½ log 2 of a Gaussian channel.
    wide = torch.randn(2000, 1, generator=generator)
    assert mutual_information(wide, torch.zeros(2000, 1), generator) == pytest.approx(0.5 * math.log(2), abs=0.05)
    assert mean_kl(torch.ones(2, 3), torch.zeros(2, 3)) == pytest.approx(1.5)


def test_beta_follows_its_schedule():
    trapezoid = BetaConfig("trapezoid", 2.0, 0.25, 0.5)
    assert [trapezoid.at(x) for x in (0, 0.24, 0.5, 0.75, 0.9, 1)] == [0, 0, 1, 2, 2, 2]
    cyclic = BetaConfig("cyclic", 1.0, 0.5, 0.25, 2)
    assert [cyclic.at(x) for x in (0, 0.25, 0.3125, 0.375, 0.49, 0.5, 0.8125, 1)] == [0, 0, 0.5, 1, 1, 0, 0.5, 1]
    assert BetaConfig("constant", 0.7).at(0) == 0.7 and BetaConfig(zero=1.0, ramp=0.0).at(0.5) == 0
    with pytest.raises(InputError, match="schedule 'linear' is unknown"):
        BetaConfig("linear")
    with pytest.raises(InputError, match="1 together at most"):
        BetaConfig(zero=0.8, ramp=0.5)


def test_a_run_goes_on_where_it_stopped(base, healthy, tmp_path):
    stopped = tmp_path / "run"
    shutil.copytree(healthy, stopped)
    for name in ("checkpoint-100", "model"):
        shutil.rmtree(stopped / name)
    for name in ("trainer_state.json", MEASURES):
        (stopped / name).unlink()
    train(replace(base, output=str(stopped)))
    one, other = (load_file(path / "model" / "model.safetensors") for path in (healthy, stopped))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert measured(stopped)[-1] == pytest.approx(measured(healthy)[-1], rel=1e-3)


def test_the_model_is_loaded_and_learned(healthy):
    model = load_model(healthy, CPU)
    assert not any(vars(model.vae.quirks).values()) and model.vae.settings.top_k == 1
    z = model.vae.encode(TEXTS[:30])
    right = np.mean([text[0] == found[:1] for text, found in zip(TEXTS[:30], model.vae.decode(z), strict=True)])
    assert np.abs(z).max() < 6 and right > 0.3  # of four beginnings


def test_the_map_for_an_embedder(base, healthy, tmp_path, minilm, monkeypatch):
    monkeypatch.setattr("unembed.training.preparation.embedder", lambda name, **options: minilm)
    config = replace(
        base, output=str(tmp_path / "run"), stage="inversion", vae=str(healthy), precompute=True, arguments={},
        max_steps=10, eval_steps=5, save_steps=5, map_hidden=16, noise=0.01,
    )  # fmt: skip
    folder = train(config)
    before, after = (load_file(path / "model.safetensors") for path in (healthy / "model", folder))
    assert all(before[name].equal(after[name]) for name in before)  # the auto-encoder is as it was
    assert after["latent_map.1.weight"].shape == (16, 384)
    model = load_model(tmp_path / "run", CPU)
    assert model.spec == minilm.spec and len(model.hypothesize(minilm.encode(TEXTS[:3]))) == 3
    losses = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    losses = [entry["eval_loss"] for entry in losses if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    with pytest.raises(InputError, match="is no DAVAE"):
        train(replace(config, output=str(tmp_path / "other"), vae="all-MiniLM-L6-v2"))


def test_rows_and_labels(base, healthy):
    pieces = load_model(healthy, CPU).vae.pieces
    cut = cut_texts(iter(["他在公园看书。" * 5, " ", "好"]), pieces, 6)
    assert len(cut) == 2 and all(len(ids) <= 6 for ids in pieces.encode(cut)) and cut[0].startswith("他在公园")
    short = len(pieces.encode(["他"])[0]) + 1
    rows = PieceRows(["他在公园看书。" * 5, "他"], pieces, short)
    assert rows.whole.tolist() == [False, True] and [len(rows[0]), len(rows[1])] == [short, short]
    assert rows[0][-1] == rows[1][-1] == pieces.eos_id


def test_the_public_recipe_does_not_learn_the_end(base, tmp_path):
    from transformers import TrainingArguments

    from unembed.training.shares import ALONE

    config = replace(base, output=str(tmp_path), learn_end=False, free_bits_mode=2, length_weighted=True)
    trainer = DAVAETrainer(config, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), ALONE)
    batch = next(iter(trainer.get_train_dataloader()))
    assert not (batch["labels"] == trainer.objective.padding - 1).any() and (batch["labels"] == IGNORED).any()
    loss = trainer.objective.train()(**batch)["loss"]
    loss.backward()
    # Mode 2 leaves the deviation alone: no gradient for the half of the line that gives logvar.
    gradient = trainer.objective.net.posterior.weight.grad
    assert loss.isfinite() and gradient[:8].abs().sum() > 0 and gradient[8:].abs().sum() == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": "corrector"}, "stage 'corrector' .* is unknown"),
        ({"stage": "inversion"}, "needs the auto-encoder"),
        ({"free_bits_mode": 3}, "free_bits_mode is 3"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"vectors": "somewhere", "precompute": True}, "leave vectors to stage inversion"),
        ({"vae": "a", "encoder": "b"}, "leave out encoder"),
        ({"vae": "a", "stage": "inversion", "precompute": False}, "leave precompute on"),
    ],
)
def test_recipes_that_are_refused(base, changes, said):
    with pytest.raises(InputError, match=said):
        replace(base, **changes)


def test_an_encoder_that_cannot_be_had(base, tmp_path):
    with pytest.raises(CheckpointError, match="encoder no/such-bert is no folder here"):
        train(replace(base, output=str(tmp_path), encoder="no/such-bert"))


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "davae").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_are_understood(path):
    assert config_class("davae").from_dict(yaml.safe_load(path.read_text(encoding="utf-8"))).family == "davae"
