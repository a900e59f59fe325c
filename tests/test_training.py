"""Training, on the real embedder with a network that is much too small: runs that are stopped, fail or go on."""

from __future__ import annotations

import errno
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from unembed.checkpoints import load_model, native
from unembed.embedders import EmbedderSpec
from unembed.errors import CheckpointError, InputError, SpecMismatch, StorageError
from unembed.inverter import load
from unembed.models.native.tokenizer import TextTokenizer
from unembed.training import state
from unembed.training import vectors as training_vectors
from unembed.training.batches import Ahead
from unembed.training.config import (
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    SourceConfig,
    SpanConfig,
    TrainConfig,
)
from unembed.training.corpora import Corpus
from unembed.training.loop import Trainer, train
from unembed.training.vectors import VectorFolder, write_vectors

CPU, F32 = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def files(texts, tmp_path_factory):
    """A corpus of 200 lines and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    TextTokenizer.train(texts, 400).save(folder / "tokenizer.json")
    return folder


@pytest.fixture(autouse=True)
def one_embedder(minilm, monkeypatch):
    """The embedder that is loaded already, instead of a new one for each run."""
    monkeypatch.setattr("unembed.training.loop.embedder", lambda name, **options: minilm)


@pytest.fixture
def recipe(files, tmp_path):
    """A TrainConfig of a tiny run, with the given fields changed."""

    def make(name="run", **fields):
        values = {
            "output": str(tmp_path / name),
            "corpora": [SourceConfig(str(files / "corpus.txt"))],
            "tokenizer": str(files / "tokenizer.json"),
            "model": ModelConfig(d_model=32, n_layers=1, n_heads=2, target_tokens=3, feedback_tokens=2, max_tokens=24,
                                 reader_width=48),
            "spans": SpanConfig(max_words=8, lengths=[12, 24]),
            "objective": ObjectiveConfig(hypothesis_share=0.5, hypothesis_from=0.25),
            "max_steps": 8, "batch_tokens": 240, "chunk": 48, "dtype": "float32", "device": "cpu", "save_minutes": 1e6,
            "log_every": 1, "evaluate_every": 1000, "heldout_samples": 4, "tracker": "none",
        }  # fmt: skip
        return TrainConfig(**{**values, **fields})

    return make


def curve(config):
    """What was logged, without the seconds."""
    lines = (Path(config.output) / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def losses(config):
    return [row["loss"] for row in curve(config) if "loss" in row]


def weights(config):
    state = load_model(model_of(config), CPU, F32).net.state_dict()
    return torch.cat([state[name].flatten() for name in sorted(state)])


def model_of(config):
    return Path(config.output) / "model"


class Stop(BaseException):
    """As sudden as a kill: nothing in the code is prepared for it."""


def stop_at(step):
    """Make the next run end as if killed when it is about to take step number `step`."""
    take = Trainer._step
    patch = pytest.MonkeyPatch()

    def stopping(self, batch):
        if self.position.step == step:
            patch.undo()
            raise Stop
        return take(self, batch)

    patch.setattr(Trainer, "_step", stopping)


# --- the course of a run ---


def test_a_run_that_is_stopped_draws_the_same_curve(recipe, monkeypatch):
    whole, parted = recipe("whole"), recipe("parted")
    train(whole)
    assert [row["step"] for row in curve(whole) if "loss" in row] == list(range(1, 9))
    assert all(math.isfinite(loss) for loss in losses(whole))
    assert "heldout_loss" in curve(whole)[-1] and 0 <= curve(whole)[-1]["heldout_f1"] <= 1

    # Killed at step 5 with a checkpoint of step 3; then again at step 6, without a new one.
    clock = Trainer._clock
    monkeypatch.setattr(Trainer, "_clock", lambda self, saved, began: (self.position.step == 3, False))
    for step in (5, 6):
        stop_at(step)
        with pytest.raises(Stop):
            train(parted)
        assert [row["step"] for row in curve(parted)] == list(range(1, step + 1))
    with open(Path(parted.output) / "curve.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # torn by the kill
    (Path(parted.output) / "checkpoints" / ".writing-00000006").mkdir()  # and so was a checkpoint
    monkeypatch.setattr(Trainer, "_clock", clock)
    train(parted)
    assert curve(parted) == curve(whole)
    assert torch.equal(weights(parted), weights(whole))
    for config in (whole, parted):
        position = json.loads((Path(config.output) / "checkpoints" / "step-00000008" / "state.json").read_text())
        assert position["step"] == 8 and position["tokens"] == curve(config)[-1]["tokens"]


def test_a_run_stopped_before_its_first_checkpoint_begins_again(recipe, monkeypatch):
    config = recipe(max_steps=3)
    stop_at(2)
    with pytest.raises(Stop):
        train(config)
    train(config)
    assert [row["step"] for row in curve(config) if "loss" in row] == [1, 2, 3]


def test_a_finished_run_is_not_trained_again_but_can_be_lengthened(recipe):
    config = recipe(max_steps=2)
    train(config)
    before, beside = weights(config), Path(config.output) / "model" / "figures.json"
    beside.write_text("{}")
    train(config)
    assert torch.equal(weights(config), before) and len(losses(config)) == 2
    assert beside.is_file(), "what was measured of the same weights stays"
    train(replace(config, max_steps=4))
    assert len(losses(config)) == 4 and not torch.equal(weights(config), before)
    assert not beside.exists(), "that of others does not"


def test_a_run_in_slices_with_compact_checkpoints(recipe, monkeypatch):
    """As for a machine that is lent for minutes: each call stops by itself, and what is carried over is small."""
    config = recipe(compact=True, minutes=1e-9, keep=9, optimiser=OptimiserConfig(rewarm=2))
    for step in (1, 2, 3):  # no call has the time for more than one step
        train(config)
        newest = state.latest_state(Path(config.output) / "checkpoints")
        assert newest.name == f"step-{step:08d}" and not (newest / "optimiser.safetensors").exists()
        assert "heldout_loss" in curve(config)[-1], "each slice ends with an evaluation"
        assert load_model(model_of(config), CPU).net.config.d_model == 32, "and with a model that can be used"
    assert state.read_position(newest)["restarted"] == 2
    rates = []
    step_of = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, batch: (step_of(self, batch), rates.append(
        self.optimisers[0].param_groups[0]["lr"] / self.optimisers[0].param_groups[0]["peak_lr"]))[0])  # fmt: skip
    train(replace(config, minutes=None))
    assert rates == [0.5, 1.0, 0.75, 0.5, 0.25], "it warms up again, and then decays as planned"
    full = state.save_state(Path(config.output) / "full", Trainer(config).net, [], {"step": 1}, 1)
    small = (newest / "model.safetensors").stat().st_size
    assert small < 0.45 * (full / "model.safetensors").stat().st_size, "tiny matrices are kept as they are"


def test_batches_made_ahead_are_the_same_batches():
    made = []
    ahead = Ahead(lambda number: made.append(number) or [number])
    assert [ahead(number) for number in (0, 1, 2, 7, 8)] == [[0], [1], [2], [7], [8]]
    ahead.worker.shutdown()
    assert made == [0, 1, 2, 3, 7, 8, 9], "each once, and one more than was asked for"

    def fail(number):
        raise InputError("no text")

    with pytest.raises(InputError, match="no text"):
        Ahead(fail)(0)


@pytest.mark.parametrize("width", [0, 64])
def test_a_lexical_head_that_starts_as_a_bag_of_words(recipe, minilm, texts, width):
    model = replace(recipe().model, reader_width=width)
    made = Trainer(recipe(lexical_spans=600, chunk=300, model=model))
    vectors = torch.from_numpy(minilm.encode(texts[-40:]))
    ids = made.tokenizer.encode(texts[-40:])

    def found(rolled):
        """Share of the tokens among the 40 that the head rates highest for their own text."""
        best = made.net.bag(vectors).roll(rolled, dims=1).topk(40, dim=-1).indices.tolist()
        return np.mean([len(set(row) & set(top)) / len(set(row)) for row, top in zip(ids, best, strict=True)])

    weight = made.net.lexical_in.weight.detach().clone()
    assert found(0) > 1.5 * found(7) and not weight[:, 384:768].any(), "e − ê plays no part"
    made.run()
    again = Trainer(recipe(lexical_spans=600, chunk=300, model=model))
    assert not torch.equal(again.net.lexical_in.weight, weight), "a run that goes on is not fitted anew"
    assert torch.equal(Trainer(recipe("b", lexical_spans=600, chunk=300, model=model)).net.lexical_in.weight, weight)


def test_a_centred_run_takes_the_mean_of_its_texts_and_goes_on_with_it(recipe):
    config = recipe(model=replace(recipe().model, centred=True), max_steps=2)
    made = Trainer(config)
    vectors = made.source.chunk(0)[1]
    np.testing.assert_allclose(made.net.centre.numpy(), vectors.mean(axis=0), atol=1e-3)
    assert float(made.net.spread) == pytest.approx(vectors.std(axis=0).mean(), rel=0.05)
    centre = made.net.centre.clone()
    made.run()
    for again in (
        Trainer(replace(config, max_steps=4)),
        Trainer(recipe("b", model=config.model, init_from=str(model_of(config)))),
    ):
        assert torch.equal(again.net.centre, centre), "of the run that it goes on from, or starts from"
    assert load_model(model_of(config), CPU, F32).net.config.centred
    with pytest.raises(InputError, match="other sizes"):
        Trainer(recipe("c", init_from=str(model_of(config))))


def test_two_processes_train_one_model_and_go_on_where_they_were(recipe):
    """As a user starts them, with the real embedder; each process draws texts of its own."""
    config = recipe(max_steps=2)
    path = Path(config.output).with_suffix(".yaml")

    def launch(steps):
        path.write_text(yaml.safe_dump({**config.to_dict(), "max_steps": steps}), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += ["-m", "unembed.cli.main", "train", "--config", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-2000:]
        newest = state.latest_state(Path(config.output) / "checkpoints")
        return state.read_position(newest)

    first = launch(2)
    assert first["step"] == 2 and len(first["places"]) == 2
    second = launch(4)
    assert second["step"] == 4 and second["places"] != first["places"]
    assert [row["step"] for row in curve(config) if "loss" in row] == [1, 2, 3, 4], "only one process writes"
    assert torch.isfinite(weights(config)).all()
    train(recipe("alone", max_steps=2))
    assert losses(config)[0] == pytest.approx(losses(recipe("alone"))[0], rel=1e-4)
    assert losses(config)[1] != pytest.approx(losses(recipe("alone"))[1], rel=1e-7), "two gradients were averaged"


def test_the_seed_decides(recipe):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(recipe(name, seed=seed, max_steps=2))
    assert losses(recipe("a")) == losses(recipe("b")) != losses(recipe("c"))


def test_training_lowers_the_loss_and_makes_a_model_that_inverts(recipe, minilm, texts):
    config = recipe(max_steps=30, batch_tokens=720, chunk=300, objective=ObjectiveConfig(hypothesis_share=0.1))
    model = train(config)
    drawn = losses(config)
    assert drawn[0] == pytest.approx(math.log(400), abs=0.1), "a fresh network knows nothing"
    assert np.mean(drawn[-5:]) < 0.85 * drawn[0]
    inverter = load(model_of(config), embedder=minilm, device="cpu")
    assert inverter.model.spec.fingerprint is not None and len(inverter.model.controls) == 256
    held = texts[-4:]
    assert not set(held) & set(inverter.model.controls), "held-out texts are no controls"
    assert model.score(held, minilm.encode(held)).shape == (4,)
    [found] = inverter.invert(minilm.encode(held[:1]), steps=1, sequence_beam_width=2)
    assert found.text and -1 <= found.cosine <= 1
    files = {file.name for file in model_of(config).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "controls.jsonl"} <= files
    training = json.loads((model_of(config) / "config.json").read_text(encoding="utf-8"))["training"]
    assert training["steps"] == 30 and training["tokens"] > 1000


def test_a_tokenizer_is_made_where_none_is_given(recipe, monkeypatch):
    monkeypatch.setattr(Corpus.tokenizer_texts, "__defaults__", (2000, 0))  # texts to learn from: fewer, for time
    config = recipe(tokenizer=None, max_steps=1, model=replace(recipe().model, vocab_size=300))
    train(config)
    made = TextTokenizer.load(Path(config.output) / "tokenizer.json")
    assert made.vocab_size == 300 == load_model(model_of(config), CPU).net.config.vocab_size


def test_fine_tuning_starts_from_a_model(recipe):
    first = recipe("first", max_steps=2)
    train(first)
    still = OptimiserConfig(muon_lr=0.0, head_lr=0.0, reader_lr=0.0, embed_lr=0.0, vector_lr=0.0)
    tuned = recipe("tuned", max_steps=1, init_from=str(model_of(first)), tokenizer=None, optimiser=still)
    train(tuned)
    assert torch.equal(weights(tuned), weights(first)), "with learning rates of 0 it stays what it was"
    runs = native.history(model_of(tuned))
    assert [run["steps"] for run in runs] == [2, 1] and all(run["tokens"] > 0 and "before" not in run for run in runs)
    with pytest.raises(InputError, match="other sizes"):
        train(recipe("wide", init_from=str(model_of(first)), model=replace(first.model, d_model=64)))
    with pytest.raises(InputError, match="leave one of them out"):
        train(recipe("read", init_from=str(model_of(first)), lexical_spans=9))


@pytest.mark.parametrize("spans", [0, 300])
def test_fine_tuning_can_bring_a_reader(recipe, minilm, texts, spans):
    """A network without a reader gets one, and at first computes what it did."""
    without = recipe("without", max_steps=2, model=replace(recipe().model, reader_width=0))
    train(without)
    grown = Trainer(recipe("grown", init_from=str(model_of(without)), lexical_spans=spans))
    assert grown.net.config.reader_width and grown.net.reader.weight.any()
    start, targets = load_model(model_of(without), CPU, F32), minilm.encode(texts[:5])
    assert np.allclose(grown.model().score(texts[:5], targets), start.score(texts[:5], targets), atol=1e-4)
    before = grown.net.lexical_in.weight.detach().clone()
    grown.run()
    assert not torch.equal(grown.net.lexical_in.weight[:, 768:], before[:, 768:]), "and it learns to use it"


# --- what goes wrong ---


def test_a_loss_that_is_no_number_ends_the_run(recipe):
    config = recipe(optimiser=OptimiserConfig(head_lr=float("inf")))
    with pytest.raises(InputError, match="the loss became nan at step 1: lower the learning rates") as caught:
        train(config)
    assert "\n" not in str(caught.value) and not model_of(config).exists()


def test_another_recipe_in_the_same_folder_is_refused(recipe):
    config = recipe(max_steps=1)
    train(config)
    before = (Path(config.output) / "train.json").read_bytes()
    for other in (recipe(max_steps=1, seed=4), recipe(max_steps=1, model=replace(config.model, d_model=64))):
        with pytest.raises(InputError, match="holds a run of another config"):
            train(other)
    assert (Path(config.output) / "train.json").read_bytes() == before
    # What does not change the curve may differ, and so may the place of the data.
    moved = replace(config, data_dir=str(Path(config.corpora[0].path).parent), log_every=5, keep=9, save_minutes=3)
    assert moved.identity == config.identity and replace(config, max_steps=9).identity == config.identity


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(recipe, monkeypatch, name):
    config = recipe(max_steps=3, save_minutes=0, keep=2)
    train(config)
    checkpoints = Path(config.output) / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000003"]
    path = checkpoints / "step-00000003" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"step-00000003 is damaged .*: delete that folder") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    before = losses(config)
    shutil.rmtree(checkpoints / "step-00000003")
    train(config)
    assert losses(config) == before


def test_a_full_disk_keeps_the_checkpoint_before(recipe, monkeypatch):
    config = recipe(max_steps=3, save_minutes=0)
    save = state.save_file

    def full(tensors, path):
        if "00000002" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path)

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(StorageError, match="No space left on device.*free space"):
        train(config)
    assert [path.name for path in (Path(config.output) / "checkpoints").iterdir()] == ["step-00000001"]
    monkeypatch.setattr(state, "save_file", save)
    train(config)
    assert len(losses(config)) == 3


def test_an_output_that_cannot_be_written(recipe, tmp_path):
    (tmp_path / "run").write_text("a file is in the way")
    with pytest.raises(StorageError, match="choose another output"):
        train(recipe())


def test_texts_that_fit_no_length_are_an_error_and_not_an_endless_search(recipe, tmp_path):
    (tmp_path / "long.txt").write_text(" ".join(f"word{i}" for i in range(200)) + "\n")
    with pytest.raises(InputError, match=r"none of 4 texts fits spans.lengths \(24"):
        train(recipe(corpora=[SourceConfig(str(tmp_path / "long.txt"), whole=True)], chunk=4))


def test_missing_files(recipe, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        train(recipe(corpora=[SourceConfig("nowhere.txt")], data_dir=str(tmp_path)))
    with pytest.raises(InputError, match="does not exist"):
        train(recipe(heldout=["nowhere.txt"]))
    with pytest.raises(CheckpointError, match="tokenizer.json is missing"):
        train(recipe(tokenizer=str(tmp_path / "tokenizer.json")))
    with pytest.raises((CheckpointError, InputError), match="missing"):
        train(recipe(init_from=str(tmp_path / "no-model")))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"corpora": []}, "either corpora"),
        ({"lexical_spans": 9, "model": ModelConfig(lexical_head=False)}, "needs model.lexical_head"),
        ({"vectors": "folder"}, "either corpora"),
        ({"tracker": "paper"}, "tracker 'paper'"),
        ({"dtype": "float16"}, "dtype 'float16'"),
        ({"spans": SpanConfig(lengths=[12, 96])}, "spans.lengths goes to 96"),
        ({"spans": SpanConfig(lengths=[])}, "spans.lengths"),
        ({"spans": SpanConfig(lengths=[24], min_words=0)}, "min_words"),
        ({"spans": SpanConfig(lengths=[24], min_words=9, max_words=8)}, "min_words"),
        ({"max_steps": 0}, "max_steps"),
        ({"batch_tokens": 20}, "batch_tokens"),
    ],
)
def test_recipes_that_make_no_sense(recipe, fields, match):
    with pytest.raises(InputError, match=match) as caught:
        recipe(**fields)
    assert "\n" not in str(caught.value)


# --- precomputed vectors ---


def test_vectors_written_and_read_back(texts, minilm, tmp_path):
    odd = [*texts[:5], 'quotes " and \\ and\nbreaks \u2028 你好']
    seen = []
    assert write_vectors(odd, minilm, tmp_path / "v", chunk=4, progress=lambda *at: seen.append(at)) == 6
    assert seen == [(4, 6), (6, 6)]
    folder = VectorFolder(tmp_path / "v")
    assert folder.texts == odd and len(folder) == 6 and folder.spec == minilm.spec
    np.testing.assert_allclose(folder.vectors, minilm.encode(odd), atol=1e-6)
    assert write_vectors(odd, minilm, tmp_path / "v") == 0
    write_vectors(odd, minilm, tmp_path / "half", dtype="float16")
    assert VectorFolder(tmp_path / "half").vectors.dtype == np.float16


class Halting:
    """The real embedder, until it is stopped."""

    def __init__(self, embedder, calls, error):
        self.embedder, self.spec, self.calls, self.error = embedder, embedder.spec, calls, error

    def encode(self, texts):
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        return self.embedder.encode(texts)


def test_writing_goes_on_where_it_was_stopped(texts, minilm, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_vectors(texts[:20], Halting(minilm, 2, KeyboardInterrupt()), tmp_path / "v", chunk=6)
    with pytest.raises(InputError, match="holds 12 of 20 vectors"):
        VectorFolder(tmp_path / "v")
    asked = minilm.queries
    assert write_vectors(texts[:20], minilm, tmp_path / "v", chunk=6) == 8 == minilm.queries - asked
    np.testing.assert_allclose(VectorFolder(tmp_path / "v").vectors, minilm.encode(texts[:20]), atol=1e-6)


def test_what_was_begun_with_something_else_is_refused(texts, minilm, tmp_path):
    write_vectors(texts[:4], minilm, tmp_path / "v")
    before = {file.name: file.read_bytes() for file in (tmp_path / "v").iterdir()}
    for other in (texts[1:5], texts[:5], texts[:3]):
        with pytest.raises(InputError, match="other texts"):
            write_vectors(other, minilm, tmp_path / "v")
    with pytest.raises(InputError, match="dtype"):
        write_vectors(texts[:4], minilm, tmp_path / "v", dtype="float16")
    with pytest.raises(InputError, match="float8"):
        write_vectors(texts[:4], minilm, tmp_path / "v", dtype="float8")
    stranger = Halting(minilm, 9, None)
    stranger.spec = EmbedderSpec("acme/other", 384)
    with pytest.raises(SpecMismatch, match="all-MiniLM-L6-v2.*acme/other"):
        write_vectors(texts[:4], stranger, tmp_path / "v")
    assert {file.name: file.read_bytes() for file in (tmp_path / "v").iterdir()} == before


def test_a_full_disk_while_writing_vectors(texts, minilm, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(StorageError, match="No space left on device.*free space"):
            write_vectors(texts[:8], minilm, tmp_path / "v")
    with monkeypatch.context() as patch:  # later, while it says how far it is
        calls = iter([False, True])
        mark = training_vectors._mark
        patch.setattr(training_vectors, "_mark", lambda *args: full() if next(calls) else mark(*args))
        with pytest.raises(StorageError, match="free space"):
            write_vectors(texts[:8], minilm, tmp_path / "v", chunk=2)
    assert write_vectors(texts[:8], minilm, tmp_path / "v", chunk=2) == 6
    np.testing.assert_allclose(VectorFolder(tmp_path / "v").vectors, minilm.encode(texts[:8]), atol=1e-6)


def test_folders_that_hold_no_vectors(texts, minilm, tmp_path):
    with pytest.raises(StorageError, match="no folder written by 'unembed embed'"):
        VectorFolder(tmp_path)
    write_vectors(texts[:3], minilm, tmp_path / "v")
    (tmp_path / "v" / "texts.jsonl").write_text('"one"\n"two"\n')
    with pytest.raises(StorageError, match="2 texts but 3 vectors"):
        VectorFolder(tmp_path / "v")
    (tmp_path / "v" / "texts.jsonl").write_text('"one"\n"tw')
    with pytest.raises(StorageError, match="damaged"):
        VectorFolder(tmp_path / "v")
    (tmp_path / "v" / "vectors.npy").unlink()
    with pytest.raises(StorageError, match="damaged"):
        VectorFolder(tmp_path / "v")


def test_training_on_stored_vectors(recipe, texts, minilm, tmp_path, monkeypatch):
    short = [" ".join(text.split()[:6]) for text in texts]
    write_vectors(short, minilm, tmp_path / "v", dtype="float16")
    stored = {"corpora": [], "vectors": str(tmp_path / "v"), "max_steps": 6}
    whole, parted = recipe("whole", **stored), recipe("parted", save_minutes=0, **stored)
    train(whole)
    stop_at(4)
    with pytest.raises(Stop):
        train(parted)
    train(parted)
    assert losses(parted) == losses(whole) and len(losses(whole)) == 6
    assert set(load_model(model_of(whole), CPU).controls) <= set(short)
    meta = json.loads((tmp_path / "v" / "meta.json").read_text(encoding="utf-8"))
    meta["embedder"] = EmbedderSpec("acme/other", 384).to_dict()
    (tmp_path / "v" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(SpecMismatch, match="acme/other"):
        train(recipe("third", **stored))
