"""Small files of records that a command reads or leaves behind, as JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from unembed.errors import InputError, StorageError


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, at least one.

    Raises InputError where there is no such file, none in it, or a line is no object; StorageError where it cannot be
    read.
    """
    path, records = Path(path), []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if not isinstance(record, dict):
                    raise InputError(f"{path}, line {number}: no JSON object; mend or remove that line")
                records.append(record)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): convert it first") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if not records:
        raise InputError(f"{path}: holds no line; give a file with one JSON object a line")
    return records


def write_records(path: str | Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON Lines, all or nothing. Raises InputError where the file is there already, StorageError where it cannot
    be written."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_new(path, lambda file: file.write(lines.encode(errors="replace")))


def write_new(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Have `write` fill a new file, all or nothing; errors as of `write_records`."""
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists already: delete it or choose another output")
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            write(file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path} ({error.strerror or error}): free space or choose another") from error
