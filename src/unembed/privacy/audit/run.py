"""An audit: a sample of a store is inverted, and a report says what that gave away.

Notable:
- Each result is on the disk before the next batch begins (`attempts.jsonl`), so that a run that was killed goes on
  where it was. A store that has changed since is refused: its sample has another hash.
- Personal data is looked for when the report is made, not when a vector is inverted, so a report can be made again with
  the true texts, other recognisers or unredacted, and nothing is inverted anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import unembed
from unembed.embedders import validate_vectors
from unembed.embedders.spec import UNKNOWN
from unembed.errors import InputError, UnembedError
from unembed.evaluation import hardware
from unembed.inverter import Inverter
from unembed.privacy.audit.controls import Control, controls, token_counts
from unembed.privacy.audit.leakage import Record, measure
from unembed.privacy.audit.pii import Recogniser
from unembed.privacy.audit.target import PROBED, Target
from unembed.privacy.audit.verdict import TAGS, Check, headline, limits, remediation, severity
from unembed.results import ResultFile, config_hash, read_results
from unembed.search.types import SearchConfig

TIMED = 4
"""Texts that a plan inverts to tell how long the rest will take."""


@dataclass(frozen=True)
class Audit:
    """One attack on one target, and the report of it."""

    inverter: Inverter
    target: Target
    search: SearchConfig
    model: str
    """By which name the inverter was loaded."""
    public: Sequence[str] = ()
    """Texts that are not in the store, for the controls."""
    normalize: bool = False
    """Scale the vectors to unit length."""
    price: float | None = None
    """Of a million tokens of the embedder."""

    def settings(self) -> dict[str, Any]:
        """All that changes a reconstruction: what a run can be resumed with."""
        return {
            "store": self.target.facts["source"], "store_content": self.target.content,
            "sampled": self.target.facts["sampled"], "model": self.model, "weights": self.inverter.model.digest,
            "embedder": self.inverter.embedder.spec.to_dict(), "normalize": self.normalize,
            "search": asdict(self.search),
        }  # fmt: skip

    def attack(self, file: ResultFile) -> Iterator[int]:
        """Invert what is not in `file` yet and write it there; yields how many vectors each batch had.

        Batches are cut by position and searched whole, so that a run that was stopped finds the same texts as one that
        was not. Raises StorageError when the disk is full: the same call goes on.
        """
        done, size = file.done(), self.search.targets_at_once
        for start in range(0, len(self.target.ids), size):
            ids = self.target.ids[start : start + size]
            if not set(ids) <= done:
                began = time.perf_counter()
                vectors = self.target.vectors[start : start + size]
                found = list(self.inverter.stream(vectors, self.search, normalize=self.normalize, first=start))
                seconds = round((time.perf_counter() - began) / len(ids), 4)
                rows = [
                    {"id": name, **inversion.to_dict(), "seconds": seconds}
                    for name, inversion in zip(ids, found, strict=True)
                ]
                file.append([{key: value for key, value in row.items() if key != "trace"} for row in rows])
            yield len(ids)

    def plan(self) -> dict[str, Any]:
        """What a run will cost at most: queries, tokens, seconds and, where there is a price, money. The time is
        measured on a few of the public texts; an embedder behind an API is not asked for that, and gives none."""
        known = [text for text in self.target.texts if text is not None]
        queries = len(self.target.ids) * self.search.most_queries()
        if known:  # the controls, and those that are embedded again beforehand
            queries += len(self.public) + 2 * len(known) + min(PROBED, len(known))
        tokens = self._tokens(known or self.public[:TIMED] or [" ".join(["word"] * 16)], queries)
        seconds = None
        if self.public and self.inverter.embedder.spec.pooling != UNKNOWN:
            vectors = self.inverter.embedder.encode(self.public[:TIMED])
            began = time.perf_counter()
            list(self.inverter.stream(vectors, self.search))
            seconds = (time.perf_counter() - began) / len(vectors) * len(self.target.ids)
        return {
            "vectors": len(self.target.ids), "queries": queries, "tokens": tokens, "seconds": seconds,
            "cost": self._cost(tokens),
        }  # fmt: skip

    def report(
        self, attempts: Sequence[Mapping[str, Any]], checks: Sequence[Check] = (), *,
        recogniser: Recogniser | None = None, canaries: dict[str, Any] | None = None,
        defences: dict[str, Any] | None = None, authorised_by: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The report of rows that `attack` wrote, as plain JSON values and unredacted.

        Args:
            checks: rules that fail the audit.
            recogniser: of personal data.
            canaries: what `canary_recall.recall` found.
            defences: the report of `unembed defend`.
            more: settings that concern the report alone.

        Raises InputError for a rule that the figures cannot answer.
        """
        recogniser = recogniser or Recogniser()
        by_id = {row["id"]: row for row in attempts}
        rows = [by_id[name] for name in self.target.ids]
        leakage = measure([self._record(row, i) for i, row in enumerate(rows)], self._controls(), recogniser)
        queries, config = sum(row["queries"] for row in rows), self.settings()
        tokens = self._tokens([row["text"] or "." for row in rows], queries)
        made: dict[str, Any] = {
            "unembed": unembed.__version__, "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": {**config, **(more or {})}, "config_hash": config_hash(config),
            "run": {
                "seconds": round(sum(row["seconds"] for row in rows), 2), "seed": self.search.seed, **hardware(),
                "authorised_by": authorised_by,
            },
            "target": self.target.facts,
            "threat_model": {
                "access": self._access(), "model": self.model, "model_digest": self.inverter.model.digest,
                "steps": self.search.steps, "consensus": self.search.consensus, "queries_mean": queries / len(rows),
                "queries": queries, "tokens": tokens, "cost": self._cost(tokens),
            },
            **asdict(leakage), "canaries": canaries, "defences": defences, "tags": list(TAGS),
        }  # fmt: skip
        made["headline"] = headline(made)
        level, rule = severity(made)
        made["verdict"] = {"severity": level, "rule": rule, "checks": [check.apply(made) for check in checks]}
        made["remediation"] = remediation(made)
        made["limits"] = limits(made, recogniser.languages)
        return made

    def _record(self, row: Mapping[str, Any], i: int) -> Record:
        return Record(
            row["id"], row["text"], row["cosine"], row["exact"], row["confidence"], row["confidence_exact"],
            self.target.texts[i], self.target.domains[i],
        )  # fmt: skip

    def _controls(self) -> dict[str, Control]:
        known = {i: text for i, text in enumerate(self.target.texts) if text is not None}
        if not known:
            return {}
        vectors = self.target.vectors[list(known)]
        targets = validate_vectors(vectors, self.inverter.embedder.spec, normalize=self.normalize)
        return controls(self.inverter, targets, list(known.values()), self.public, seed=self.search.seed)

    def _tokens(self, texts: Sequence[str], queries: int) -> int:
        """Of so many queries, when texts like these are asked about."""
        return round(float(np.mean(token_counts(self.inverter, texts))) * queries)

    def _cost(self, tokens: int) -> float | None:
        return None if self.price is None else tokens / 1e6 * self.price

    def _access(self) -> str:
        name, budget = self.inverter.embedder.spec.id, self.search.budget
        asked = "to query" if budget is None else f"to query at most {budget} times a vector"
        return f"the stored vectors, and the embedder {name} {asked}"


def refuse_changed(path: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError where a run in `path` differs from this one in nothing but what the store holds."""
    try:
        there = read_results(path)[0]["config"]
    except UnembedError:  # there is none, or one that `ResultFile` has to say something about
        return
    if there != config and {**there, "store_content": config["store_content"]} == config:
        raise InputError(
            f"{path}: the store has changed since this run began, so its results and new ones would not go together; "
            "give another -o, or --overwrite to start afresh"
        )
