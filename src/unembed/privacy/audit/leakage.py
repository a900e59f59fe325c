"""What reconstructed texts give away: how near they come to the true ones, what personal data stands in them, beside
controls on the same rows, and by length, language and domain.

Without the true texts only the calibrated confidence of each reconstruction is known, and no other figure is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unembed.errors import InputError
from unembed.metrics import Estimate, bootstrap, score_pairs, share_estimate, words
from unembed.privacy.audit.language import language_of
from unembed.privacy.audit.pii import TYPES, Recogniser, leaked

SCORES = ("exact_uncased", "token_f1", "bleu", "rouge_l", "chrf")
"""Of `unembed.metrics`; the cosine to the target stands beside them."""
ANY = "any"
"""All types of personal data together."""
LENGTHS = (8, 16, 32, 64)
"""Ends of the classes of length, in words of the true text (characters of scripts without spaces)."""


@dataclass(frozen=True)
class Record:
    """One vector and what was written for it."""

    id: str
    text: str
    """The reconstruction."""
    cosine: float
    """Of its embedding to the vector."""
    verified: bool
    """It re-embeds to the vector within the embedder's noise."""
    good: float | None = None
    exact: float | None = None
    """Calibrated P(token F1 ≥ 0.8) and P(exact); None where the model has no calibration."""
    true_text: str | None = None
    domain: str | None = None


@dataclass(frozen=True)
class Control:
    """What texts that owe nothing to the vectors would score: one for each record with a true text, in that order."""

    texts: list[str]
    cosines: list[float]


@dataclass(frozen=True)
class Leakage:
    """The figures of a report, as plain JSON values; all but `confidence` and `records` are empty without truth."""

    truth: bool
    confidence: dict[str, Any]
    scores: dict[str, Any] = field(default_factory=dict)
    pii: dict[str, Any] = field(default_factory=dict)
    by: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)


def measure(records: Sequence[Record], controls: Mapping[str, Control], recogniser: Recogniser) -> Leakage:
    """All figures. Those that need the truth are of the records that have a true text, for which alone the controls
    are.

    Raises InputError for no records.
    """
    if not records:
        raise InputError("there is nothing to measure: no vector was inverted")
    known = [record for record in records if record.true_text is not None]
    rows = [_row(record, recogniser.find(record.text)) for record in records if record.true_text is None]
    rows.sort(key=lambda row: (-(row["good"] or 0), -row["cosine"]))
    if not known:
        return Leakage(False, confidence(records), records=rows)
    references = [record.true_text or "" for record in known]
    there = [recogniser.find(reference) for reference in references]
    ours = Measured.of(references, there, [record.text for record in known], [record.cosine for record in known])
    judged = [
        _row(
            record, recogniser.find(record.text), true_text=record.true_text, token_f1=float(ours.rows["token_f1"][i]),
            recovered=bool(ours.rows["exact_uncased"][i]), leaked=ours.leaked[i],
        )
        for i, record in enumerate(known)
    ]  # fmt: skip
    parts = _parts(known, references, [row["language"] for row in judged], ours)
    judged.sort(key=lambda row: (-sum(map(len, row["leaked"].values())), -row["token_f1"], -row["cosine"]))
    beside = {
        name: Measured.of(references, there, control.texts, control.cosines).summary()
        for name, control in controls.items()
    }
    return Leakage(True, confidence(records), ours.scores, ours.by_type(), parts, beside, judged + rows)


