"""What vectors are worth to a search: retrieval sets with human judgements, and nDCG on them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unembed.embedders.vectors import unit
from unembed.errors import InputError, StorageError, first_line, require

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


def read_retrieval(name: str | Path) -> RetrievalSet:
    """A folder in BEIR's layout: corpus.jsonl(.gz) with `_id`, `title` and `text`, queries.jsonl(.gz) with `_id` and
    `text`, and qrels/test.tsv; or `hf:OWNER/NAME`, one of MTEB's on the Hugging Face hub; or the NAME of one of those.
    A document is its title and its text. Left out are empty documents and queries, which have no vector, and queries
    that nothing answers.

    Raises InputError for a name that leads nowhere, StorageError for a damaged file.
    """
    text = str(name)
    if text.startswith("hf:"):
        return _from_hub(text[3:])
    if not Path(text).exists() and text and not set(text) & set("/\\."):
        return _from_hub(f"mteb/{text}")
    return _from_folder(Path(text))


def _from_folder(folder: Path) -> RetrievalSet:
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
    return _joined(folder.name, documents, queries, judged)


def _from_hub(name: str) -> RetrievalSet:
    """The configurations `corpus`, `queries` and `default` (or `qrels`), as MTEB's retrieval sets have them."""
    datasets = require("datasets", "train")
    try:
        # Each of the two has one split, whose name differs from set to set.
        corpus, queries = (next(iter(datasets.load_dataset(name, part).values())) for part in ("corpus", "queries"))
        found = datasets.get_dataset_config_names(name)
        judgements = datasets.load_dataset(name, "qrels" if "qrels" in found else "default", split="test")
        judged: dict[str, dict[str, float]] = {}
        for row in judgements:
            if row["score"] > 0:
                judged.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = float(row["score"])
        documents, asked = dict(map(_entry, corpus)), dict(map(_entry, queries))
    except Exception as error:  # the library raises many kinds for one cause: it is not there or not reachable
        raise InputError(
            f"{name} is no folder here and no retrieval set of the hub that can be had ({first_line(error)}): give a "
            "folder with corpus.jsonl, queries.jsonl and qrels/test.tsv, or hf:OWNER/NAME"
        ) from error
    return _joined(name.rpartition("/")[2], documents, asked, judged)


def _joined(
    name: str, documents: dict[str, str], queries: dict[str, str], judged: dict[str, dict[str, float]]
) -> RetrievalSet:
    documents, queries = ({key: text for key, text in texts.items() if text} for texts in (documents, queries))
    rows = {document: row for row, document in enumerate(documents)}
    asked: list[str] = []
    grades: list[dict[int, float]] = []
    for query, text in queries.items():
        relevant = {rows[document]: grade for document, grade in judged.get(query, {}).items() if document in rows}
        if relevant:
            asked.append(text)
            grades.append(relevant)
    if not asked:
        raise InputError(f"{name}: no query has a relevant document; its ids do not fit together")
    return RetrievalSet(name, list(documents.values()), asked, grades)


def _entries(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(id, text) of each line."""
    path = folder / f"{name}.jsonl.gz"
    opened: Any = (
        gzip.open(path, "rt", encoding="utf-8") if path.exists() else open(folder / f"{name}.jsonl", encoding="utf-8")
    )
    with opened as file:
        for line in filter(str.strip, file):
            yield _entry(json.loads(line))


def _entry(row: Mapping[str, Any]) -> tuple[str, str]:
    """(id, text) of a document or query."""
    return str(row["_id"] if "_id" in row else row["id"]), f"{row.get('title') or ''} {row['text']}".strip()


def _judgements(path: Path) -> dict[str, dict[str, float]]:
    """Query → document → grade, those above 0."""
    judged: dict[str, dict[str, float]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(filter(str.strip, file)):
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
