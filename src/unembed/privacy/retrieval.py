"""What vectors are worth to a search: retrieval sets with human judgements, and nDCG on them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unembed.errors import InputError, StorageError

AT = 10
"""Results of a query that count."""
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class RetrievalSet:
    """Documents, queries, and which document answers which query how well."""

    name: str
    documents: list[str]
    queries: list[str]
    judged: list[dict[int, float]]
    """For each query the documents that are relevant to it, by row, with their grade (above 0)."""


def read_retrieval(folder: str | Path) -> RetrievalSet:
    """A folder in BEIR's layout: corpus.jsonl(.gz) with `_id`, `title` and `text`, queries.jsonl(.gz) with `_id` and
    `text`, and qrels/test.tsv. A document is its title and its text. Left out are empty documents and queries, which
    have no vector, and queries that nothing answers.

    Raises InputError for a folder that is none, StorageError for a damaged file.
    """
    folder = Path(folder)
    try:
        documents = dict(_entries(folder, "corpus"))
        queries = dict(_entries(folder, "queries"))
        judged = _judgements(folder / "qrels" / "test.tsv")
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is no retrieval set (no {Path(error.filename).name}): give a folder with corpus.jsonl, "
            "queries.jsonl and qrels/test.tsv"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{folder} is damaged ({' '.join(str(error).split())}): copy it anew") from error
    rows = {name: row for row, name in enumerate(documents)}
    asked: list[str] = []
    grades: list[dict[int, float]] = []
    for name, text in queries.items():
        relevant = {rows[document]: grade for document, grade in judged.get(name, {}).items() if document in rows}
        if relevant:
            asked.append(text)
            grades.append(relevant)
    if not asked:
        raise InputError(f"{folder}: no query has a relevant document; its ids do not fit together")
    return RetrievalSet(folder.name, list(documents.values()), asked, grades)


def _entries(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(id, text) of each line that has a text."""
    path = folder / f"{name}.jsonl.gz"
    opened: Any = (
        gzip.open(path, "rt", encoding="utf-8") if path.exists() else open(folder / f"{name}.jsonl", encoding="utf-8")
    )
    with opened as file:
        for line in file:
            entry = json.loads(line)
            if text := f"{entry.get('title') or ''} {entry['text']}".strip():
                yield str(entry["_id"]), text


def _judgements(path: Path) -> dict[str, dict[str, float]]:
    """Query → document → grade, those above 0."""
    judged: dict[str, dict[str, float]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file):
            query, document, grade = line.rstrip("\n").split("\t")
            if number == 0 and not grade.lstrip("-").replace(".", "", 1).isdecimal():
                continue  # the heading
            if float(grade) > 0:
                judged.setdefault(query, {})[document] = float(grade)
    return judged


def ndcg(stored: np.ndarray, asked: np.ndarray, judged: Sequence[Mapping[int, float]], at: int = AT) -> np.ndarray:
    """nDCG at `at` of each query [q], by cosine: stored [n, s], asked [q, s].

    Gains are the grades, discounted by log2(rank + 1), over the best order there is (Järvelin & Kekäläinen 2002; as
    trec_eval and BEIR compute it).
    """
    stored, asked = unit(stored), unit(asked)
    found = np.empty(len(asked))
    discount = 1 / np.log2(np.arange(2, at + 2))
    for start in range(0, len(asked), QUERIES_AT_ONCE):
        scores = asked[start : start + QUERIES_AT_ONCE] @ stored.T  # q n
        top = min(at, scores.shape[1])
        best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        order = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1), axis=1)
        for row, documents in enumerate(order):
            grades = judged[start + row]
            gained = np.array([grades.get(int(document), 0.0) for document in documents])
            ideal = np.sort(np.array(list(grades.values())))[::-1][:at]
            found[start + row] = gained @ discount[: len(gained)] / (ideal @ discount[: len(ideal)])
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """At length 1, float32 [n, d]: a cosine sees directions alone. Zero vectors stay."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
