"""The command line: what a user types, what comes out, and how each mistake is answered."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from unembed.cli import main as cli
from unembed.cli.main import bracketed
from unembed.results import ResultFile, read_results

TEXTS = [
    "The cat sat on the mat.", "Please call me back before noon.", "Light travels faster than sound.",
    "The contract is not signed.", "Two eggs and a cup of flour.", "Anna will join the team in March.",
]  # fmt: skip
GREEDY = ["--steps", "0", "--sequence-beam-width", "1", "--quiet"]
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture(scope="module")
def vectors(minilm):
    return minilm.encode(TEXTS)


@pytest.fixture
def npy(vectors, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors)
    return tmp_path / "vectors.npy"


def process(*arguments, **options):
    """Start the command as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "unembed.cli.main", *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options,
    )  # fmt: skip


def lines(path):
    return path.read_text(encoding="utf-8").split("\n") if path.exists() else []


def texts_in(path):
    return {row["id"]: row["text"] for row in read_results(path)[1]}


# --- mistakes ---


def test_a_mistake_is_one_line_and_exit_code_2_and_a_traceback_only_with_debug(tmp_path):
    plain, debug = (
        process("invert", "--vectors", tmp_path / "missing.npy", "--steps", "1", *more) for more in ([], ["--debug"])
    )
    out, err = plain.communicate(timeout=60)
    assert (plain.returncode, out) == (2, "")
    assert err.startswith("unembed: error: ") and err.count("\n") == 1 and "missing.npy" in err
    _, err = debug.communicate(timeout=60)
    assert debug.returncode != 0 and "Traceback" in err and "InputError" in err and "missing.npy" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["command"]),
        (["inverse"], ["inverse", "invert"]),
        (["invert"], ["--text", "--vectors"]),
        (["invert", "--text", "a", "--vectors", "b.npy"], ["either"]),
        (["invert", "--text", "a", "--stepz", "3"], ["stepz"]),
        (["invert", "--text", "a", "--steps", "many"], ["steps", "many"]),
        (["invert", "--text", "a", "--steps", "-1"], ["steps"]),
        (["invert", "--text", "a", "--budget", "0"], ["budget"]),
        (["invert", "--text", "a", "--sequence-beam-width", "0"], ["sequence_beam_width"]),
        (["invert", "--text", "a", "--targets-at-once", "0"], ["targets_at_once"]),
        (["invert", "--text", "a", "--prior-weight", "-1"], ["prior_weight"]),
        (["invert", "--text", "a", "--limit", "-1"], ["limit"]),
        (["invert", "--text", "a", "--seed", "-5"], ["seed"]),
        (["invert", "--text", "a", "--model", "all-MiniLM-L6-v3"], ["did you mean 'all-MiniLM-L6-v2'"]),
        (["invert", "--text", "a", "--model", "./nowhere"], ["./nowhere"]),
        (["invert", "--text", "a", "--embedder", "minilmm"], ["minilmm", "minilm"]),
        (["invert", "--text", "a", "--device", "gpu9"], ["gpu9"]),
        (["invert", "--text", "a", "--dtype", "float8"], ["float8"]),
        (["invert", "--text", ""], ["empty"]),
        (["invert", "--vectors", "no/such/folder/v.npy"], ["no/such/folder"]),
        (["invert", "--vectors", "store://here"], ["store"]),
        (["invert", "--config", "no-such.yaml"], ["no-such.yaml"]),
        (["embed", "--input", "texts.txt"], ["output"]),
        (["embed", "--input", "no-such.txt", "-o", "out"], ["no-such.txt"]),
        (["evaluate", "--data", "no-such.txt"], ["no-such.txt"]),
        (["evaluate", "--data", "no-such.txt", "--n", "0"], ["n is 0"]),
        (["interpolate"], ["--texts", "--vectors"]),
        (["interpolate", "--texts", '["only one"]'], ["two"]),
        (["models", "describe"], ["describe", "list"]),
        (["models", "info", "nothing-like-it"], ["unknown model"]),
        (["demo"], ["--file", "--text"]),
        (["train", "--output", "x"], ["corpora"]),
        (["train", "--corpora", '[{"path": "a.txt"}]'], ["output"]),
        (["train", "--output", "x", "--corpora", '[{"path": "a.txt"}]', "--tracker", "paper"], ["tracker", "paper"]),
        (["train", "--output", "x", "--corpora", '[{"path": "a.txt", "colour": 1}]'], ["colour"]),
    ],
)
def test_mistakes_are_answered_in_one_line(refused, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    message = refused(*arguments)
    assert all(word in message for word in words), message
    assert "Traceback" not in message and not list(tmp_path.iterdir()), "nothing was left behind"


def test_vectors_that_do_not_fit_the_model(refused, tmp_path, vectors):
    np.save(tmp_path / "wide.npy", np.ones((2, 768), np.float32))
    message = refused("invert", "--vectors", tmp_path / "wide.npy")
    assert "768" in message and "384" in message
    bad = vectors.copy()
    bad[5, 7] = np.nan
    np.save(tmp_path / "nan.npy", bad)
    message = refused("invert", "--vectors", tmp_path / "nan.npy", "--targets-at-once", "2", *GREEDY)
    assert "vector 5 " in message and "NaN" in message
    np.save(tmp_path / "long.npy", 2 * vectors)
    assert "--normalize" in refused("invert", "--vectors", tmp_path / "long.npy", *GREEDY)


def test_help_names_every_command_and_every_flag_has_a_line(command):
    code, out, _ = command("--help")
    assert code == 0 and all(name in out for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        code, out, err = command(name, "--help")
        assert (code, err) == (0, "") and "--config" in out
    assert "rounds of correction" in command("invert", "--help")[1], "the help is read from the docstrings"
    assert "examples without any condition" in command("train", "--help")[1], "and from those of a recipe's fields"
    assert "Of AdamW, after the warm-up" in " ".join(command("train", "--family", "vec2text", "--help")[1].split())
    code, out, _ = command("--version")
    assert code == 0 and "0." in out


# --- invert ---


def test_a_text(command):
    code, out, err = command(
        "invert", "--text", TEXTS[0], "--steps", "1", "--sequence_beam_width", "2", "--budget", "9"
    )
    assert (code, err) == (0, "")
    assert all(word in out for word in ("recovered", "cosine", "exact", "queries"))


def test_how_a_search_went_is_printed_on_demand(command):
    search = ["--steps", "1", "--sequence-beam-width", "2", "--budget", "9"]
    code, out, _ = command("invert", "--text", TEXTS[0], *search, "--trace")
    assert code == 0 and "vector 0, stopped: " in out and "step   0" in out and "queries  cosine" in out


@pytest.mark.parametrize(
    "text", ["null", "- item", "#5 is out", "a: b", "123", "~", '"so"', "[1] says", '["a"]', "{x}"]
)
def test_a_text_is_taken_as_it_stands(command, inverter, monkeypatch, text):
    asked = []
    encode = inverter.embedder.encode
    monkeypatch.setattr(inverter.embedder, "encode", lambda texts: (asked.append(list(texts)), encode(texts))[1])
    for arguments in (["--text", text], [f"--text={text}"]):
        asked.clear()
        assert command("invert", *arguments, *GREEDY)[0] == 0
        assert asked[0] == [text]
    asked.clear()
    assert command("demo", "--text", text, "--steps", "0")[0] == 0
    assert asked[0] == [text]


def test_a_text_and_a_result_file(command, tmp_path):
    out = tmp_path / "new" / "out.jsonl"
    code, printed, _ = command("invert", "--text", "- milk", *GREEDY, "-o", out, "--candidates", "true")
    assert (code, printed) == (0, "")
    header, rows = read_results(out)
    assert header["kind"] == "invert" and header["config"]["steps"] == 0
    assert header["config"]["source"] == ["- milk"]  # what looks like YAML stays the text it is
    assert [row["id"] for row in rows] == ["0"]
    assert "candidates" in rows[0] and "trace" not in rows[0]
    assert {"text", "cosine", "exact", "steps", "queries", "stopped", "seconds"} <= rows[0].keys()


def write(path, vectors, ids):
    """`vectors` with `ids` in the format of the path's ending."""
    if path.suffix == ".npy":
        np.save(path, vectors)
    elif path.suffix == ".npz":
        np.savez(path, vectors=vectors, ids=np.array(ids))
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"embeddings": vectors}, path)
    elif path.suffix == ".parquet":
        import pyarrow as arrow
        from pyarrow import parquet

        parquet.write_table(arrow.table({"id": ids, "embedding": vectors.tolist()}), path)
    else:
        rows = ({"id": name, "vector": vector.tolist()} for name, vector in zip(ids, vectors, strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["v.npy", "v.npz", "v.safetensors", "v.parquet", "v.jsonl", "-"])
def test_vectors_from_each_kind_of_file(command, tmp_path, vectors, inverter, monkeypatch, name):
    ids, source = ["a", "b", "c"], tmp_path / name
    if name == "-":
        write(tmp_path / "v.jsonl", vectors[:3], ids)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "v.jsonl").read_bytes())))
        source = name
    else:
        write(source, vectors[:3], ids)
    assert command("invert", "--vectors", source, *GREEDY, "-o", tmp_path / "out.jsonl")[0] == 0
    found = texts_in(tmp_path / "out.jsonl")
    assert list(found) == (["0", "1", "2"] if name in ("v.npy", "v.safetensors") else ids)
    expected = inverter.invert(vectors[:3], steps=0, sequence_beam_width=1)
    assert list(found.values()) == [inversion.text for inversion in expected]


