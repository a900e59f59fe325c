"""How a search went, as lines to print."""

from __future__ import annotations

from unembed.search.types import Inversion


def trace_lines(inversion: Inversion) -> list[str]:
    """One line for each round that found something better, and the last round."""
    lines, shown = [], None
    for point in inversion.trace:
        if point.text != shown or point is inversion.trace[-1]:
            mark = "  " if point.text == shown else point.origin
            lines.append(
                f"step {point.step:3d}  {point.queries:5d} queries  cosine {point.cosine:.4f}  {mark:12s} {point.text}"
            )
        shown = point.text
    return lines
