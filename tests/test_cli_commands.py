"""The commands beside `invert`: embed, interpolate, models, evaluate, demo and train."""

from __future__ import annotations

import errno
import importlib
import json
import lzma
import signal
from pathlib import Path

import numpy as np
import pytest

from unembed import suites
from unembed.checkpoints import resolve
from unembed.errors import install_line
from unembed.results import ResultFile, read_results
from unembed.training import vectors as training_vectors

EXAMPLES = Path(__file__).parent.parent / "examples" / "sentences.txt"
TEXTS = [
    "The cat sat on the mat.", "Please call me back before noon.", "Light travels faster than sound.",
    "The contract is not signed.", "Two eggs and a cup of flour.", "Anna will join the team in March.",
]  # fmt: skip


@pytest.fixture(scope="module")
def vectors(minilm):
    return minilm.encode(TEXTS)


@pytest.fixture
def txt(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return tmp_path / "texts.txt"


# --- embed ---


def test_embed_into_a_folder_and_into_a_file(command, refused, tmp_path, txt, vectors):
    code, out, _ = command("embed", "--input", txt, "-o", tmp_path / "folder", "-q", "true")
    assert code == 0 and "6 vectors" in out and "(6 embedded now)" in out
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == ["meta.json", "texts.jsonl", "vectors.npy"]
    np.testing.assert_allclose(np.load(tmp_path / "folder" / "vectors.npy"), vectors, atol=1e-6)
    assert command("embed", "--input", txt, "-o", tmp_path / "v.npy", "--store", "float16")[0] == 0
    stored = np.load(tmp_path / "v.npy")
    assert stored.dtype == np.float16 and not (tmp_path / "v.npy.partial").exists()
    np.testing.assert_allclose(stored, vectors, atol=1e-3)
    assert "exists already" in refused("embed", "--input", txt, "-o", tmp_path / "v.npy")
    assert "(0 embedded now)" in command("embed", "--input", txt, "-o", tmp_path / "folder")[1]
    (tmp_path / "other.txt").write_text("something else\n")
    assert "other texts" in refused("embed", "--input", tmp_path / "other.txt", "-o", tmp_path / "folder")
    assert command("embed", "--input", json.dumps([str(txt)] * 2), "--limit", "2", "-o", tmp_path / "two")[0] == 0
    assert np.load(tmp_path / "two" / "vectors.npy").shape == (4, 384)


def test_half_a_surrogate_pair_does_not_stop_embed(command, tmp_path, minilm):
    (tmp_path / "in.jsonl").write_text('{"text": "half \\ud83e pair"}\n')
    for again in range(2):
        code, out, _ = command("embed", "--input", tmp_path / "in.jsonl", "-o", tmp_path / "out")
        assert code == 0 and f"({1 - again} embedded now)" in out
    assert json.loads((tmp_path / "out" / "texts.jsonl").read_text(encoding="utf-8")) == "half ? pair"
    np.testing.assert_allclose(np.load(tmp_path / "out" / "vectors.npy"), minilm.encode(["half ? pair"]), atol=1e-6)


@pytest.mark.parametrize("name", ["folder", "v.npy"])
def test_embed_goes_on_where_it_was_stopped(command, tmp_path, txt, vectors, minilm, monkeypatch, name):
    monkeypatch.setitem(training_vectors.write_vectors.__kwdefaults__, "chunk", 4)
    encode = minilm.encode
    monkeypatch.setattr(minilm, "encode", lambda texts: encode(texts) if len(texts) == 4 else signal.raise_signal(2))
    code, _, err = command("embed", "--input", txt, "-o", tmp_path / name)
    assert code == 130 and "goes on from there" in err
    assert not (tmp_path / "v.npy").exists(), "what is not finished does not look as if it were"
    monkeypatch.setattr(minilm, "encode", encode)
    code, out, _ = command("embed", "--input", txt, "-o", tmp_path / name)
    assert code == 0 and "(2 embedded now)" in out
    path = tmp_path / name if name.endswith(".npy") else tmp_path / name / "vectors.npy"
    np.testing.assert_allclose(np.load(path), vectors, atol=1e-6)


def test_embed_onto_a_full_disk(command, refused, tmp_path, txt, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(training_vectors, "reserve", full)
        message = refused("embed", "--input", txt, "-o", tmp_path / "folder")
    assert "No space left on device" in message and "free space" in message
    assert "(6 embedded now)" in command("embed", "--input", txt, "-o", tmp_path / "folder")[1]


def test_what_cannot_be_embedded(refused, tmp_path, txt):
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "holds no text" in refused("embed", "--input", tmp_path / "empty.txt", "-o", tmp_path / "out")
    assert "float8" in refused("embed", "--input", txt, "-o", tmp_path / "out", "--store", "float8")
    assert "limit" in refused("embed", "--input", txt, "-o", tmp_path / "out", "--limit", "-3")
    assert not (tmp_path / "out").exists()


# --- interpolate ---


def test_interpolate_between_texts_and_between_stored_vectors(command, refused, tmp_path, vectors):
    search = ["--n", "3", "--steps", "0", "--sequence-beam-width", "1"]
    code, out, err = command("interpolate", "--texts", json.dumps(TEXTS[:2]), *search)
    assert (code, err) == (0, "") and all(way in out for way in ("0.00", "0.50", "1.00"))
    np.save(tmp_path / "v.npy", vectors)
    assert command("interpolate", "--vectors", tmp_path / "v.npy", *search)[1] == out
    np.save(tmp_path / "one.npy", vectors[:1])
    assert "one vector" in refused("interpolate", "--vectors", tmp_path / "one.npy", *search)
    assert "n is 1" in refused("interpolate", "--texts", json.dumps(TEXTS[:2]), "--n", "1")


# --- models ---


def test_models_lists_describes_and_finds(command, tmp_path):
    code, out, _ = command("models")
    assert code == 0 and "all-MiniLM-L6-v2" in out and "384" in out
    assert command("models", "list")[1] == out
    code, out, _ = command("models", "path", "minilm")
    assert code == 0 and Path(out.strip()) == resolve("all-MiniLM-L6-v2") and Path(out.strip()).is_dir()
    code, out, _ = command("models", "info")
    assert code == 0 and "sentence-transformers/all-MiniLM-L6-v2" in out and "max_tokens" in out
    assert command("models", "info", resolve("minilm"))[1] == out


def test_a_folder_that_is_no_model_has_nothing_to_tell(refused, tmp_path):
    assert "config.json" in refused("models", "info", tmp_path)


def test_a_readme_in_another_encoding_is_shown(command, tmp_path):
    for file in resolve("minilm").iterdir():
        if file.name != "README.md":
            (tmp_path / file.name).symlink_to(file)
    (tmp_path / "README.md").write_bytes("Modèle".encode("latin-1"))
    code, out, _ = command("models", "info", tmp_path)
    assert code == 0 and "Mod\ufffdle" in out


# --- evaluate ---

EVALUATE = ["--data", EXAMPLES, "--lengths", "[4, 8]", "--n", "3", "--steps", "0", "--targets-at-once", "2"]


def strip(report):
    """A report without what differs from run to run."""
    for row in report["rows"]:
        row.pop("seconds")
    for length in report["lengths"].values():
        length.pop("seconds_mean")
    report["rows"].sort(key=lambda row: row["id"])
    return report


def test_evaluate_writes_a_report_and_goes_on_where_it_was_stopped(command, refused, tmp_path, monkeypatch, minilm):
    (tmp_path / "controls.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    arguments = ["evaluate", *EVALUATE, "--controls", tmp_path / "controls.txt", "--quiet", "true", "-o"]
    code, out, err = command(*arguments, tmp_path / "whole.json")
    assert code == 0 and all(
        word in out for word in ("inverter", "training text", "prior sample", "token F1", "cosine")
    )
    assert "…" not in out, "no figure is cut short"
    report = json.loads((tmp_path / "whole.json").read_text(encoding="utf-8"))
    assert list(report["lengths"]) == ["4", "8"] and report["settings"]["n"] == 3 and "torch" in report["settings"]
    assert len(report["rows"]) == 6 and len({row["id"] for row in report["rows"]}) == 6
    for row in report["rows"]:
        assert minilm.count_tokens([row["reference"]]) == [row["length"]]
        assert row["reference"].lower() in EXAMPLES.read_text(encoding="utf-8").lower()
    for length in report["lengths"].values():
        assert length["n"] == 3 and set(length["systems"]) == {"inverter", "training text", "prior sample"}
        means = {name: scores["summary"]["cosine"]["value"] for name, scores in length["systems"].items()}
        assert means["inverter"] > means["training text"] and means["inverter"] > means["prior sample"]
        assert all(scores["summary"]["token_f1"]["n"] == 3 for scores in length["systems"].values())
        ours = {name: estimate["value"] for name, estimate in length["systems"]["inverter"]["summary"].items()}
        assert length["nanov2t"] == {
            "bleu": ours["bleu"], "token_f1": 100 * ours["token_set_f1"], "em": 100 * ours["exact"],
            "cos_sim": ours["cosine"],
        }  # fmt: skip

    append = ResultFile.append
    stops = iter([False, True])
    monkeypatch.setattr(
        ResultFile, "append", lambda f, rows: signal.raise_signal(2) if next(stops) else append(f, rows)
    )
    assert command(*arguments, tmp_path / "part.json")[0] == 130
    assert len(read_results(tmp_path / "part.rows.jsonl")[1]) == 2 and not (tmp_path / "part.json").exists()
    monkeypatch.setattr(ResultFile, "append", append)
    assert command(*arguments, tmp_path / "part.json")[0] == 0
    again = json.loads((tmp_path / "part.json").read_text(encoding="utf-8"))
    assert strip(again) == strip(report)
    asked = minilm.queries
    assert command(*arguments, tmp_path / "part.json")[0] == 0 and minilm.queries == asked
    assert "n: 3 there, 2 now" in refused(*[2 if word == "3" else word for word in arguments], tmp_path / "part.json")


def test_an_evaluation_is_not_resumed_with_other_texts(command, refused, tmp_path):
    data, out = tmp_path / "data.jsonl", tmp_path / "out.json"
    texts = [text for text in EXAMPLES.read_text(encoding="utf-8").splitlines() if len(text.split()) > 5]
    flags = ["--lengths", "[4]", "--n", "2", "--steps", "0", "--quiet", "true", "-o", out]
    arguments = ["evaluate", "--data", data, *flags]

    def save(first, second):
        rows = [{"text": text, "title": other} for text, other in zip(first, second, strict=True)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    save(texts[:4], texts[4:8])
    assert command(*arguments)[0] == 0
    before = (tmp_path / "out.rows.jsonl").read_bytes()
    for change in (lambda: save(texts[4:8], texts[:4]), lambda: save(["Too short."] + texts[1:4], texts[4:8])):
        change()
        message = refused(*arguments)
        assert "row 4/0 is of another text than" in message and "--overwrite" in message
    save(texts[:4], texts[4:8])
    assert "--field" in refused(*arguments, "--field", "title")
    assert command(*arguments)[0] == 0, "the same texts again"
    assert (tmp_path / "out.rows.jsonl").read_bytes() == before


def test_a_suite_measures_all_its_parts_and_writes_the_tables(command, refused, tmp_path, monkeypatch):
    tiny = (
        suites.Part("squad-greedy", "held_a", (4, 8), 2, consensus=1),
        suites.Part("squad-zero", "held_a", (4, 8), 2),
        suites.Part("squad-search", "held_a", (4,), 2, steps=1, sequence_beam_width=2),
        suites.Part("pii-zero", "held_b", (8,), 3),
    )
    monkeypatch.setitem(suites.SUITES, "tiny", tiny)
    lines = EXAMPLES.read_text(encoding="utf-8").splitlines()
    (tmp_path / "held_a.txt").write_text("\n".join(lines[:6]), encoding="utf-8")
    with lzma.open(tmp_path / "held_b.txt.xz", "wt", encoding="utf-8") as file:
        file.write("Please call Anna Miller on May 3, 2024 at 12:30 about order B66250 now.\n" * 3)
    arguments = ["evaluate", "--suite", "tiny", "--data", tmp_path, "--quiet", "true"]
    code, out, _ = command(*arguments, "-o", tmp_path / "out")
    assert code == 0 and "squad-search" in out and "pii-zero" in out
    reports = {part.name: json.loads((tmp_path / "out" / f"{part.name}.json").read_text()) for part in tiny}
    assert reports["squad-search"]["settings"]["search"]["steps"] == 1
    assert list(reports["squad-search"]["lengths"]) == ["4"] and reports["pii-zero"]["lengths"]["8"]["n"] == 3
    page = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "consensus of 32" in page and "steps 0, greedy" in page and "steps 1, sequence beam 2" in page
    value = reports["squad-search"]["lengths"]["4"]["systems"]["inverter"]["summary"]["token_f1"]["value"]
    first = next(line for line in page.splitlines() if line.startswith("| 4 |"))
    assert f" {value:.2f}" in first and page.count("held_a") == 3 and "| 8 | name |" in page
    for report in reports.values():  # of a model without a prior, which brings no training texts
        for length in report["lengths"].values():
            del length["systems"]["training text"], length["systems"]["prior sample"]
    assert "|  |  |" in suites.headline(reports)
    assert command(*arguments)[0] == 0, "without a folder it only prints"
    assert "no suite 'fast': choose from headline, quick" in refused("evaluate", "--suite", "fast", "--data", tmp_path)
    (tmp_path / "held_b.txt.xz").unlink()
    assert "no held_b.txt" in refused(*arguments)


def test_evaluate_prints_without_a_file_and_refuses_lengths_that_no_text_has(command, refused, tmp_path):
    code, out, _ = command("evaluate", "--data", EXAMPLES, "--lengths", "[4]", "--n", "1", "--steps", "0")
    assert code == 0 and "inverter" in out and "prior sample" in out
    assert "no text has 64 tokens" in refused("evaluate", "--data", EXAMPLES, "--lengths", "[64]", "--steps", "0")
    assert "lengths" in refused("evaluate", "--data", EXAMPLES, "--lengths", "[four]")
    assert "cut" in refused("evaluate", "--data", EXAMPLES, "--lengths", "[-1]", "--steps", "0")


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("rouge_score", "evaluate", ["evaluate", "--data", EXAMPLES]),
        ("presidio_analyzer", "audit", ["audit", "--store", "v.npy", "--output", "run"]),
        ("matplotlib", "plot", ["invert", "--text", "a", "--plot", "a.png"]),
        ("accelerate", "train", ["train", "--output", "x", "--corpora", '[{"path": "a.txt"}]']),
        ("wandb", "wandb", ["train", "--output", "x", "--corpora", '[{"path": "a.txt"}]', "--tracker", "wandb"]),
    ],
)
def test_a_missing_package_is_answered_with_the_pip_line(refused, monkeypatch, tmp_path, package, extra, arguments):
    monkeypatch.chdir(tmp_path)
    import_module = importlib.import_module

    def absent(name, *rest):
        if name == package:
            raise ImportError(name)
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert install_line(extra) in refused(*arguments)
    assert not list(tmp_path.iterdir())


# --- demo ---


def test_demo_shows_originals_beside_what_came_back(command, tmp_path):
    (tmp_path / "two.txt").write_text("\n".join(TEXTS[:2]), encoding="utf-8")
    code, out, err = command("demo", "--file", tmp_path / "two.txt", "--steps", "1", "--sequence-beam-width", "1")
    assert (code, err) == (0, "") and "2 sentences" in out and "384 numbers" in out
    assert "cat sat" in out and "before noon" in out and "recovered" in out
    code, out, _ = command("demo", "--text", "One sentence of my own", "--steps", "0", "--thorough")
    assert code == 0 and "1 sentence" in out and "of my own" in out


# --- train ---


def test_train_from_a_recipe_and_use_what_it_made(command, refused, tmp_path, monkeypatch, minilm):
    monkeypatch.setattr("unembed.training.loop.embedder", lambda name, **options: minilm)
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS * 4), encoding="utf-8")
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"""
corpora:
  - path: {tmp_path / "corpus.txt"}
tokenizer: {resolve("minilm") / "tokenizer.json"}
model: {{d_model: 32, n_layers: 1, n_heads: 2, max_tokens: 16}}
spans: {{max_words: 6, lengths: [8, 16]}}
max_steps: 9
batch_tokens: 64
chunk: 32
dtype: float32
device: cpu
tracker: none
heldout_samples: 2
""")
    output = tmp_path / "run"
    arguments = ["train", "--config", recipe, "--output", output]
    code, out, _ = command(*arguments, "--max-steps", "2", "--optimiser.muon-lr", "0.01")
    assert code == 0 and str(output / "model") in out
    settings = json.loads((output / "train.json").read_text(encoding="utf-8"))
    assert (
        settings["max_steps"] == 2 and settings["optimiser"]["muon_lr"] == 0.01 and settings["model"]["d_model"] == 32
    )
    assert "another config" in refused(*arguments, "--max-steps", "2")
    code, out, _ = command("invert", "--model", output / "model", "--text", TEXTS[0], "--steps", "0")
    assert code == 0 and "recovered" in out
    recipe.write_text(recipe.read_text() + "colour: blue\n")
    assert "colour" in refused(*arguments)
