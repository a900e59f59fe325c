"""Vectors in a Parquet file. Needs the extra `parquet`.

Row groups are read in batches, and only the columns that are needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unembed.errors import require
from unembed.stores.arrow import ArrowSource
from unembed.stores.fields import readable


class ParquetSource(ArrowSource):
    """A .parquet file."""

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        parquet = require("pyarrow.parquet", "parquet")
        self.source = source
        with readable(source):
            # Reading ahead would keep all of the file that has been read.
            self._file = parquet.ParquetFile(source, pre_buffer=False)
            schema = self._file.schema_arrow
            self.count = self._file.metadata.num_rows
        try:
            self._choose(schema, ids_field, vector_field, text_field)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _columns(self, size: int) -> Iterator[dict[str, Any]]:
        with readable(self.source):
            batches = self._file.iter_batches(batch_size=size, columns=self._wanted)
        while True:
            with readable(self.source):
                batch = next(batches, None)
                columns = None if batch is None else {name: batch.column(name) for name in self._wanted}
            if columns is None:
                return
            yield columns
