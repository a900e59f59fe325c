"""Calibrated confidence: the fit, its measures, its file, and the command from evaluation to rated results."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import unembed
from unembed.checkpoints import resolve
from unembed.confidence import (
    EVIDENCE,
    FILE,
    Calibration,
    Judged,
    across_folds,
    calibrate,
    evidence,
    fit,
    judge,
    reliability,
)
from unembed.errors import CheckpointError, InputError
from unembed.evaluation import evaluate
from unembed.search.types import Candidate, Inversion, SearchConfig

EXAMPLES = Path(__file__).parent.parent / "examples" / "letters.txt"


def world(n: int, seed: int = 0) -> Judged:
    """Evidence of which the first column decides by chance, with the probability sigmoid(2 x - 1)."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(n, len(EVIDENCE)))
    chance = 1 / (1 + np.exp(-(2 * seen[:, 0] - 1)))
    good = (rng.random(n) < chance).astype(float)
    groups = np.array([f"text/{i // 2}" for i in range(n)])
    return Judged(seen, {"good": good, "exact": np.zeros(n)}, rng.choice([4, 8], size=n), groups)


def test_fit_finds_the_probabilities_and_leaves_out_what_never_happens():
    judged = world(4000)
    calibration, report = calibrate(judged, "abc")
    assert calibration.exact is None and "exact" not in report
    fresh = world(2000, seed=1)
    true = 1 / (1 + np.exp(-(2 * fresh.evidence[:, 0] - 1)))
    assert np.abs(calibration.good.predict(fresh.evidence) - true).mean() < 0.03
    assert set(report["good"]) == {"4", "8", "all"}
    whole = report["good"]["all"]
    assert whole.n == 4000 and whole.ece < 0.05 and whole.low <= whole.ece <= whole.high + 0.02


def test_what_a_cosine_is_worth_may_depend_on_other_evidence():
    """The first column counts for short texts alone, which a sum of weighted columns cannot say."""
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(4000, len(EVIDENCE)))
    seen[:, 1] = rng.integers(0, 2, size=4000)
    true = 1 / (1 + np.exp(-4 * seen[:, 0] * (1 - seen[:, 1])))
    found = fit(seen, (rng.random(4000) < true).astype(float))
    assert np.abs(found.predict(seen) - true).mean() < 0.03
    beyond, edge = seen[:1].copy(), seen[:1].copy()
    beyond[0, 2], edge[0, 2] = -100, seen[:, 2].min()
    assert found.predict(beyond) == pytest.approx(found.predict(edge)), "no square of what was never seen"


