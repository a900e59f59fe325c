"""Canaries: made, planted, found again, and scored beside a control."""

from __future__ import annotations

import errno
import json
import re
import sys
import weakref

import numpy as np
import pytest

from unembed.errors import InputError, MissingExtra, StorageError, install_line
from unembed.privacy.probes.canaries import TYPES, Canary, find, make, planted, read_canaries, save_vectors, shares
from unembed.privacy.probes.canary_recall import n_best, normalised, recall
from unembed.privacy.records import read_records, write_records
from unembed.results import ResultFile
from unembed.stores import VectorBatch, VectorSource, open_vectors, read_vectors


@pytest.fixture
def faker():
    return pytest.importorskip("faker")


def canary(kind, secret, name="a"):
    return Canary(name, f"It is {secret} indeed.", kind, secret)


CARDS = [canary("card", "4111 1111 1111 1111", "a"), canary("card", "5500 0000 0000 0004", "b")]


def luhn(number):
    digits = [int(digit) for digit in reversed(number)]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


def test_canaries_are_what_they_say(faker):
    made = make(dict.fromkeys(TYPES, 30), seed=4)
    assert made == make(dict.fromkeys(TYPES, 30), seed=4) != make(dict.fromkeys(TYPES, 30), seed=5)
    assert len({one.id for one in made}) == len(made) == 150
    assert all(one.secret in one.text and "{" not in one.text for one in made)
    assert made != sorted(made, key=lambda one: TYPES.index(one.type)), "mixed"
    by_type = {kind: [one.secret for one in made if one.type == kind] for kind in TYPES}
    assert all(len(set(secrets)) == 30 for secrets in by_type.values())
    assert all(luhn(secret.replace(" ", "")) and len(secret) == 19 for secret in by_type["card"])
    assert all(secret.partition("@")[2] in ("example.com", "example.org", "example.net") for secret in by_type["email"])
    assert all(len({one.text for one in made if one.type == kind}) == 30 for kind in TYPES)
    assert len(make({"diagnosis": 60})) == 60, "they repeat where there are no more"


def test_templates_of_ones_own(faker):
    made = make({"name": 2, "key": 2}, ["Dear {name}, your key is {key}; {name} only."])
    for one in made:
        assert one.text.startswith("Dear ") and one.text.count(one.secret) == (2 if one.type == "name" else 1)
    with pytest.raises(InputError, match=r"no template has \{card\}"):
        make({"card": 1}, ["Dear {name}"])
    with pytest.raises(InputError, match="'Dear sir' has no gap"):
        make({"name": 1}, ["Dear sir"])
    with pytest.raises(InputError, match="another gap"):
        make({"name": 1}, ["Dear {name} of {town}"])
    with pytest.raises(InputError, match="no canary is of type 'iban': choose name, email"):
        make({"iban": 1})


def test_without_faker_the_pip_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faker", None)
    with pytest.raises(MissingExtra, match=re.escape(install_line("canary"))):
        make({"name": 1})


def test_they_are_planted_at_the_rate_that_is_asked_for(faker):
    counts = shares(0.1, 90, TYPES)
    assert sum(counts.values()) == 10 and set(counts.values()) == {2}
    assert shares(0.02, 98, ["name", "card"]) == {"name": 1, "card": 1} and shares(0.001, 10, ["name"]) == {"name": 1}
    for wrong in (0.0, 1.0, -1.0, 7.0):
        with pytest.raises(InputError, match="give a share between 0 and 1"):
            shares(wrong, 10, TYPES)
    texts = [f"text {i}" for i in range(90)]
    records = planted(make(counts), texts, seed=2)
    assert records == planted(make(counts), texts, seed=2) and len({record["id"] for record in records}) == 100
    assert [record["text"] for record in records if record["type"] is None] != texts, "mixed"
    assert sorted(record["text"] for record in records if record["secret"] is None) == sorted(texts)
    where = [i for i, record in enumerate(records) if record["secret"]]
    assert len(where) == 10 and max(where) - min(where) > 30


