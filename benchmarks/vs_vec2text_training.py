"""Training steps of unembed against vec2text: the same weights of T5-base's size, texts and threads, both stages.

    python benchmarks/vs_vec2text_training.py --texts FILE [--python ENVIRONMENT/bin/python]

A step is forward, backward, clipping and AdamW on one batch, bfloat16 by autocast and weights in float32, as the
published recipes of both have it. vec2text's classes are opened from a pair and called with what its own
`tokenize_function` makes of a text, by their public signatures; ours as `unembed train` calls them. Texts have the
lengths, in words, of real ones, and their words are hashed to the pair's vocabulary. Both group texts by length.

Stage 1 is measured with precomputed vectors (our default), and with each batch embedded on the way (its default);
stage 2, the corrector, with precomputed vectors and hypotheses, as both do it. Each system is a process of its own, and
they take their turn with each batch. Written to benchmarks/results/vs_vec2text_training.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "vs_vec2text_training.json"
LONGEST, DIM = 32, 768
MODES = {"inversion": ("precomputed", "on the fly"), "corrector": ("precomputed",)}
PAIR = {"inversion": "jxm/gtr__nq__32", "corrector": "jxm/gtr__nq__32__correct"}
Losses = Callable[[dict[str, Any], str], Any]


def theirs(stage: str) -> tuple[Any, Losses]:
    """vec2text's model, and its loss of a batch."""
    import torch
    import vec2text

    kind = {"inversion": vec2text.models.InversionModel, "corrector": vec2text.models.CorrectorEncoderModel}[stage]
    model = kind.from_pretrained(PAIR[stage])

    def loss(batch: dict[str, Any], mode: str) -> Any:
        if stage == "corrector":
            return model(
                embedding=batch["vectors"], hypothesis_embedding=batch["other_vectors"], labels=batch["labels"],
                hypothesis_input_ids=batch["hypotheses"], hypothesis_attention_mask=(batch["hypotheses"] != 0).long(),
            )["loss"]  # fmt: skip
        ids = torch.nn.functional.pad(batch["ids"], (0, LONGEST - batch["ids"].size(1)))  # as its tokenize_function
        frozen = {"frozen_embeddings": batch["vectors"]} if mode == "precomputed" else {}
        return model(
            embedder_input_ids=ids, embedder_attention_mask=(ids != 0).long(), labels=batch["labels"], **frozen
        )["loss"]

    return model, loss


def ours(stage: str) -> tuple[Any, Losses]:
    """unembed's network, and its loss of a batch."""
    import torch

    from unembed.checkpoints.placement import Placement
    from unembed.checkpoints.vec2text import Checkpoint
    from unembed.devices import keep_freed_memory
    from unembed.embedders import embedder

    keep_freed_memory()  # as `unembed train` does
    net = Checkpoint(Path(PAIR[stage])).network(Placement(torch.device("cpu")))
    net.requires_grad_(True)
    judge = embedder(f"checkpoint:{PAIR['inversion']}", device="cpu")

    def loss(batch: dict[str, Any], mode: str) -> Any:
        if mode == "precomputed":
            vectors = batch["vectors"]
        else:
            texts = judge.tokenizer.batch_decode(batch["ids"], skip_special_tokens=True)
            vectors = torch.from_numpy(judge.encode([text or "." for text in texts]))
        more = (batch["hypotheses"], batch["other_vectors"]) if stage == "corrector" else ()
        return net(vectors, batch["labels"], *more).loss

    return net, loss


