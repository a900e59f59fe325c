"""The plots, with matplotlib (extra `plot`): searches, calibrations, and defences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.errors import InputError, StorageError, require

if TYPE_CHECKING:
    from unembed.confidence import Reliability
    from unembed.privacy.comparison.leaks import Leak
    from unembed.search.types import Inversion


def _figure(width: float, height: float) -> Any:  # noqa: ANN401  (matplotlib is optional)
    require("matplotlib", "plot")
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: str | Path) -> None:  # noqa: ANN401
    try:
        figure.savefig(path)
    except ValueError as error:
        raise InputError(f"{path} cannot be drawn ({error}): use an ending such as .png or .svg") from error
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror})") from error


def plot_traces(inversions: Sequence[Inversion], path: str | Path) -> None:
    """Draw best cosine against queries, a line for each inversion, into an image file (.png, .svg, .pdf).

    Raises MissingExtra without matplotlib, InputError for an unknown ending, StorageError when it cannot be written.
    """
    figure = _figure(7, 4)
    axes = figure.subplots()
    for inversion in inversions:
        line = axes.step(
            [point.queries for point in inversion.trace], [point.cosine for point in inversion.trace], where="post"
        )
        if inversion.exact:
            axes.plot(inversion.queries, inversion.cosine, "o", color=line[0].get_color())
    axes.set(xlabel="embedder queries", ylabel="best cosine", xscale="log", title="search (dots: verified exact)")
    _save(figure, path)


def plot_losses(curves: Mapping[str, Sequence[tuple[float, float]]], path: str | Path) -> None:
    """Draw losses against steps, a line for each name of a curve of (step, loss). Raises as `plot_traces`."""
    figure = _figure(7, 4)
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        # Curves that coincide are still seen: every second one is dashed.
        axes.plot(*zip(*points, strict=True), label=name, linestyle=("-", "--")[number % 2])
    axes.set(xlabel="step", ylabel="loss, nats a token")
    axes.legend()
    _save(figure, path)


def plot_reliability(outcomes: Mapping[str, Reliability], path: str | Path) -> None:
    """Draw the reliability diagram (Guo et al., ICML 2017): share that came true against the probability given, a line
    for each outcome, the area of each dot as many results as it stands for. Raises as `plot_traces`."""
    figure = _figure(5, 5)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for name, part in outcomes.items():
        predicted, observed, counts = zip(*part.bins, strict=True)
        label = f"{name}: ECE {part.ece:.3f}, n = {part.n}"
        line = axes.plot(predicted, observed, label=label)
        axes.scatter(predicted, observed, s=[200 * n / part.n + 8 for n in counts], color=line[0].get_color())
    axes.set(xlabel="probability given", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    _save(figure, path)


def plot_defences(leaks: Sequence[Leak], path: str | Path) -> None:
    """Draw what the worst attacker reads (token F1, with its interval) against what the defence costs a search (loss of
    nDCG@10), a line for each defence, into an image file. Raises as `plot_traces`."""
    from unembed.privacy.comparison.leaks import worst
    from unembed.privacy.defences import CLEAN

    figure = _figure(8, 5)
    axes = figure.subplots()
    lines: dict[str, list[Leak]] = {}
    for leak in worst(leaks):
        lines.setdefault(leak.defence, []).append(leak)
    for number, (name, points) in enumerate(lines.items()):
        points = sorted(points, key=lambda leak: leak.loss)
        scores = [leak.scores["token_f1"] for leak in points]
        x, y = [100 * leak.loss for leak in points], [score["value"] for score in scores]
        if name == CLEAN:
            axes.axhline(y[0], color="0.5", linestyle="--", label="no defence")
            continue
        # One text has no interval.
        low, high = ([score["value" if score[end] is None else end] for score in scores] for end in ("low", "high"))
        spread = [np.subtract(y, low), np.subtract(high, y)]
        marker = "os^D"[number // 10 % 4]  # there are ten colours
        axes.errorbar(x, y, yerr=spread, marker=marker, markersize=5, capsize=2, linewidth=1, label=name)
    axes.set(xlabel="loss of nDCG@10, %", ylabel="token F1 of the worst attacker")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small", ncols=2)
    _save(figure, path)
