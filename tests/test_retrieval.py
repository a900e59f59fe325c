"""Retrieval sets and nDCG."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from unembed.errors import InputError, StorageError
from unembed.privacy.comparison.retrieval import ndcg, read_retrieval


@pytest.fixture
def folder(tmp_path):
    documents = [{"_id": f"d{i}", "title": f"T{i}", "text": f"text {i}"} for i in range(4)]
    documents.insert(1, {"_id": "nothing", "title": "", "text": " "})
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in documents)
    queries = [{"_id": name, "text": f"question {name}"} for name in ("q1", "q2", "q3")]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in queries), encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td2\t1\nq1\td0\t2\nq2\td1\t0\nq3\td3\t1\nq3\tnowhere\t1\n", encoding="utf-8"
    )
    return tmp_path


def test_a_set_is_read(folder):
    found = read_retrieval(folder)
    assert found.documents == [f"T{i} text {i}" for i in range(4)], "one is empty"
    assert found.queries == ["question q1", "question q3"], "nothing answers q2"
    assert found.judged == [{2: 1.0, 0: 2.0}, {3: 1.0}]


def test_blank_lines_are_passed_over(folder):
    before = read_retrieval(folder)
    for name in ("queries.jsonl", "qrels/test.tsv"):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        (folder / name).write_text("\n" + "\n \n".join(lines) + "\n\n", encoding="utf-8")
    with gzip.open(folder / "corpus.jsonl.gz", "at", encoding="utf-8") as file:
        file.write("\n")
    assert read_retrieval(folder) == before


def test_a_set_is_read_as_the_hub_has_it(folder, tmp_path):
    """With the configurations that MTEB's sets have, here in a local folder, which `datasets` opens like one of the
    hub."""
    parts = {
        "default": ("test", "qrels.jsonl"),
        "corpus": ("corpus", "corpus.jsonl"),
        "queries": ("asked", "asked.jsonl"),
    }
    card = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {path}\n"
        for name, (split, path) in parts.items()
    )
    place = tmp_path / "there"
    place.mkdir()
    (place / "README.md").write_text(f"---\nconfigs:\n{card}---\n", encoding="utf-8")
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        (place / "corpus.jsonl").write_text(file.read(), encoding="utf-8")
    (place / "asked.jsonl").write_text((folder / "queries.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    lines = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [dict(zip(("query-id", "corpus-id", "score"), line.split("\t"), strict=True)) for line in lines]
    judged = [json.dumps({**row, "score": int(row["score"])}) for row in rows]
    (place / "qrels.jsonl").write_text("\n".join(judged), encoding="utf-8")
    there, here = read_retrieval(f"hf:{place}"), read_retrieval(folder)
    assert (there.documents, there.queries, there.judged) == (here.documents, here.queries, here.judged)
    assert there.name == "there"
    with pytest.raises(InputError, match="mteb/nothing is no folder here and no retrieval set of the hub"):
        read_retrieval("nothing")


def test_what_is_no_set_says_so(folder):
    with pytest.raises(InputError, match="no queries.jsonl"):
        (folder / "queries.jsonl").rename(folder / "queries")
        read_retrieval(folder)
    (folder / "queries").rename(folder / "queries.jsonl")
    (folder / "qrels" / "test.tsv").write_text("q1\td9\t1\n", encoding="utf-8")
    with pytest.raises(InputError, match="its ids do not fit together"):
        read_retrieval(folder)
    (folder / "corpus.jsonl.gz").write_bytes((folder / "corpus.jsonl.gz").read_bytes()[:-9])
    with pytest.raises(StorageError, match="damaged"):
        read_retrieval(folder)


def test_ndcg_is_that_of_scikit_learn():
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(4)
    stored, asked = rng.standard_normal((60, 8)), rng.standard_normal((30, 8))
    grades = rng.integers(0, 4, (30, 60)) * (rng.random((30, 60)) < 0.2)
    grades[:, 0] = 1
    judged = [{int(d): float(row[d]) for d in np.flatnonzero(row)} for row in grades]
    scores = asked @ stored.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(stored, axis=1)
    theirs = [ndcg_score(grades[i : i + 1], scores[i : i + 1], k=10) for i in range(30)]
    assert np.allclose(ndcg(3 * stored, asked, judged), theirs, atol=1e-6)
    few = ndcg(stored[:5], asked, [{0: 1.0} for _ in asked])
    assert ((few > 0) & (few <= 1)).all(), "a store of fewer than ten documents"


@pytest.mark.skipif("UNEMBED_DATA_DIR" not in os.environ, reason="UNEMBED_DATA_DIR (the corpora) is not set")
def test_the_default_embedder_finds_what_it_is_known_to_find(minilm):
    """all-MiniLM-L6-v2 has nDCG@10 .94 on the English questions of XQuAD; here the first 100 of them."""
    found = read_retrieval(Path(os.environ["UNEMBED_DATA_DIR"]) / "retrieval" / "xquad_en")
    scores = ndcg(minilm.encode(found.documents), minilm.encode(found.queries[:100]), found.judged[:100])
    assert len(scores) == 100 and scores.mean() > 0.85
