"""Speed and memory of everything, in one run on one machine:

    python benchmarks/bench_speed.py [--quick] [--model all-MiniLM-L6-v2]

Prints each part as soon as it is measured and writes all of them to benchmarks/results/, as speed.json and speed.md.
Rates that depend on the machine are given beside the machine's own measured matrix-multiplication rate; comparisons are
made in turn in this one run and given as ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import unembed
from unembed.checkpoints import native, resolve
from unembed.cli.console import console, table
from unembed.evaluation import hardware
from unembed.models.base import Sampling
from unembed.models.native import NativeConfig, NativeModel, NativeNetwork
from unembed.models.native.generation import generate
from unembed.models.native.network import text_and_labels
from unembed.training.config import OptimiserConfig
from unembed.training.loop import Objective
from unembed.training.optim import build_optimisers

RESULTS = Path(__file__).parent / "results" / "speed.json"
LETTERS = Path(__file__).parent.parent / "examples" / "letters.txt"


def median_seconds(function: Callable[[], Any], runs: int, warmup: int = 1) -> float:
    times = []
    for i in range(warmup + runs):
        began = time.perf_counter()
        function()
        if i >= warmup:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def matmul_rate(dtype: torch.dtype, runs: int) -> float:
    """FLOP/s of a 2048 × 512 × 2048 product, about the largest in a training step."""
    a, b = torch.randn(2048, 512, dtype=dtype), torch.randn(512, 2048, dtype=dtype)
    return 2 * 2048 * 512 * 2048 / median_seconds(lambda: a @ b, 5 * runs, 5)


def training(config: NativeConfig, runs: int, compiled: bool) -> dict[str, Any]:
    """One step (forward, backward, optimisers) of the shipped size on 170 texts of 24 tokens."""
    net = NativeNetwork(config)
    optimisers = build_optimisers(net, OptimiserConfig())
    objective: Any = Objective(net, torch.bfloat16)
    targets = torch.nn.functional.normalize(torch.randn(170, 384), dim=-1)
    text, labels = text_and_labels(torch.randint(3, 8192, (170, 24)).tolist())

    def step() -> None:
        objective(targets, text, labels, None, None).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    with FlopCounterMode(display=False) as counter:
        objective(targets, text, labels, None, None).backward()
    net.zero_grad()
    if compiled:
        objective = torch.compile(objective, dynamic=True)
    seconds = median_seconds(step, runs, 2)
    return {"sequences_per_s": 170 / seconds, "flop_per_s": counter.get_total_flops() / seconds}


def generation(model: NativeModel, runs: int) -> dict[str, float]:
    """Tokens written per second, sampling 24 tokens at most, for 1, 64 and 256 texts at a time."""
    out = {}
    for rows in (1, 64, 256):
        targets = torch.nn.functional.normalize(torch.randn(rows, 384), dim=-1)
        sampling = Sampling(temperature=0.8, top_k=64, top_p=0.95)
        count = 0

        def write(targets: torch.Tensor = targets, sampling: Sampling = sampling) -> None:
            nonlocal count
            generator = torch.Generator().manual_seed(0)
            texts = generate(
                model.net, targets, sampling=sampling, max_tokens=24, generator=generator, dtype=model.dtype
            )
            count = sum(len(row[0].ids) + 1 for row in texts)

        seconds = median_seconds(write, runs)
        out[f"tokens_per_s_{rows}"] = count / seconds
    return out


def embedding(inverter: unembed.Inverter, texts: list[str], runs: int) -> dict[str, float]:
    """Texts per second through our encode and through sentence-transformers' own, in turn."""
    model = inverter.embedder.model  # type: ignore[attr-defined]
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(median_seconds(lambda: inverter.embedder.encode(texts), 1, 0))
        theirs.append(median_seconds(lambda: model.encode(texts, show_progress_bar=False), 1, 0))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    return {"texts_per_s": len(texts) / statistics.median(ours), "ratio_to_sentence_transformers": ratio}


def inversion(inverter: unembed.Inverter, vectors: np.ndarray, steps: int, beam: int) -> dict[str, float]:
    """Inversions per second, and the share of the time spent inside the two networks."""
    inside = 0.0
    networks = [*((inverter.model, name) for name in ("write", "vary", "score")), (inverter.embedder, "encode")]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                inside += time.perf_counter() - began

        return call

    for owner, name in networks:
        setattr(owner, name, timed(getattr(owner, name)))
    try:
        began = time.perf_counter()
        found = inverter.invert(vectors, steps=steps, sequence_beam_width=beam)
        seconds = time.perf_counter() - began
    finally:
        for owner, name in networks:
            delattr(owner, name)  # the class' own method again
    return {
        "inversions_per_s": len(vectors) / seconds,
        "share_in_networks": inside / seconds,
        "queries_mean": float(np.mean([inversion.queries for inversion in found])),
    }


