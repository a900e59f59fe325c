"""`unembed audit` on vectors of the real embedder, with the inverter that ships."""

from __future__ import annotations

import errno
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from unembed.results import ResultFile, read_results

CONTROLS = 40
ROOT = Path(__file__).parents[1]
QUICK = ["--steps", "0", "--sequence-beam-width", "1", "--targets-at-once", "4", "-q"]
TEXTS = [
    "Please contact Hannah Wang at iparker@example.com before September 16, 2026.",
    "Aaron Patterson was prescribed prednisone for migraine.",
    "The meeting between Olivia Dunn and Elizabeth Young was moved to January 23, 2024.",
    "My Social Security number is 379-52-6533 and my date of birth is February 4, 1988.",
    "Invoice A644992 for Callahan PLC is due on August 30, 2024.",
    "It rained all night.",
    "Angela Jarvis works as an ecologist at Woods LLC.",
    "The account of Katherine Reed was locked after three failed logins from 99.189.145.14.",
    "Paris is the capital of France.",
    "Send the signed documents to Calvin Smith, please.",
]


@pytest.fixture(scope="module")
def texts():
    """Held-out texts where there are any."""
    folder = os.environ.get("UNEMBED_DATA_DIR")
    if not folder:
        return TEXTS
    with lzma.open(Path(folder) / "heldout" / "en_synthetic_pii.txt.xz", "rt", encoding="utf-8") as file:
        return [line.strip() for line in file][::100]


@pytest.fixture(scope="module")
def vectors(minilm, texts):
    return minilm.encode(texts)


@pytest.fixture(scope="module")
def store(tmp_path_factory, vectors, texts):
    """Ten vectors with their texts and a domain."""
    rows = [
        {"id": f"doc {i}", "vector": vector.tolist(), "text": text, "team": "ab"[i % 2]}
        for i, (vector, text) in enumerate(zip(vectors, texts, strict=True))
    ]
    path = tmp_path_factory.mktemp("store") / "docs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _few_controls(inverter, monkeypatch):
    """Fewer and shorter public texts to embed than the model brings."""
    pytest.importorskip("presidio_analyzer")
    monkeypatch.setattr(inverter.model, "controls", [text[:80] for text in inverter.model.controls[:CONTROLS]])


