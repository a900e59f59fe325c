"""Pack a trained model for shipping: int8 weights and a model card with the figures of its reports.

python recipes/minilm/pack.py runs/minilm-cpu/corrected/model packed --reports runs/minilm-cpu/headline/*.json

A calibration in the output folder stays there as long as the weights are the same, and stands in the card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from unembed.checkpoints import native
from unembed.confidence import FILE, NAMES
from unembed.models.native import NativeModel
from unembed.suites import SUITES, cell, tables

CARD = Path(__file__).parent / "card.md"
CPU = torch.device("cpu")


def calibration(path: Path) -> str:
    """The calibration that lies in the packed folder, as a table."""
    if not path.is_file():
        return "Not measured yet."
    lines = [
        "| outcome | tokens | n | observed % | expected calibration error | by chance |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for outcome, parts in json.loads(path.read_text(encoding="utf-8"))["measured"]["reliability"].items():
        for name, part in parts.items():
            error = cell({"value": part["ece"], **part}, 1, 3)
            row = NAMES[outcome], name, str(part["n"]), f"{100 * part['observed']:.1f}", error, f"{part['chance']:.3f}"
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def beside(model: NativeModel, runs: list[dict[str, Any]]) -> str:
    """What the card says of the guide, the lexicon and the corrector."""
    if not model.guide:
        return ""
    parameters = sum(p.numel() for p in model.guide.parameters())
    spans = next(run["guide_spans"] for run in reversed(runs) if run.get("guide_spans"))
    said = (
        f"\nBeside it lies a guide of {parameters / 1e6:.1f}M parameters: one hidden layer, which says of each token "
        f"how much the vector speaks for it, fitted to {spans / 1e6:.2f} million more spans."
    )
    if model.lexicon:
        words = f"{len(model.lexicon.words):,} words"
        said += f" Of the same spans is a lexicon of {words}, where the search looks up what a text lacks."
    if model.corrector:
        own = sum(weight.numel() for weight in model.corrector.own_state().values())
        run = next(run for run in reversed(runs) if run.get("corrector"))
        said += (
            f" What corrects is a corrector of {own / 1e6:.1f}M parameters, in layers of its own between the network's "
            f"tables: {run['steps']:,} steps more, {run['tokens'] / 1e6:.1f}M tokens, on texts that were made wrong."
        )
    return f"{said}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--reports", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    model = native.load(args.model, CPU, torch.float32)
    config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    runs = native.history(args.model)
    stages = [run for run in runs if run.get("steps") and not run.get("corrector")]
    card = CARD.read_text(encoding="utf-8")
    parameters = sum(p.numel() for p in model.net.parameters())
    order = [part.name for part in SUITES["headline"]]
    args.reports.sort(key=lambda path: order.index(path.stem) if path.stem in order else len(order))
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in args.reports]
    for report in reports:  # what was measured, not where it lay
        report["settings"]["data"] = [Path(path).name for path in report["settings"]["data"]]
        report["settings"]["model"] = "all-MiniLM-L6-v2"
    hardware = reports[0]["settings"] if reports else {}
    values = {
        "parameters": f"{parameters / 1e6:.1f}",
        "stages": str(len(stages)),
        "beside": beside(model, runs),
        "steps": f"{sum(run['steps'] for run in stages):,}",
        "tokens": f"{sum(run['tokens'] for run in stages) / 1e6:.1f}",
        "calibration": calibration(args.output / FILE),
        "hardware": f"{hardware.get('processor', '')}, cores: {hardware.get('cores', '')}" if reports else "",
        "figures": "\n\n".join(map(tables, reports)) or "Not measured yet.",
    }
    for name, value in values.items():
        card = card.replace("{" + name + "}", value)
    calibrated = (args.output / FILE).read_bytes() if (args.output / FILE).is_file() else None
    native.save(model, args.output, card=card, training=config["training"], int8=True)
    if calibrated and json.loads(calibrated)["weights"] == native.load(args.output, CPU, torch.float32).digest:
        (args.output / FILE).write_bytes(calibrated)
    if reports:
        # The figures without the texts, which have licences of their own.
        kept = [{"settings": report["settings"], "lengths": report["lengths"]} for report in reports]
        (args.output / "figures.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
