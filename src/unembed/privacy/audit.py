"""An audit: a sample of a store is inverted, and a report says what that gave away.

Notable:
- Each result is on the disk before the next batch begins (`attempts.jsonl`), so that a run that was killed goes on
  where it was. A store that has changed since is refused: its sample has another hash.
- Personal data is looked for when the report is made, not when a vector is inverted, so a report can be made again with
  other recognisers, or unredacted, at no query.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import unembed
from unembed.embedders import validate_vectors
from unembed.embedders.spec import UNKNOWN
from unembed.errors import InputError, TokensUnknown
from unembed.evaluation import hardware
from unembed.inverter import Inverter
from unembed.privacy.controls import controls
from unembed.privacy.leakage import Record, measure
from unembed.privacy.pii import Recogniser
from unembed.privacy.target import Target
from unembed.privacy.verdict import TAGS, Check, headline, limits, remediation, severity
from unembed.results import ResultFile, config_hash, read_results
from unembed.search.types import SearchConfig

TIMED = 4
"""Texts that a plan inverts to tell how long the rest will take."""


def settings(
    inverter: Inverter, target: Target, search: SearchConfig, *, model: str, normalize: bool, sample: int
) -> dict[str, Any]:
    """All that changes a reconstruction: what a run can be resumed with."""
    return {
        "store": target.facts["source"], "store_content": target.content, "sample": sample, "model": model,
        "weights": inverter.model.digest, "embedder": inverter.embedder.spec.to_dict(), "normalize": normalize,
        "search": asdict(search),
    }  # fmt: skip


def refuse_changed(path: Path, config: dict[str, Any]) -> None:
    """Raise InputError where a run in `path` differs from this one in nothing but what the store holds."""
    there = read_results(path)[0]["config"] if path.is_file() and path.stat().st_size else config
    if there != config and {**there, "store_content": config["store_content"]} == config:
        raise InputError(
            f"{path}: the store has changed since this run began, so its results and new ones would not go together; "
            "give another -o, or --overwrite to start afresh"
        )


def attack(
    inverter: Inverter, target: Target, search: SearchConfig, file: ResultFile, *, normalize: bool = False
) -> Iterator[int]:
    """Invert what is not in `file` yet and write it there; yields how many vectors each batch had.

    Batches are cut by position and searched whole, so that a run that was stopped finds the same texts as one that was
    not. Raises StorageError when the disk is full: the same call goes on.
    """
    done, size = file.done(), search.targets_at_once
    for start in range(0, len(target.ids), size):
        ids = target.ids[start : start + size]
        if not set(ids) <= done:
            began = time.perf_counter()
            vectors = target.vectors[start : start + size]
            found = list(inverter.stream(vectors, search, normalize=normalize, first=start))
            seconds = round((time.perf_counter() - began) / len(ids), 4)
            rows = [
                {"id": name, **inversion.to_dict(), "seconds": seconds}
                for name, inversion in zip(ids, found, strict=True)
            ]
            file.append([{key: value for key, value in row.items() if key != "trace"} for row in rows])
        yield len(ids)


def plan(
    inverter: Inverter, target: Target, search: SearchConfig, public: Sequence[str], price: float | None = None
) -> dict[str, Any]:
    """What a run will cost at most: queries, tokens, seconds and, at a price for a million tokens, money. The time is
    measured on a few of the public texts; an embedder behind an API is not asked, and gives none."""
    queries = len(target.ids) * search.most_queries()
    known = any(text is not None for text in target.texts)
    extra = len(public) + 2 * len(target.ids) if known else 0  # the controls
    texts = (
        [text for text in target.texts if text]
        or list(public[:TIMED])
        or ["A text of some ten words, such as this one here."]
    )
    tokens = round(mean_tokens(inverter, texts) * (queries + extra))
    seconds = None
    if public and inverter.embedder.spec.pooling != UNKNOWN:
        vectors = inverter.embedder.encode(public[:TIMED])
        began = time.perf_counter()
        list(inverter.stream(vectors, search))
        seconds = (time.perf_counter() - began) / len(vectors) * len(target.ids)
    cost = None if price is None else tokens / 1e6 * price
    return {"vectors": len(target.ids), "queries": queries + extra, "tokens": tokens, "seconds": seconds, "cost": cost}


def report(
    inverter: Inverter, target: Target, search: SearchConfig, attempts: Sequence[dict[str, Any]], *,
    config: dict[str, Any], model: str, public: Sequence[str] = (), recogniser: Recogniser | None = None,
    checks: Sequence[Check] = (), defences: dict[str, Any] | None = None, normalize: bool = False,
    price: float | None = None, authorised_by: str | None = None, more: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The report of rows that `attack` wrote, as plain JSON values and unredacted.

    Args:
        config: the settings of the run; `more` are those that concern the report alone.
        public: texts for the controls.
        checks: rules that fail the audit.
        defences: the report of `unembed defend`.
        price: of a million tokens of the embedder.

    Raises InputError for a rule that the figures cannot answer.
    """
    recogniser = recogniser or Recogniser()
    rows = {row["id"]: row for row in attempts}
    records = [_record(rows[name], target, i) for i, name in enumerate(target.ids)]
    known = [i for i, text in enumerate(target.texts) if text is not None]
    beside = {}
    if known:
        vectors = validate_vectors(target.vectors[known], inverter.embedder.spec, normalize=normalize)
        beside = controls(inverter, vectors, [target.texts[i] or "" for i in known], public, seed=search.seed)
    leakage = measure(records, beside, recogniser)
    ours = [rows[name] for name in target.ids]
    queries = sum(row["queries"] for row in ours)
    tokens = round(mean_tokens(inverter, [row["text"] or "." for row in ours]) * queries)
    made: dict[str, Any] = {
        "unembed": unembed.__version__, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {**config, **(more or {})}, "config_hash": config_hash(config),
        "run": {
            "seconds": round(sum(row["seconds"] for row in ours), 2), "seed": search.seed, **hardware(),
            "authorised_by": authorised_by,
        },
        "target": target.facts,
        "threat_model": {
            "access": _access(inverter, search), "model": model, "model_digest": inverter.model.digest,
            "steps": search.steps, "consensus": search.consensus, "queries_mean": queries / len(ours),
            "queries": queries, "tokens": tokens, "cost": None if price is None else tokens / 1e6 * price,
        },
        **asdict(leakage), "canaries": None, "defences": defences, "tags": list(TAGS),
    }  # fmt: skip
    made["headline"] = headline(made)
    level, rule = severity(made)
    made["verdict"] = {"severity": level, "rule": rule, "checks": [check.apply(made) for check in checks]}
    made["remediation"] = remediation(made)
    made["limits"] = limits(made, recogniser.languages)
    return made


def mean_tokens(inverter: Inverter, texts: Sequence[str]) -> float:
    """Of the embedder's; behind an API that shows none, by the usual four bytes a token."""
    try:
        return float(np.mean(inverter.embedder.count_tokens(texts)))
    except TokensUnknown:
        return float(np.mean([len(text.encode()) / 4 for text in texts]))


def _record(row: dict[str, Any], target: Target, i: int) -> Record:
    return Record(
        row["id"], row["text"], row["cosine"], row["exact"], row["confidence"], row["confidence_exact"],
        target.texts[i], target.domains[i],
    )  # fmt: skip


def _access(inverter: Inverter, search: SearchConfig) -> str:
    name = inverter.embedder.spec.id
    if search.budget is not None:
        return f"the stored vectors, and at most {search.budget} queries a vector to the embedder {name}"
    return f"the stored vectors, and the embedder {name} to query"