def loaded(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_a_store_with_texts(command, store, texts, tmp_path):
    out = tmp_path / "run"
    words = ["audit", "--vectors", store, "-o", out, "--sample", "8", "--domain-field", "team", *QUICK]
    planned = command(*words, "--dry-run", "--price", "2")[1]
    assert "8 vectors" in planned and "at most 72 embedder queries" in planned and "cost at most 0.0" in planned
    assert not out.exists(), "a plan writes nothing"
    planted = {"all": {"planted": 3, "recall": {"1": {"value": 1 / 3, "low": None, "high": None, "n": 3}}}}
    more = ["--canaries", _file(tmp_path / "canaries.json", json.dumps(planted))]
    code, shown, err = command(*words, *more, "--fail-on", "token_f1>0.99", "--fail-on", "cosine>0.1")
    assert (code, err) == (1, "") and "passed: token_f1>0.99" in shown and "failed: cosine>0.1" in shown
    report = loaded(out)
    assert report["truth"] and report["target"]["sampled"] == 8 and report["target"]["count"] is None
    assert report["target"]["embedder"]["plausible"] and {"name": "text", "kind": "text"} in report["target"]["fields"]
    assert set(report["controls"]) == {"random text", "prior", "nearest public text"}
    ours = report["scores"]["token_f1"]["value"]
    assert ours > max(control["scores"]["token_f1"]["value"] for control in report["controls"].values())
    assert set(report["by"]["domain"]) == {"a", "b"} and report["pii"]["any"]["found"] > 5
    assert report["canaries"] == planted and "33.3 %" in (out / "report.md").read_text(encoding="utf-8")
    assert len(report["records"]) == 8 == report["threat_model"]["queries"]
    assert [check["failed"] for check in report["verdict"]["checks"]] == [False, True]
    rows = {row["id"]: row for row in read_results(out / "attempts.jsonl")[1]}
    hidden = (out / "report.json").read_text(encoding="utf-8")
    for row in rows.values():
        assert row["text"] not in hidden
    assert not any(text in hidden for text in texts) and out.stat().st_mode & 0o777 == 0o700
    assert command(*words, "--reveal")[0] == 0
    shown = {record["id"]: record for record in loaded(out)["records"]}
    assert all(shown[name]["text"] == row["text"] and shown[name]["true_text"] in texts for name, row in rows.items())
    assert [path.name for path in sorted(out.iterdir())] == [
        "attempts.jsonl", "report.html", "report.json", "report.junit.xml", "report.md", "report.sarif",
    ]  # fmt: skip


def test_a_rule_that_a_model_cannot_answer_is_refused_before_the_work(
    refused, vectors, tmp_path, inverter, monkeypatch
):
    np.save(tmp_path / "v.npy", vectors)
    monkeypatch.setattr(inverter.model, "calibration", None)
    words = ["audit", "--store", tmp_path / "v.npy", "-o", tmp_path / "run", "--sample", "4", *QUICK]
    for rule in ("confidence_good>0.2", "confidence_exact>0.2"):
        assert f"the rule '{rule}' cannot be judged" in refused(*words, "--fail-on", rule)
    assert not (tmp_path / "run").exists()


def test_vectors_alone_tell_confidence_alone(command, refused, vectors, texts, tmp_path):
    np.save(tmp_path / "v.npy", vectors)
    words = ["audit", "--store", tmp_path / "v.npy", "-o", tmp_path / "run", "--sample", "4", *QUICK]
    assert "needs the true texts" in refused(*words, "--fail-on", "pii_recall>0")
    code, shown, _ = command(*words, "--fail-on", "confidence_good>=0")
    report = loaded(tmp_path / "run")
    assert code == 1 and "failed: confidence_good>=0" in shown
    assert not report["truth"] and report["scores"] == report["pii"] == report["controls"] == {}
    assert report["target"]["embedder"]["plausible"] and f"{CONTROLS} main directions" in str(report["target"])
    assert report["headline"]["measure"] == "confidence_good" and "not known" in report["limits"][0]
    truth = tmp_path / "truth.txt"
    truth.write_text("\n".join(texts), encoding="utf-8")
    assert command(*words, "--truth", truth, "--fail-on", "token_f1<0.2")[0] == 0, "and the results are kept"
    assert loaded(tmp_path / "run")["truth"]
    truth.write_text("\n" * 20 + "too late", encoding="utf-8")
    assert "none of the ids" in refused(*words, "--truth", truth)


def test_what_an_index_keeps_as_codes_is_compared_as_codes(command, minilm, vectors, texts, tmp_path):
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(vectors.shape[1], "SQ4")
    index.train(1.3 * vectors)  # or each number at an end of its range would lie on the edge of a step
    index.add(vectors)
    path, truth = tmp_path / "codes.faiss", tmp_path / "truth.txt"
    faiss.write_index(index, str(path))
    truth.write_text("\n".join(texts), encoding="utf-8")
    given = ["--normalize", *QUICK]
    assert command("audit", "--store", path, "--truth", truth, "--sample", "4", "-o", tmp_path / "run", *given)[0] == 0
    target = loaded(tmp_path / "run")["target"]
    assert target["coded"] and "mean cosine of 1.000 " in target["embedder"]["why"], "its own texts have its own codes"
    assert "decoded from codes" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    out = tmp_path / "out.jsonl"
    assert command("invert", "--vectors", path, "--limit", "4", "-o", out, *given)[0] == 0
    stored, rows = index.reconstruct_n(0, 4), read_results(out)[1]
    coded = index.sa_decode(index.sa_encode(minilm.encode([row["text"] for row in rows])))
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(coded, axis=1)
    assert [row["cosine"] for row in rows] == pytest.approx(((stored * coded).sum(axis=1) / lengths).tolist(), abs=1e-5)


def test_rows_without_a_direction_are_counted_and_left_out(command, refused, vectors, tmp_path):
    broken = vectors.copy()
    broken[1], broken[2, 5], broken[3, 0] = 0, np.nan, np.inf
    np.save(tmp_path / "v.npy", broken)
    assert command("audit", "--store", tmp_path / "v.npy", "-o", tmp_path / "run", *QUICK)[0] == 0
    report = loaded(tmp_path / "run")
    assert report["target"]["refused"] == {"NaN or infinity": 2, "zero": 1} and len(report["records"]) == 7
    np.save(tmp_path / "v.npy", np.zeros((3, 384), dtype=np.float32))
    assert "none of the 3 vectors" in refused("audit", "--store", tmp_path / "v.npy", "-o", tmp_path / "x", *QUICK)


def test_what_cannot_be_audited(refused, store, vectors, texts, tmp_path):
    def said(address, *more):
        return refused("audit", "--store", address, "-o", tmp_path / "run", *QUICK, *more)

    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.standard_normal((384, 384)))[0].astype(np.float32)
    np.save(tmp_path / "rotated.npy", vectors @ rotation)
    assert "not vectors of sentence-transformers/all-MiniLM-L6-v2" in said(tmp_path / "rotated.npy")
    rows = [{"id": i, "vector": row.tolist(), "text": texts[i]} for i, row in enumerate(vectors[::-1])]
    (tmp_path / "mixed up.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert "mean cosine" in said(tmp_path / "mixed up.jsonl")
    (tmp_path / "two lengths.jsonl").write_text("[1.0, 2.0]\n[1.0]", encoding="utf-8")
    assert "a vector of 1 numbers where the first has 2" in said(tmp_path / "two lengths.jsonl")
    np.save(tmp_path / "narrow.npy", np.ones((3, 16), dtype=np.float32))
    assert "16 dimensions" in said(tmp_path / "narrow.npy")
    np.save(tmp_path / "long.npy", 3 * vectors)
    assert "--normalize" in said(tmp_path / "long.npy")
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    assert "no vectors in it" in said(tmp_path / "empty.jsonl")
    assert "no such file" in said(tmp_path / "nowhere.npy")
    assert "does not answer" in said("qdrant://127.0.0.1:9/docs")
    assert "no field 'owner'" in said(store, "--domain-field", "owner")
    assert "no measure is called 'leaks'" in said(store, "--fail-on", "leaks>1")
    assert "cannot read the rule" in said(store, "--fail-on", "pii_recall")
    assert "sample of 0" in said(store, "--sample", "0")
    (tmp_path / "t.jsonl").write_text('{"id": "doc 1"}', encoding="utf-8")
    assert "t.jsonl, record 1" in said(store, "--truth", tmp_path / "t.jsonl")
    assert "holds no figures of unembed defend" in said(store, "--defences", _file(tmp_path / "d.json", "[]"))
    assert "holds no figures of unembed canary" in said(store, "--canaries", _file(tmp_path / "c.json", "{}"))
    assert "is no JSON" in said(store, "--defences", _file(tmp_path / "d.json", "{"))
    assert "cannot be read" in said(store, "--defences", tmp_path / "missing.json")
    assert "holds no text" in said(store, "--public", _file(tmp_path / "p.txt", "\n"))
    assert not (tmp_path / "run").exists()


def _file(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_disk_keeps_what_was_written(command, store, tmp_path, monkeypatch):
    words = ["audit", "--store", store, "-o", tmp_path / "run", *QUICK]
    write, calls = os.write, []

    def full(fd, data):
        calls.append(len(data))
        if len(calls) == 3:  # the header, one batch, and half of the next
            write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr("unembed.results.os.write", full)
    code, _, err = command(*words)
    assert code == 2 and "the disk is full" in err and "run again to resume" in err
    monkeypatch.undo()
    first = read_results(tmp_path / "run" / "attempts.jsonl")[1]
    assert 4 <= len(first) < 10 and not (tmp_path / "run" / "report.json").exists()


def test_a_store_that_changes_is_noticed(command, refused, store, tmp_path, monkeypatch):
    copy = tmp_path / "docs.jsonl"
    copy.write_bytes(store.read_bytes())
    words = ["audit", "--store", copy, "-o", tmp_path / "run", *QUICK]
    append = ResultFile.append
    stops = iter([False, True])
    monkeypatch.setattr(
        ResultFile, "append", lambda f, rows: signal.raise_signal(2) if next(stops) else append(f, rows)
    )
    assert command(*words)[0] == 130
    monkeypatch.setattr(ResultFile, "append", append)
    lines = copy.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    row["vector"][0] += 1e-4
    copy.write_text("\n".join([json.dumps(row), *lines[1:]]), encoding="utf-8")
    assert "the store has changed since this run began" in refused(*words)
    assert "other settings" in refused(*words, "--consensus", "8")
    copy.write_text("\n".join(reversed(lines)), encoding="utf-8")
    assert command(*words)[0] == 0, "another order is not another content"
    assert len(read_results(tmp_path / "run" / "attempts.jsonl")[1]) == 10


@pytest.mark.slow
def test_a_killed_run_loses_and_doubles_nothing(command, store, tmp_path):
    words = ["audit", "--store", store, "-o", tmp_path / "run", *QUICK]
    words = [str(word) for word in [*words, "--targets-at-once", "1"]]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    running = subprocess.Popen(
        [sys.executable, "-m", "unembed.cli.main", *words], env=environment, stdout=subprocess.DEVNULL
    )
    state, deadline = tmp_path / "run" / "attempts.jsonl", time.monotonic() + 300
    while not state.exists() or state.read_bytes().count(b"\n") < 3:  # the header and two rows
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL and not (tmp_path / "run" / "report.json").exists()
    before = read_results(state)[1]
    assert 2 <= len(before) < 10
    with open(state, "ab") as file:
        file.write(b'{"id": "doc 3", "te')  # a row that a kill tore
    assert command(*words)[0] == 0
    after = read_results(state)[1]
    assert after[: len(before)] == before and sorted(row["id"] for row in after) == [f"doc {i}" for i in range(10)]
    assert len(loaded(tmp_path / "run")["records"]) == 10


def test_settings_come_from_a_file_as_well(command, store, tmp_path):
    config = tmp_path / "audit.yaml"
    config.write_text(
        f"store: {store}\noutput: {tmp_path / 'run'}\nsample: 2\nsteps: 0\nsequence_beam_width: 1\nquiet: true\n"
        "fail_on: [cosine>0.1]\nauthorised_by: Ann\n",
        encoding="utf-8",
    )
    code, out, _ = command("audit", "--config", config)
    assert code == 1 and "failed: cosine>0.1" in out
    assert loaded(tmp_path / "run")["run"]["authorised_by"] == "Ann"
    code, out, _ = command("audit", "--config", config, "--fail-on", "token_f1>1")
    assert code == 1 and "failed: cosine>0.1" in out and "passed: token_f1>1" in out, "the file's rules stay"