def test_no_row_is_judged_by_a_fit_that_saw_its_text():
    """Evidence that only names the text: known texts would be predicted perfectly, unseen ones cannot be."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, size=60).astype(float), 2)
    names = np.repeat(np.eye(60), 2, axis=0)
    groups = np.repeat(np.arange(60).astype(str), 2)
    predicted = across_folds(names, labels, groups)
    assert np.abs(predicted - labels).mean() > 0.4


def test_reliability_against_numbers_worked_out_by_hand():
    predicted = np.array([0.05, 0.05, 0.95, 0.95])
    true = np.array([0.0, 1.0, 1.0, 1.0])
    found = reliability(predicted, true, np.arange(4))
    # Bins: .05 against 1 of 2, .95 against 2 of 2, half of the rows each.
    assert found.ece == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert found.bins == [(0.05, 0.5, 2), (0.95, 1.0, 2)]
    assert found.chance == pytest.approx(0.5 * 0.095 + 0.5 * 0.095, abs=0.03), "E|mean of two − .05| is .095"
    assert reliability(np.array([1.0]), np.array([1.0]), np.arange(1)).ece == 0


def test_too_few_rows_is_one_line():
    with pytest.raises(InputError, match="too few rows"):
        calibrate(world(8), "abc")


def test_rows_without_evidence_are_refused():
    with pytest.raises(InputError, match="older version"):
        judge([("a", {"id": "4/0", "reference": "x", "texts": {"inverter": "x"}, "length": 4})])


def test_file_round_trip_and_what_is_wrong_with_it(tmp_path):
    judged = world(400)
    calibration, _ = calibrate(judged, "abc")
    calibration.save(tmp_path, {"note": 1})
    again = Calibration.load(tmp_path, "abc")
    assert again == calibration
    assert Calibration.load(tmp_path / "elsewhere", "abc") is None
    with pytest.raises(CheckpointError, match="other weights"):
        Calibration.load(tmp_path, "abd")
    whole = json.loads((tmp_path / FILE).read_text())
    whole["good"]["weights"] = [1.0]
    (tmp_path / FILE).write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match="damaged"):
        Calibration.load(tmp_path, "abc")
    (tmp_path / FILE).write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        Calibration.load(tmp_path, "abc")


def test_evidence_tells_the_text_from_another(inverter):
    text, other = "the quick brown fox jumps over the lazy dog", "a recipe for apple pie"
    targets = inverter.embedder.encode([text, text])
    cosines = (targets[1] @ inverter.embedder.encode([other])[0]).item()

    def made(text: str, cosine: float) -> Inversion:
        return Inversion(text, cosine, False, 0, 1, "steps", [Candidate(text, cosine, cosine, False, "hypothesis", 0)])

    rows = evidence(inverter.model, targets, [made(text, 1.0), made(other, cosines)])
    assert rows.shape == (2, len(EVIDENCE)) and np.isfinite(rows).all()
    at = {name: i for i, name in enumerate(EVIDENCE)}
    assert rows[0, at["distance"]] > rows[1, at["distance"]] + 3
    assert rows[0, at["likelihood"]] > rows[1, at["likelihood"]]
    assert np.isfinite(evidence(inverter.model, targets[:1], [made("", 0.0)])).all()  # nothing was written


@pytest.fixture
def own_model(tmp_path):
    """The shipped weights in a folder of their own, without a calibration."""
    shutil.copytree(resolve("all-MiniLM-L6-v2"), tmp_path / "model")
    (tmp_path / "model" / FILE).unlink(missing_ok=True)
    return tmp_path / "model"


def test_from_evaluation_to_rated_results(command, refused, tmp_path, own_model, minilm):
    report = tmp_path / "runs" / "zero.json"
    flags = ["--lengths", "[1, 2, 4]", "--n", "40", "--steps", "0", "--sequence_beam_width", "1", "--quiet"]
    assert command("evaluate", "--data", EXAMPLES, "--model", own_model, "-o", report, *flags)[0] == 0
    whole = json.loads(report.read_text())
    assert len(whole["rows"][0]["evidence"]) == len(EVIDENCE) and whole["rows"][0]["confidence"] is None
    diagram = tmp_path / "reliability.svg"
    code, out, _ = command("calibrate", "--rows", report.parent, "--model", own_model, "--plot", diagram)
    assert code == 0 and "token F1 ≥ 0.8" in out and "ECE" in out and diagram.stat().st_size > 1000
    rated = unembed.load(own_model).invert(minilm.encode(["hello", "what a small thing to ask for"]), steps=0)
    assert rated[0].confidence > rated[1].confidence
    _, out, _ = command("invert", "--text", "hello", "--model", own_model, "--steps", "0")
    assert " %" in out
    # An evaluation of a calibrated model says whether the calibration holds.
    again = tmp_path / "again.json"
    assert command("evaluate", "--data", EXAMPLES, "--model", own_model, "-o", again, *flags)[0] == 0
    assert json.loads(again.read_text())["lengths"]["1"]["confidence"]["good"]["n"] == 40
    rows = report.with_suffix(".rows.jsonl")
    assert "no such file" in refused("calibrate", "--rows", tmp_path / "nothing.jsonl", "--model", own_model)
    assert "holds no .rows.jsonl" in refused("calibrate", "--rows", own_model, "--model", own_model)
    rows.write_text(rows.read_text().replace(whole["settings"]["weights"], "0" * 16))
    assert "other weights" in refused("calibrate", "--rows", rows, "--model", own_model)
    assert (own_model / FILE).is_file()  # a failed command takes nothing away


def test_an_evaluation_gathers_the_evidence_of_a_row_once(inverter, monkeypatch):
    asked = []
    score = inverter.model.score

    def counted(texts, targets=None):
        asked.append((len(texts), targets is not None))
        return score(texts, targets)

    monkeypatch.setattr(inverter.model, "score", counted)
    texts = EXAMPLES.read_text(encoding="utf-8").splitlines()
    config = SearchConfig(steps=0, sequence_beam_width=1, prior_weight=0, targets_at_once=2)
    found = evaluate(inverter, texts, config, lengths=[4], n=4)
    assert asked == [(2, True), (2, False)] * 2
    targets = inverter.embedder.encode([row.reference for row in found.rows])
    rated = [inversion.confidence for inversion in inverter.stream(targets, config)]
    assert [row.confidence for row in found.rows] == pytest.approx(rated) and None not in rated


def test_packing_again_keeps_the_calibration_of_the_same_weights(own_model, tmp_path, monkeypatch):
    pack = Path(__file__).parent.parent / "recipes" / "minilm" / "pack.py"
    packed = tmp_path / "packed"
    shutil.copytree(resolve("all-MiniLM-L6-v2"), packed)
    before = (packed / FILE).read_bytes()
    monkeypatch.setattr(sys, "argv", [str(pack), str(own_model), str(packed)])
    runpy.run_path(str(pack), run_name="__main__")
    assert (packed / FILE).read_bytes() == before
    assert "| token F1 ≥ 0.8 | all |" in (packed / "README.md").read_text(encoding="utf-8")
    unembed.load(packed)
