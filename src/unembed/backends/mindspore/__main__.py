"""`python -m unembed.backends.mindspore train|invert`: the two commands that need no torch."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from unembed.backends import mindspore
from unembed.errors import InputError, StorageError, UnembedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m unembed.backends.mindspore")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train what `unembed train --export FOLDER` wrote")
    train.add_argument("export")
    train.add_argument("--output", required=True, help="the run's folder; the same command continues it")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="another value than the recipe's"
    )
    invert = commands.add_parser("invert", help="vectors to texts, by a hypothesizer alone")
    invert.add_argument("--model", required=True, help="a model folder")
    invert.add_argument("--vectors", required=True, help="a .npy file [n, E]")
    invert.add_argument("--beams", type=int, default=1)
    invert.add_argument("--batch-size", type=int, default=32)
    invert.add_argument("-o", "--output", required=True, help="a .jsonl file: text and log p of each row")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        mindspore.require_mindspore()
        return _train(options) if options.command == "train" else _invert(options)
    except UnembedError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _train(options: argparse.Namespace) -> int:
    from unembed.backends.mindspore.training import train

    changes = {}
    for pair in options.set:
        key, _, value = pair.partition("=")
        try:
            changes[key] = json.loads(value)
        except ValueError as error:
            raise InputError(f"--set {pair} is no KEY=NUMBER") from error
    logging.info("the model is in %s", train(options.export, options.output, **changes))
    return 0


def _invert(options: argparse.Namespace) -> int:
    import numpy as np

    model = mindspore.load(options.model)
    if model.net.corrects:
        raise InputError(f"{options.model} is a corrector, which needs hypotheses: give a hypothesizer")
    try:
        vectors = np.load(options.vectors, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{options.vectors} cannot be read ({error}): give a .npy file of vectors") from error
    rows = model.write(vectors, beams=options.beams, batch_size=options.batch_size)
    lines = [json.dumps({"text": row[0][0], "logprob": row[0][1]}, ensure_ascii=False) for row in rows]
    try:
        Path(options.output).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {options.output} ({error.strerror})") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
