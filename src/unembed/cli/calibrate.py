"""`unembed calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from unembed.errors import InputError, require


def calibrate(rows: list[str] | str, model: str = "all-MiniLM-L6-v2", plot: str | None = None) -> int:
    """Measure what an inverter's results are worth, from evaluations of it; from then on each result says so.

    Args:
        rows: .rows.jsonl files that unembed evaluate wrote, or folders of them. They must be of this model.
        model: name of a shipped model, a folder, or a hub id. confidence.json is written into its folder.
        plot: draw the reliability diagram into this image file (.png, .svg).
    """
    require("sklearn", "evaluate")
    if plot:
        require("matplotlib", "plot")
    from unembed.checkpoints import load_model, resolve
    from unembed.cli.console import console, table
    from unembed.confidence import NAMES, judge
    from unembed.confidence import calibrate as fit
    from unembed.devices import resolve_device
    from unembed.evaluation import hardware
    from unembed.plots import plot_reliability
    from unembed.results import read_results

    files = _files([rows] if isinstance(rows, str) else rows)
    folder = resolve(model)
    weights = load_model(model, resolve_device("cpu"), calibrated=False).digest
    kept = []
    for path in files:
        header, found = read_results(path)
        if header["kind"] != "evaluate":
            raise InputError(f"{path} holds results of {header['kind']}, not of an evaluation: leave it out")
        if header["config"]["weights"] != weights:
            raise InputError(f"{path} was made with other weights than {model}: evaluate this model")
        kept += [("+".join(Path(name).name for name in header["config"]["data"]), row) for row in found]
    calibration, report = fit(judge(kept), weights)
    parts = {outcome: {name: asdict(part) for name, part in parts.items()} for outcome, parts in report.items()}
    calibration.save(folder, {"reliability": parts, "rows": [path.name for path in files], **hardware()})
    numbers = ("tokens", "n", "observed %", "ECE", "by chance")
    columns = [("outcome", "left"), *((name, "right") for name in numbers)]
    lines = [
        (
            NAMES[outcome],
            name,
            part.n,
            f"{100 * part.observed:.1f}",
            f"{part.ece:.3f} [{part.low:.3f}–{part.high:.3f}]",
            f"{part.chance:.3f}",
        )  # fmt: skip
        for outcome, parts in report.items()
        for name, part in parts.items()
    ]
    console().print(table(columns, lines))
    for outcome in NAMES:
        if outcome not in report:
            console().print(f"{NAMES[outcome]}: too few of these rows one way or the other; it gets no probability")
    if plot:
        plot_reliability({NAMES[outcome]: parts["all"] for outcome, parts in report.items()}, plot)
    return 0


def _files(names: list[str]) -> list[Path]:
    out = []
    for name in names:
        path = Path(name)
        found = sorted(path.glob("*.rows.jsonl")) if path.is_dir() else [path]
        if not found:
            raise InputError(f"{name} holds no .rows.jsonl file: give the output folder of unembed evaluate")
        out += found
    return out
