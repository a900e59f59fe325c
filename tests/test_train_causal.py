"""Training of the causal-LM family: both stages in one network, samples on the way, killed runs, refusals."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from unembed.checkpoints import load_model, prefix
from unembed.errors import InputError, StorageError
from unembed.models.base import IGNORED
from unembed.training import families
from unembed.training.causal.config import CausalSizes, CausalTrainConfig
from unembed.training.causal.prepare import open_tokenizer, train_tokenizer
from unembed.training.causal.run import CausalTrainer, Objective, train
from unembed.training.config import SourceConfig
from unembed.training.rows import TokenRows

ROOT = Path(__file__).parents[1]
SENTENCES = ROOT / "examples" / "sentences-ru.txt"
CPU = torch.device("cpu")
SIZES = CausalSizes(n_embd=384, n_layer=1, n_head=2, n_positions=64, vocab_size=400)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def one_embedder(minilm, monkeypatch):
    monkeypatch.setattr("unembed.training.preparation.embedder", lambda name, **options: minilm)


@pytest.fixture(scope="module")
def texts():
    with open(SENTENCES, encoding="utf-8") as file:
        return [line.strip() for line in islice(file, 80)]


@pytest.fixture(scope="module")
def base(tmp_path_factory, texts):
    """A recipe without its output, small enough for seconds."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "ru.txt").write_text("\n".join([*texts, "длинный " * 30]), encoding="utf-8")
    train_tokenizer(iter(texts), 400, folder / "tokenizer")

    def make(output, **changes):
        fields = {
            "texts": [SourceConfig(str(folder / "ru.txt"))], "scratch": SIZES, "max_seq_length": 16,
            "tokenizer": str(folder / "tokenizer"), "max_characters": 59, "prior_share": 0.1, "samples": 2,
            "learning_rate": 0.003, "warmup_steps": 2, "max_steps": 12, "batch_size": 8, "bf16": False,
            "device": "cpu", "tracker": "none", "max_eval_samples": 8, "logging_steps": 1, "eval_steps": 6,
            "save_steps": 6,
        }  # fmt: skip
        return CausalTrainConfig(str(output), **{**fields, **changes})

    return make


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory, minilm, one_thread):
    """Both stages: the two configs, and what the first one said."""
    folder, said = tmp_path_factory.mktemp("runs"), []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("unembed.train")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unembed.training.preparation.embedder", lambda name, **options: minilm)
        first = base(folder / "first", tokenizer=None)
        train(first)
        second = base(
            folder / "second", stage="corrector", texts=[], hypothesizer=first.output, tokenizer=None,
            vectors=f"{first.output}/vectors", max_steps=4, eval_steps=4, save_steps=4,
        )  # fmt: skip
        train(second)
    logger.removeHandler(handler)
    return first, second, said


