"""The same training run in PyTorch and in MindSpore, for several embedders: loss curves and a table of cases.

    UNEMBED_MINDSPORE_PYTHON=ms/bin/python python recipes/compare/frameworks.py [--config FILE] [--output FOLDER]

The rows and the first weights are made once, by PyTorch, and both frameworks read them. An embedder whose weights
cannot be had is named and left out. Runs that are there already go on, or are only drawn again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import load_file

from unembed import embedder
from unembed.checkpoints import load_model
from unembed.errors import InputError, UnembedError
from unembed.plots import plot_losses
from unembed.training.t5.config import T5TrainConfig
from unembed.training.t5.run import STATE, last_whole, train

FRAMEWORKS = ("torch", "mindspore")
IGNORED = -100


def interpreter() -> str:
    """The Python that has MindSpore."""
    named = os.environ.get("UNEMBED_MINDSPORE_PYTHON", "")
    if not named or shutil.which(named) is None:
        raise InputError("set UNEMBED_MINDSPORE_PYTHON to the Python of an environment with MindSpore")
    return named


def in_mindspore(python: str, *arguments: object) -> None:
    """Run a command of the backend."""
    done = subprocess.run([python, "-m", "unembed.backends.mindspore", *map(str, arguments)])
    if done.returncode:
        raise InputError(f"MindSpore ended with exit code {done.returncode}: see above")


def load(folder: Path, longest: int) -> Any:  # noqa: ANN401
    """A model in torch that writes no longer texts than it was trained on, as MindSpore's does."""
    model: Any = load_model(folder, torch.device("cpu"))
    model.max_tokens = longest
    return model


def compare(python: str, name: str, fields: dict[str, Any], output: Path, cases: int) -> tuple[dict, list[list[str]]]:
    """Both runs of one embedder: name of a curve → its (step, loss), and rows of (text, torch's, MindSpore's)."""
    recipe = {**fields, "embedder": name, "output": str(output / "torch")}
    export = output / "export"
    if not (export / "recipe.json").exists():
        train(T5TrainConfig.from_dict({**recipe, "export": str(export)}))
    models = {"torch": train(T5TrainConfig.from_dict(recipe)), "mindspore": output / "mindspore" / "model"}
    in_mindspore(python, "train", export, "--output", output / "mindspore")

    held = load_file(export / "held.safetensors")
    targets = held["targets"][:cases]
    np.save(output / "cases.npy", targets)
    in_mindspore(python, "invert", "--model", models["mindspore"], "--vectors", output / "cases.npy", "-o",
                 output / "cases.jsonl")  # fmt: skip
    theirs = [json.loads(line)["text"] for line in (output / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    # What one framework trained, the other reads.
    model, back = (load(path, held["labels"].shape[1] + 1) for path in models.values())
    ours = [row[0].text for row in model.hypothesize(targets)]
    texts = model.decode(torch.from_numpy(np.where(held["labels"][:cases] == IGNORED, 0, held["labels"][:cases])))
    agree = sum(a[0].text == b for a, b in zip(back.hypothesize(targets), theirs, strict=True))
    print(f"{name}: MindSpore's model, read by PyTorch, writes {agree} of {len(theirs)} cases as in MindSpore")

    last = last_whole(output / "torch")
    assert last is not None, "a finished run has a checkpoint"
    history = json.loads((last / STATE).read_text(encoding="utf-8"))["log_history"]
    log = [json.loads(line) for line in (output / "mindspore" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    short = name.rpartition("/")[2]
    curves = {}
    for key, what in (("loss", "training"), ("eval_loss", "held out")):
        for framework, entries in zip(FRAMEWORKS, (history, log), strict=True):
            curves[f"{short}, {what}, {framework}"] = [(row["step"], row[key]) for row in entries if key in row]
    return curves, [list(row) for row in zip(texts, ours, theirs, strict=True)]


def report(curves: dict[str, list[tuple[float, float]]], cases: dict[str, list[list[str]]], absent: list[str]) -> str:
    """The tables, as Markdown."""
    lines = ["| curve | first | last | largest difference |", "|---|--:|--:|--:|"]
    for name, points in curves.items():
        if name.endswith(FRAMEWORKS[0]):
            other = curves[name.removesuffix(FRAMEWORKS[0]) + FRAMEWORKS[1]]
            gap = max(abs(a[1] - b[1]) for a, b in zip(points, other, strict=True))
            for one, shown in ((name, ""), (name.removesuffix(FRAMEWORKS[0]) + FRAMEWORKS[1], f"{gap:.2g}")):
                lines.append(f"| {one} | {curves[one][0][1]:.4f} | {curves[one][-1][1]:.4f} | {shown} |")
    for name, rows in cases.items():
        lines += ["", f"{name}:", "", "| text | PyTorch | MindSpore |", "|---|---|---|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines += ["", *(f"Left out: {reason}" for reason in absent)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--output")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = yaml.safe_load(Path(options.config).read_text(encoding="utf-8"))
    output = Path(options.output or plan["output"])
    curves: dict[str, list[tuple[float, float]]] = {}
    cases, absent = {}, []
    try:
        python = interpreter()
        for name in plan["embedders"]:
            try:
                embedder(name).encode(["A text."])
            except UnembedError as error:
                absent.append(f"{name} ({error})")
                print(f"left out: {absent[-1]}")
                continue
            here = output / name.rpartition("/")[2]
            found, cases[name] = compare(python, name, plan["recipe"], here, plan["cases"])
            curves |= found
        if not curves:
            raise InputError("none of the embedders can be had")
        plot_losses(curves, output / "losses.svg")
    except UnembedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    (output / "report.md").write_text(report(curves, cases, absent), encoding="utf-8")
    (output / "losses.json").write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    print((output / "report.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
