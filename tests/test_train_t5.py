"""Training of the encoder-decoder family: both stages of both systems, and precomputed hypotheses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

import unembed
from unembed.checkpoints import load_model, nanov2t, vec2text
from unembed.checkpoints.placement import Placement
from unembed.embedders.checkpoint import CheckpointEmbedder
from unembed.embedders.local import SentenceTransformerEmbedder
from unembed.errors import CheckpointError, InputError, SpecMismatch, StorageError
from unembed.models.base import IGNORED
from unembed.models.encoder_decoder import EncoderDecoderNetwork, ProjectionConfig
from unembed.processes import Processes
from unembed.training.config import SourceConfig
from unembed.training.hypotheses import HypothesisFolder, write_hypotheses
from unembed.training.rows import Order, Rows, TokenRows, cut_texts
from unembed.training.stages import Collator, not_yet_right
from unembed.training.t5.config import T5Sizes, T5TrainConfig
from unembed.training.t5.prepare import carried, open_tokenizer, train_tokenizer, without_dropout
from unembed.training.t5.run import Objective, T5Trainer, train
from unembed.training.vectors import VectorFolder, write_vectors

ROOT = Path(__file__).parents[1]
LETTERS = ROOT / "examples" / "letters.txt"
CPU = torch.device("cpu")
SIZES = T5Sizes(d_model=32, d_ff=64, d_kv=16, num_heads=2, num_layers=1, vocab_size=400)


@pytest.fixture(scope="module")
def texts():
    with open(LETTERS, encoding="utf-8") as file:
        return [line.strip() for line in islice(file, 200)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def one_embedder(minilm, monkeypatch):
    monkeypatch.setattr("unembed.training.preparation.embedder", lambda name, **options: minilm)


@pytest.fixture(scope="module")
def tokenizer(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter(texts), 400, folder)
    return open_tokenizer(str(folder))


@pytest.fixture(scope="module")
def base(tmp_path_factory, texts, tokenizer):
    """A recipe without its output, small enough for seconds. The tokenizer is given: trained twice, it is not the same
    to the last piece."""
    name = tokenizer.name_or_path
    corpus = tmp_path_factory.mktemp("corpus") / "letters.txt"
    corpus.write_text("\n".join(texts), encoding="utf-8")

    def make(output, **changes):
        fields = {
            "texts": [SourceConfig(str(corpus))], "scratch": SIZES, "tokenizer": name, "num_repeat_tokens": 3,
            "max_seq_length": 16,
            "batch_size": 16, "bf16": False, "device": "cpu", "tracker": "none", "max_eval_samples": 20,
            "learning_rate": 0.01, "warmup_steps": 4, "logging_steps": 1, "eval_steps": 20, "save_steps": 20,
            "max_steps": 40,
        }  # fmt: skip
        return T5TrainConfig(str(output), **{**fields, **changes})

    return make


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory, minilm, one_thread):
    """Both stages of both families, by family: the two configs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unembed.training.preparation.embedder", lambda name, **options: minilm)
        out = {}
        for family in ("vec2text", "nanov2t"):
            folder = tmp_path_factory.mktemp(family)
            first = base(folder / "first", family=family, tokenizer=None)
            asked = minilm.queries
            train(first)
            assert minilm.queries - asked == 200, "every text is embedded once"
            second = base(
                folder / "second", family=family, tokenizer=None, stage="corrector", texts=[],
                hypothesizer=first.output, vectors=f"{first.output}/vectors",
            )  # fmt: skip
            train(second)
            out[family] = first, second
        return out


