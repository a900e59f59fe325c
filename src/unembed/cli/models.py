"""`unembed models`."""

from __future__ import annotations

import json

from unembed.errors import InputError


def models(action: str = "list", name: str = "all-MiniLM-L6-v2") -> int:
    """List the models at hand, or describe one.

    Args:
        action: list (what ships), info (what a model is), or path (where it is).
        name: for info and path: name of a shipped model, a folder, or a hub id.
    """
    from unembed.checkpoints import SHIPPED, resolve
    from unembed.cli.console import console, table

    out = console()
    if action == "list":
        rows = []
        for known in SHIPPED:
            folder = resolve(known)
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            rows.append((known, config["embedder"]["dim"], f"{size:.1f}", str(folder)))
        out.print(table([("model", "left"), ("dim", "right"), ("MB", "right"), ("folder", "left")], rows))
    elif action == "path":
        out.print(str(resolve(name)), markup=False, soft_wrap=True)
    elif action == "info":
        folder = resolve(name)
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no model (no config.json): give a folder that unembed train wrote")
        for part in ("README.md", "config.json"):
            if (folder / part).is_file():
                out.print((folder / part).read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    else:
        raise InputError(f"unknown action '{action}': choose list, info or path")
    return 0
