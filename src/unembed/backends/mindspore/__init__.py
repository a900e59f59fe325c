"""The encoder-decoder and the causal-LM family on MindSpore alone: model folders in and out, training, writing.

    from unembed.backends import mindspore
    model = mindspore.load("runs/gtr/model")
    model.write(vectors, beams=4)

It lives in an environment of its own, without torch and with numpy < 2 (docs/mindspore.md), and this module imports
without MindSpore: what is missing is said when something is loaded.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from unembed.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from unembed.backends.mindspore.model import Model

INSTALL = "python -m venv ms && ms/bin/pip install 'mindspore>=2.7,<2.11' 'numpy<2' tokenizers && "
INSTALL += "ms/bin/pip install --no-deps unembed"


def load(folder: str | Path) -> Model:
    """A model folder (vec2text, nanoV2T, or a GPT-2 of `unembed train`) as a network of MindSpore.

    Raises MissingExtra without MindSpore, InputError beside a numpy that it cannot use, CheckpointError for a folder
    that is damaged or of a family that this backend does not have.
    """
    require_mindspore()
    from unembed.backends.mindspore.model import Model

    return Model.load(Path(folder))


def require_mindspore() -> None:
    """See that MindSpore can be imported, by the versions alone: beside a wrong numpy or protobuf it would end the
    process. Raises MissingExtra, InputError."""
    found = _version("mindspore")
    if found is None:
        raise MissingExtra(
            f"this needs MindSpore, which is not installed and wants an environment of its own: {INSTALL}"
        )
    if not (2, 7) <= found < (2, 11):
        raise InputError(f"MindSpore {found[0]}.{found[1]} is installed: pip install 'mindspore>=2.7,<2.11'")
    if (numpy := _version("numpy")) and numpy >= (2,):
        raise InputError(
            f"MindSpore is built for numpy 1, and {numpy[0]}.{numpy[1]} is beside it: pip install 'numpy<2'"
        )
    if found >= (2, 10) and (protobuf := _version("protobuf")) and protobuf < (7, 34):
        raise InputError(
            f"MindSpore 2.10 needs a newer protobuf than {protobuf[0]}.{protobuf[1]}: pip install 'protobuf>=7.34.1'"
        )


def _version(package: str) -> tuple[int, ...] | None:
    """Major and minor; None where it is not installed."""
    try:
        return tuple(int(part) for part in metadata.version(package).split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return None