def history(config, key="loss"):
    state = json.loads((Path(config.output) / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry[key] for entry in state["log_history"] if key in entry]


# --- both stages ---


def test_a_hypothesizer_learns_and_shows_what_it_writes(trained, minilm, texts):
    first, _, said = trained
    losses = history(first)
    assert len(losses) == 12 and np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.5
    model = load_model(first.output, CPU)
    assert model.spec.fingerprint == minilm.spec.fingerprint and model.max_tokens == 16 and model.has_prior
    assert model.correct(np.zeros((1, 384), dtype=np.float32), ["a"], np.zeros((1, 384), dtype=np.float32)) == [[]]
    shown = [line for line in said if " → " in line][:4]
    assert [line.split(":")[0] for line in shown] == ["step 6"] * 2 + ["step 12"] * 2
    held = [line.split(": ", 1)[1].split(" → ")[0] for line in shown[:2]]
    assert set(held) < set(texts), "held-out texts, whole"
    [[found]] = model.hypothesize(minilm.encode(held[:1]))
    best = f"step {6 * (1 + int(np.argmin(history(first, 'eval_loss'))))}"
    assert f"{best}: {held[0]} → {found.text}" in shown, "what is saved is what was shown"


def test_a_corrector_goes_on_from_its_hypothesizer_and_stays_one(trained, minilm, texts):
    first, second, _ = trained
    one, both = load_model(first.output, CPU), load_model(second.model_name, CPU)
    assert not one.net.config.corrector and both.net.config.corrector and both.has_prior
    assert both.tokenizer.get_vocab() == one.tokenizer.get_vocab()
    targets = minilm.encode(texts[:4])
    assert all(row[0].logprob < 0 for row in both.hypothesize(targets))
    assert len(both.correct(targets, texts[4:8], minilm.encode(texts[4:8]), 2)[0]) == 2
    # What it says of these texts has hardly changed in four steps.
    assert (
        np.abs(both.score(texts[:8], minilm.encode(texts[:8])) - one.score(texts[:8], minilm.encode(texts[:8]))).max()
        < 30
    )


def test_rows_with_a_hypothesis_are_learned_with_it_and_without(trained):
    net = load_model(trained[1].output, CPU).net
    targets, others = torch.randn(2, 3, 384)
    labels, ids = torch.randint(5, 50, (3, 6)), torch.tensor([[7, 8, 2], [9, 2, IGNORED], [2, IGNORED, IGNORED]])
    together = Objective(net)(targets, labels, ids, others)["loss"]
    without, with_it = net(targets, labels).loss, net(targets, labels, ids, others).loss
    assert together.item() == pytest.approx((without.item() + with_it.item()) / 2, abs=1e-5)
    assert abs(without.item() - with_it.item()) > 1e-3
    # Some rows lose their vector, in training alone.
    known = Objective(net, prior_share=0.999999)
    blind = net(torch.zeros_like(targets), labels).loss.item()
    assert known.train()(targets, labels)["loss"].item() == pytest.approx(blind, abs=1e-4)
    assert known.eval()(targets, labels)["loss"].item() == pytest.approx(without.item(), abs=1e-5)


def test_a_killed_run_goes_on_along_the_same_curve(base, trained, tmp_path):
    """Dropout and left-out vectors among what must be the same."""
    short = {"scratch": replace(SIZES, dropout=0.1), "max_steps": 8, "eval_steps": 4, "save_steps": 4}
    whole = base(tmp_path / "whole", **short)
    train(whole)

    class KilledError(Exception):
        pass

    def dies(self, model, folder, state):
        if folder.name == "checkpoint-8":
            folder.mkdir()
            (folder / "config.json").write_text("{")  # half of a checkpoint
            raise KilledError
        return write(self, model, folder, state)

    write = CausalTrainer.write
    config = base(tmp_path / "killed", **short)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(CausalTrainer, "write", dies)
        train(config)
    train(config)
    (Path(config.output) / "model" / "figures.json").write_text("{}")
    train(config)
    assert (Path(config.output) / "model" / "figures.json").is_file(), "a finished run is left alone"
    assert len(history(whole)) == 8 and history(config) == pytest.approx(history(whole), abs=1e-6)
    one, other = (load_file(Path(run.output) / "model" / "model.safetensors") for run in (whole, config))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_on_the_fly_and_projected(base, tmp_path):
    config = base(
        tmp_path / "run", precompute=False, prefix_tokens=2, max_steps=2, eval_steps=2, save_steps=2, noise=0.01
    )
    train(config)
    assert not (tmp_path / "run" / "vectors").exists()
    net = load_model(config.output, CPU).net
    assert net.config.tokens == 2 and (Path(config.output) / "model" / prefix.PROJECTOR).is_file()


def test_a_pretrained_language_model_and_its_tokenizer(base, tmp_path, texts):
    """A backbone's folder; its tokenizer names no end of text and no padding."""
    folder = tmp_path / "lm"
    train_tokenizer(iter(texts), 300, folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=384, n_layer=1, n_head=2, n_positions=40))
    lm.save_pretrained(folder)
    quick = {"scratch": None, "backbone": str(folder), "tokenizer": None, "max_steps": 1, "eval_steps": 1}
    with pytest.raises(InputError, match="names no end of text: .* end_token"):
        train(base(tmp_path / "a", **quick, save_steps=1))
    with pytest.raises(InputError, match="no token of"):
        train(base(tmp_path / "b", **quick, save_steps=1, end_token="<nothing>"))
    config = base(tmp_path / "c", **quick, save_steps=1, end_token="<eos>", learning_rate=0.0)
    train(config)
    assert load_model(config.output, CPU).eos == AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<eos>")
    stored = load_file(Path(config.output) / "model" / "model.safetensors")
    assert torch.equal(stored["transformer.wte.weight"], lm.transformer.wte.weight)
    with pytest.raises(InputError, match="reads 40 positions and this run needs 42"):
        train(base(tmp_path / "d", **quick, save_steps=1, end_token="<eos>", max_seq_length=40))