def test_the_fields_of_a_file_can_be_named(command, refused, tmp_path, vectors):
    np.savez(tmp_path / "v.npz", one=vectors[:2], other=vectors[2:4], name=np.array(["x", "y"]))
    assert "one" in refused("invert", "--vectors", tmp_path / "v.npz", *GREEDY)
    fields = ["--vector-field", "other", "--ids-field", "name"]
    code, out, _ = command("invert", "--vectors", tmp_path / "v.npz", *fields, "--dry-run")
    assert code == 0 and "2 vectors" in out
    assert command("invert", "--vectors", tmp_path / "v.npz", *fields, *GREEDY, "-o", tmp_path / "o.jsonl")[0] == 0
    assert list(texts_in(tmp_path / "o.jsonl")) == ["x", "y"]


def test_texts_beside_the_vectors_are_not_looked_at(command, tmp_path, vectors):
    rows = [{"vector": vector.tolist(), "text": 5} for vector in vectors[:2]]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command("invert", "--vectors", tmp_path / "v.jsonl", *GREEDY)[0] == 0


def test_a_plot_shows_what_was_searched_and_is_not_drawn_over_by_an_empty_one(command, tmp_path, npy, caplog):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "p.svg"
    arguments = ["invert", "--vectors", npy, *GREEDY, "--targets-at-once", "2", "-o", tmp_path / "o.jsonl"]
    arguments += ["--plot", plot]
    assert command(*arguments, "--limit", "4")[0] == 0
    drawn = plot.read_bytes()
    assert command(*arguments, "--limit", "4")[0] == 0
    assert plot.read_bytes() == drawn and "not drawn, since all 4 results were there" in caplog.messages[-1]
    assert command(*arguments)[0] == 0
    assert plot.read_bytes() != drawn and "shows 2 searches, without those of 4 results" in caplog.messages[-1]


