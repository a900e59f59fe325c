"""Vectors in PostgreSQL with pgvector: `pgvector:postgresql://USER@HOST/DATABASE#TABLE`. Needs the extra `pgvector`.

All is read in one read-only transaction, so that a table that changes meanwhile is read as it was at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from unembed.errors import InputError, require
from unembed.stores.address import one_of, split, without_password
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import IDS, TEXTS, check_text, choose, choose_vectors, id_text, reached

KINDS = ("vector", "halfvec")
"""pgvector's types of dense vectors."""


class PgvectorSource(VectorSource):
    """One column of one table. `fields` are its other columns."""

    dtype = np.dtype(np.float32)
    _connection: Any = None

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        self._psycopg = require("psycopg", "pgvector")
        place, asked = split(source)
        source = self.source = without_password(source)
        try:
            with reached(source):
                self._connection = self._psycopg.connect(place, connect_timeout=10)
                self._connection.isolation_level = self._psycopg.IsolationLevel.REPEATABLE_READ
                self._connection.read_only = True
                with_vectors = self._rows(
                    "SELECT DISTINCT c.oid::regclass::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
                    "JOIN pg_type t ON t.oid = a.atttypid WHERE t.typname = ANY(%s) AND c.relkind IN ('r', 'v', 'm', "
                    "'p', 'f') AND NOT a.attisdropped",
                    [list(KINDS)],
                )
            self._table = one_of(source, "table with vectors", [name for (name,) in with_vectors], asked)
            with reached(source):
                columns = dict(
                    self._rows(
                        "SELECT a.attname, t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
                        "WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                        [self._table],
                    )
                )
            fitting = [name for name, kind in columns.items() if kind in KINDS]
            self._vectors = choose_vectors(source, vector_field, list(columns), fitting, "a column of vectors")
            self._ids = choose(source, "ids", ids_field, list(columns), (*self._key(), *IDS))
            self._texts = choose(source, "texts", text_field, list(columns), TEXTS)
            self.own_ids = self._ids is not None
            self.fields = [name for name in columns if name not in (self._vectors, self._ids, self._texts)]
            with reached(source):
                [(self.count,)] = self._query("SELECT count({vectors}) FROM {table}")
                first = self._query("SELECT {vectors}::text FROM {table} WHERE {vectors} IS NOT NULL LIMIT 1")
            if not first:
                raise InputError(f"{source}: no vectors in it; give a table with at least one")
            self.dim = len(_parse(first[0][0]))
        except BaseException:
            self.close()
            raise

    def _key(self) -> list[str]:
        """The column of the primary key, if it is one."""
        with reached(self.source):
            found = self._rows(
                "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
                "ANY(i.indkey) WHERE i.indrelid = %s::regclass AND i.indisprimary",
                [self._table],
            )
        return [name for (name,) in found] if len(found) == 1 else []

    def _rows(self, query: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def _composed(self, query: str, **more: str) -> Any:
        """A query with the names of the table and of columns put in, quoted."""
        sql = self._psycopg.sql
        names = {"vectors": sql.Identifier(self._vectors), "table": sql.SQL(self._table)}  # regclass has quoted it
        return sql.SQL(query).format(**names, **{key: sql.Identifier(name) for key, name in more.items()})

    def _query(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._composed(query)).fetchall()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, size: int) -> Iterator[VectorBatch]:
        beside = {key: name for key, name in (("ids", self._ids), ("texts", self._texts)) if name is not None}
        columns = "".join(f", {{{key}}}" for key in beside)
        query = f"SELECT {{vectors}}::text{columns} FROM {{table}} WHERE {{vectors}} IS NOT NULL"
        row = 0
        with self._connection.cursor(name="unembed") as cursor:  # named: the server keeps the rows, not we
            with reached(self.source):
                cursor.execute(self._composed(query, **beside))
            while True:
                with reached(self.source):
                    found = cursor.fetchmany(size)
                if not found:
                    return
                yield self._batch(found, list(beside), row)
                row += len(found)

    def _batch(self, found: list[tuple[Any, ...]], beside: list[str], row: int) -> VectorBatch:
        vectors = [_parse(text) for text, *_ in found]
        for i, vector in enumerate(vectors):
            if len(vector) != self.dim:
                raise InputError(
                    f"{self.source}, row {row + i}: a vector of {len(vector)} numbers where the first has {self.dim}; "
                    "give a table with vectors of one length"
                )
        others = {key: [entry[1 + i] for entry in found] for i, key in enumerate(beside)}
        ids = [str(row + i) for i in range(len(found))]
        if "ids" in others:
            values = [value if isinstance(value, int | str) else str(value) for value in others["ids"]]  # a UUID
            ids = [id_text(value, f"{self.source}, row {row + i}") for i, value in enumerate(values)]
        texts = None
        if "texts" in others:
            texts = [check_text(value, f"{self.source}, row {row + i}") for i, value in enumerate(others["texts"])]
        return VectorBatch(ids, np.stack(vectors), texts)


def _parse(text: str) -> np.ndarray:
    """pgvector's `[1,2,3]` → float32 [d]."""
    return np.fromstring(text[1:-1], dtype=np.float32, sep=",")


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> PgvectorSource:
    """Open a table; see `unembed.stores.open_vectors`."""
    return PgvectorSource(source, ids_field, vector_field, text_field)
