"""How a search went: as lines to print, and as a plot of the best cosine against embedder queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unembed.errors import InputError, StorageError, require
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


def plot_traces(inversions: Sequence[Inversion], path: str | Path) -> None:
    """Draw best cosine against queries, a line for each inversion, into an image file (.png, .svg, .pdf).

    Raises MissingExtra without matplotlib, InputError for an unknown ending, StorageError when it cannot be written.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for inversion in inversions:
        line = axes.step(
            [point.queries for point in inversion.trace], [point.cosine for point in inversion.trace], where="post"
        )
        if inversion.exact:
            axes.plot(inversion.queries, inversion.cosine, "o", color=line[0].get_color())
    axes.set(xlabel="embedder queries", ylabel="best cosine", xscale="log", title="search (dots: verified exact)")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise InputError(f"{path} cannot be drawn ({error}): use an ending such as .png or .svg") from error
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror})") from error
