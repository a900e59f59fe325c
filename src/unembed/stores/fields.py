"""Helpers that the file formats share: which field holds what, and turning the errors of libraries into ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from unembed.errors import InputError, StorageError, UnembedError

IDS = ("id", "ids")
TEXTS = ("text", "texts", "document", "page_content", "content")
VECTORS = ("vector", "embedding", "vectors", "embeddings")


def choose(source: str, what: str, asked: str | None, names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The field to read `what` from: the one `asked` for, else the first `usual` one that exists, else None.

    `asked` may be "" for none. Raises InputError, listing the fields there are, when the one asked for is not there.
    """
    if asked is None:
        return next((name for name in usual if name in names), None)
    if not asked:
        return None
    if asked not in names:
        there = ", ".join(sorted(names)[:20]) or "none"
        raise InputError(f"{source}: no field {asked!r} for the {what}; it has: {there}")
    return asked


def choose_vectors(source: str, asked: str | None, names: Sequence[str], fitting: Sequence[str], need: str) -> str:
    """The field with the vectors: the one asked for, else the only `fitting` one, else the usual name among them.

    need: what a fitting field is, for the message.
    """
    asked = asked or None
    chosen = choose(source, "vectors", asked, names, ())
    if chosen is not None:
        if chosen not in fitting:
            raise InputError(f"{source}: the field {chosen!r} is not {need}; it has: {', '.join(fitting) or 'no such'}")
        return chosen
    if len(fitting) == 1:
        return fitting[0]
    usual = next((name for name in VECTORS if name in fitting), None)
    if usual is None and fitting:
        raise InputError(f"{source}: which field holds the vectors? Name one of: {', '.join(fitting[:20])}")
    if usual is None:
        raise InputError(f"{source}: no field is {need}; it has: {', '.join(sorted(names)[:20]) or 'none'}")
    return usual


def id_text(value: Any, where: str) -> str:
    """An id as str; InputError naming `where` unless it is a text, a whole number or bytes (written in hex)."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise InputError(f'{where}: the id is {value!r}; ids are texts or whole numbers (or "" for the row numbers)')


def check_text(value: Any, where: str) -> str:
    """`value` if it is a str, "" for None, which is how stores say that a record has none; otherwise InputError naming
    `where`."""
    if value is None or isinstance(value, str):
        return value or ""
    raise InputError(f'{where}: {type(value).__name__} where a text is needed; mend it or set the text field to ""')


def check_numeric(source: str, what: str, dtype: np.dtype) -> None:
    """InputError unless `dtype` is a real number type; an array of objects could run code on loading."""
    if dtype.hasobject:
        raise InputError(f"{source}: {what} holds Python objects, which are never loaded; save it as float32 instead")
    if dtype.kind not in "fiu":
        raise InputError(f"{source}: {what} holds {dtype}, not numbers; save the vectors as float32")


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Errors of the libraries that parse a file, as one-line StorageErrors; our own errors pass.

    Damaged files make parsers raise nearly anything (ValueError, EOFError, KeyError, zlib.error, ...), hence the
    breadth; it must enclose nothing but parsing.
    """
    try:
        yield
    except (UnembedError, MemoryError):
        raise
    except PermissionError as error:
        raise StorageError(f"{source}: no permission to read it; run as a user who may") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StorageError(
            f"{source}: damaged, cut short or not what its name says ({reason}); copy it anew"
        ) from error


@contextmanager
def reached(source: str) -> Iterator[None]:
    """Errors of a store's client, as one-line StorageErrors; our own errors pass. It must enclose nothing else."""
    try:
        yield
    except (UnembedError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StorageError(
            f"{source}: the store does not answer as it should ({reason}); check that it runs, its address, and that "
            "you may read it"
        ) from error
