"""Vectors in a LanceDB table: `lancedb:FOLDER#TABLE`. Needs the extra `lancedb`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unembed.errors import require
from unembed.stores.address import existing, one_of, split
from unembed.stores.arrow import ArrowSource
from unembed.stores.fields import readable


class LanceSource(ArrowSource):
    """One table, at the version that it has when it is opened."""

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        lancedb = require("lancedb", "lancedb")
        self.source = source
        folder, asked = split(source)
        path = existing(source, Path(folder))
        with readable(source):
            database = lancedb.connect(str(path))
            names = list(database.list_tables().tables)
        with readable(source):
            self._table = database.open_table(one_of(source, "table", names, asked))
            self._table.checkout(self._table.version)
            self.count = self._table.count_rows()
            schema = self._table.schema
        self._choose(schema, ids_field, vector_field, text_field)

    def _columns(self, size: int) -> Iterator[dict[str, Any]]:
        with readable(self.source):
            batches = iter(self._table.search().select(self._wanted).to_batches(batch_size=size))
        while True:
            with readable(self.source):
                batch = next(batches, None)
            if batch is None:
                return
            for start in range(0, batch.num_rows, size):
                part = batch.slice(start, size)
                yield {name: part.column(name) for name in self._wanted}


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> LanceSource:
    """Open a table; see `unembed.stores.open_vectors`."""
    return LanceSource(source, ids_field, vector_field, text_field)
