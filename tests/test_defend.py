"""The comparison of defences: attackers, matched settings, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from unembed.checkpoints import resolve
from unembed.embedders.stored_form import StoredForm
from unembed.embedders.vectors import unit
from unembed.errors import InputError
from unembed.models.base import Hypothesis
from unembed.privacy.comparison.attackers import View, attackers, look_up
from unembed.privacy.comparison.aware import Aware
from unembed.privacy.comparison.leaks import matched, prepare, strongest
from unembed.privacy.comparison.retrieval import read_retrieval
from unembed.privacy.defences import defence
from unembed.privacy.defences.base import defence_class

D = 48


def cosine(a, b):
    return float(((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


@pytest.fixture(scope="module")
def clean():
    """Vectors whose numbers go together, as those of embedders do."""
    rows = np.random.default_rng(0).standard_normal((1200, D)) * np.geomspace(2, 0.05, D)
    rows @= defence("rotation", 1, key=77).matrix(D)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def view(clean, name, strength, key=5):
    guard = defence(name, strength, key).fit(clean)
    stored = [guard.apply(clean[:100], seed=i) for i in range(10)]
    return View(guard, stored, clean[400:], (clean[100:400], guard.apply(clean[100:400], seed=99)))


def restored(seen, n=100):
    return {crew.name: crew.restore(seen) for crew in attackers([n])}


def test_a_rotation_falls_to_known_pairs_and_to_nobody_else(clean):
    got = restored(view(clean, "rotation", 1))
    assert got["denoising"] is None and got["averaging"] is None
    assert abs(cosine(got["static"], clean[:100])) < 0.2 and cosine(got["100 pairs"], clean[:100]) > 0.99
    assert attackers([1000])[-1].restore(view(clean, "rotation", 1)) is None, "that many are not known"


def test_noise_falls_to_averaging(clean):
    got = {name: cosine(rows, clean[:100]) for name, rows in restored(view(clean, "gaussian", 0.15)).items()}
    assert got["static"] < got["denoising"] < got["averaging"] and got["averaging"] > 0.9


@pytest.mark.parametrize(("name", "strength"), [("truncation", 24), ("pca", 24), ("masking", 0.5)])
def test_dimensions_that_are_left_out_are_guessed_from_the_others(clean, name, strength):
    got = restored(view(clean, name, strength))
    assert got["averaging"] is None, "nothing changes between two storings"
    assert got["static"].shape == got["denoising"].shape == (100, D)
    assert cosine(got["denoising"], clean[:100]) > cosine(got["static"], clean[:100]) + 0.05


def test_what_a_defence_learned_is_no_secret(clean):
    """Too few public texts for 256 centroids: the store's own lie beside its codes."""
    seen = view(clean, "product-quantisation", 8)
    got = restored(replace(seen, public=seen.public[:255]))
    assert cosine(got["denoising"], clean[:100]) > cosine(got["static"], clean[:100]) - 0.05
    again = seen.simulated(clean[:100])
    assert np.allclose(again, seen.stored[0]), "a fixed code gives the same vector the same code"


def test_a_look_up_finds_the_nearest(clean):
    assert np.array_equal(look_up(3 * clean[10:20], clean), np.arange(10, 20))


