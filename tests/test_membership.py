"""Membership inference on real texts and vectors, also disturbed ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unembed.errors import InputError
from unembed.privacy.defences import defence
from unembed.privacy.probes.membership import membership, neighbours
from unembed.privacy.probes.significance import auc, tpr
from unembed.privacy.probes.stored import directions
from unembed.stores import VectorBatch, VectorSource, open_vectors

D = 384


class Store(VectorSource):
    """In memory, and watched: how many rows were asked for at a time."""

    def __init__(self, vectors):
        self.source, self.vectors = "a store", vectors
        self.count, self.dim, self.dtype = len(vectors), vectors.shape[1], vectors.dtype
        self.sizes = []

    def _read(self, size):
        for start in range(0, len(self.vectors), size):
            part = self.vectors[start : start + size]
            self.sizes.append(len(part))
            yield VectorBatch([f"id{start + i}" for i in range(len(part))], part, None)


@pytest.fixture(scope="module")
def sentences(data_dir):
    """180 first sentences of different articles."""
    import lzma

    with lzma.open(data_dir / "heldout" / "en_squad_dev.txt.xz", "rt", encoding="utf-8") as file:
        return list(dict.fromkeys(line.split(". ")[0][:150] for line in file))[:180]


@pytest.fixture(scope="module")
def vectors(sentences, minilm):
    return minilm.encode(sentences)


def disturbed(vectors, how):
    if how == "int8":
        return np.round(vectors * 127 / np.abs(vectors).max()).astype(np.int8)
    if how == "uint8":
        return (np.round(vectors * 127 / np.abs(vectors).max()) + 128).astype(np.uint8)
    name, strength = how.split()
    return defence(name, float(strength)).fit(vectors).apply(vectors) if how != "clean 0" else vectors


@pytest.mark.parametrize("how", ["clean 0", "int8", "uint8", "quantisation 1", "gaussian 0.05"])
def test_members_are_told_from_others(vectors, how):
    found = membership(vectors[:120], vectors[120:], Store(disturbed(vectors[:60], how)), "holm")
    assert auc(found.cosines[:60], found.cosines[60:]) > 0.99
    assert tpr(found.cosines[:60], found.cosines[60:]) > 0.9
    assert found.nearest[:60] == [f"id{i}" for i in range(60)]
    assert (found.p[:60] == found.least_p).mean() > 0.9 and found.least_p == 1 / 61


def test_p_is_uniform_for_texts_that_are_not_there(vectors):
    order = np.random.default_rng(3).permutation(120)
    asked, references = vectors[60:][order[:60]], vectors[60:][order[60:]]
    p = np.sort(membership(asked, references, Store(vectors[:60])).p)
    assert np.abs(p - (np.arange(60) + 0.5) / 60).max() < 1.63 * np.sqrt(2 / 60), "Kolmogorov-Smirnov at 1 %"


def test_a_store_is_read_in_pieces_and_once():
    rng = np.random.default_rng(0)
    stored, asked = rng.standard_normal((5000, D)).astype(np.float32), rng.standard_normal((5000, D)).astype(np.float32)
    stored[[7, 8, 9]] = [[0], [np.nan], [np.inf]]
    store, seen = Store(stored), []
    found = neighbours(asked, store, seen.append)
    assert max(store.sizes) <= 1024 and sum(store.sizes) == sum(seen) == 5000
    assert (found.stored, found.unusable) == (4997, 3)
    usable = np.delete(np.arange(5000), [7, 8, 9])
    lengths = np.linalg.norm(stored[usable], axis=1), np.linalg.norm(asked, axis=1)
    cosines = (asked / lengths[1][:, None]) @ (stored[usable] / lengths[0][:, None]).T
    assert found.cosines == pytest.approx(cosines.max(axis=1), abs=1e-6)
    assert found.ids == [f"id{usable[i]}" for i in cosines.argmax(axis=1)]


def test_directions_do_not_depend_on_how_vectors_are_kept():
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1e30, 0.0]])
    [(batch, left_out)] = directions(Store(rows), 2)
    assert batch.vectors == pytest.approx(np.array([[0.6, 0.8], [1.0, 0.0]])) and left_out == 1
    assert batch.ids == ["id0", "id2"]
    [(codes, _)] = directions(Store(np.array([[131, 132], [128, 128]], dtype=np.uint8)), 2)
    assert codes.vectors == pytest.approx(np.array([[0.6, 0.8]])), "uint8 is centred on 128"


def test_what_cannot_be_asked_is_refused():
    one = np.ones((2, 4), dtype=np.float32)
    with pytest.raises(InputError, match="vectors of 3 numbers, the embedder gives 4"):
        neighbours(one, Store(np.ones((2, 3))))
    with pytest.raises(InputError, match="no usable vector"):
        neighbours(one, Store(np.zeros((2, 4))))
    with pytest.raises(InputError, match="unknown correction 'bonferroni': choose holm or benjamini-hochberg"):
        membership(one, one, Store(one), "bonferroni")
    with pytest.raises(InputError, match="2 texts and 0 references"):
        membership(one, one[:0], Store(one))


@pytest.fixture
def files(tmp_path, minilm):
    animals = ["The cat sleeps on the warm roof", "A dog chased the postman again", "Two horses grazed by the river"]
    others = ["The bank closes at noon", "Rain is expected on Friday", "She bought a red bicycle", "He plays the cello"]
    np.save(tmp_path / "store.npy", minilm.encode(animals))
    rows = [{"text": text, "member": text in animals} for text in [*others[:2], *animals]]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    people, deeds = ("My aunt", "The mayor", "A child"), ("sang a song", "lost a key", "read the news")
    places = ("Rome", "the park", "a train", "May")
    references = [f"{who} {what} in {where}." for who in people for what in deeds for where in places]
    (tmp_path / "public.txt").write_text("\n".join([*references, animals[0].upper()]))
    return tmp_path


def ask(files, *more, texts="asked.jsonl", reference="public.txt", vectors="store.npy"):
    where = ["--texts", files / texts, "--reference", files / reference, "--vectors", files / vectors]
    return ("membership", *where, *more)


def test_by_command(command, files):
    code, out, _ = command(*ask(files, "--truth", "member", "-o", files / "out.json"))
    report = json.loads((files / "out.json").read_text())
    summary, rows = report["summary"], report["texts"]
    assert code == 0 and summary["references"] == 36, "what is asked about is no reference, in whatever case"
    assert summary["named"] == summary["named_right"] == 3 and summary["auc"]["value"] == 1.0
    assert [row["truth"] for row in rows] == [True] * 3 + [False] * 2 and rows[0]["cosine"] == pytest.approx(1)
    assert {row["nearest"] for row in rows[:3]} == {"0", "1", "2"}
    assert "3 of 5 texts are in the store" in out and "AUC 1 " in out and "3 are in the store and 0 are not" in out
    code, out, _ = command(*ask(files, "--correction", "holm"))
    assert code == 0 and "0 of 5 texts are in the store" in out and "none can be named" in out and "AUC" not in out


def test_texts_that_are_not_needed_stop_nothing_and_ids_can_be_named(command, files, minilm):
    from unembed.stores import read_vectors

    vectors = read_vectors(str(files / "store.npy")).vectors
    rows = [{"vector": vector.tolist(), "text": i, "name": f"n{i}"} for i, vector in enumerate(vectors)]
    (files / "store.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = files / "new" / "out.json"
    assert command(*ask(files, "--ids-field", "name", "-o", out, vectors="store.jsonl"))[0] == 0
    assert {row["nearest"] for row in json.loads(out.read_text())["texts"][:3]} == {"n0", "n1", "n2"}


def test_an_output_that_cannot_be_written_is_said_before_anything_is_read(refused, files, monkeypatch):
    monkeypatch.setattr("unembed.stores.open_vectors", lambda *a, **k: pytest.fail("the store was read"))
    (files / "file").write_text("")
    message = refused(*ask(files, "-o", files / "file" / "out.json"))
    assert "cannot be written" in message and "give another -o" in message


def test_commands_refuse(refused, files):
    assert "unknown correction 'no'" in refused(*ask(files, "--correction", "no"))
    assert "alpha is 5" in refused(*ask(files, "--alpha", "5"))
    assert "record 1: needs a text under 'text' and true or false under 'in'" in refused(*ask(files, "--truth", "in"))
    np.save(files / "narrow.npy", np.eye(3, 7))
    assert "vectors of 7 numbers, the embedder gives 384" in refused(*ask(files, vectors="narrow.npy"))
    (files / "empty.txt").write_text("\n")
    assert "empty.txt holds no text" in refused(*ask(files, texts="empty.txt"))
    assert "holds no text that is not asked about" in refused(*ask(files, reference="empty.txt"))
    (files / "same.txt").write_text("Rain is expected on Friday\n")
    assert "holds no text that is not asked about" in refused(*ask(files, reference="same.txt"))
    assert "no such file" in refused(*ask(files, vectors="none.npy"))
    down = "qdrant://127.0.0.1:9/docs"
    line = refused(
        "membership", "--texts", files / "asked.jsonl", "--reference", files / "public.txt", "--vectors", down
    )
    assert "the store does not answer" in line or "not installed" in line


def test_a_store_address_works(files, minilm, tmp_path):
    with open_vectors(str(files / "store.npy")) as source:
        found = neighbours(minilm.encode(["the cat sleeps on the warm roof"]), source)
    assert found.ids == ["0"] and found.cosines[0] == pytest.approx(1, abs=1e-5)