def history(config, key="loss"):
    state = json.loads((Path(config.output) / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry[key] for entry in state["log_history"] if key in entry]


# --- both stages ---


@pytest.mark.parametrize("family", ["vec2text", "nanov2t"])
def test_both_stages_learn_and_load_as_a_pair(trained, family, minilm):
    for config in trained[family]:
        losses = history(config)
        assert len(losses) == 40 and np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    first, second = trained[family]
    model = load_model(f"{first.output}+{second.output}", CPU)
    assert model.spec.fingerprint == minilm.spec.fingerprint and model.spec.id == minilm.spec.id
    assert model.corrector.config.masked_start == (family == "vec2text") and model.corrector.config.layer_norm
    assert model.corrector.config.hidden == (384 if family == "vec2text" else SIZES.d_model)
    inverter = unembed.Inverter(model, minilm)
    vectors = minilm.encode(["My name is Anna"])
    assert inverter.invert(vectors, steps=1, sequence_beam_width=2)[0].text
    for config in trained[family]:  # what is kept is what was best on the held-out texts, to the last bit
        best = f"checkpoint-{20 * (1 + int(np.argmin(history(config, 'eval_loss'))))}"
        one, other = (load_file(Path(config.output) / name / "model.safetensors") for name in (best, "model"))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_a_folder_holds(trained):
    for first, second in trained.values():
        for config in (first, second):
            names = {path.name for path in (Path(config.output) / "model").iterdir()}
            assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
            told = (Path(config.output) / "model" / "config.json").read_text()
            assert str(config.output) not in told and "hub_token" not in told
        drafts = HypothesisFolder(f"{second.output}/hypotheses", f"{first.output}/vectors")
        assert len(drafts) == 200 == len(VectorFolder(f"{first.output}/vectors"))


def test_losses_are_those_of_the_reference(parity_dir):
    """nanoV2T's own program, on the same texts, drafts and weights: collated and trained on as here."""
    folder = parity_dir / "nanov2t"
    reference = load_file(folder / "reference_tensors.safetensors")
    drafts = json.loads((folder / "reference_texts.json").read_text(encoding="utf-8"))["drafts"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "stage2")
    longest = reference["labels"].size(1)
    written = [tokenizer.decode(row[row != IGNORED], skip_special_tokens=True) for row in reference["labels"]]
    rows = Rows(TokenRows(written, tokenizer, longest), np.arange(len(written)), reference["target_embeddings"].numpy())
    items = [rows[i] for i in range(len(rows))]
    batch = Collator(lambda texts: TokenRows(texts, tokenizer, longest))(items)
    assert torch.equal(batch["labels"], reference["labels"][:, : batch["labels"].size(1)])
    place = Placement(torch.device("cpu"), torch.float32)
    first = nanov2t.Checkpoint(folder / "stage1").network(place)
    assert Objective(first)(**batch)["loss"].item() == pytest.approx(reference["stage1.loss"].item(), abs=1e-5)
    rows.hypothesis_tokens = TokenRows(drafts, tokenizer, longest)
    rows.hypotheses = type("Drafts", (), {"vectors": reference["draft_embeddings"].numpy()})
    batch = Collator(lambda texts: TokenRows(texts, tokenizer, longest))([rows[i] for i in range(len(rows))])
    width = batch["hypothesis_ids"].size(1)
    assert torch.equal(batch["hypothesis_ids"], reference["draft_input_ids"][:, :width])
    second = nanov2t.Checkpoint(folder / "stage2").network(place)
    assert Objective(second)(**batch)["loss"].item() == pytest.approx(reference["stage2.loss"].item(), abs=1e-5)


def test_on_the_fly_with_noise_and_without_feedback(base, trained, tmp_path, minilm):
    first, _ = trained["vec2text"]
    quick = {"precompute": False, "max_steps": 2, "eval_steps": 2, "save_steps": 2, "noise": 0.01}
    config = base(
        tmp_path / "second",
        tokenizer=None,
        stage="corrector",
        hypothesizer=first.output,
        ignore_hypothesis_embedding=True,
        **quick,
    )
    train(config)
    assert not (tmp_path / "second" / "vectors").exists() and len(history(config)) == 2
    net = load_model(f"{first.output}+{config.output}", CPU).corrector
    assert not net.config.feedback
    target, ids = torch.randn(2, 384), torch.tensor([[0, 5, 1], [0, 6, 1]])
    one, other = (net.inputs(target, ids, torch.full((2, 384), value))[0] for value in (0.0, 1.0))
    assert torch.equal(one, other)


def test_a_corrector_with_another_tokenizer_than_its_hypothesizer(base, trained, tmp_path):
    first, _ = trained["nanov2t"]
    other = T5TrainConfig(**{**vars(base(tmp_path / "x")), "stage": "corrector", "hypothesizer": first.output,
                             "tokenizer": tokenizer_of(tmp_path)})  # fmt: skip
    with pytest.raises(InputError, match="another tokenizer"):
        train(other)


def tokenizer_of(folder):
    train_tokenizer(iter(["some other words than those of letters"] * 9), 60, folder / "tokenizer")
    return str(folder / "tokenizer")


def test_noise_is_added_to_the_targets(texts, tokenizer):
    rows = Rows(TokenRows(texts[:50], tokenizer, 16), np.arange(50), np.zeros((50, 384), dtype=np.float32))
    items = [rows[i] for i in range(50)]
    assert not Collator(list)(items)["targets"].any()
    noisy = Collator(list, noise=0.3)(items)["targets"]
    assert noisy.dtype == torch.float32 and noisy.std().item() == pytest.approx(0.3, rel=0.05)


# --- stopped, damaged, shared ---


class Stop(Exception):
    pass


def test_a_killed_run_goes_on_on_the_same_curve(base, tmp_path, monkeypatch):
    """Also when the kill left a newer checkpoint half-written. Dropout is on, so the generator's state counts."""
    short = {"max_steps": 14, "eval_steps": 5, "save_steps": 5}
    whole, parted = base(tmp_path / "whole", **short), base(tmp_path / "parted", **short)
    train(whole)
    step = T5Trainer.training_step

    def stopping(self, *arguments, **options):
        if self.state.global_step == 12:
            raise Stop
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(T5Trainer, "training_step", stopping)
        with pytest.raises(Stop):
            train(parted)
    half = tmp_path / "parted" / "checkpoint-12"
    shutil.copytree(tmp_path / "parted" / "checkpoint-10", half)
    (half / "trainer_state.json").write_text('{"global_step": 1')
    train(parted)
    assert not half.exists() and len(history(whole)) == 14
    np.testing.assert_allclose(history(parted), history(whole), rtol=1e-5)
    assert history(whole)[5] != history(whole)[10]
    written = (tmp_path / "parted" / "model" / "model.safetensors").read_bytes()
    train(parted)  # a run that is done: nothing more to do
    shutil.rmtree(tmp_path / "parted" / "model")
    train(parted)  # or killed just before its end
    assert (tmp_path / "parted" / "model" / "model.safetensors").read_bytes() == written
    assert len(history(parted)) == 14
    with pytest.raises(InputError, match="another recipe"):
        train(replace(parted, learning_rate=0.5))
    last = tmp_path / "parted" / "checkpoint-14"
    (last / "optimizer.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="checkpoint-14 is damaged.*delete that folder"):
        train(replace(parted, max_steps=15))
    (last / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(replace(parted, max_steps=15))


def test_a_full_disk(base, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unembed.checkpoints.vec2text.save", full)
    with pytest.raises(StorageError, match="No space left on device.*free space"):
        train(base(tmp_path / "run", max_steps=2, eval_steps=1, save_steps=1))


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(base, tmp_path, texts, minilm):
    """The same global batch, of rows of different lengths; dropout off, because each process draws its own."""
    same = {"scratch": replace(SIZES, dropout_rate=0.0), "max_steps": 6, "eval_steps": 3, "save_steps": 3}
    one = base(tmp_path / "one", batch_size=16, **same)
    train(one)
    two = base(tmp_path / "two", batch_size=8, eval_batch_size=16, **same)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(as_keys(two)), encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "unembed.cli.main"]
    done = subprocess.run(
        [sys.executable, *launch, "train", "--config", str(tmp_path / "two.yaml")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(history(one)) == 6
    np.testing.assert_allclose(history(two), history(one), rtol=2e-4)
    np.testing.assert_allclose(history(two, "eval_loss"), history(one, "eval_loss"), rtol=2e-3)
    np.testing.assert_allclose(
        VectorFolder(tmp_path / "two" / "vectors").vectors,
        VectorFolder(tmp_path / "one" / "vectors").vectors,
        atol=1e-5,
    )


def as_keys(config):
    return {key: value for key, value in asdict(config).items() if value is not None}


class Halting:
    """The real embedder, until it is stopped."""

    def __init__(self, embedder, calls):
        self.embedder, self.spec, self.calls = embedder, embedder.spec, calls

    def encode(self, texts):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.embedder.encode(texts)


def test_hypotheses_go_on_where_they_were_stopped(trained, texts, minilm, tmp_path):
    first, _ = trained["nanov2t"]
    model, vectors, out = load_model(first.output, CPU), tmp_path / "v", tmp_path / "h"
    write_vectors(texts[:20], minilm, vectors)
    with pytest.raises(KeyboardInterrupt):
        write_hypotheses(model, Halting(minilm, 2), vectors, out, chunk=6)
    with pytest.raises(InputError, match="holds 12 of 20 hypotheses"):
        HypothesisFolder(out, vectors)
    with open(out / "part-0.jsonl", "a", encoding="utf-8") as file:
        file.write('\n{"idx": 12, "dra')
    assert write_hypotheses(model, minilm, vectors, out, chunk=6) == 8
    found = HypothesisFolder(out, vectors)
    rows = [json.loads(line) for line in (out / "drafts.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = [row[0].text for row in model.hypothesize(VectorFolder(vectors).vectors)]
    assert rows == [{"idx": i, "draft": draft} for i, draft in enumerate(expected)] and found.drafts == expected
    full = [i for i, draft in enumerate(expected) if draft.strip()]
    np.testing.assert_allclose(found.vectors[full], minilm.encode([expected[i] for i in full]), atol=1e-5)
    assert sorted(path.name for path in out.iterdir()) == ["drafts.jsonl", "meta.json", "vectors.npy"]
    assert write_hypotheses(model, minilm, vectors, out) == 0
    other = tmp_path / "other"
    write_vectors(texts[1:21], minilm, other)
    with pytest.raises(InputError, match="other texts than"):
        HypothesisFolder(out, other)
    with pytest.raises(InputError, match="begun with other vectors"):
        write_hypotheses(model, minilm, other, out)
    model.max_tokens += 1
    with pytest.raises(InputError, match="dtype or max_tokens"):
        write_hypotheses(model, minilm, vectors, out)
    meta = json.loads((out / "meta.json").read_text())
    del meta["max_tokens"]  # as older folders are
    (out / "meta.json").write_text(json.dumps(meta))
    assert write_hypotheses(model, minilm, vectors, out) == 0
    (out / "drafts.jsonl").write_text('{"idx": 0, "draft": "a"}\n')
    with pytest.raises(StorageError, match="damaged"):
        HypothesisFolder(out, vectors)


def test_processes_share_the_precomputing(trained, texts, minilm, tmp_path):
    """Two of them, here as threads; and one alone goes on with what two have begun."""
    first, _ = trained["nanov2t"]
    model, vectors, out, fresh = load_model(first.output, CPU), tmp_path / "v", tmp_path / "h", {}
    barrier, lock = threading.Barrier(2), threading.Lock()

    class Threads(Processes):
        def wait(self):
            barrier.wait()

    class Locked:
        spec = minilm.spec

        def encode(self, texts):
            with lock:
                return minilm.encode(texts)

    def work(rank):
        processes = Threads(rank, 2)
        made = write_vectors(texts[:20], Locked(), vectors, chunk=3, processes=processes)
        fresh[rank] = made, write_hypotheses(model, Locked(), vectors, out, chunk=4, processes=processes)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(fresh.values()) == [(9, 8), (11, 12)]
    np.testing.assert_allclose(VectorFolder(vectors).vectors, minilm.encode(texts[:20]), atol=1e-5)
    assert len(HypothesisFolder(out, vectors)) == 20
    assert not list(vectors.glob("done-*"))


def test_vectors_that_do_not_belong(base, trained, texts, minilm, tmp_path):
    folder = tmp_path / "v"
    write_vectors(texts[:40], minilm, folder)
    kept = base(tmp_path / "a", texts=[], vectors=str(folder))
    np.save(folder / "vectors.npy", np.zeros((40, 7), dtype=np.float32))
    with pytest.raises(InputError, match="vectors of 7 numbers, the embedder's have 384"):
        train(kept)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    meta["embedder"]["dim"] = 7
    meta["embedder"]["fingerprint"] = None
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(SpecMismatch, match="dimension 7 against 384"):
        train(base(tmp_path / "b", texts=[], vectors=str(folder)))
    with pytest.raises(StorageError, match="no folder written by"):
        train(base(tmp_path / "c", texts=[], vectors=str(tmp_path / "nowhere")))
    write_vectors(texts[:40], minilm, tmp_path / "long")
    with pytest.raises(InputError, match="more than 3 tokens"):
        train(base(tmp_path / "d", texts=[], vectors=str(tmp_path / "long"), max_seq_length=3))


# --- pieces ---


def test_texts_are_cut_to_what_may_be_written(texts, tokenizer):
    cut = cut_texts(iter(texts), tokenizer, 9)
    assert len(cut) == len(texts) and all(text.startswith(start) for text, start in zip(texts, cut, strict=True))
    rows = TokenRows(cut, tokenizer, 10)
    assert rows.whole.all() and max(rows.lengths) == 10 and np.mean(rows.lengths) > 9
    assert list(rows[3]) == tokenizer(cut[3])["input_ids"]
    short = TokenRows(texts, tokenizer, 10)
    assert not short.whole.any() and len(short[0]) == 10 and short[0][-1] == 1


def test_the_order_is_a_function_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(1, 40, 1003)
    grouped, plain = Order(1003, 1, 10, lengths), Order(1003, 1, 10)
    for order in (grouped, plain):
        first = list(order)
        assert sorted(first) == list(range(1003)) and list(order) == first
        order.epoch = 1
        assert list(order) != first and sorted(order) == list(range(1003))

    def padding(order):
        rows = list(order)
        return sum(np.ptp(lengths[rows[i : i + 10]]) for i in range(0, 1000, 10))

    assert padding(grouped) < padding(plain) / 5
    assert len({lengths[row] for row in list(grouped)[:10]}) < 5, "the first batch is of one length"


def test_rows_with_nothing_to_correct_are_left_out(tokenizer):
    tokens = TokenRows(["a"] * 4, tokenizer, 8)
    targets = np.eye(4, 6, dtype=np.float32)
    vectors = np.stack([targets[0], targets[1] * 1.1, np.zeros(6), targets[3].astype(np.float16) + 1e-4])
    rows = Rows(tokens, np.arange(4), targets)
    kept = not_yet_right(rows, type("Drafts", (), {"vectors": vectors.astype(np.float32)}))
    assert kept.tolist() == [1], "0 and 3 are right, 2 is empty"


def test_dropout_is_off_where_it_is_disabled():
    from transformers import T5Config, T5ForConditionalGeneration

    t5 = T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_ff=8, d_kv=4, num_heads=2, num_layers=1))
    states = torch.randn(2, 3, 8)
    t5.train()
    assert not torch.equal(*(t5.encoder(inputs_embeds=states).last_hidden_state for _ in range(2)))
    without_dropout(t5.encoder)
    assert torch.equal(*(t5.encoder(inputs_embeds=states).last_hidden_state for _ in range(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "bert"}, "family 'bert' is unknown"),
        ({"texts": []}, "give texts"),
        ({"stage": "corrector"}, "needs the hypothesizer"),
        (
            {"stage": "corrector", "hypothesizer": "h", "family": "nanov2t", "ignore_hypothesis_embedding": True},
            "no place",
        ),
        ({"precompute": False, "arguments": {"dataloader_num_workers": 2}}, "dataloader_num_workers"),
        ({"hypotheses": "h"}, "belong to stage corrector"),
        ({"stage": "corrector", "hypothesizer": "h", "noise": 0.1}, "precompute: false"),
        ({"vectors": "v", "precompute": False}, "vectors are precomputed"),
        ({"save_steps": 30}, "no multiple of eval_steps"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_recipes_that_cannot_be_run(base, changes, message):
    with pytest.raises(InputError, match=message):
        base("unused", **changes)


def test_what_the_trainer_or_the_hub_refuses(base, tmp_path):
    with pytest.raises(InputError, match="Trainer refuses.*no_such"):
        train(base(tmp_path / "a", arguments={"no_such": 1}))
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        train(base(tmp_path / "a", device="gpu"))
    with pytest.raises(CheckpointError, match="tokenizer no/such is no folder here"):
        train(base(tmp_path / "b", tokenizer="no/such"))
    with pytest.raises(CheckpointError, match="backbone no/such is no folder here"):
        train(base(tmp_path / "c", scratch=None, backbone="no/such"))


# --- recipes of other programs, and ours on the command line ---


def test_train_and_hypothesize_as_commands(command, refused, base, trained, tmp_path, monkeypatch):
    first, _ = trained["vec2text"]
    code, out, _ = command(
        "hypothesize", "--vectors", f"{first.output}/vectors", "-o", tmp_path / "h", "-m", first.output
    )
    assert code == 0 and "200 written now" in out
    config = base(
        tmp_path / "run", tokenizer=f"{first.output}/tokenizer", stage="corrector", texts=[], eval_steps=2,
        vectors=f"{first.output}/vectors", hypotheses=str(tmp_path / "h"), max_steps=2, save_steps=2,
    )  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(as_keys(config)), encoding="utf-8")
    code, out, err = command("train", "--config", tmp_path / "r.yaml", "--bf16", "true")
    assert code == 0 and "HYPOTHESIZER+" in out, err
    assert len(history(config)) == 2
    # Keys of one kind of recipe are none of the other's.
    assert "batch_tokens" in refused("train", "--family", "vec2text", "--output", "x", "--batch_tokens", "5")
    assert "another recipe" in refused("train", "--config", tmp_path / "r.yaml", "--learning_rate", "0.3")
    code, out, _ = command("train", "--config", tmp_path / "r.yaml", "--print_config")
    assert code == 0 and yaml.safe_load(out)["stage"] == "corrector"


def test_a_raw_t5_embedder_goes_into_the_file_for_vec2text(parity_dir, tmp_path):
    """However it was opened; what is then read from the file gives the same vectors."""
    texts = ["Alice reads the old letter in Paris.", "Bob paints."]
    raw = SentenceTransformerEmbedder(parity_dir / "nanov2t" / "embedder", raw=True, device="cpu")
    tensors = carried(raw)
    assert carried(SentenceTransformerEmbedder(parity_dir / "nanov2t" / "embedder", device="cpu")) is None
    source = vec2text.Checkpoint(parity_dir / "vec2text/jxm/gtr__nq__32")
    own = carried(CheckpointEmbedder(source.folder, device="cpu"))
    assert own.keys() == source.embedder_tensors().keys() and tensors.keys() >= {"final_layer_norm.weight"}
    net = EncoderDecoderNetwork(source.network(Placement(CPU)).t5, ProjectionConfig(raw.spec.dim, 2, raw.spec.dim))
    spec = replace(raw.spec, max_tokens=32)
    vec2text.save(
        net, tmp_path / "m", backbone="t5-base", tokenizer=raw.model.tokenizer, spec=spec, max_tokens=32,
        embedder_tensors=tensors,
    )  # fmt: skip
    found = CheckpointEmbedder(tmp_path / "m", device="cpu").encode(texts)
    assert np.allclose(found, raw.encode(texts), atol=1e-5)
