"""unembed against vec2text on the same weights, vectors and threads, and nanoV2T's loop beside them:

    python benchmarks/vs_vec2text.py [--quick] [--python ENVIRONMENT/bin/python]

Two pairs: a small trained one (--pair, by default the one under UNEMBED_PARITY_DIR), which says how much is recovered
and how fast targets are done, and one of T5-base's size with random weights whose texts all have 31 tokens, which never
are done: what a round costs. Each system is a process of its own; all take their turn in each repetition of each
setting, and ratios are of medians of processor time, which other work on the machine disturbs less than it does the
clock. Written to benchmarks/results/vs_vec2text.json and .md after each setting.

vec2text 0.0.13 runs with the transformers version on which it works, in an environment that is made here unless one is
given. Its licence asks whoever runs a model through it to publish that model: give it none that you would not publish.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import random_pair

import unembed
from unembed.cli.console import console
from unembed.evaluation import hardware
from unembed.metrics import cosine, token_f1

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "vs_vec2text.json"
SYSTEMS = ("vec2text", "unembed", "unembed, bfloat16", "unembed, int8", "unembed, faithful", "nanoV2T's loop")
PACKAGES = (
    "torch==2.13.0 transformers==4.57.6 accelerate==1.10.1 datasets==2.21.0 sentence-transformers==3.0.1 numpy==1.26.4 "
    "pyarrow==20.0.0 evaluate nltk tenacity openai"
)
METRIC = '''import datasets
import evaluate


class Nothing(evaluate.Metric):
    """Stands for a metric script of the hub, which vec2text opens and inverting does not use."""

    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {}
'''


def environment(folder: Path) -> Path:
    """The interpreter of an environment for vec2text, made where there is none yet."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        console().print(f"Making an environment for vec2text in {folder}; this takes some minutes.")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES.split()], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "vec2text==0.0.13"], check=True)
        (folder / "ready").touch()
    return python