def test_texts_end_once_and_what_looks_like_an_end_is_text(base, tmp_path, texts):
    train_tokenizer(iter(texts), 300, tmp_path)
    tokenizer = open_tokenizer(str(tmp_path), None)
    rows = TokenRows(["мир", "<eos>"], tokenizer, 99, end=tokenizer.eos_token_id)
    assert all(
        (rows[i] == tokenizer.eos_token_id).sum() == 1 == (rows[i][-1:] == tokenizer.eos_token_id).sum() for i in (0, 1)
    )


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stage": "corrector"}, "needs the hypothesizer"),
        ({"stage": "corrector", "hypotheses": "h"}, "goes on from its hypothesizer"),
        ({"hypothesizer": "h"}, "belong to stage corrector"),
        ({"prior_share": 1.0}, "below 1"),
        ({"prefix_tokens": -1}, "0 or more"),
        ({"max_characters": 0}, "1 or more"),
        ({"family": "vec2text"}, "another one"),
        ({"stage": "both"}, "unknown"),
    ],
)
def test_recipes_that_do_not_fit(base, changes, said):
    with pytest.raises(InputError, match=said):
        base("x", **changes)


def test_what_does_not_go_together(base, trained, tmp_path):
    with pytest.raises(InputError, match="cannot be padded to the language model's width 32: .*prefix_tokens"):
        train(base(tmp_path / "a", scratch=replace(SIZES, n_embd=32)))
    with pytest.raises(InputError, match="no model of the causal family"):
        train(base(tmp_path / "b", stage="corrector", hypothesizer="all-MiniLM-L6-v2", tokenizer=None))
    with pytest.raises(InputError, match="no text there"):
        train(base(tmp_path / "c", max_characters=1))
    with pytest.raises(InputError, match="another recipe"):
        train(replace(trained[0], learning_rate=0.5))


def test_a_full_disk_while_a_checkpoint_is_written(base, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prefix, "write_tokenizer", full)
    with pytest.raises(StorageError, match="No space left"):
        train(base(tmp_path / "run", max_steps=1, eval_steps=1, save_steps=1))
    assert not list((tmp_path / "run").glob("checkpoint-1/model.safetensors"))
    shutil.rmtree(tmp_path / "run")


# --- recipes ---


def test_the_recipes_are_sound():
    for path in sorted((ROOT / "recipes" / "vector2text").glob("*.yaml")):
        keys = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert families.config_class(keys["family"]).from_dict(keys).output.startswith("runs/")
    seed = CausalTrainConfig.from_dict(yaml.safe_load((ROOT / "recipes/vector2text/seed.yaml").read_text()))
    assert (seed.learning_rate, seed.batch_size, seed.epochs, seed.prefix_tokens) == (1e-5, 16, 2, 0)