def test_a_limit(command, tmp_path, npy):
    out = tmp_path / "out.jsonl"
    arguments = ["invert", "--vectors", npy, *GREEDY, "--targets-at-once", "2", "-o", out]
    assert command(*arguments, "--limit", "3")[0] == 0
    assert list(texts_in(out)) == ["0", "1", "2"]
    assert command(*arguments)[0] == 0, "the limit may be raised or dropped later"
    assert list(texts_in(out)) == list("012345")


def test_a_finished_run_is_not_run_again_and_other_settings_are_refused(command, refused, tmp_path, npy, inverter):
    out = tmp_path / "out.jsonl"
    arguments = ["invert", "--vectors", npy, "-o", out, *GREEDY]
    assert command(*arguments)[0] == 0
    before, asked = out.read_bytes(), inverter.embedder.queries
    assert command(*arguments)[0] == 0
    assert out.read_bytes() == before and inverter.embedder.queries == asked
    message = refused(*arguments, "--seed", "5")
    assert "seed: 0 there, 5 now" in message and "--overwrite" in message and out.read_bytes() == before
    assert command(*arguments, "--seed", "5", "--overwrite")[0] == 0
    assert read_results(out)[0]["config"]["seed"] == 5 and len(texts_in(out)) == len(TEXTS)
    (tmp_path / "mine.txt").write_text("precious\n")
    refused("invert", "--vectors", npy, "-o", tmp_path / "mine.txt", *GREEDY, "--overwrite")
    assert (tmp_path / "mine.txt").read_text() == "precious\n"


