"""Tokens a second that DAVAE's decoder writes, with its cache and as the original does: all anew for each token.

    python benchmarks/bench_davae.py --tokens 100 --repeats 5 -o benchmarks/results/davae.json

Weights are random: what is written does not matter, how long it is does. Both ways write the same texts, which is
checked. They take turns, and the median of the repeats is given, of wall time and of CPU time: on a busy machine trust
the second.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unembed.models.base import GREEDY
from unembed.models.davae.generation import drawn, write
from unembed.models.davae.network import DecoderConfig, LatentDecoder
from unembed.models.native.generation import choose

LATENT = 128
SIZES = {"small": (256, 4, 4, 8000), "base": (768, 12, 12, 21128)}
"""Name → width, layers, heads, vocabulary."""


def decoder(name: str) -> LatentDecoder:
    torch.manual_seed(0)
    width, layers, heads, vocabulary = SIZES[name]
    return LatentDecoder(DecoderConfig(vocabulary, width, layers, heads, 0.0, 0.0), LATENT).eval()


@torch.inference_mode()
def cached(net: LatentDecoder, latents: Tensor, tokens: int) -> list[list[int]]:
    written = write(net, latents, [[1]] * len(latents), drawn(GREEDY, None), end=-1, longest=tokens + 1)
    return [text.ids for text in written]


@torch.inference_mode()
def uncached(net: LatentDecoder, latents: Tensor, tokens: int) -> list[list[int]]:
    ids = torch.ones(len(latents), 1, dtype=torch.long)
    for _ in range(tokens):
        ids = torch.cat([ids, choose(net(ids, latents)[:, -1].float(), GREEDY, None)[:, None]], dim=1)
    return ids[:, 1:].tolist()


WAYS: dict[str, Callable[[LatentDecoder, Tensor, int], list[list[int]]]] = {"cached": cached, "uncached": uncached}


def measure(name: str, rows: int, tokens: int, repeats: int) -> dict[str, object]:
    """Medians of one size and batch."""
    net, latents = decoder(name), torch.randn(rows, LATENT, generator=torch.Generator().manual_seed(1))
    times: dict[str, dict[str, list[float]]] = {way: {"wall_s": [], "cpu_s": []} for way in WAYS}
    for _ in range(repeats):
        texts = []
        for way, run in WAYS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            texts.append(run(net, latents, tokens))
            times[way]["wall_s"].append(time.perf_counter() - wall)
            times[way]["cpu_s"].append(time.process_time() - cpu)
        if texts[0] != texts[1]:
            raise SystemExit(f"{name}: the two ways write different texts")
    found: dict[str, object] = {"size": name, "rows": rows, "tokens": tokens, "repeats": repeats}
    for way, kinds in times.items():
        found |= {f"{way}_{kind}": statistics.median(values) for kind, values in kinds.items()}
        found |= {f"{way}_tokens_per_{kind}": rows * tokens / statistics.median(kinds[kind]) for kind in kinds}
    for kind in ("wall_s", "cpu_s"):
        found[f"speedup_{kind}"] = statistics.median(times["uncached"][kind]) / statistics.median(times["cached"][kind])
    return found


def table(results: list[dict[str, object]]) -> str:
    head = "| decoder | texts | tokens | cached, tokens/CPU s | uncached | CPU time | wall time |"
    return (
        head
        + "\n|---|--:|--:|--:|--:|--:|--:|\n"
        + "".join(
            f"| {r['size']} | {r['rows']} | {r['tokens']} | {r['cached_tokens_per_cpu_s']:.0f} | "
            f"{r['uncached_tokens_per_cpu_s']:.0f} | {r['speedup_cpu_s']:.1f}× | {r['speedup_wall_s']:.1f}× |\n"
            for r in results
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["small"], choices=list(SIZES))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/davae.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = []
    for size in options.sizes:
        for rows in options.rows:
            results.append(measure(size, rows, options.tokens, options.repeats))
            print(table(results[-1:]).splitlines()[-1], flush=True)
    report = {"torch": torch.__version__, "processor": platform.processor() or platform.machine(),
              "threads": options.threads, "results": results}  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
