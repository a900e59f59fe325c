"""The plots as inline SVG without a script. What lies along the width is given in percent of it, text and heights in
pixels: a plot fits a phone and a page without its letters being scaled. Colours are the style sheet's.
"""

from __future__ import annotations

from markupsafe import Markup, escape

from unembed.privacy.report.blocks import Bar, Bars, Point, Scatter
from unembed.privacy.report.numbers import Span

TITLE, ROW, GAP = 22, 20, 10
"""Heights of a group's title, of a bar's row, and between groups."""
LABELS, END = 37, 85
"""Where bars begin if they have labels, and where 100 is; values stand right of it. Percent."""
LEFT, RIGHT, TOP, BOTTOM = 9, 97, 30, 290
"""The area of a scatter plot."""


def bars(plot: Bars, name: str) -> Markup:
    """The bars below each other; `name` makes the ids on the page distinct."""
    start = LABELS if any(bar.label for _, group in plot.groups for bar in group) else 0

    def at(value: float) -> float:
        return start + min(max(value, 0), 100) / 100 * (END - start)

    y, drawn = 0, []
    for title, group in plot.groups:
        y += TITLE
        drawn.append(_text(0, y - 7, title, "title"))
        for bar in group:
            drawn.append(_bar(bar, y, start, at(bar.span.value)))
            if bar.span.low is not None and bar.span.high is not None:
                drawn.append(_whisker(at(bar.span.low), at(bar.span.high), y + ROW / 2 - 2))
            y += ROW
        y += GAP
    ticks = Markup("").join(
        _line(at(tick), 4, at(tick), y, "grid") + _text(at(tick), y + 12, str(tick), "tick", "middle")
        for tick in (25, 50, 75, 100)
    )
    return _svg(plot, name, y + 18, ticks + Markup("").join(drawn))


def _bar(bar: Bar, y: float, start: float, end: float) -> Markup:
    kind = "control" if bar.control else "bar"
    shape = Markup('<rect class="{}" x="{:.2f}%" y="{}" width="{:.2f}%" height="{}" rx="2"/>').format(
        kind, start, y + 2, max(end - start, 0.3), ROW - 8
    )
    value = _text(100, y + 13, bar.figure, f"value {kind}", "end")
    return shape + value + (_text(0, y + 13, bar.label, "name") if bar.label else Markup(""))


def _whisker(low: float, high: float, y: float) -> Markup:
    ends = [_line(x, y - 4, x, y + 4, "whisker") for x in (low, high)]
    return Markup("").join([_line(low, y, high, y, "whisker"), *ends])


def scatter(plot: Scatter, name: str) -> Markup:
    """All points, and those of the front with their number."""
    top = max([plot.level or 0, *(_high(point.span) for point in plot.points)]) * 1.08 or 1.0
    low = min(0.0, *(point.x for point in plot.points))
    high = max(0.0, *(point.x for point in plot.points)) * 1.06 or 1.0

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (RIGHT - LEFT)

    def y(value: float) -> float:
        return BOTTOM - value / top * (BOTTOM - TOP)

    drawn = [_line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")]
    for tick in _ticks(top):
        drawn += [_line(LEFT, y(tick), RIGHT, y(tick), "grid")] if tick else []
        drawn.append(_text(LEFT - 1.5, y(tick) + 4, f"{tick:g}", "tick", "end"))
    for tick in _ticks(high):
        drawn.append(_text(x(tick), BOTTOM + 18, f"{tick:g}", "tick", "middle"))
    if plot.level is not None:
        drawn += [
            _line(LEFT, y(plot.level), RIGHT, y(plot.level), "level"),
            _text(RIGHT, y(plot.level) - 6, f"no defence: {plot.level:.2f}", "label", "end"),
        ]
    drawn += [_dot(point, x(point.x), y(point.span.value)) for point in plot.points if point not in plot.front]
    for number, point in enumerate(plot.front, start=1):
        if point.span.low is not None and point.span.high is not None:
            drawn.append(_line(x(point.x), y(point.span.low), x(point.x), y(point.span.high), "whisker"))
        drawn.append(_numbered(number, point, x(point.x), y(point.span.value)))
    drawn += [_text(RIGHT, BOTTOM + 38, plot.x, "label", "end"), _text(0, 12, plot.y, "label")]
    return _svg(plot, name, BOTTOM + 46, Markup("").join(drawn))


def _high(span: Span) -> float:
    return span.value if span.high is None else span.high


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to below `top`, four to eight of them."""
    step = next(step for power in range(-4, 6) for step in (10**power, 2 * 10**power, 5 * 10**power) if top / step <= 8)
    return [round(number * step, 6) for number in range(int(top / step) + 1)]


def _dot(point: Point, x: float, y: float) -> Markup:
    return Markup('<circle class="dot" cx="{:.2f}%" cy="{:.1f}" r="4"><title>{}</title></circle>').format(
        x, y, point.label
    )


def _numbered(number: int, point: Point, x: float, y: float) -> Markup:
    shape = Markup('<circle class="front" cx="{:.2f}%" cy="{:.1f}" r="9"><title>{}</title></circle>')
    return shape.format(x, y, point.label) + _text(x, y + 4, str(number), "number", "middle")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" y1="{:.1f}" x2="{:.2f}%" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.2f}%" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _svg(plot: Bars | Scatter, name: str, height: float, drawn: Markup) -> Markup:
    return Markup(
        '<svg role="img" aria-labelledby="{0}-title {0}-desc" width="100%" height="{1:.0f}">'
        '<title id="{0}-title">{2}</title><desc id="{0}-desc">{3}</desc>{4}</svg>'
    ).format(name, height, escape(plot.title), escape(plot.description), drawn)
