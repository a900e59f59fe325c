"""How the figures of a report are written, with their intervals."""

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
SHARES = {"pii_recall", "exact_uncased", "confidence_good", "verified"}
"""Of texts or strings, which are written in percent; the others as they are."""
NONE = "–"


@dataclass(frozen=True)
class Span:
    """A figure with its interval, where there is one."""

    value: float
    low: float | None
    high: float | None

    def format(self, digits: int, unit: str = "") -> str:
        value = f"{self.value:.{digits}f}{unit}"
        if self.low is None or self.high is None:
            return value
        return f"{value} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def span(estimate: Mapping[str, Any], scale: float = 1) -> Span:
    """An estimate of metrics.py, times `scale`. Rows that are all alike (0 of 19) give a bootstrap no width; that would
    say too much, and such an interval is left out."""
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None or low == high:
        return Span(scale * estimate["value"], None, None)
    return Span(scale * estimate["value"], scale * low, scale * high)


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
    if measure in OF_100:
        return span(estimate).format(1)
    return share(estimate) if measure in SHARES else span(estimate).format(3)


def value(measure: str, estimate: Mapping[str, Any]) -> str:
    """The same without an interval."""
    return score(measure, {"value": estimate["value"]})


def percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f} %"  # without the sign of -0.0


def count(value: float) -> str:
    return f"{value:,}"


def duration(seconds: float) -> str:
    """As "1 h 5 min", "5 min 2 s", "12.3 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def machine(run: Mapping[str, Any]) -> str:
    """What the figures were measured on, as evaluation.py's `hardware` found it."""
    cores = f"{run['cores']} core{'' if run['cores'] == 1 else 's'}"
    return f"{run.get('processor') or run['machine']}, {cores}, torch {run['torch']}"
