"""Pack a trained model for shipping: int8 weights and a model card with the figures of its reports.

python recipes/minilm/pack.py runs/minilm-cpu/model runs/minilm-cpu/packed --reports runs/minilm-cpu/*.json
cp -r runs/minilm-cpu/packed src/unembed/weights/minilm
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from unembed.checkpoints import native

CARD = Path(__file__).parent / "card.md"
CELLS = (
    ("exact_uncased", 100, 1),
    ("token_f1", 1, 3),
    ("bleu", 1, 1),
    ("rouge_l", 1, 3),
    ("chrf", 1, 1),
    ("cosine", 1, 3),
)
"""Metric, factor and digits of each column."""


def figures(report: dict[str, Any]) -> str:
    """A Markdown table of one report."""
    settings = report["settings"]
    data = ", ".join(path.split(".")[0] for path in settings["data"])
    search = settings["search"]
    lines = [
        f"**{data}**, steps {search['steps']}, sequence beam {search['sequence_beam_width']}:",
        "",
        "| tokens | n | system | exact (uncased) % | token F1 | BLEU | ROUGE-L | chrF | cosine | queries |",
        "|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for length, result in report["lengths"].items():
        for system, scores in result["systems"].items():
            summary = scores["summary"]
            cells = [cell(summary[name], factor, digits) for name, factor, digits in CELLS]
            queries = f"{result['queries_mean']:.0f}" if system == "inverter" else ""
            lines.append(f"| {length} | {result['n']} | {system} | " + " | ".join(cells) + f" | {queries} |")
    return "\n".join(lines)


def cell(estimate: dict[str, Any], factor: float, digits: int) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if low is None:
        return f"{factor * value:.{digits}f}"
    return f"{factor * value:.{digits}f} [{factor * low:.{digits}f}–{factor * high:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--reports", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    model = native.load(args.model, torch.device("cpu"), torch.float32)
    config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
    card = CARD.read_text(encoding="utf-8")
    parameters = sum(p.numel() for p in model.net.parameters())
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in args.reports]
    for report in reports:  # what was measured, not where it lay
        report["settings"]["data"] = [Path(path).name for path in report["settings"]["data"]]
        report["settings"]["model"] = "all-MiniLM-L6-v2"
    hardware = reports[0]["settings"] if reports else {}
    values = {
        "parameters": f"{parameters / 1e6:.1f}",
        "steps": str(config["training"].get("steps", "")),
        "tokens": f"{config['training'].get('tokens', 0) / 1e6:.1f}",
        "hardware": f"{hardware.get('processor', '')}, {hardware.get('cores', '')} cores" if reports else "",
        "figures": "\n\n".join(figures(report) for report in reports) or "Not measured yet.",
    }
    for name, value in values.items():
        card = card.replace("{" + name + "}", value)
    native.save(model, args.output, card=card, training=config["training"], int8=True)
    if reports:
        # The figures without the texts, which have licences of their own.
        kept = [{"settings": report["settings"], "lengths": report["lengths"]} for report in reports]
        (args.output / "figures.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
