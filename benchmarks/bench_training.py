"""What the choices of the training recipe are worth, each at the same number of floating-point operations:

    python benchmarks/bench_training.py --data DATA_DIR [--pflop 0.15] [--arms "as it is" "1 soft token"] [--quick]

The arms are benchmarks/ablations.yaml. Each is trained from scratch for as many steps as its network makes of the same
PFLOP, hypotheses included, and then asked for held-out texts: log-likelihood in nats a word (comparable between
vocabularies) and token F1 of the greedy text, beside the paired difference to the first arm on the same texts. Written
to benchmarks/results/training.json and training.md as it goes; the same command goes on where it was stopped, also
within an arm. Needs runs/ablations for checkpoints.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from unembed.cli.console import console
from unembed.embedders import embedder
from unembed.evaluation import hardware
from unembed.metrics import bootstrap, paired_difference, token_f1, words
from unembed.models.native import NativeModel
from unembed.models.native.network import text_and_labels
from unembed.models.native.tokenizer import TextTokenizer
from unembed.suites import cell
from unembed.training.batches import batches_of_chunk
from unembed.training.config import SourceConfig, TrainConfig
from unembed.training.corpora import Corpus, read_texts
from unembed.training.loop import Trainer

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "training.json"
RUNS = Path("runs/ablations")
LENGTHS = (8, 16, 32)


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `change`, nested ones within theirs."""
    out = copy.deepcopy(base)
    for key, value in change.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def vocabulary(config: TrainConfig) -> Path:
    """A tokenizer of the recipe's size, trained once for all arms that have it."""
    path = RUNS / f"tokenizer-{config.model.vocab_size}{'-lowercase' if config.lowercase else ''}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sources = [replace(source, path=config.locate(source.path)) for source in config.corpora]
        texts = Corpus(sources, config.spans).tokenizer_texts()
        TextTokenizer.train(texts, config.model.vocab_size, config.lowercase).save(path)
    return path


def flop_of_a_step(config: TrainConfig) -> float:
    """Floating-point operations of an average step: forward and backward are counted on a few spans of this recipe and
    scaled to its tokens, the optimisers once. Embedding the targets is the same for all arms and left out."""
    small = copy.deepcopy(config)
    small.batch_tokens, small.chunk, small.compile, small.lexical_spans = max(config.spans.lengths), 64, False, 0
    small.output = f"{config.output}-flop"
    trainer = Trainer(small)
    share = config.objective.hypothesis_share * (1 - config.objective.hypothesis_from)
    plain = with_hypothesis = tokens = 0
    for batch in batches_of_chunk(trainer.source, 0, trainer.tokenizer, small, 0):
        targets = torch.from_numpy(batch.targets)
        text, labels = text_and_labels(batch.ids, batch.width)
        tokens += batch.width * len(batch.ids)
        with FlopCounterMode(display=False) as counter:
            trainer.objective(targets, text, labels, None, None).backward()
        plain += counter.get_total_flops()
        if share:
            with FlopCounterMode(display=False) as counter:
                trainer.objective(targets, text, labels, *trainer.hypothesise(targets, batch.width)).backward()
            with_hypothesis += counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        for optimiser in trainer.optimisers:
            optimiser.step()
    return counter.get_total_flops() + config.batch_tokens / tokens * ((1 - share) * plain + share * with_hypothesis)


def figures(model: NativeModel, texts: list[str], vectors: np.ndarray) -> dict[str, list[float]]:
    """Of each text: −log p in nats a word, and token F1 of the greedy inversion."""
    counts = np.array([len(words(text)) for text in texts])
    greedy = [row[0].text for row in model.hypothesize(vectors)]
    return {
        "nats": (-model.score(texts, vectors) / counts).tolist(),
        "token_f1": [token_f1(a, b) for a, b in zip(texts, greedy, strict=True)],
    }


