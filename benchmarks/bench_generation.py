"""Writing with and without a cache of keys and values, in tokens per second:

    python benchmarks/bench_generation.py [--family prefix-decoder] [--layers 12] [--width 768] [--batch 1 16]
    python benchmarks/bench_generation.py --family davae --vocabulary 21128

Both ways run in turn, several times, on random weights of the given size, and write texts of one length; their ids must
be the same. Without a cache everything is read anew at each step: a prefix decoder computes the logits of the last
place alone, already less than a loop over plain forward passes does; DAVAE's decoder those of all places, as the
original does. Rates are given by the wall clock and by CPU time, which a busy machine disturbs less; the speed-up is
the median over the rounds, with the lowest and the highest.
Results: benchmarks/results/generation.json and .md, one entry for each family and size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unembed.evaluation import hardware
from unembed.models import decoding
from unembed.models.base import GREEDY

RESULTS = Path(__file__).parent / "results" / "generation.json"
EMBEDDING = 64
Write = Callable[[int, int], list[list[int]]]
"""(texts at a time, tokens of each) → their ids."""


@dataclass(frozen=True)
class Ways:
    """One family's two ways of writing the same."""

    cached: Write
    uncached: Write
    parameters: int


class Endless:
    """A decoder whose texts never end, so that all have the length that is asked for."""

    def __init__(self, inner: decoding.Decoder, eos: int) -> None:
        self.inner, self.eos = inner, eos

    def next(self, tokens: Tensor | None) -> Tensor:
        out = self.inner.next(tokens)
        out[:, self.eos] = -torch.inf
        return out

    def select(self, rows: Tensor) -> None:
        self.inner.select(rows)


