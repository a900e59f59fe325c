"""What embedder queries buy, and what each move of the search earns:

    python benchmarks/bench_search.py --data heldout/en_squad_dev.txt.xz [--n 30] [--quick]

The curve: token F1, exact match and cosine against the queries allowed for each target. The ablation: the search at
equal queries with one move left out at a time, as paired differences of token F1 on the same texts. Written to
benchmarks/results/search.json and search.md as it goes; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import unembed
from unembed.cli.console import console, progress
from unembed.evaluation import cut_texts, hardware
from unembed.metrics import bootstrap, exact_match, paired_difference, token_f1
from unembed.search.types import SearchConfig
from unembed.suites import cell
from unembed.training.config import SourceConfig
from unembed.training.corpora import read_texts

RESULTS = Path(__file__).parent / "results" / "search.json"
NO_END = 1000
"""Steps and patience beyond what a budget allows: only the queries end a search."""
LEFT_OUT: dict[str, dict[str, Any]] = {
    "nothing": {},
    "corrections": {"corrections": 0},
    "variations": {"variations": 0},
    "screening": {"screened": 0},
    "polishing": {"polished": 0},
    "other digits": {"renumbered": 0},
    "prior": {"prior_weight": 0.0},
}


def measure(inverter: unembed.Inverter, texts: list[str], config: SearchConfig) -> dict[str, list[float]]:
    """One search over all texts; figures by row."""
    began = time.perf_counter()
    vectors = inverter.embedder.encode(texts)
    found = []
    with progress(len(texts), f"{config.budget} queries", False) as bar:
        for inversion in inverter.stream(vectors, config):
            found.append(inversion)
            bar.update(1)
    seconds = (time.perf_counter() - began) / len(texts)
    return {
        "token_f1": [token_f1(text, inversion.text) for text, inversion in zip(texts, found, strict=True)],
        "exact": [
            float(exact_match(text, inversion.text, cased=False)) for text, inversion in zip(texts, found, strict=True)
        ],
        "cosine": [inversion.cosine for inversion in found],
        "queries": [float(inversion.queries) for inversion in found],
        "seconds": [seconds] * len(texts),
    }


def estimate(values: list[float]) -> dict[str, Any]:
    return bootstrap(values).to_dict()


def tables(results: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    settings = results["settings"]
    machine = settings["hardware"]
    lines = [
        f"{settings['data']}, n = {settings['n']} a length, brackets are 95 % bootstrap intervals; "
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}.",
        "",
        "| tokens | queries allowed | used | token F1 | exact (uncased) % | cosine | seconds a target |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results["curve"].values():
        figures = row["figures"]
        cells = [cell(estimate(figures[name]), factor, digits) for name, factor, digits in
                 (("token_f1", 1, 2), ("exact", 100, 0), ("cosine", 1, 3))]  # fmt: skip
        used, seconds = (sum(figures[name]) / len(figures[name]) for name in ("queries", "seconds"))
        lines.append(f"| {row['length']} | {row['budget']:,} | {used:,.0f} | {' | '.join(cells)} | {seconds:.1f} |")
    if results["ablation"]:
        lines += [
            "",
            "| tokens | queries allowed | left out | token F1 | change | exact (uncased) % | cosine |",
            "|--:|--:|---|--:|--:|--:|--:|",
        ]
    for row in results["ablation"].values():
        whole = results["ablation"][f"{row['length']}/nothing"]["figures"]["token_f1"]  # the first that is measured
        f1 = row["figures"]["token_f1"]
        change = "" if row["left_out"] == "nothing" else cell(paired_difference(f1, whole).to_dict(), 1, 3)
        lines.append(
            f"| {row['length']} | {row['budget']:,} | {row['left_out']} | {cell(estimate(f1), 1, 2)} | {change} "
            f"| {cell(estimate(row['figures']['exact']), 100, 0)} | {cell(estimate(row['figures']['cosine']), 1, 3)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="held-out texts")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--n", type=int, default=30, help="texts of each length")
    parser.add_argument("--lengths", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--budgets", type=int, nargs="*", default=[1, 10, 100, 1000], help="points of the curve")
    parser.add_argument("--budget", type=int, default=400, help="queries of the ablation")
    parser.add_argument("--quick", action="store_true", help="6 texts of 8 tokens, up to 100 queries: some minutes")
    parser.add_argument("--output", type=Path, help="by default benchmarks/results/search.json, or search-quick.json")
    args = parser.parse_args()
    args.output = args.output or RESULTS.with_stem("search-quick" if args.quick else "search")
    if args.quick:
        args.n, args.lengths, args.budgets, args.budget = 6, [8], [1, 10, 100], 100
    inverter = unembed.load(args.model)
    settings = {
        "data": Path(args.data).name, "n": args.n, "lengths": args.lengths, "budgets": args.budgets,
        "budget": args.budget, "weights": inverter.model.digest, "search": asdict(inverter.suited(SearchConfig())),
    }  # fmt: skip
    results: dict[str, Any] = {"settings": {**settings, "hardware": hardware()}, "curve": {}, "ablation": {}}
    if args.output.exists():
        stored = json.loads(args.output.read_text(encoding="utf-8"))
        if {**stored["settings"], "hardware": None} == {**settings, "hardware": None}:
            results = stored
    texts = list(read_texts(SourceConfig(args.data)))
    cut = {length: [text for _, _, text in cut_texts(inverter, texts, [length], args.n)] for length in args.lengths}
    base = inverter.suited(SearchConfig(steps=NO_END, patience=NO_END))

    def fill(part: str, key: str, length: int, config: SearchConfig, **named: Any) -> None:
        if key in results[part]:
            return
        figures = measure(inverter, cut[length], config)
        results[part][key] = {"length": length, "budget": config.budget, **named, "figures": figures}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results), encoding="utf-8")
        args.output.with_suffix(".md").write_text(tables(results), encoding="utf-8")

    for length in args.lengths:
        for budget in args.budgets:
            fill("curve", f"{length}/{budget}", length, replace(base, budget=budget))
    for length in args.lengths:
        for left_out, change in LEFT_OUT.items():
            config = replace(base, budget=args.budget, **change)
            fill("ablation", f"{length}/{left_out}", length, config, left_out=left_out)
    console().print(tables(results), markup=False)


if __name__ == "__main__":
    main()
