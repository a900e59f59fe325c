"""Template slot filling on real vectors, and what its p-values are worth."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from unembed.errors import InputError, StorageError
from unembed.privacy.defences import defence
from unembed.privacy.probes.significance import p_values
from unembed.privacy.probes.slots import Filler, Template, _best, parse, read_candidates
from unembed.results import read_results

NAMES = ["Ann Lee", "Boris Novak", "Chen Wei", "Dora Klein", "Emil Olsen"]
DRUGS = ["ibuprofen", "sertraline", "warfarin", "metformin", "prednisone", "insulin"]
TEXT = "{person} was prescribed {drug}."
OTHERS = ["Omar Haddad", "Rosa Perez", "Ivan Petrov", "Lily Brown", "Max Weber", "Nina Rossi", "Paul Kagan", "Sue Hall"]
OTHER_DRUGS = ["codeine", "naproxen", "diazepam", "gabapentin", "tramadol", "lithium", "digoxin", "morphine"]


def records():
    """Texts that say a little more than the template does."""
    rng = np.random.default_rng(0)
    told = [(NAMES[rng.integers(5)], DRUGS[rng.integers(6)]) for _ in range(12)]
    return told, [f"{name} was prescribed {drug}; follow-up on June {i + 1}." for i, (name, drug) in enumerate(told)]


def test_what_is_no_template_is_refused(minilm):
    good = {"person": NAMES, "drug": DRUGS}
    assert parse(TEXT, good, minilm).combinations == 30
    assert parse(TEXT, {**good, "drug": ["Codeine", " codeine", "CODEINE ", "warfarin"]}, minilm).slots["drug"] == [
        "Codeine", "warfarin",
    ]  # fmt: skip
    for text, lists, message in (
        ("Patient ___ came", good, "has no slot: write each as {name}"),
        (TEXT, {"person": NAMES}, "slot 'drug' has 0 candidates: give two or more"),
        (TEXT, {**good, "drug": []}, "slot 'drug' has 0 candidates"),
        (TEXT, {**good, "drug": ["codeine", "Codeine"]}, "slot 'drug' has 1 candidates: give two or more that differ"),
        (TEXT, {**good, "drug": [1, 2]}, "slot 'drug' has the candidate 1, which is no text"),
        (TEXT, {**good, "drug": [" "]}, "which is no text"),
        (TEXT, {**good, "town": NAMES}, "there are candidates for 'town', but the template has person, drug"),
    ):
        with pytest.raises(InputError, match=message):
            parse(text, lists, minilm)
    with pytest.raises(InputError, match="two values for each of 2 slots are 4"):
        Filler(parse(TEXT, good, minilm), minilm, at_most=1, shortlist=3)


def test_a_slot_that_stands_twice_has_one_value():
    assert Template("{a}, {b}, {a}", {"a": ["1"], "b": ["2"]}).fill(["{b}", "y"]) == "{b}, y, {b}"


def test_candidates_are_read_from_a_file(tmp_path):
    (tmp_path / "drugs.txt").write_text("codeine\n\n warfarin \n")
    path = tmp_path / "lists.yaml"
    path.write_text("person: [Ann, Bo]\ndrug: drugs.txt\n")
    assert read_candidates(path) == {"person": ["Ann", "Bo"], "drug": ["codeine", "warfarin"]}
    path.write_text(json.dumps({"person": ["Ann"]}))
    assert read_candidates(path) == {"person": ["Ann"]}
    for content, message in (
        ("", "no mapping of slots"),
        ("[1, 2]", "no mapping of slots"),
        ("a: [", "is no YAML"),
        ("a: 3", "'a' is neither a list of candidates nor the name of a file"),
        ("a: none.txt", "none.txt: no such file"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_candidates(path)
    with pytest.raises(InputError, match="no such file"):
        read_candidates(tmp_path / "none.yaml")
    with pytest.raises(StorageError, match="cannot be read"):
        read_candidates(tmp_path)


def test_gaps_are_to_the_best_text_with_another_value():
    slots = {"a": ["p", "q", "r"], "b": ["x", "y"], "c": ["0", "1", "2", "3"]}
    scores = np.random.default_rng(0).standard_normal(24)
    filling = _best(Template("{a}{b}{c}", slots), list(slots.values()), scores)
    told = dict(zip(product(*slots.values()), scores, strict=True))
    best = max(told, key=lambda key: told[key])
    assert tuple(filling.values.values()) == best and filling.text == "".join(best)
    for at, name in enumerate(slots):
        other = max(score for key, score in told.items() if key[at] != best[at])
        assert filling.gaps[name] == pytest.approx(told[best] - other)
    assert filling.gap == pytest.approx(told[best] - sorted(scores)[-2])


@pytest.mark.parametrize("stored", ["clean", "4 bits", "noise"])
def test_it_reads_what_was_prescribed_to_whom(minilm, stored):
    told, texts = records()
    vectors = minilm.encode(texts)
    if stored == "4 bits":
        vectors = defence("quantisation", 4).fit(vectors).apply(vectors)
    if stored == "noise":
        vectors = defence("gaussian", 0.02).apply(vectors)
    filler = Filler(parse(TEXT, {"person": NAMES, "drug": DRUGS}, minilm), minilm)
    found = list(filler.fill(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    assert [tuple(one.values.values()) for one in found] == told
    assert all(0 < one.gap < one.cosine < 1 for one in found)


def test_a_shortlist_finds_the_same_for_fewer_texts(minilm):
    told, texts = records()
    vectors = minilm.encode(texts[:6])
    lists = {"person": NAMES + OTHERS, "drug": DRUGS + OTHER_DRUGS}
    before = minilm.queries
    filler = Filler(parse(TEXT, lists, minilm), minilm, at_most=50, shortlist=9)
    shared = minilm.queries - before
    found = list(filler.fill(vectors))
    assert [tuple(one.values.values()) for one in found] == told[:6]
    assert shared == 4 * (13 + 14) and minilm.queries - before - shared == 6 * 9, "three values of each of two slots"


def test_p_is_uniform_where_the_truth_is_not_among_the_candidates(minilm):
    """Records about other people and drugs, some of which serve as the reference of the rest."""
    texts = [f"{a} was prescribed {b} in {c}." for a, b, c in product(OTHERS, OTHER_DRUGS, ("May", "June", "July"))]
    vectors = minilm.encode(texts)
    filler = Filler(parse(TEXT, {"person": NAMES, "drug": DRUGS}, minilm), minilm)
    found = list(filler.fill(vectors))
    order = np.random.default_rng(0).permutation(len(found))
    for slot in ("person", "drug"):
        gaps = np.array([one.gaps[slot] for one in found])[order]
        p = np.sort(p_values(gaps[:92], gaps[92:]))
        distance = np.abs(p - (np.arange(92) + 0.5) / 92).max()
        assert distance < 1.63 * np.sqrt(1 / 92 + 1 / 100), "Kolmogorov-Smirnov at 1 %"
    _, true = records()
    right = np.array([one.gap for one in filler.fill(minilm.encode(true))])
    assert (p_values(right, np.array([one.gap for one in found])) <= 0.05).mean() > 0.8, "and it is low where it is"


@pytest.fixture
def files(tmp_path, minilm):
    _, texts = records()
    (tmp_path / "lists.yaml").write_text(json.dumps({"person": NAMES, "drug": DRUGS}))
    vectors = minilm.encode(texts)
    vectors[3] = np.nan
    np.savez(tmp_path / "store.npz", vectors=vectors, ids=np.array([f"r{i}" for i in range(12)]), texts=np.array(texts))
    others = [f"{a} was prescribed {b}." for a, b in zip(OTHERS, OTHER_DRUGS, strict=True)]
    np.save(tmp_path / "others.npy", minilm.encode(others * 5) + 0.001)
    return tmp_path


def ask(files, *more, template=TEXT, vectors="store.npz"):
    lists = ["--candidates", files / "lists.yaml"]
    return ("slots", "--template", template, *lists, "--vectors", files / vectors, *more)


def test_by_command_and_again(command, files, minilm):
    out = files / "run"
    arguments = ask(files, "--reference", files / "others.npy", "-o", out)
    code, shown, _ = command(*arguments)
    report = json.loads((out / "report.json").read_text())
    assert code == 0 and len(report["records"]) == 11 and report["references"] == 40, "the NaN is left out"
    assert "r3" not in [row["record"] for row in report["records"]]
    assert report["slots"]["drug"]["right"]["value"] == 1.0 and report["slots"]["drug"]["records"] == 11
    assert "drug: p <= 0.05 in" in shown and report["records"][0]["p"] == 1 / 41
    state = out / "fillings.jsonl"
    whole = state.read_bytes()
    state.write_bytes(whole[:-700])  # as a kill leaves it
    half = len(read_results(state)[1])
    assert half < 51 and command(*arguments)[0] == 0
    assert sorted(state.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert json.loads((out / "report.json").read_text()) == report
    code, alone, _ = command(*ask(files))
    assert code == 0 and "right in 1 (1 to 1, n=11) of all" in alone
    assert "p <=" not in alone and "p is the rank among these records" in alone
    code, plan, _ = command(*ask(files, "--dry-run"))
    assert code == 0 and plan == "30 combinations, all embedded once: 30 texts\n"
    plan = command(*ask(files, "--dry-run", "--at-most", 10, "--shortlist", 4))[1]
    assert plan == "30 combinations: 44 texts embedded for all, at most 4 for each record, 92 in all\n"


def test_a_run_is_not_resumed_with_other_records(command, refused, files, minilm, monkeypatch):
    from unembed.stores.files import open_source

    out = files / "run"
    arguments = ask(files, "--reference", files / "others.npy", "-o", out)
    assert command(*arguments)[0] == 0
    whole, others = (out / "fillings.jsonl").read_bytes(), np.load(files / "others.npy")
    np.save(files / "others.npy", others[::-1])
    assert "row 'reference/0' was made of another vector" in refused(*arguments)
    np.save(files / "others.npy", others)
    stored = dict(np.load(files / "store.npz"))
    np.savez(files / "store.npz", **{**stored, "ids": np.roll(stored["ids"], 1)})
    message = refused(*arguments)
    assert "row 'record/r11' was made of another vector" in message and "--overwrite" in message
    assert (out / "fillings.jsonl").read_bytes() == whole
    monkeypatch.setattr(
        "unembed.stores.pgvector.open_source", lambda source, **fields: open_source(str(files / "others.npy"))
    )
    address = "pgvector:postgresql://ann:s3cret@host/docs"
    lists = ["--candidates", files / "lists.yaml", "--reference", address, "-o", out, "--overwrite"]
    assert command("slots", "--template", TEXT, *lists, "--vectors", address)[0] == 0
    for name in ("fillings.jsonl", "report.json"):
        assert "s3cret" not in (out / name).read_text() and "ann@host" in (out / name).read_text()


def test_commands_refuse(refused, files):
    assert "has no slot" in refused(*ask(files, template="Patient ___"))
    np.save(files / "narrow.npy", np.eye(3, 7))
    assert "vectors of 7 numbers, the embedder gives 384" in refused(*ask(files, vectors="narrow.npy"))
    np.save(files / "zero.npy", np.zeros((3, 384)))
    assert "holds no usable vector" in refused(*ask(files, vectors="zero.npy"))
    assert "holds no usable vector" in refused(*ask(files, "--reference", files / "zero.npy"))
    assert "no such file" in refused(*ask(files, vectors="none.npy"))
    (files / "lists.yaml").write_text("person: []")
    assert "slot 'person' has 0 candidates" in refused(*ask(files))
