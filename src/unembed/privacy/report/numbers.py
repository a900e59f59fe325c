"""How the figures of a report are written: shares in percent, with their interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LABELS = {
    "pii_recall": "personal data recovered",
    "exact_uncased": "exact (case aside)",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "chrf": "chrF",
    "cosine": "cosine",
}
"""The measures, in the order in which they are shown."""
OF_100 = {"bleu", "chrf"}
NONE = "–"


@dataclass(frozen=True)
class Span:
    """A figure with its interval, where there is one."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return self.format(1)

    def format(self, digits: int, unit: str = "") -> str:
        value = f"{self.value:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return value
        return f"{value} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def span(estimate: Mapping[str, Any], scale: float = 1) -> Span:
    """An estimate of metrics.py, times `scale`."""
    low, high = estimate.get("low"), estimate.get("high")
    return Span(
        scale * estimate["value"], None if low is None else scale * low, None if high is None else scale * high
    )  # fmt: skip


def of_100(measure: str, estimate: Mapping[str, Any]) -> Span:
    """Any measure but the cosine on a scale of 0 to 100."""
    return span(estimate, 1 if measure in OF_100 else 100)


def share(estimate: Mapping[str, Any] | None) -> str:
    """A share as "37.5 % (33.1–41.9)"."""
    return NONE if not estimate else span(estimate, 100).format(1, " %")


def score(measure: str, estimate: Mapping[str, Any] | None) -> str:
    """A measure as its field writes it."""
    if not estimate:
        return NONE
    if measure == "cosine":
        return span(estimate).format(3)
    return span(estimate).format(1) if measure in OF_100 else share(estimate)


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def count(value: float | None) -> str:
    return NONE if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """As "1 h 5 min", "5 min 2 s", "12.3 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