def table(results: dict[str, Any]) -> str:
    """The arms in Markdown, with differences to the first."""
    settings = results["settings"]
    machine = settings["hardware"]
    arms = results["arms"]
    first = next(iter(arms.values()), None)
    lines = [
        f"Each arm {settings['pflop']} PFLOP from scratch; {settings['heldout']}, n = {settings['n']} texts each of "
        f"{', '.join(map(str, LENGTHS))} tokens; brackets are 95 % bootstrap intervals, changes are paired; "
        f"{machine['processor']}, cores: {machine['cores']}, torch {machine['torch']}.",
        "",
        "| changed | steps | M tokens | minutes | nats a word | change | token F1, greedy | change |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, arm in arms.items():
        cells = []
        for metric, digits in (("nats", 2), ("token_f1", 3)):
            values = arm["figures"][metric]
            cells.append(cell(bootstrap(values).to_dict(), 1, digits))
            same = arm is first
            change = paired_difference(values, first["figures"][metric]).to_dict() if first else {}
            cells.append("" if same else cell(change, 1, digits))
        done = f"{arm['steps']:,} | {arm['tokens'] / 1e6:.2f} | {arm['seconds'] / 60:.0f}"
        lines.append(f"| {name} | {done} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with en/ and heldout/")
    parser.add_argument("--pflop", type=float, default=0.15, help="of each arm; 0.15 is some ten minutes of two cores")
    parser.add_argument("--arms", nargs="*", help="some of the arms; the first one is always trained")
    parser.add_argument("--n", type=int, default=200, help="held-out texts of each length")
    parser.add_argument("--quick", action="store_true", help="tiny networks for a few steps: does everything run?")
    parser.add_argument(
        "--output", type=Path, help="by default benchmarks/results/training.json, or training-quick.json"
    )
    args = parser.parse_args()
    args.output = args.output or RESULTS.with_stem("training-quick" if args.quick else "training")
    plan = yaml.safe_load((HERE / "ablations.yaml").read_text(encoding="utf-8"))
    base, arms = plan["base"], plan["arms"]
    if args.quick:
        args.pflop, args.n = 2e-5, 8
        quick = {"model": {"d_model": 64, "n_layers": 2, "n_heads": 2, "vocab_size": 512}, "lexical_spans": 256}
        base = merged(base, {**quick, "chunk": 256, "batch_tokens": 512, "corpora": base["corpora"][1:2]})
        base["corpora"][0]["limit"] = 2000
    chosen = dict.fromkeys([next(iter(arms)), *(args.arms if args.arms is not None else arms)])
    unknown = [name for name in chosen if name not in arms]
    if unknown:
        parser.error(f"no arm '{unknown[0]}': choose from {', '.join(arms)}")
    heldout = Path(args.data) / "heldout" / "en_squad_dev.txt.xz"
    settings = {"pflop": args.pflop, "n": args.n, "heldout": heldout.name, "base": base}
    results: dict[str, Any] = {"settings": {**settings, "hardware": hardware()}, "arms": {}}
    if args.output.exists():
        stored = json.loads(args.output.read_text(encoding="utf-8"))
        if {**stored["settings"], "hardware": None} == {**settings, "hardware": None}:
            results = stored
    judge = embedder(base["embedder"])
    source = list(read_texts(SourceConfig(str(heldout))))
    texts = []
    for length in LENGTHS:
        fitting = (judge.cut(text, length) for text in source)
        texts += [text for text in fitting if text is not None and words(text)][: args.n]
    vectors = judge.encode(texts)
    for name in chosen:
        if name in results["arms"]:
            continue
        output = RUNS / "".join(c if c.isalnum() else "-" for c in name)
        fields = merged(base, arms[name]) | {"output": str(output), "data_dir": args.data}
        config = TrainConfig.from_dict({**fields, "save_minutes": 3, "evaluate_every": 10**9})
        config.tokenizer = str(vocabulary(config))
        config.lowercase = False  # which is about a tokenizer to be trained
        config.max_steps = max(2, round(1e15 * args.pflop / flop_of_a_step(config)))
        console().print(f"{name}: {config.max_steps} steps", markup=False)
        began = time.perf_counter()
        trainer = Trainer(config)
        model = trainer.run()
        model.net.eval()
        position = trainer.position
        results["arms"][name] = {
            "steps": position.step, "tokens": position.tokens,
            "seconds": max(position.seconds, time.perf_counter() - began), "figures": figures(model, texts, vectors),
        }  # fmt: skip
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results), encoding="utf-8")
        args.output.with_suffix(".md").write_text(table(results), encoding="utf-8")
    console().print(table(results), markup=False)


if __name__ == "__main__":
    main()
