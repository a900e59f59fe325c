"""`unembed push`."""

from __future__ import annotations

from pathlib import Path

from unembed.errors import InputError


def push(folder: str, name: str, private: bool = False, dry_run: bool = False) -> int:
    """Publish a model on the Hugging Face hub, with a model card, in one commit.

    Args:
        folder: of the model, or of the training run that made it.
        name: OWNER/NAME on the hub.
        private: only you, and whom you allow, can see it.
        dry_run: say what would be published, and do nothing.
    """
    from unembed.checkpoints import resolve
    from unembed.checkpoints.card import card
    from unembed.checkpoints.hub import concerns, parts, upload
    from unembed.cli.console import console

    if not Path(folder).expanduser().is_dir():
        raise InputError(f"there is no folder {folder}: give the folder of a model")
    if name.count("/") != 1:
        raise InputError(f"'{name}' is no name on the hub: give OWNER/NAME")
    model = resolve(folder)
    files, left = parts(model)
    if any(path.suffix == ".bin" for path in model.iterdir()) and not any(p.match("model*.safetensors") for p in files):
        raise InputError(
            f"{model} holds its weights as a pickle, which nobody should have to trust: write them as safetensors with "
            f"unembed models convert {model} DEST --format vec2text"
        )
    text = card(model, name)
    out = console()

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    for warning in concerns(files):
        say(f"mind: {warning}")
    new = "" if (model / "README.md").is_file() else " README.md (made now)"
    say(f"published: {' '.join(path.name for path in files)}{new}")
    if left:
        say(f"left here: {' '.join(left)}")
    if not dry_run:
        say(upload(model, name, private=private, card=text))
    return 0
