"""Errors that a user can mend: one line saying what is wrong and what to do about it.

The command line prints the message and exits with `exit_code`; a traceback appears only with `--debug`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import shlex
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import url2pathname


class UnembedError(Exception):
    """Base of every error that the user, not the developer, can fix. The message is one line."""

    exit_code = 2


class InputError(UnembedError):
    """Texts, vectors or arguments that cannot be used as they are."""


class TokensUnknown(InputError):
    """An embedder that does not show its tokens was asked to count or cut by them."""


class SpecMismatch(UnembedError):
    """Two embedders that had to be the same are not; the message names both sides."""


class CheckpointError(UnembedError):
    """A model folder or file that is missing, truncated, tampered with or of an unknown format."""


class StorageError(UnembedError):
    """A file that cannot be read or written (full disk, no permission, damaged result file)."""


class MissingExtra(UnembedError):
    """An optional package that is not installed; the message gives the exact pip line."""


def require(module: str, extra: str) -> ModuleType:
    """Import and return `module`, or raise `MissingExtra` naming the extra of unembed that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtra(
            f"this needs the package '{package}', which is not installed: {install_line(extra)}"
        ) from error


def install_line(extra: str) -> str:
    """The pip line that brings an extra, from the folder, repository or index that this package came from (PEP 610)."""
    try:
        stated = importlib.metadata.distribution("unembed").read_text("direct_url.json")
        origin = json.loads(stated) if stated else {}
    except (importlib.metadata.PackageNotFoundError, ValueError):
        origin = {}
    if "dir_info" in origin:
        folder = url2pathname(urlsplit(origin["url"]).path)
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{folder}[{extra}]')}"
    if origin:
        system = f"{origin['vcs_info']['vcs']}+" if "vcs_info" in origin else ""
        return "pip install " + shlex.quote(f"unembed[{extra}] @ {system}{origin['url']}")
    return f"pip install 'unembed[{extra}]'"


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
