"""Names of stores: `KIND:PLACE#PART`, where the part (collection, table, …) may be left out if there is only one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from unembed.errors import InputError, StorageError


def split(source: str) -> tuple[str, str | None]:
    """`KIND:PLACE#PART` → (PLACE, PART or None)."""
    place, _, part = source.partition(":")[2].partition("#")
    return place, part or None


def existing(source: str, path: Path) -> Path:
    """The folder or file of a local store. InputError if it is not there: some clients would make a new one."""
    try:
        there = path.expanduser().exists()
    except OSError as error:
        raise StorageError(f"{source}: cannot be looked at ({error.strerror}); check the permissions") from error
    if not there:
        raise InputError(f"{source}: {path} does not exist; check the path")
    return path.expanduser()


def one_of(source: str, what: str, names: Sequence[str], asked: str | None) -> str:
    """The part that is meant: the one asked for, or the only one. InputError, naming those there are, otherwise."""
    there = ", ".join(sorted(names)[:20]) or "none"
    if asked is not None:
        if asked not in names:
            raise InputError(f"{source}: no {what} {asked!r}; it has: {there}")
        return asked
    if not names:
        raise InputError(f"{source}: no {what} in it; check the path")
    if len(names) > 1:
        raise InputError(f"{source}: which {what}? Add #NAME, one of: {there}")
    return names[0]


def without_password(address: str) -> str:
    """An address as it may be shown: `postgresql://user:secret@host` without the secret."""
    address = re.sub(r"(//[^/@:]*):[^@/]*@", r"\1@", address)
    return re.sub(r"(?i)(password|pwd|api[_-]?key|token)=[^&\s]*", r"\1=…", address)