def test_a_run_is_not_resumed_with_other_vectors(command, refused, tmp_path, vectors, monkeypatch):
    out = tmp_path / "out.jsonl"

    def arguments(name="v.npz", *more):
        return ["invert", "--vectors", tmp_path / name if name != "-" else "-", *GREEDY, "-o", out, *more]

    def save(one, ids="abc"):
        np.savez(tmp_path / "v.npz", one=one, other=vectors[3:], ids=np.array(list(ids)), more=np.array(list("xyz")))

    def pipe(one):
        lines = "".join(json.dumps(vector.tolist()) + "\n" for vector in one)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))

    save(vectors[:3])
    assert command(*arguments("v.npz", "--vector-field", "one"))[0] == 0
    before = out.read_bytes()
    assert "vector_field" in refused(*arguments("v.npz", "--vector-field", "other"))
    assert "ids_field" in refused(*arguments("v.npz", "--vector-field", "one", "--ids-field", "more"))
    save(vectors[[0, 1, 3]])
    assert "row 'c' was made of another vector" in refused(*arguments("v.npz", "--vector-field", "one"))
    save(vectors[:3], "def")
    assert "results of other vectors" in refused(*arguments("v.npz", "--vector-field", "one"))
    assert out.read_bytes() == before
    pipe(vectors[:2])
    assert command(*arguments("-", "--overwrite"))[0] == 0
    pipe(vectors[:3])
    assert command(*arguments("-"))[0] == 0 and list(texts_in(out)) == ["0", "1", "2"], "more of the same goes on"
    pipe(vectors[1:4])
    message = refused(*arguments("-"))
    assert "row '0' was made of another vector" in message and "--overwrite" in message
    rows = [{key: value for key, value in row.items() if key != "vector_hash"} for row in read_results(out)[1]]
    header = out.read_bytes().split(b"\n")[0]
    out.write_bytes(b"\n".join([header, *(json.dumps(row).encode() for row in rows), b""]))
    pipe(vectors[:3])
    assert command(*arguments("-"))[0] == 0, "what was written before rows named their vectors goes on as it did"


def test_no_password_is_written_or_shown(command, refused, tmp_path, vectors, monkeypatch):
    from unembed.stores.files import open_source

    address = "pgvector:postgresql://ann:s3cret@host/docs"
    np.save(tmp_path / "v.npy", vectors[:1])
    monkeypatch.setattr(
        "unembed.stores.pgvector.open_source", lambda source, **fields: open_source(str(tmp_path / "v.npy"), **fields)
    )
    assert command("invert", "--vectors", address, *GREEDY, "-o", tmp_path / "out.jsonl")[0] == 0
    text = (tmp_path / "out.jsonl").read_text()
    assert "postgresql://ann@host/docs" in text and "s3cret" not in text
    assert "s3cret" not in refused("invert", "--vectors", "mysql://ann:s3cret@host/docs")


def test_a_dry_run_says_the_cost_and_loads_nothing(command, tmp_path, npy, monkeypatch):
    monkeypatch.setattr("unembed.inverter.load", lambda *arguments, **options: pytest.fail("a model was loaded"))
    code, out, _ = command(
        "invert", "--vectors", npy, "--budget", "50", "-o", tmp_path / "o.jsonl", "--dry-run", "true"
    )
    assert code == 0 and "6 vectors" in out and "50" in out and "300" in out
    assert not (tmp_path / "o.jsonl").exists()


