"""What a page of a report is made of: `content` chooses it, `html` and `markdown` write it down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unembed.privacy.report.numbers import Span


class Quoted(str):
    """A text that comes from outside. It is set apart, so that it is not read as the report's own words."""


class Failed(str):
    """A word that must not be overlooked."""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Items:
    """Sentences."""

    rows: Sequence[str]
    numbered: bool = False


@dataclass(frozen=True)
class Table:
    """Its first column names the rows; the other columns are figures, or words where `words` holds their number."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Card:
    """One attacked record."""

    title: str
    text: Sequence[tuple[str, bool]]
    """The reconstruction in pieces; True for those that are to be marked."""
    facts: Facts

    @property
    def whole(self) -> str:
        return "".join(piece for piece, _ in self.text)


@dataclass(frozen=True)
class Bar:
    label: str
    span: Span
    """On a scale of 0 to 100."""
    figure: str
    control: bool = False


@dataclass(frozen=True)
class Bars:
    """Groups of horizontal bars: a title, and the bars under it."""

    title: str
    description: str
    groups: Sequence[tuple[str, Sequence[Bar]]]


@dataclass(frozen=True)
class Point:
    label: str
    x: float
    span: Span


@dataclass(frozen=True)
class Scatter:
    """Points, those on the front numbered, and a line to compare them with. Less is better on both axes."""

    title: str
    description: str
    x: str
    y: str
    points: Sequence[Point]
    front: Sequence[Point]
    level: float | None
    """Without any defence."""


Block = str | Facts | Items | Table | Card | Bars | Scatter


@dataclass(frozen=True)
class Part:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    target: str
    created: str
    version: str
    severity: str
    sentence: str
    figure: str
    figure_label: str
    figure_notes: Sequence[str]
    """The figure with its interval, and what to compare it with."""
    warning: str
    """Where nothing was verified."""
    parts: Sequence[Part]
    tags: Sequence[str]