def work(system: str, stage: str, batches: str, threads: int) -> None:
    """A worker: for each line {"batch", "mode"} of standard input one step, and a line of what it took."""
    import torch

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, loss_of = {"vec2text": theirs, "unembed": ours}[system](stage)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, eps=1e-6, fused=True)  # Trainer's choice in both
    rows = json.loads(Path(batches).read_text())
    print(json.dumps({}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        batch = tensors(rows[asked["batch"]], asked["batch"])
        began, used = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(batch, asked["mode"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        answer = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
        print(json.dumps(answer | {"loss": loss.item()}), file=answers)


def tensors(rows: list[list[int]], seed: int) -> dict[str, Any]:
    """A batch of token ids, each with its </s>: labels, and hypotheses of the same lengths with a start token."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    generator = torch.Generator().manual_seed(seed)
    vectors, others = torch.randn(2, len(rows), DIM, generator=generator)
    wrong = torch.where(ids > 3, ids - 1, ids)
    return {
        "ids": ids, "labels": ids.masked_fill(ids == 0, -100), "vectors": vectors, "other_vectors": others,
        "hypotheses": torch.nn.functional.pad(wrong, (1, 0)),
    }  # fmt: skip


def cut(path: str, vocabulary: int, size: int, count: int) -> list[list[list[int]]]:
    """`count` batches of the first words of real texts, at most LONGEST - 1, grouped by length."""
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    texts = read_texts(SourceConfig(path, limit=50 * size))
    known = vocabulary - 3
    rows = [[3 + zlib.crc32(word.encode()) % known for word in text.split()[: LONGEST - 1]] + [1] for text in texts]
    rows.sort(key=len)
    groups = [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
    return [groups[i] for i in np.random.default_rng(0).permutation(len(groups))[:count]]


class Worker:
    """A system with one stage's model open, in a process of its own."""

    def __init__(self, system: str, python: Path, stage: str, folder: Path, threads: int) -> None:
        env = os.environ | {
            "PYTHONPATH": str(HERE.parent / "src"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads),
            "WANDB_DISABLED": "true", "VEC2TEXT_CACHE": str(folder / "cache"), "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        if system == "vec2text":
            del env["PYTHONPATH"]  # its environment must find its own packages alone
        command = [python, Path(__file__).resolve(), "--worker", system, stage, folder / "batches.json", str(threads)]
        self.log = folder / f"{system}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.log.stem} ended:\n{self.log.read_text(encoding='utf-8')[-2000:]}")
        return json.loads(line)

    def step(self, batch: int, mode: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps({"batch": batch, "mode": mode}), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(stage: str, folder: Path, python: Path, size: int, steps: int, threads: int) -> dict[str, Any]:
    """Per system and mode what each step took; the first step of each is not counted."""
    places = {"vec2text": python, "unembed": Path(sys.executable)}
    workers = {system: Worker(system, place, stage, folder, threads) for system, place in places.items()}
    found: dict[str, Any] = {f"{system}, {mode}": [] for system in workers for mode in MODES[stage]}
    for batch in range(steps + 1):
        for mode in MODES[stage]:
            for system, worker in workers.items():
                answer = worker.step(batch, mode)
                if batch:
                    found[f"{system}, {mode}"].append(answer)
    for worker in workers.values():
        worker.close()
    return {"texts": size, "steps": steps, "systems": found}


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        f"{report['hardware']['processor']}, {report['threads']} thread(s), torch {report['hardware']['torch']}; "
        "vec2text 0.0.13 with transformers 4.57.6. Ratios are of processor time on the same batch: median (least to "
        "greatest).",
        "",
        "| stage | vectors | vec2text, texts/s | unembed, texts/s | ratio | ratio by the clock |",
        "|---|---|--:|--:|--:|--:|",
    ]

    def row(stage: str, vectors: str, part: dict[str, Any], a: str, b: str) -> str:
        both = part["systems"][f"vec2text, {a}"], part["systems"][f"unembed, {b}"]
        speed = [part["texts"] / statistics.median(step["cpu_seconds"] for step in steps) for steps in both]
        ratios = [[x[kind] / y[kind] for x, y in zip(*both, strict=True)] for kind in ("cpu_seconds", "seconds")]
        cells = [f"{statistics.median(r):.2f}× ({min(r):.2f} to {max(r):.2f})" for r in ratios]
        return f"| {stage} | {vectors} | {speed[0]:.2f} | {speed[1]:.2f} | {cells[0]} | {cells[1]} |"

    for stage, part in report["stages"].items():
        for mode in MODES[stage]:
            lines.append(row(stage, f"{mode}, both", part, mode, mode))
        if stage == "inversion":
            lines.append(row(stage, "each as by default", part, "on the fly", "precomputed"))
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
        return
    import random_pair
    from safetensors import safe_open
    from vs_vec2text import environment, prepare

    from unembed.cli.console import console
    from unembed.evaluation import hardware

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, help="real texts, as `unembed train` reads them")
    parser.add_argument("--pair", type=Path, help="the T5-base-sized pair, which is written where it is not")
    parser.add_argument(
        "--settings", type=Path, help="a pair whose config.json are taken; by default UNEMBED_PARITY_DIR's"
    )
    parser.add_argument("--python", type=Path, help="interpreter of an environment in which vec2text runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--stages", nargs="*", default=list(MODES), choices=MODES)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    pair = (args.pair or HERE / ".base_pair").resolve()
    if not (pair / PAIR["corrector"] / "model.safetensors").exists():
        random_pair.write_pair(pair, args.settings or Path(os.environ["UNEMBED_PARITY_DIR"]) / "vec2text")
    python = args.python.absolute() if args.python else environment(HERE / ".vec2text")
    report: dict[str, Any] = {"hardware": hardware(), "threads": args.threads, "stages": {}}
    with safe_open(pair / PAIR["corrector"] / "model.safetensors", "pt") as file:
        vocabulary = file.get_slice("encoder_decoder.shared.weight").get_shape()[0]
    batches = cut(args.texts, vocabulary, args.batch_size, args.steps + 1)
    for stage in args.stages:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(pair, folder)
            (folder / "batches.json").write_text(json.dumps(batches))
            report["stages"][stage] = compare(stage, folder, python, args.batch_size, args.steps, args.threads)
        args.output.write_text(json.dumps(report, indent=1), encoding="utf-8")
        args.output.with_suffix(".md").write_text(table(report), encoding="utf-8")
    console().print(table(report), markup=False)


if __name__ == "__main__":
    main()