@dataclass(frozen=True)
class Measured:
    """Texts against the true ones, row by row, and what of the personal data in these stands in them."""

    rows: dict[str, np.ndarray]
    """Metric → float64 [n]."""
    scores: dict[str, Any]
    there: list[dict[str, list[str]]]
    """Type → its strings in the true text of each row."""
    leaked: list[dict[str, list[str]]]
    """Those of them that stand in the text."""

    @classmethod
    def of(
        cls, references: Sequence[str], there: list[dict[str, list[str]]], texts: Sequence[str],
        cosines: Sequence[float],
    ) -> Measured:  # fmt: skip
        scored = score_pairs(references, texts, cosines, metrics=SCORES)
        kept = [
            {
                kind: hits
                for kind, strings in found.items()
                if (hits := [string for string in strings if leaked(kind, string, text)])
            }
            for found, text in zip(there, texts, strict=True)
        ]
        summary = {name: scored.summary[name].to_dict() for name in (*SCORES, "cosine")}
        return cls(scored.rows, summary, there, kept)

    def recall(self, kind: str = ANY, rows: Iterable[int] | None = None) -> Estimate | None:
        """Share of the strings of a type that stand in the texts; None where the true texts have none."""
        chosen = range(len(self.there)) if rows is None else list(rows)
        counts = [_count(self.there[i], kind) for i in chosen]
        return share_estimate([_count(self.leaked[i], kind) for i in chosen], counts) if sum(counts) else None

    def by_type(self) -> dict[str, Any]:
        """{type: {"found": strings in the true texts, "recall": estimate}}, "any" first; empty where there is none."""
        found = {}
        for kind in (ANY, *TYPES):
            if (share := self.recall(kind)) is not None:
                found[kind] = {"found": share.n, "recall": share.to_dict()}
        return found

    def summary(self) -> dict[str, Any]:
        return {"scores": self.scores, "pii_recall": _plain(self.recall())}

    def part(self, rows: Sequence[int]) -> dict[str, Any]:
        """The same of some rows."""
        scores = {name: bootstrap(self.rows[name][list(rows)]).to_dict() for name in self.scores}
        return {"n": len(rows), "scores": scores, "pii_recall": _plain(self.recall(rows=rows))}


def confidence(records: Sequence[Record]) -> dict[str, Any]:
    """Mean calibrated probabilities, where there are any, and the share that is verified exact."""
    out = {"verified": bootstrap([float(record.verified) for record in records]).to_dict()}
    for name in ("good", "exact"):
        values = [getattr(record, name) for record in records]
        if all(value is not None for value in values):
            out[name] = bootstrap(values).to_dict()
    return out


def length_class(text: str) -> str:
    """Such as "9–16 words"."""
    count, least = len(words(text)), 0
    for most in LENGTHS:
        if count <= most:
            return f"{least}–{most} words"
        least = most + 1
    return f"{least} words or more"


def _parts(
    records: Sequence[Record], references: Sequence[str], languages: list[str], ours: Measured
) -> dict[str, dict[str, Any]]:
    labels: dict[str, list[str]] = {
        "length": [length_class(reference) for reference in references],
        "language": languages,
    }
    if any(record.domain is not None for record in records):
        labels["domain"] = [record.domain or "none" for record in records]
    parts: dict[str, dict[str, Any]] = {}
    for name, of_rows in labels.items():
        groups: dict[str, list[int]] = {}
        for i, label in enumerate(of_rows):
            groups.setdefault(label, []).append(i)
        order = sorted(groups, key=(lambda label: int(label.split("–")[0].split()[0])) if name == "length" else str)
        parts[name] = {label: ours.part(groups[label]) for label in order}
    return parts


def _row(record: Record, found: dict[str, list[str]], **more: Any) -> dict[str, Any]:
    """A record as it stands in the report."""
    written = record.text if record.true_text is None else record.true_text
    return {
        "id": record.id, "text": record.text, "true_text": None, "cosine": record.cosine, "good": record.good,
        "exact": record.exact, "verified": record.verified, "token_f1": None, "recovered": None, "pii": found,
        "leaked": {}, "language": language_of(written), "words": len(words(record.text)), **more,
    }  # fmt: skip


def _count(found: Mapping[str, Sequence[str]], kind: str) -> int:
    return sum(map(len, found.values())) if kind == ANY else len(found.get(kind, ()))


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_dict()