def test_files_of_canaries(tmp_path):
    path = tmp_path / "canaries.jsonl"
    write_records(path, planted(CARDS, ["a text with half a pair: \ud800"]))
    assert sorted(read_canaries(path), key=lambda one: one.id) == CARDS
    with pytest.raises(InputError, match="exists already"):
        write_records(path, [])
    good = '{"id": "x", "text": "see me", "type": "name", "secret": "me"}\n'
    for content, message in (
        ("", "holds no line"),
        ('{"id": "x", "text": "y"}\n', "holds no canary"),
        (good + "{\n", "line 2: no JSON object"),
        (good + "[1]\n", "line 2: no JSON object"),
        (good.replace('"me"', '"you"'), "record 1: its secret does not stand in its text"),
        (good.replace('"name"', "7"), "record 1: needs id, text, type, secret, all of them texts"),
        (good + '{"text": "z"}\n', "record 2: needs id, text, all of them texts"),
        (good.replace("me", "!?").replace("na!?", "name"), "record 1: its secret has neither letter nor digit"),
        (good + good, "record 2: repeats the id 'x'"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_canaries(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8"):
        read_canaries(path)
    with pytest.raises(InputError, match="no such file"):
        read_records(tmp_path / "none")
    with pytest.raises(StorageError, match="cannot be read"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_vectors_are_written_with_their_ids(tmp_path, name, monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float16)
    path = tmp_path / name
    save_vectors(path, ["p", "q", "r"], ["1", "2", "3"], vectors)
    back = read_vectors(str(path))
    assert back.ids == ["p", "q", "r"] and back.vectors.dtype == np.float16 and np.array_equal(back.vectors, vectors)
    assert back.texts == (["1", "2", "3"] if name == "v.parquet" else None)
    with pytest.raises(InputError, match="exists already"):
        save_vectors(path, ["p", "q", "r"], ["1", "2", "3"], vectors)
    with pytest.raises(InputError, match=r"to \.npz or \.parquet"):
        save_vectors(tmp_path / "v.txt", ["p", "q", "r"], ["1", "2", "3"], vectors)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    other = tmp_path / f"other{path.suffix}"
    with pytest.raises(StorageError, match="No space left"):
        save_vectors(other, ["p", "q", "r"], ["1", "2", "3"], vectors)
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "nothing half-written is left"


def test_they_are_found_in_a_store_by_id_or_by_text(tmp_path):
    vectors = np.eye(4, dtype=np.float32)
    save_vectors(tmp_path / "ids.npz", ["b", "x", "a", "y"], ["-"] * 4, vectors)
    texts = [CARDS[1].text, "else", CARDS[0].text, "more"]
    save_vectors(tmp_path / "texts.parquet", ["0", "1", "2", "3"], texts, vectors)
    for name in ("ids.npz", "texts.parquet"):
        with open_vectors(str(tmp_path / name)) as source:
            found = find(source, CARDS)
        assert found.ids == ["b", "a"] and np.array_equal(found.vectors, vectors[[0, 2]])
    with open_vectors(str(tmp_path / "ids.npz")) as source, pytest.raises(InputError, match="holds none of the 1 can"):
        find(source, [canary("card", "1", "elsewhere")])


def test_a_store_that_takes_no_ids_but_uuids_takes_theirs(faker, tmp_path):
    pytest.importorskip("qdrant_client")
    from qdrant_client import QdrantClient, models

    made = make({"name": 3})
    client = QdrantClient(path=str(tmp_path / "store"))
    client.create_collection("docs", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    points = [models.PointStruct(id=one.id, vector=row.tolist()) for one, row in zip(made, np.eye(4), strict=False)]
    client.upsert("docs", [*points, models.PointStruct(id=7, vector=[0.5] * 4)])
    client.close()
    with open_vectors(f"qdrant:{tmp_path / 'store'}#docs") as source:
        found = find(source, made)
    assert set(found.ids) == {one.id for one in made}
    assert {name: int(row.argmax()) for name, row in zip(found.ids, found.vectors, strict=True)} == {
        one.id: i for i, one in enumerate(made)
    }


@pytest.mark.parametrize(
    ("kind", "secret", "text", "read"),
    [
        ("card", "4111 1111 1111 1111", "card 4111-1111 11111111 expired", True),
        ("card", "4111 1111 1111 1111", "card 4111 1111 1111 1112", False),
        ("key", "key-Ab3xY", "the KEY ab3xy here", True),
        ("name", "Ann Lee", "ANN LEE left", True),
        ("name", "Ann Lee", "joann leeds left", False),
        ("name", "Ann Lee", "Ann left with Lee", False),
        ("email", "a.b@example.org", "to a. b @ example. org now", True),
        ("email", "b@example.org", "to ab@example.org now", False),
        ("diagnosis", "Crohn's disease", "crohn ' s disease", True),
        ("password", "hunter2", "it is hunter2.", True),
    ],
)
def test_what_counts_as_read(kind, secret, text, read):
    assert (normalised(kind, secret) in normalised(kind, text)) is read
    figures = recall([canary(kind, secret)], {"a": [text]}, [1])
    assert figures[kind]["recall"]["1"]["value"] == read
    assert figures[kind]["exact"]["1"]["value"] == (kind == "password"), "as planted, letter by letter"
    assert "control" not in figures[kind], "no second secret"


def test_recall_at_k_beside_its_control():
    names = [canary("name", secret, secret) for secret in ("Ann Lee", "Bo Day", "Cy Fox")]
    found = {
        "Ann Lee": ["nothing", "it is Ann Lee indeed"],
        "Bo Day": ["it is bo day or Ann Lee", "x"],
        "a": ["4111111111111111"],
        "b": ["4111111111111111"],
    }
    figures = recall([*names, *CARDS], found, [1, 2])
    assert {kind: one["planted"] for kind, one in figures.items()} == {"name": 2, "card": 2, "all": 4}
    value = {kind: {what: {k: e["value"] for k, e in one[what].items()} for what in one if what != "planted"}
             for kind, one in figures.items()}  # fmt: skip
    assert value["name"] == {
        "recall": {"1": 0.5, "2": 1.0}, "exact": {"1": 0.0, "2": 0.5}, "control": {"1": 0.5, "2": 0.5},
    }  # fmt: skip
    assert value["card"]["recall"] == {"1": 0.5, "2": 0.5} and value["card"]["control"] == {"1": 0.5, "2": 0.5}
    assert value["all"]["recall"] == {"1": 0.5, "2": 0.75}
    assert figures["all"]["recall"]["1"]["n"] == 4 and figures["all"]["recall"]["1"]["low"] is not None
    json.dumps(figures)
    for ks in ([3], [0], []):
        with pytest.raises(InputError, match="at most 2 texts of a vector were kept.*--sequence-beam-width"):
            recall(names, found, ks)
    with pytest.raises(InputError, match="at most 1 texts of a vector were kept.*--candidates"):
        recall(CARDS, found, [5])
    with pytest.raises(InputError, match="none of the 1 canaries is among the results"):
        recall([names[2]], found, [1])


def test_the_control_of_a_guess_is_as_high_as_its_recall():
    """An attacker who always says the same has read nothing."""
    same = [canary("diagnosis", ("asthma", "gout", "lupus")[i % 3], str(i)) for i in range(30)]
    one = recall(same, {str(i): ["he has gout"] for i in range(30)}, [1])["diagnosis"]
    assert one["recall"]["1"]["value"] == pytest.approx(1 / 3) == one["control"]["1"]["value"]


def test_n_best_of_rows():
    rows = [{"id": "a", "text": "x", "candidates": [{"text": "x"}, {"text": "y"}]}, {"id": "b", "text": "z"}]
    assert n_best([*rows, {"id": "c", "text": "", "candidates": []}]) == {"a": ["x", "y"], "b": ["z"], "c": [""]}


def test_the_whole_way_by_command(faker, command, tmp_path):
    canaries, own, store = tmp_path / "c.jsonl", tmp_path / "own.txt", tmp_path / "store.parquet"
    own.write_text("The weather will be fine on Monday.\nThe bridge is closed.\n" * 3)
    assert command("canary", "make", canaries, "--types", "[name, card]", "--input", own, "--rate", "0.25")[0] == 0
    records = read_records(canaries)
    assert len(records) == 8 and sum(record["type"] is not None for record in records) == 2
    code, out, _ = command("canary", "embed", canaries, "-o", store)
    assert code == 0 and out == f"8 vectors in {store}\n" and sorted(p.name for p in tmp_path.iterdir()) == [
        "c.jsonl", "own.txt", "store.parquet",
    ]  # fmt: skip
    found = tmp_path / "found.npz"
    code, out, _ = command("canary", "find", canaries, "--vectors", store, "-o", found)
    assert code == 0 and "2 of 2 canaries found" in out
    results = tmp_path / "recovered.jsonl"
    assert command("invert", "--vectors", found, "--steps", 0, "--candidates", "-o", results)[0] == 0
    figures = tmp_path / "figures.json"
    code, out, _ = command("canary", "score", canaries, "--results", results, "-o", figures)
    report = json.loads(figures.read_text())
    assert code == 0 and report["all"]["planted"] == 2 and set(report["all"]["recall"]) == {"1", "4"}
    assert report["card"]["planted"] == 1 and "control in 4" in out


def test_commands_refuse(faker, refused, tmp_path, monkeypatch):
    file, results = tmp_path / "c.jsonl", tmp_path / "r.jsonl"
    assert "unknown action 'plant': choose make, embed, find or score" in refused("canary", "plant", file)
    assert "no canary is of type 'iban'" in refused("canary", "make", file, "--types", "[iban]")
    assert "give both, and no --each" in refused("canary", "make", file, "--rate", "0.1")
    assert "each is 0" in refused("canary", "make", file, "--each", "0")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert "holds no text" in refused("canary", "make", file, "--input", empty)
    write_records(file, planted(CARDS, []))
    assert "exists already" in refused("canary", "make", file)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert install_line("parquet") in refused("canary", "embed", file, "-o", tmp_path / "new.parquet")
    assert not list(tmp_path.glob("new.parquet*")), "it is said before any work is done"
    assert "embed writes vectors: give --output" in refused("canary", "embed", file)
    assert "ends in .npz or .parquet" in refused("canary", "find", file, "-o", tmp_path / "v.npy")
    assert "give --vectors" in refused("canary", "find", file, "-o", tmp_path / "v.npz")
    store = refused("canary", "find", file, "-o", tmp_path / "v.npz", "--vectors", "qdrant://127.0.0.1:9/docs")
    assert "the store does not answer" in store or "not installed" in store
    assert "give --results" in refused("canary", "score", file)
    with ResultFile(results, {}, kind="invert") as kept:
        kept.append([{"id": "a", "text": "4111 1111 1111 1111"}])
    assert "at most 1 texts of a vector were kept" in refused("canary", "score", file, "--results", results, "--k", 5)


def test_those_that_are_not_among_the_results_are_named(command, tmp_path):
    write_records(tmp_path / "c.jsonl", planted(CARDS, []))
    with ResultFile(tmp_path / "r.jsonl", {}, kind="invert") as kept:
        kept.append([{"id": "a", "text": "4111 1111 1111 1111"}])
    code, out, _ = command("canary", "score", tmp_path / "c.jsonl", "--results", tmp_path / "r.jsonl")
    assert code == 0 and "1 of the 2 canaries are not among the results" in out


def test_a_sample_keeps_its_own_rows_alone():
    """A row that is a view keeps the whole batch it was cut out of."""
    batches = []

    class Store(VectorSource):
        source, count, dim, dtype = "a store", None, 4, np.dtype(np.float32)

        def _read(self, size):
            for start in range(0, 50 * size, size):
                vectors = np.zeros((size, self.dim), dtype=np.float32)
                batches.append(weakref.ref(vectors))
                yield VectorBatch([str(start + i) for i in range(size)], vectors, None)
                del vectors
                assert sum(batch() is not None for batch in batches) <= 2

    assert len(Store().sample(100, size=10).ids) == 100
    canaries = [Canary(str(i), f"key {i}", "key", str(i)) for i in range(0, 50_000, 1000)]
    batches.clear()
    assert len(find(Store(), canaries).ids) == 50
