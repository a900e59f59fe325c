"""`unembed membership`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.embedders import Embedder

SHOWN = 20


def membership(
    texts: str,
    vectors: str,
    reference: str,
    output: str | None = None,
    embedder: str = "all-MiniLM-L6-v2",
    field: str = "text",
    truth: str | None = None,
    references: int = 2000,
    correction: str = "benjamini-hochberg",
    alpha: float = 0.05,
    ids_field: str | None = None,
    vector_field: str | None = None,
    device: str | None = None,
    quiet: bool = False,
) -> int:
    """Ask whether texts are in a store.

    Args:
        texts: what is asked about: a text, jsonl or parquet file (also .gz, .xz), one text a line.
        vectors: the store, or a file of vectors.
        reference: texts of the same kind that are not in the store, which show how near such texts come.
        output: the figures and all texts as JSON.
        embedder: the one that made the vectors: name, folder or hub id.
        field: the field that holds the text, in jsonl and parquet.
        truth: field of the asked texts (jsonl) that says whether each is in the store, where that is known.
        references: use at most the first so many of the reference texts.
        correction: for so many texts being asked about: holm (no single one wrong) or benjamini-hochberg (few of those
            that are named).
        alpha: a text is named where its corrected p is at most this.
        ids_field: field of the vectors' ids.
        vector_field: field, column or array that holds the vectors.
        device: by default the best there is.
        quiet: no progress.
    """
    from unembed.cli.console import console, progress, table
    from unembed.embedders import embedder as open_embedder
    from unembed.privacy.probes.membership import membership as infer
    from unembed.privacy.probes.significance import CORRECTIONS, auc, estimate, tpr
    from unembed.results import ready_for, write_report
    from unembed.stores import open_vectors
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    if correction not in CORRECTIONS:
        raise InputError(f"unknown correction '{correction}': choose {' or '.join(CORRECTIONS)}")
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha:g}: give a chance between 0 and 1, such as 0.05")
    if output is not None:
        ready_for(Path(output))
    asked, known = _asked(texts, field, truth)
    others = list(read_texts(SourceConfig(reference, field=field, limit=references)))
    with open_vectors(vectors, ids_field=ids_field, vector_field=vector_field, text_field="") as source:
        made = open_embedder(embedder, device=device)
        others = _unlike(others, asked, made)
        if not others:
            raise InputError(f"{reference} holds no text that is not asked about: give others of the same kind")
        with progress(source.count, "compare", quiet) as bar:
            found = infer(made.encode(asked), made.encode(others), source, correction, progress=bar.update)
    named = found.corrected <= alpha
    summary: dict[str, Any] = {
        "texts": len(asked), "references": len(others), "stored": found.stored, "unusable": found.unusable,
        "correction": correction, "alpha": alpha, "named": int(named.sum()), "least_p": found.least_p,
    }  # fmt: skip
    if known is not None:
        members, strangers = found.cosines[known], found.cosines[~known]
        for name, measure in (("auc", auc), ("tpr_at_1_percent_fpr", tpr)):
            summary[name] = estimate(measure, members, strangers).to_dict()
        summary["named_right"], summary["named_wrong"] = int((named & known).sum()), int((named & ~known).sum())
    rows = [
        {
            "text": asked[i], "cosine": float(found.cosines[i]), "nearest": found.nearest[i], "p": float(found.p[i]),
            "corrected": float(found.corrected[i]), "in_store": bool(named[i]),
            **({} if known is None else {"truth": bool(known[i])}),
        }
        for i in np.argsort(-found.cosines, kind="stable")
    ]  # fmt: skip
    columns = [("text", "left"), ("cosine", "right"), ("nearest", "left"), ("p", "right"), ("corrected", "right")]
    shown = [
        (row["text"], f"{row['cosine']:.4f}", row["nearest"], f"{row['p']:.4g}", f"{row['corrected']:.4g}")
        for row in rows[:SHOWN]
    ]
    out = console()
    out.print(table(columns, shown))
    for line in _lines(summary):
        out.print(line, markup=False, soft_wrap=True)
    if output is not None:
        write_report(Path(output), json.dumps({"summary": summary, "texts": rows}, indent=1, ensure_ascii=False))
    return 0


def _asked(path: str, field: str, truth: str | None) -> tuple[list[str], np.ndarray | None]:
    """The texts, and where it is known which of them are in the store, bool [n]."""
    from unembed.privacy.records import read_records
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    if truth is None:
        texts = list(read_texts(SourceConfig(path, field=field)))
        if not texts:
            raise InputError(f"{path} holds no text: give a file with one text a line")
        return texts, None
    records = read_records(path)
    for number, record in enumerate(records, start=1):
        if not isinstance(record.get(field), str) or not isinstance(record.get(truth), bool):
            raise InputError(f"{path}, record {number}: needs a text under '{field}' and true or false under '{truth}'")
    return [record[field] for record in records], np.array([record[truth] for record in records])


def _unlike(references: list[str], asked: list[str], embedder: Embedder) -> list[str]:
    """The references that are not asked about."""
    keys = {embedder.key(text) for text in asked}
    return [text for text in references if embedder.key(text) not in keys]


def _lines(summary: dict[str, Any]) -> list[str]:
    from unembed.metrics import Estimate

    lines = [
        f"{summary['named']} of {summary['texts']} texts are in the store at {summary['correction']} p <= "
        f"{summary['alpha']:g}; {summary['stored']} vectors, {summary['references']} references"
    ]
    if summary["unusable"]:
        lines.append(f"{summary['unusable']} vectors are zero, NaN or infinite and were left out")
    if (least := summary["least_p"] * summary["texts"] / summary["alpha"]) > 1:
        which = "none" if summary["correction"] == "holm" else f"no fewer than {math.ceil(least)} together"
        lines.append(f"{summary['references']} references are few for so many texts: {which} can be named")
    if "auc" in summary:
        lines.append(f"AUC {Estimate(**summary['auc'])}, TPR at 1 % FPR {Estimate(**summary['tpr_at_1_percent_fpr'])}")
        lines.append(f"of those named, {summary['named_right']} are in the store and {summary['named_wrong']} are not")
    return lines
