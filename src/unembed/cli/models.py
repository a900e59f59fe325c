"""`unembed models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unembed.errors import InputError

ACTIONS = ("list", "info", "path", "pull", "convert", "export")


def models(
    action: str = "list",
    name: str = "all-MiniLM-L6-v2",
    destination: str | None = None,
    format: str = "vec2text",
    backbone: str | None = None,
    onnx: str | None = None,
) -> int:
    """List the models that are known, describe, fetch, convert or export one.

    Args:
        action: list (what ships and what is public), info (what a model is), path (where it is), pull (fetch it from
            the hub), convert (write a T5 model in another format) or export (write it for another runtime).
        name: a shipped model, a public one, a folder, a hub id, or a pair.
        destination: for pull and convert: the folder to be made. pull needs none: the hub's cache is used.
        format: for convert: vec2text or nanov2t.
        backbone: for convert to vec2text: the T5 on the hub with the model's sizes, where they are unusual.
        onnx: for export: the folder to be made, with the model as ONNX graphs.
    """
    if action not in ACTIONS:
        raise InputError(f"unknown action '{action}': choose {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}")
    from unembed.checkpoints import resolve
    from unembed.cli.console import console

    out = console()
    if action == "list":
        _list(out)
    elif action == "info":
        _info(name, out)
    elif action == "path":
        out.print(str(resolve(name)), markup=False, soft_wrap=True)
    elif action == "pull":
        out.print("\n".join(map(str, _pull(name, destination))), markup=False, soft_wrap=True)
    elif action == "export":
        _export(name, onnx)
        out.print(onnx, markup=False, soft_wrap=True)
    else:
        from unembed.checkpoints.convert import convert

        if destination is None:
            raise InputError("convert writes a new folder: unembed models convert SOURCE DEST --format vec2text")
        convert(resolve(name), destination, format, backbone=backbone)
        out.print(destination, markup=False, soft_wrap=True)
    return 0


def _list(out: Any) -> None:  # noqa: ANN401  (rich is imported late)
    from unembed.checkpoints import SHIPPED, resolve
    from unembed.checkpoints.public import PUBLIC
    from unembed.cli.console import table

    rows = []
    for known in SHIPPED:
        folder = resolve(known)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        rows.append((known, config["embedder"]["dim"], f"{size:.1f}", str(folder)))
    out.print(table([("model", "left"), ("dim", "right"), ("MB", "right"), ("folder", "left")], rows))
    out.print()
    columns = [(heading, "left") for heading in ("public checkpoint", "what", "embedder", "licence")]
    out.print(table(columns, [(known.name, known.what, known.embedder, known.licence) for known in PUBLIC]))


def _info(name: str, out: Any) -> None:  # noqa: ANN401
    """A public model is described without being fetched; any other is fetched."""
    from unembed.checkpoints import members, resolve
    from unembed.checkpoints.card import OWN, describe
    from unembed.checkpoints.hub import cached
    from unembed.checkpoints.public import PUBLIC
    from unembed.cli.console import table

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    public = next((known for known in PUBLIC if known.name.lower() == name.lower()), None)
    if public:
        say(f"{public.name}: {public.what}; embedder {public.embedder}; licence {public.licence}")
    for part in members(name):
        folder = cached(part) if public else resolve(part)
        if folder is None:
            say(f"{part} is not on this machine: unembed models pull {part}")
            continue
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no model (no config.json): give a folder that unembed train wrote")
        if (folder / "README.md").is_file():
            say((folder / "README.md").read_text(encoding="utf-8", errors="replace"))
        facts = describe(folder)
        out.print(table([("", "left"), (str(folder), "left")], facts.items()))
        if facts["format"] == OWN:  # of the others it is mostly about their author's machine
            say((folder / "config.json").read_text(encoding="utf-8"))


def _pull(name: str, destination: str | None) -> list[Path]:
    from unembed.checkpoints import members
    from unembed.checkpoints.hub import download

    parts = members(name)
    for part in parts:
        if part.count("/") != 1 or part.startswith((".", "/", "~")):
            raise InputError(f"'{part}' is not on the hub: give OWNER/NAME, or a public model of unembed models list")
    if destination is None:
        return [download(part) for part in parts]
    folder = Path(destination).expanduser()
    if len(parts) == 1:
        return [download(parts[0], folder)]
    return [download(part, folder / part.split("/")[1]) for part in parts]


def _export(name: str, folder: str | None) -> None:
    """From the CPU, in float32, whatever this machine has."""
    if folder is None:
        raise InputError("export writes a new folder: unembed models export NAME --onnx FOLDER")
    import torch

    from unembed.checkpoints import load_model
    from unembed.export.onnx import export

    export(load_model(name, torch.device("cpu"), torch.float32, calibrated=False, packed=False), folder)