def prefix_decoder(layers: int, width: int, vocabulary: int) -> Ways:
    """A GPT-2; 12 layers, 768 wide, 50257 tokens are GPT-2 small."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from unembed.models.prefix_decoder import Decoder, PrefixConfig, PrefixNetwork

    sizes = GPT2Config(
        vocab_size=vocabulary, n_embd=width, n_layer=layers, n_head=width // 64, bos_token_id=0, eos_token_id=0
    )
    net = PrefixNetwork(GPT2LMHeadModel(sizes), PrefixConfig(EMBEDDING)).eval().requires_grad_(False)

    class Anew:
        """Everything is read at each step."""

        def __init__(self, x: Tensor) -> None:
            self.x = x  # B P D

        def next(self, tokens: Tensor | None) -> Tensor:
            if tokens is not None:
                self.x = torch.cat([self.x, net.embed(tokens)[:, None]], dim=1)
            return net.read(self.x, None, 1)[:, -1].float().log_softmax(dim=-1)

        def select(self, rows: Tensor) -> None:
            self.x = self.x[rows]

    def with_cache(batch: int, tokens: int) -> list[list[int]]:
        return texts(Decoder(net, *net.prefix(targets(batch))), batch, tokens, 0)

    def without(batch: int, tokens: int) -> list[list[int]]:
        return texts(Anew(net.prefix(targets(batch))[0]), batch, tokens, 0)

    return Ways(with_cache, without, sum(parameter.numel() for parameter in net.parameters()))


def davae(layers: int, width: int, vocabulary: int) -> Ways:
    """DAVAE's decoder, with a latent of 128 numbers."""
    from unembed.models.davae.generation import drawn, write
    from unembed.models.davae.network import DecoderConfig, LatentDecoder
    from unembed.models.decoding import choose

    latent, start = 128, 1
    config = DecoderConfig(vocabulary, width, layers, width // 64, 0.0, 0.0)
    net = LatentDecoder(config, latent).eval().requires_grad_(False)

    def latents(batch: int) -> Tensor:
        return torch.randn(batch, latent, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def with_cache(batch: int, tokens: int) -> list[list[int]]:
        rows = write(net, latents(batch), [[start]] * batch, drawn(GREEDY, None), end=-1, longest=tokens + 1)
        return [row.ids for row in rows]

    @torch.inference_mode()
    def without(batch: int, tokens: int) -> list[list[int]]:
        ids, z = torch.full((batch, 1), start), latents(batch)  # B T
        for _ in range(tokens):
            ids = torch.cat([ids, choose(net(ids, z)[:, -1].float(), GREEDY, None)[:, None]], dim=1)
        return ids[:, 1:].tolist()

    return Ways(with_cache, without, sum(parameter.numel() for parameter in net.parameters()))


FAMILIES: dict[str, Callable[[int, int, int], Ways]] = {"prefix-decoder": prefix_decoder, "davae": davae}
"""Name → (layers, width, vocabulary) → its two ways, on random weights."""


def targets(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(batch, EMBEDDING, generator=generator), dim=-1)


@torch.inference_mode()
def texts(decoder: decoding.Decoder, batch: int, tokens: int, eos: int) -> list[list[int]]:
    """Greedy texts of exactly `tokens` tokens."""
    written = decoding.write(
        Endless(decoder, eos), batch, n=1, sampling=GREEDY, max_tokens=tokens, eos=eos, device=torch.device("cpu")
    )
    return [text.ids for [text] in written]


def compare(ways: Ways, batch: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Rates of both ways and their ratios. Raises SystemExit when they do not write the same."""
    times: dict[str, list[tuple[float, float]]] = {"cached": [], "uncached": []}
    ways.cached(batch, 4)  # warm
    for _ in range(rounds):
        ids = []
        for name, write in (("cached", ways.cached), ("uncached", ways.uncached)):
            wall, cpu = time.perf_counter(), time.process_time()
            ids.append(write(batch, tokens))
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        if ids[0] != ids[1]:
            raise SystemExit(f"the two ways write different ids ({batch} texts of {tokens} tokens)")
    figures: dict[str, Any] = {"batch": batch, "tokens": tokens, "rounds": rounds}
    for at, clock in enumerate(("wall", "cpu")):
        for name, measured in times.items():
            figures[f"{name}_tokens_per_s_{clock}"] = batch * tokens / statistics.median(row[at] for row in measured)
        pairs = zip(times["cached"], times["uncached"], strict=True)
        ratios = sorted(without[at] / with_cache[at] for with_cache, without in pairs)
        figures[f"speedup_{clock}"] = [statistics.median(ratios), ratios[0], ratios[-1]]
    return figures


def save(entry: dict[str, Any]) -> None:
    """Put an entry in the place of an older one of the same family and size."""
    entries = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    same = ("family", "layers", "width", "vocabulary")
    entries = [old for old in entries if any(old[key] != entry[key] for key in same)] + [entry]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    lines = [
        "| family | parameters | texts | tokens | cached | uncached | faster by wall clock | by CPU time |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in entries:
        for row in one["rows"]:
            wall, cpu = ("{:.1f}× ({:.1f}–{:.1f})".format(*row[f"speedup_{clock}"]) for clock in ("wall", "cpu"))
            rates = (f"{row[f'{name}_tokens_per_s_cpu']:.0f}" for name in ("cached", "uncached"))
            cells = (one["family"], f"{one['parameters'] / 1e6:.0f}M", row["batch"], row["tokens"], *rates, wall, cpu)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    table = (
        "\n".join(lines)
        + "\n\nCached, uncached: tokens per second of CPU time. Medians; of speed-ups with lowest and highest.\n"
    )
    RESULTS.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default="prefix-decoder")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    ways = FAMILIES[args.family](args.layers, args.width, args.vocabulary)
    entry: dict[str, Any] = {
        "family": args.family, "layers": args.layers, "width": args.width, "vocabulary": args.vocabulary,
        "parameters": ways.parameters, "hardware": hardware(), "threads": torch.get_num_threads(), "rows": [],
    }  # fmt: skip
    for batch in args.batch:
        entry["rows"].append(compare(ways, batch, args.tokens, args.rounds))
        save(entry)  # a run that is cut off leaves what it has measured


if __name__ == "__main__":
    main()
