"""Greedy zero-step texts a second, by onnxruntime and by torch:

    python benchmarks/bench_onnx.py --data heldout/en_squad_dev.txt.xz [--n 64] [--quick]

One thread each, in one process and by turns, so that a busy machine slows both alike. CPU time is what the process
spent, wall time what one waited. The ratio is that of the neighbouring turns. Written to benchmarks/results/onnx.json
and onnx.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import unembed
from unembed.checkpoints import load_model
from unembed.evaluation import cut_texts, hardware
from unembed.export.onnx import export
from unembed.metrics import bootstrap
from unembed.models.onnx_runtime import OnnxModel
from unembed.suites import cell
from unembed.training.config import SourceConfig
from unembed.training.corpora import read_texts

RESULTS = Path(__file__).parent / "results" / "onnx.json"


def seconds(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """CPU and wall seconds of a call, and what it gave back."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}, found


def by_turns(ours: OnnxModel, theirs: Any, vectors: np.ndarray, rows: int, repetitions: int) -> dict[str, Any]:
    """Seconds of each repetition for `vectors` in batches of `rows`, after one that is not counted; and how many texts
    agree."""
    ours.batch_size = theirs.batch_size = rows
    models = {"onnxruntime": ours, "torch": theirs}
    out: dict[str, Any] = {name: [] for name in models}
    for repetition in range(repetitions + 1):
        texts = {}
        for name in sorted(models, reverse=repetition % 2 == 1):
            spent, written = seconds(lambda model=models[name]: model.hypothesize(vectors))
            texts[name] = [row[0].text for row in written]
            if repetition:
                out[name].append(spent)
    out["same"] = sum(a == b for a, b in zip(*texts.values(), strict=True))
    return out


def tables(results: dict[str, Any]) -> str:
    """The figures in Markdown."""
    settings = results["settings"]
    machine, n = settings["hardware"], settings["n"]
    lines = [
        f"{settings['model']}, {n} texts of {settings['length']} tokens, {settings['repetitions']} repetitions by "
        f"turns, one thread, float32; {machine['processor']}, torch {machine['torch']}, onnxruntime "
        f"{settings['onnxruntime']}. Brackets are 95 % bootstrap intervals over the repetitions.",
        "",
        f"Export {results['export']['wall']:.1f} s, {results['megabytes']:.0f} MB, opened in {results['load']:.1f} s.",
        "",
        "| texts at a time | texts a CPU second, onnxruntime | torch | ratio | ratio by wall time | same texts |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for rows, part in results["batches"].items():
        speed = {
            name: bootstrap([n / spent["cpu"] for spent in part[name]]).to_dict() for name in ("onnxruntime", "torch")
        }
        ratios = [
            bootstrap([b[kind] / a[kind] for a, b in zip(part["onnxruntime"], part["torch"], strict=True)]).to_dict()
            for kind in ("cpu", "wall")
        ]
        cells = [cell(value, 1, 1) for value in speed.values()] + [cell(value, 1, 2) for value in ratios]
        lines.append(f"| {rows} | {' | '.join(cells)} | {part['same']} of {n} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="held-out texts")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--n", type=int, default=64, help="texts")
    parser.add_argument("--length", type=int, default=16, help="tokens of each")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 64], help="texts at a time")
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="16 texts, 3 repetitions")
    parser.add_argument("--output", type=Path, help="by default benchmarks/results/onnx.json, or onnx-quick.json")
    args = parser.parse_args()
    args.output = args.output or RESULTS.with_stem("onnx-quick" if args.quick else "onnx")
    if args.quick:
        args.n, args.repetitions = 16, 3
    torch.set_num_threads(1)
    model = load_model(args.model, torch.device("cpu"), torch.float32, calibrated=False)
    inverter = unembed.Inverter(model, unembed.embedder(model.embedder or model.spec.id, device="cpu"))
    texts = list(read_texts(SourceConfig(path=args.data, limit=8 * args.n)))
    vectors = inverter.embedder.encode([text for _, _, text in cut_texts(inverter, texts, [args.length], args.n)])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        exported, _ = seconds(lambda: export(model, folder))
        opened, exported_model = seconds(lambda: OnnxModel.load(folder, threads=1))
        results = {
            "settings": {
                "model": args.model, "data": Path(args.data).name, "n": args.n, "length": args.length,
                "repetitions": args.repetitions, "hardware": hardware(), "onnxruntime": onnxruntime.__version__,
            },
            "export": exported,
            "load": opened["wall"],
            "megabytes": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
            "batches": {
                rows: by_turns(exported_model, model, vectors, rows, args.repetitions) for rows in args.rows
            },
        }  # fmt: skip
    args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    args.output.with_suffix(".md").write_text(tables(results), encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
