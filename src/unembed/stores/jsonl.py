"""Vectors in JSON Lines: one object (`{"id": ..., "vector": [...], "text": ...}`) or one plain list per line.

Reads plain files, .gz and standard input, line by line; errors name the line. Numbers become float32.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from unembed.errors import InputError
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import IDS, TEXTS, check_text, choose, choose_vectors, id_text, readable


class JsonlSource(VectorSource):
    """A .jsonl file, or standard input (`-`), which can be read only once."""

    count = None
    dtype = np.dtype(np.float32)

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        self.source = "standard input" if source == "-" else source
        self._path = None if source == "-" else source
        self._rows: Iterator[tuple[int, Any]] | None = self._parse()
        # The first row tells the fields and the dimension; it is kept, as standard input cannot be rewound.
        self._first = next(self._rows, None)
        if self._first is None:
            raise InputError(f"{self.source}: no vectors in it; give one JSON object or list per line")
        line, row = self._first
        self._ids: str | None = None
        self._vectors: str | None = None
        self._texts: str | None = None
        if isinstance(row, dict):
            names = list(row)
            fitting = [name for name in names if _is_vector(row[name])]
            where = f"{self.source}, line {line}"
            self._vectors = choose_vectors(where, vector_field, names, fitting, "a list of numbers")
            self._ids = choose(where, "ids", ids_field, names, IDS)
            self._texts = choose(where, "texts", text_field, names, TEXTS)
            self.fields = [name for name in names if name not in (self._ids, self._vectors, self._texts)]
        else:
            for what, name in (("ids", ids_field), ("vectors", vector_field), ("texts", text_field)):
                if name:
                    raise InputError(f"{self.source}: its lines are plain lists, with no field {name!r} for the {what}")
        self.own_ids = self._ids is not None
        self.dim = len(self._vector(line, row))

    def close(self) -> None:
        if self._path is not None:  # what was read ahead of a file can be read again; of standard input it cannot
            self._rows = self._first = None

    def _lines(self) -> Iterator[bytes]:
        if self._path is None:
            yield from getattr(sys.stdin, "buffer", ())
            return
        opener: Any = gzip.open if self._path.lower().endswith(".gz") else open
        with opener(self._path, "rb") as file:
            yield from file

    def _parse(self) -> Iterator[tuple[int, Any]]:
        """Yield (line number, value), blank lines left out."""
        lines = self._lines()
        number = 0
        while True:
            number += 1
            with readable(self.source):
                line = next(lines, None)
            if line is None:
                return
            try:
                # Only the first line can start with a byte order mark.
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, json.loads(text)
            except (ValueError, RecursionError) as error:
                reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON, or cut short"
                raise InputError(f"{self.source}, line {number}: {reason}; mend or remove that line") from error

    def _field(self, line: int, row: Any, name: str) -> Any:
        if name not in row:
            there = ", ".join(sorted(row)[:20]) or "none"
            raise InputError(f"{self.source}, line {line}: no field {name!r}; it has: {there}")
        return row[name]

    def _vector(self, line: int, row: Any) -> np.ndarray:
        """The vector of one row, float32 [d]."""
        where = f"{self.source}, line {line}"
        if isinstance(row, dict) != (self._vectors is not None) or not isinstance(row, dict | list):
            kind = "an object" if self._vectors is not None else "a list"
            raise InputError(f"{where}: {type(row).__name__} where {kind} is needed, as in the first line")
        values = row if self._vectors is None else self._field(line, row, self._vectors)
        if not _is_vector(values):
            raise InputError(f"{where}: the vector is not a list of numbers; mend or remove that line")
        try:
            with np.errstate(over="ignore"):  # becomes infinity, which is for the validation of vectors to judge
                return np.array(values, dtype=np.float32)
        except OverflowError as error:
            raise InputError(f"{where}: a number is too large; mend or remove that line") from error

    def _read(self, size: int) -> Iterator[VectorBatch]:
        rows, first = self._rows, self._first
        if rows is None:
            if self._path is None:
                raise InputError("standard input can be read only once; save it to a file first")
            rows = self._parse()
        elif first is not None:
            rows = _chain(first, rows)
        self._rows = self._first = None
        ids: list[str] = []
        vectors: list[np.ndarray] = []
        texts: list[str] = []
        for index, (line, row) in enumerate(rows):
            where = f"{self.source}, line {line}"
            vector = self._vector(line, row)
            if len(vector) != self.dim:
                raise InputError(f"{where}: a vector of {len(vector)} numbers where the first has {self.dim}; mend it")
            ids.append(str(index) if self._ids is None else id_text(self._field(line, row, self._ids), where))
            if self._texts is not None:
                texts.append(check_text(row.get(self._texts), where))
            vectors.append(vector)
            if len(vectors) == size:
                yield VectorBatch(ids, np.stack(vectors), texts if self._texts is not None else None)
                ids, vectors, texts = [], [], []
        if vectors:
            yield VectorBatch(ids, np.stack(vectors), texts if self._texts is not None else None)


def _is_vector(value: Any) -> bool:
    # bool is an int to Python, but not a coordinate
    return isinstance(value, list) and bool(value) and all(type(number) in (float, int) for number in value)


def _chain(first: tuple[int, Any], rest: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    yield first
    yield from rest
