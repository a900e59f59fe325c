"""MindSpore's training step against torch's, on the same network, weights and batch, one thread each:

    UNEMBED_MINDSPORE_PYTHON=ms/bin/python python benchmarks/bench_mindspore.py [--steps 12]

The two take turns, a step each, so that whatever else the machine does falls on both alike. Wall time and the CPU time
of the process are both taken: where other programs run, the CPU time is the steadier of the two. MindSpore's step is
compiled (GRAPH mode); the compilation is timed apart. Figures and their table go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
SIZES = {"d_model": 256, "d_ff": 1024, "d_kv": 64, "num_heads": 4, "num_layers": 4, "vocab_size": 4096}
EMBEDDING, TOKENS, ROWS, LENGTH = 384, 8, 32, 32
SKIPPED = 2  # steps of each side that are not counted


def timed(step: Callable[[], float]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    loss = step()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "loss": loss}


def torch_step(folder: Path, batch: dict[str, np.ndarray]) -> Callable[[], float]:
    import torch

    from unembed.checkpoints import vec2text
    from unembed.checkpoints.placement import Placement

    torch.set_num_threads(1)
    net = vec2text.Checkpoint(folder).network(Placement(torch.device("cpu"), torch.float32))
    net.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.0)
    targets, labels = torch.from_numpy(batch["targets"]), torch.from_numpy(batch["labels"]).long()

    def step() -> float:
        loss = net(targets, labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step


def mindspore_steps(folder: Path) -> None:
    """The worker: a step, and a line of JSON, for each line of input."""
    from unembed.backends.mindspore.model import Model
    from unembed.backends.mindspore.training import Settings, Trainer

    batch = dict(np.load(folder / "batch.npz"))
    model = Model.load(folder, dropout=0.1)
    trainer, number = Trainer(model.net, Settings()), 0
    for _ in sys.stdin:
        number += 1
        done = timed(lambda: float(trainer.step(number, 1e-3, [batch["targets"], batch["labels"]]).asnumpy()))  # noqa: B023
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()


def make(folder: Path) -> dict[str, np.ndarray]:
    """A random hypothesizer of vec2text's wiring and a batch."""
    import torch
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
    from tokenizers import Tokenizer, models  # isort: skip

    from unembed.checkpoints import vec2text
    from unembed.embedders.spec import EmbedderSpec
    from unembed.models.encoder_decoder import EncoderDecoderNetwork, ProjectionConfig

    torch.manual_seed(0)
    t5 = T5ForConditionalGeneration(T5Config(**SIZES, decoder_start_token_id=0))
    net = EncoderDecoderNetwork(t5, ProjectionConfig(EMBEDDING, TOKENS, EMBEDDING))
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    spec = EmbedderSpec("toy", EMBEDDING)
    vec2text.save(net, folder, backbone="t5-small", tokenizer=tokenizer, spec=spec, max_tokens=LENGTH)
    rng = np.random.default_rng(0)
    batch = {
        "targets": rng.standard_normal((ROWS, EMBEDDING)).astype(np.float32),
        "labels": rng.integers(2, SIZES["vocab_size"], (ROWS, LENGTH)).astype(np.int32),
    }
    np.savez(folder / "batch.npz", **batch)
    return batch


def interval(values: np.ndarray, rng: np.random.Generator) -> list[float]:
    """95 % bootstrap interval of the median."""
    draws = np.median(rng.choice(values, (2000, len(values))), axis=1)
    return [float(np.quantile(draws, q)) for q in (0.025, 0.975)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="steps of each that are counted")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        mindspore_steps(Path(options.worker))
        return 0
    python = os.environ.get("UNEMBED_MINDSPORE_PYTHON", "")
    if shutil.which(python) is None:
        print("set UNEMBED_MINDSPORE_PYTHON to the Python of an environment with MindSpore", file=sys.stderr)
        return 2

    from unembed.evaluation import hardware

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        batch = make(folder)
        step = torch_step(folder, batch)
        command = [python, __file__, "--worker", str(folder)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as other:
            assert other.stdin and other.stdout

            def theirs() -> dict[str, float]:
                other.stdin.write("\n")
                other.stdin.flush()
                return json.loads(other.stdout.readline())

            pairs = [(theirs(), timed(step)) for _ in range(SKIPPED + options.steps)]
            other.stdin.close()
    compile_cpu, counted = pairs[0][0]["cpu"], pairs[SKIPPED:]
    rng = np.random.default_rng(0)
    figures: dict[str, object] = {"hardware": hardware(), "load": os.getloadavg()[0], "threads": 1, "n": len(counted)}
    version = "import mindspore; print(mindspore.__version__)"
    figures["mindspore"] = subprocess.run([python, "-c", version], capture_output=True, text=True).stdout.split()[-1]
    lines = ["| time of a step | MindSpore, s | torch, s | ratio | 95 % interval |", "|---|--:|--:|--:|--:|"]
    for kind in ("cpu", "wall"):
        theirs_s, ours_s = (np.array([pair[side][kind] for pair in counted]) for side in (0, 1))
        ratios = theirs_s / ours_s
        low, high = interval(ratios, rng)
        medians = [float(np.median(values)) for values in (theirs_s, ours_s, ratios)]
        figures[kind] = {"mindspore_s": medians[0], "torch_s": medians[1], "ratio": medians[2], "interval": [low, high]}
        lines.append(f"| {kind} | {medians[0]:.3f} | {medians[1]:.3f} | {medians[2]:.2f} | {low:.2f} to {high:.2f} |")
    figures["first_step_cpu_s"] = compile_cpu
    machine = figures["hardware"]
    assert isinstance(machine, dict)
    lines += ["", f"Medians of n = {len(counted)} steps of each, in turn, one thread each; {machine['processor']}, "
              f"{machine['cores']} cores, load {figures['load']:.1f}; MindSpore {figures['mindspore']}, torch "
              f"{machine['torch']}. T5 of {SIZES['num_layers']} + {SIZES['num_layers']} layers, width "
              f"{SIZES['d_model']}, {ROWS} texts of {LENGTH} tokens, float32. MindSpore's first step, which compiles: "
              f"{compile_cpu:.0f} s of CPU time."]  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "mindspore.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (RESULTS / "mindspore.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