def test_a_config_file_has_the_same_keys_and_flags_win(command, refused, tmp_path, npy):
    config, out = tmp_path / "run.yaml", tmp_path / "out.jsonl"
    config.write_text(
        f"vectors: {npy}\nsteps: 0\nsequence_beam_width: 1\nseed: 3\nquiet: true\nlimit: 2\noutput: {out}\n"
    )
    assert command("invert", "--config", config, "--seed", "4")[0] == 0
    settings = read_results(out)[0]["config"]
    assert (settings["seed"], settings["steps"], settings["sequence_beam_width"]) == (4, 0, 1)
    assert len(texts_in(out)) == 2
    config.write_text("steps: 0\ncolour: blue\n")
    assert "colour" in refused("invert", "--config", config)
    config.write_text("steps: [")
    refused("invert", "--config", config)


@posix
def test_a_run_that_is_stopped_twice_ends_as_one_that_was_not(inverter, command, tmp_path, vectors, monkeypatch):
    # The processes of their own use the model as it is, so this one has to as well.
    monkeypatch.setattr(inverter.model, "max_tokens", inverter.model.net.config.max_tokens)
    np.save(tmp_path / "v.npy", np.concatenate([vectors, vectors[:2]]))
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    arguments = ["invert", "--vectors", tmp_path / "v.npy", "--steps", "1", "--budget", "6", "--targets-at-once", "1"]
    arguments.append("-o")

    def stop(number, after):
        running = process(*arguments, out)
        until = time.monotonic() + 120
        while len(lines(out)) < after + 2 and running.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        running.send_signal(number)
        printed, err = running.communicate(timeout=60)
        assert after <= len(read_results(out)[1]) < 8, f"it was to be stopped in the middle: {err}"
        return running.returncode, printed, err

    code, printed, err = stop(signal.SIGINT, 1)
    assert (code, printed) == (130, "") and err.count("\n") == 1 and "what was finished is kept" in err
    assert lines(out)[-1] == "", "no torn line"
    kept = texts_in(out)
    assert stop(signal.SIGKILL, len(kept) + 1)[0] == -signal.SIGKILL
    assert kept.items() <= texts_in(out).items()
    assert command(*arguments, out)[0] == command(*arguments, whole)[0] == 0
    assert [row["id"] for row in read_results(out)[1]] == [str(i) for i in range(8)]
    assert texts_in(out) == texts_in(whole)


def test_ctrl_c_keeps_what_was_finished(command, tmp_path, npy, monkeypatch):
    append = ResultFile.append

    def once(self, rows):
        if self.done():
            raise KeyboardInterrupt
        return append(self, rows)

    monkeypatch.setattr(ResultFile, "append", once)
    out = tmp_path / "out.jsonl"
    code, _, err = command("invert", "--vectors", npy, *GREEDY, "--targets-at-once", "4", "-o", out)
    assert code == 130 and err.startswith("unembed: stopped") and err.count("\n") == 1
    assert list(texts_in(out)) == list("0123")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--lengths", "4,8"], ["--lengths", "[4, 8]"]),
        (["--lengths=4,8", "--n", "3"], ["--lengths=[4, 8]", "--n", "3"]),
        (["--lengths", "[4, 8]"], ["--lengths", "[4, 8]"]),
        (["--data", "a: b.txt,c.txt"], ["--data", '["a: b.txt", "c.txt"]']),
        (["--output", "a,b"], ["--output", "a,b"]),
    ],
)
def test_a_list_needs_no_brackets(given, read):
    assert bracketed(["evaluate", *given]) == ["evaluate", *read]


def test_a_path_with_a_comma_is_one_path(tmp_path):
    path = tmp_path / "a,b.txt"
    path.write_text("text", encoding="utf-8")
    assert bracketed(["evaluate", "--data", str(path)]) == ["evaluate", "--data", str(path)]