# Linux hands a parent's ru_maxrss on to its children, so there the kernel's mark of this very program is read.
PEAK = """
import resource, sys, numpy as np, unembed
from pathlib import Path

def peak():
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)

inverter = unembed.load(sys.argv[1])
vectors = np.load(sys.argv[2])
before = peak()
inverter.invert(vectors, steps=2, sequence_beam_width=int(sys.argv[3]), patience=99)
print(before, peak())
"""


def peak_memory(model: str, vectors: np.ndarray, beam: int, folder: Path) -> dict[str, float]:
    """Peak resident memory in MB before and after two rounds over 16 targets, each beam in a process of its own."""
    file = folder / "vectors.npy"
    np.save(file, vectors)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, model, str(file), str(beam)], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    return {"loaded_mb": before / 1024, "peak_mb": after / 1024, "search_mb": (after - before) / 1024}


def cold_start(model: str) -> float:
    """Seconds of `unembed invert` on one sentence with the hypothesizer alone, from the shell and back."""
    command = [sys.executable, "-m", "unembed.cli.main", "invert", "--text", "Hello there.", "--steps", "0"]
    return median_seconds(lambda: subprocess.run([*command, "--model", model], capture_output=True, check=True), 3, 1)


def measure(model: str, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part's name and figures, as soon as they are there."""
    runs, some = (2, 8) if quick else (5, 32)
    size = native.load(resolve(model), torch.device("cpu")).net.config
    yield "machine", {"hardware": hardware(), "threads": torch.get_num_threads(), "quick": quick}
    rates: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    steps = {}
    for name in ("eager", "compiled"):
        for dtype, measured in rates.items():
            measured.append(matmul_rate(getattr(torch, dtype), runs))
        steps[name] = training(size, runs, compiled=name == "compiled")
    # The better of two measurements is the machine's: a disturbed one would flatter the training.
    yield "matmul", {f"{dtype}_flop_per_s": max(measured) for dtype, measured in rates.items()}
    for figures in steps.values():
        figures["share_of_matmul"] = figures["flop_per_s"] / max(rates["bfloat16"])
    yield "training", steps
    yield "cold start", {"seconds": cold_start(model)}
    began = time.perf_counter()
    inverter = unembed.load(model)
    yield "loading in a warm process", {"seconds": time.perf_counter() - began}
    yield "generation", generation(inverter.model, runs)  # type: ignore[arg-type]
    texts = LETTERS.read_text(encoding="utf-8").splitlines()[:512]
    yield "embedding", embedding(inverter, texts, runs)
    vectors = inverter.embedder.encode(texts[: 4 * some])
    for rounds, beam in ((0, 1), (5, 4), (20, 4)):
        rows = vectors[:: {0: 1, 5: 4, 20: 8}[rounds]]
        yield f"inversion, {rounds} steps, beam {beam}", inversion(inverter, rows, rounds, beam)
    del inverter
    with tempfile.TemporaryDirectory() as folder:
        for beam in (2, 4, 8) if quick else (2, 4, 8, 16):
            yield f"memory, beam {beam}", peak_memory(model, vectors[:16], beam, Path(folder))


def write(report: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1), encoding="utf-8")
    lines = ["| figure | value |", "|---|--:|", *(f"| {name} | {value} |" for name, value in flatten(report))]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs and vectors")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    args = parser.parse_args()
    report: dict[str, Any] = {}
    for name, figures in measure(args.model, args.quick):
        report[name] = figures
        write(report)  # a run that is cut off leaves what it has measured
        console().print(table([("figure", "left"), ("value", "right")], flatten({name: figures})))


def flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            row for key, inner in value.items() for row in flatten(inner, f"{name} {key}".strip().replace("_", " "))
        ]
    if isinstance(value, float):
        return [(name, f"{value / 1e9:.1f} G" if value > 1e8 else f"{value:,.0f}" if value > 1e3 else f"{value:.3g}")]
    return [(name, str(value))]


if __name__ == "__main__":
    main()