def prepare(pair: Path, folder: Path) -> None:
    """A folder in which vec2text finds by relative paths what it would fetch from the hub: the pair, its backbone, the
    embedder that the hypothesizer carries, and metric scripts."""
    from safetensors.torch import load_file, save_file

    for name in ("jxm", "t5-base"):
        (folder / name).symlink_to(pair.resolve() / name, target_is_directory=True)
    for name in ("accuracy", "sacrebleu", "rouge"):
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(METRIC, encoding="utf-8")
    place = folder / "sentence-transformers" / "gtr-t5-base"
    place.mkdir(parents=True)
    found = load_file(folder / "jxm" / "gtr__nq__32" / "model.safetensors")
    carried = {n.removeprefix("embedder."): tensor for n, tensor in found.items() if n.startswith("embedder.")}
    tensors = {f"encoder.{name}": tensor for name, tensor in carried.items()}
    tensors["shared.weight"] = tensors.pop("encoder.embed_tokens.weight")
    own = "encoder.block.0.layer.0.SelfAttention"
    heads = tensors[f"{own}.relative_attention_bias.weight"].size(1)
    inner, width = tensors[f"{own}.q.weight"].shape
    layers = len({name.split(".")[2] for name in tensors if name.startswith("encoder.block.")})
    config = json.loads((folder / "t5-base" / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["T5EncoderModel"], "d_model": width, "d_kv": inner // heads, "num_heads": heads}
    config |= {"d_ff": len(tensors["encoder.block.0.layer.1.DenseReluDense.wi.weight"]), "num_layers": layers}
    config |= {"vocab_size": len(tensors["shared.weight"]), "num_decoder_layers": layers}
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    for file in (folder / "t5-base").glob("tok*"):
        shutil.copyfile(file, place / file.name)


class Worker:
    """A system in a process of its own, with a pair open."""

    def __init__(self, system: str, python: Path, folder: Path, vectors: Path, threads: int) -> None:
        env = os.environ | {
            "PYTHONPATH": str(HERE.parent / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads),
            "WANDB_DISABLED": "true", "VEC2TEXT_CACHE": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        if system == "vec2text":
            del env["PYTHONPATH"]  # its environment must find its own packages alone
        command = [python, HERE / "vs_vec2text_worker.py", system, vectors, str(threads)]
        self.log = folder / f"{system.replace(' ', '-')}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.loaded = self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.log.stem} ended:\n{self.log.read_text(encoding='utf-8')[-2000:]}")
        return json.loads(line)

    def invert(self, steps: int, beam: int, n: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps({"steps": steps, "beam": beam, "n": n}), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def sentences(n: int) -> list[str]:
    """Texts like those that the small pair was trained on: "Alice repairs the old river in Athens with Bob."."""
    names = "Alice Bob Carol Erin Grace Heidi Judy Mallory Peggy Sybil Trent Victor Walter".split()
    verbs = "buys carries closes moves paints reads repairs sees studies teaches".split()
    kinds = "blue broken heavy loud new old quiet shiny simple strange".split()
    things = "camera car engine garden hospital house letter river window".split()
    places = "Athens Berlin Denver Dublin Lisbon Madrid Oslo Paris Prague Warsaw Zurich".split()
    rng = np.random.default_rng(0)

    def clause() -> str:
        name, verb, kind, thing, place = (str(rng.choice(words)) for words in (names, verbs, kinds, things, places))
        return f"{name} {verb} the {kind} {thing} in {place}"

    tails = (lambda: ".", lambda: f" with {rng.choice(names)}.", lambda: f" and {clause()}.")
    return [clause() + tails[int(rng.integers(3))]() for _ in range(n)]


def random_words(n: int) -> list[str]:
    ids = np.random.default_rng(0).integers(3, random_pair.VOCABULARY, (n, random_pair.LENGTH))
    return [" ".join(f"w{i}" for i in row) for row in ids.tolist()]


def compare(
    pair: Path, texts: list[str], settings: list[Any], repeats: int, threads: int, python: Path, systems: list[str]
) -> Iterator[dict[str, Any]]:
    """Yields the figures of the pair after each setting."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(pair, folder)
        embedder = unembed.embedder(f"checkpoint:{folder / 'jxm' / 'gtr__nq__32'}", device="cpu")
        targets = embedder.encode(texts)
        np.save(folder / "vectors.npy", targets)
        places = {system: python if system == "vec2text" else Path(sys.executable) for system in systems}
        workers = {s: Worker(s, place, folder, folder / "vectors.npy", threads) for s, place in places.items()}
        figures: dict[str, Any] = {"n": len(texts), "repeats": repeats, "settings": {}}
        for worker in workers.values():  # what is done once, on the first texts, is not timed
            worker.invert(1, 2, 1)
        for steps, beam in settings:
            seconds: dict[str, list[float]] = {system: [] for system in workers}
            cpu: dict[str, list[float]] = {system: [] for system in workers}
            last = {}
            for _ in range(repeats):
                for system, worker in workers.items():
                    last[system] = worker.invert(steps, beam, len(texts))
                    seconds[system].append(last[system]["seconds"])
                    cpu[system].append(last[system]["cpu_seconds"])
            row = {}
            for system, answer in last.items():
                found = [text or "." for text in answer["texts"]]
                row[system] = {
                    "seconds": seconds[system],
                    "cpu_seconds": cpu[system],
                    "texts_per_s": len(texts) / statistics.median(cpu[system]),
                    "exact": float(np.mean([a == b for a, b in zip(texts, found, strict=True)])),
                    "token_f1": float(np.mean([token_f1(a, b) for a, b in zip(texts, found, strict=True)])),
                    "cosine": float(np.mean(cosine(embedder.encode(found), targets))),
                    "peak_mb": answer["peak_mb"],
                    "loaded_mb": workers[system].loaded["peak_mb"],
                }
            if "vec2text" in row and "unembed, faithful" in row:
                pairs = zip(last["vec2text"]["texts"], last["unembed, faithful"]["texts"], strict=True)
                row["unembed, faithful"]["same_texts"] = float(np.mean([a == b for a, b in pairs]))
            figures["settings"][f"{steps},{beam}"] = row
            yield figures
        for worker in workers.values():
            worker.close()


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    machine = report["hardware"]
    lines = [
        f"{machine['processor']}, {report['threads']} thread(s), torch {machine['torch']}; vec2text 0.0.13 with "
        f"transformers 4.57.6. Texts per second of processor time, medians over the repetitions; ratios to vec2text's."
    ]
    for name, figures in report["pairs"].items():
        lines += ["", f"**{name}**: {figures['n']} texts, {figures['repeats']} repetition(s)", ""]
        lines.append("| steps, beam | system | texts/s | ratio | exact % | token F1 | 1 − cosine | peak MB (loaded) |")
        lines.append("|---|---|--:|--:|--:|--:|--:|--:|")
        for setting, row in figures["settings"].items():
            theirs = row["vec2text"]["texts_per_s"] if "vec2text" in row else float("nan")
            for system, found in row.items():
                lines.append(
                    f"| {setting} | {system} | {found['texts_per_s']:.3g} | {found['texts_per_s'] / theirs:.1f}× "
                    f"| {100 * found['exact']:.0f} | {found['token_f1']:.3f} | {1 - found['cosine']:.1e} "
                    f"| {found['peak_mb']:,.0f} ({found['loaded_mb']:,.0f}) |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, help="folder of the small trained pair: jxm/… and t5-base/")
    parser.add_argument(
        "--base-pair", type=Path, help="folder of the T5-base-sized pair, which is written where it is not"
    )
    parser.add_argument("--python", type=Path, help="interpreter of an environment in which vec2text runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n", type=int, default=64, help="texts for the small pair")
    parser.add_argument("--base-n", type=int, default=8, help="texts for the T5-base-sized pair; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base-repeats", type=int, default=1)
    parser.add_argument("--settings", nargs="*", default=["0,1", "1,1", "5,1", "5,4", "20,4"], help="STEPS,BEAM …")
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--quick", action="store_true", help="16 texts, one repetition, the small pair alone")
    parser.add_argument("--output", type=Path, help="by default benchmarks/results/vs_vec2text.json (-quick.json)")
    parser.add_argument("--only-base", action="store_true", help="leave the small pair out")
    args = parser.parse_args()
    if args.quick:
        args.n, args.base_n, args.repeats = 16, 0, 1
    report: dict[str, Any] = {"hardware": hardware(), "threads": args.threads, "pairs": {}}
    output = (args.output or RESULTS.with_stem(RESULTS.stem + "-quick" * args.quick)).resolve()
    if not args.pair and not os.environ.get("UNEMBED_PARITY_DIR"):
        parser.error("give the trained pair: --pair FOLDER, or set UNEMBED_PARITY_DIR")
    pair = (args.pair or Path(os.environ["UNEMBED_PARITY_DIR"]) / "vec2text").resolve()
    # Not resolved: the interpreter of an environment is a link to the one it was made from.
    python = args.python.absolute() if args.python else environment(HERE / ".vec2text")
    if output.exists():  # the pair that is not measured now keeps its figures
        stored = json.loads(output.read_text(encoding="utf-8"))
        if {**stored, "pairs": {}} == report:
            report = stored
    settings = [tuple(map(int, setting.split(","))) for setting in args.settings]
    runs: list[Any] = [("small trained pair", pair, sentences(args.n), args.repeats)]
    if args.only_base:
        runs.clear()
    if args.base_n:
        base = (args.base_pair or HERE / ".base_pair").resolve()
        if not (base / "jxm" / "gtr__nq__32__correct" / "model.safetensors").exists():
            console().print(f"Writing a pair of T5-base's size to {base} (3 GB).")
            random_pair.write_pair(base, pair)
        runs.append(("T5-base's size, random weights", base, random_words(args.base_n), args.base_repeats))
    output.parent.mkdir(parents=True, exist_ok=True)
    for name, folder, texts, repeats in runs:
        for figures in compare(folder, texts, settings, repeats, args.threads, python, args.systems):
            report["pairs"][name] = figures
            output.write_text(json.dumps(report, indent=1), encoding="utf-8")
            output.with_suffix(".md").write_text(table(report), encoding="utf-8")
            console().print(f"{name}: {list(figures['settings'])[-1]} done")
    console().print(table(report), markup=False)


if __name__ == "__main__":
    main()