def test_the_strongest_setting_within_a_loss():
    gaussian = defence_class("gaussian")
    kept = strongest(gaussian, lambda strength: strength / 10, 0.004, D)
    assert kept == pytest.approx(0.04, rel=0.03) and kept <= 0.04, "between 0.03 and 0.05 of the ladder"
    assert strongest(gaussian, lambda strength: 1.0, 0.1, D) is None
    assert strongest(gaussian, lambda strength: 0.0, 0.1, D) == gaussian.ladder[-1]
    assert strongest(defence_class("quantisation"), lambda bits: 1 / bits, 0.3, D) == 4, "whole bits only"
    assert strongest(defence_class("truncation"), lambda kept: 0.0, 0.1, D) == 16, "of those below the dimension"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """140 short documents, each with a question of its own."""
    folder = tmp_path_factory.mktemp("corpus")
    places, things = (
        ("Rome", "Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Tunis"),
        ("bridge", "museum", "harbour", "park"),
    )
    years = (1820, 1875, 1903, 1957, 1999)
    texts = [
        f"The {t} of {p} was opened in {y} and is still much visited." for p in places for t in things for y in years
    ]
    lines = [json.dumps({"_id": str(i), "title": "", "text": text}) for i, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    asked = [json.dumps({"_id": str(i), "text": text.split(" and")[0]}) for i, text in enumerate(texts[::4])]
    (folder / "queries.jsonl").write_text("\n".join(asked), encoding="utf-8")
    (folder / "qrels").mkdir()
    rows = [f"{i}\t{4 * i}\t1" for i in range(len(asked))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_settings_cost_no_more_than_allowed(corpus, inverter, tmp_path):
    ground = prepare(inverter, read_retrieval(corpus), tmp_path, n=20, tokens=12, pairs=50)
    assert len(ground.vectors) == 20 and len(ground.known) == 50 and len(set(ground.texts)) == 20
    found = matched(ground, "gaussian", [0.0, 0.1]) + matched(ground, "rotation", [0.0])
    assert [setting.loss <= setting.allowed + 0.0005 for setting in found] == [True] * 3
    assert found[0].strength < found[1].strength and abs(found[2].loss) < 1e-6
    with pytest.raises(InputError, match="too few for 100 attacked texts"):
        prepare(inverter, read_retrieval(corpus), tmp_path, n=100, tokens=12)


def test_the_command_reports_the_worst_and_goes_on_where_it_was(command, corpus, tmp_path):
    out = tmp_path / "run"
    words = [
        "defend", "--corpus", corpus, "-o", out, "--n", "8", "--tokens", "12", "--defences", "[rotation, quantisation]",
        "--utility-drop", "[1]", "--pairs", "[60]", "--consensus", "4", "-q",
    ]  # fmt: skip
    assert "at most 72 inversions" in command(*words, "--dry-run")[1] and not out.exists()
    code, shown, err = command(*words)
    assert (code, err) == (0, "") and "rotation" in shown
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    leaks = {leak["id"]: leak for leak in report["leaks"]}
    assert set(leaks) == {
        "none/0/static", "rotation/0.01/static", "rotation/0.01/60 pairs", "quantisation/0.01/static",
        "quantisation/0.01/denoising", "quantisation/0.01/60 pairs",
    }  # fmt: skip
    assert leaks["none/0/static"]["found"]["value"] == 1.0 and leaks["rotation/0.01/static"]["found"]["value"] < 0.5
    f1 = {name: leak["scores"]["token_f1"]["value"] for name, leak in leaks.items()}
    assert f1["none/0/static"] > f1["rotation/0.01/static"], "what is read without a defence is read out of the vectors"
    headline = {leak["defence"]: leak["scores"]["token_f1"]["value"] for leak in report["worst"]}
    assert headline["quantisation"] == max(f1[name] for name in f1 if name.startswith("quantisation"))
    assert list(report["attackers"]) == ["static", "denoising", "60 pairs"], "who attacked nothing is not listed"
    assert "## The worst attacker" in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "pareto.png").stat().st_size > 1000
    state = out / "leaks.jsonl"
    lines = state.read_text(encoding="utf-8").splitlines(keepends=True)
    state.write_text("".join(lines[:4]) + lines[4][:20], encoding="utf-8")  # as a kill leaves it
    assert command(*words)[0] == 0
    assert sorted(state.read_text(encoding="utf-8").splitlines(keepends=True)) == sorted(lines), (
        "nothing lost or doubled"
    )


def test_a_comparison_is_not_resumed_with_other_weights(command, refused, corpus, tmp_path, inverter, monkeypatch):
    words = [
        "defend", "--corpus", corpus, "-o", tmp_path / "run", "--n", "8", "--tokens", "12", "--defences",
        "[rounding]",
        "--utility-drop", "[1]", "--pairs", "[]", "--consensus", "0", "-q",
    ]  # fmt: skip
    assert command(*words)[0] == 0
    monkeypatch.setattr(inverter.model, "digest", "another")
    assert "weights: " in refused(*words)


def test_a_small_comparison_comes_to_its_end(command, corpus, tmp_path):
    """One text has no interval, and 140 documents are too few for 256 centroids."""
    out = tmp_path / "run"
    words = [
        "defend", "--corpus", corpus, "-o", out, "--n", "1", "--tokens", "12", "--pairs", "[]", "--consensus", "0",
        "--defences", "[product-quantisation, rounding]", "--utility-drop", "[10]", "-q",
    ]  # fmt: skip
    code, _, err = command(*words)
    assert (code, err) == (0, "")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {entry["defence"]: entry["strength"] is None for entry in report["matched"]} == {
        "product-quantisation": True, "rounding": False,
    }  # fmt: skip
    assert "| product-quantisation | – |" in (out / "report.md").read_text(encoding="utf-8")
    assert (out / "pareto.png").stat().st_size > 1000


def test_what_cannot_be_compared(command, corpus, tmp_path):
    base = ["defend", "--corpus", corpus, "-o", tmp_path / "run"]
    for words, said in (
        (["--defences", "[gauss]"], "no defence is called 'gauss'"),
        (["--utility-drop", "[-1]"], "percentages from 0"),
        (["--corpus", tmp_path], "is no retrieval set"),
    ):
        code, _, err = command(*base, *words)
        assert code == 2 and said in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def six_bits(corpus, inverter):
    """Texts whose vectors are stored in 6 bits, and as the attacker sees them who knows the code."""
    texts = [json.loads(line)["text"] for line in (corpus / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    vectors = inverter.embedder.encode(texts)
    guard = defence("quantisation", 6).fit(vectors)
    seen = View(guard, [guard.apply(vectors[:20])], vectors[40:], (vectors[20:40], guard.apply(vectors[20:40])))
    return texts, seen, StoredForm(inverter.embedder, seen.round_trip)


def test_behind_a_known_code_only_the_text_itself_has_the_stored_vector(six_bits):
    texts, seen, form = six_bits
    stored, tolerance = unit(seen.denoiser()(seen.stored[0])), form.noise_floor().tolerance()
    distances = np.linalg.norm(form.encode(texts)[None] - stored[:, None], axis=2)  # [stored, texts]
    assert np.array_equal(distances <= tolerance, np.eye(20, len(texts), dtype=bool))
    clean = np.linalg.norm(form.embedder.encode(texts[:20]) - stored, axis=1)
    assert clean.min() > 10 * form.embedder.noise_floor().tolerance(), "which its own vector does not show"


def test_who_knows_the_code_knows_when_he_has_the_text(six_bits, inverter, monkeypatch):
    texts, seen, form = six_bits
    told = [[Hypothesis(texts[0], -1.0)]]
    monkeypatch.setattr(inverter.model, "hypothesize", lambda targets, n=1, *sampling: [told[0] * n])
    target = seen.denoiser()(seen.stored[0][:1])
    quick = {"steps": 1, "sequence_beam_width": 1, "hypotheses": 1, "corrections": 1, "screened": 1}
    quick["prior_weight"] = 0.0  # the text as it was written, not as the prior would spell it
    found = inverter.behind(form.seen).invert(target, normalize=True, **quick)[0]
    assert (found.text, found.exact, found.steps) == (texts[0], True, 0)
    assert not inverter.invert(target, normalize=True, **quick)[0].exact, "who does not know it goes on looking"


def test_the_aware_attacker_learns_what_a_defence_does(corpus, inverter, tmp_path):
    """Vectors that are all moved the same way stand for any change that can be simulated: an inverter that was trained
    on such vectors finds their texts likelier than one that was trained on clean ones."""
    away = 2 * np.eye(384, dtype=np.float32)[7]
    public = [str(corpus / "corpus.jsonl")]
    aware = Aware(inverter, resolve("minilm"), tmp_path, public, spans=1500, longest=12, corrects=False, seed=0)
    clean, moved = aware("clean", lambda rows: rows), aware("moved/aware", lambda rows: unit(rows + away))
    texts = [f"The tower of {place} was opened in 1931." for place in ("Oslo", "Lima", "Paris")]
    targets = unit(inverter.embedder.encode(texts) + away)
    assert moved.model.score(texts, targets).mean() > clean.model.score(texts, targets).mean() + 2
    assert not any((tmp_path / "moved").iterdir()), "its state is done with"


def test_the_command_with_an_aware_attacker(command, corpus, tmp_path):
    out = tmp_path / "run"
    words = [
        "defend", "--corpus", corpus, "-o", out, "--n", "4", "--tokens", "12", "--defences", "[quantisation, rotation]",
        "--utility-drop", "[10]", "--pairs", "[]", "--consensus", "4", "--public", corpus / "corpus.jsonl",
        "--public-spans", "500", "-q",
    ]  # fmt: skip
    assert "and 3 trainings on 500 spans" in command(*words, "--dry-run")[1]
    assert command(*words)[0] == 0
    found = {leak["id"] for leak in json.loads((out / "report.json").read_text(encoding="utf-8"))["leaks"]}
    assert {"none/0/static", "none/0/aware", "quantisation/0.1/aware", "rotation/0.1/static"} <= found
    assert "rotation/0.1/aware" not in found, "nobody simulates a secret key"
