"""What sources of arrow columns share: a column of lists, or of fixed-size lists, of numbers, and others beside it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from unembed.errors import InputError, require
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import IDS, TEXTS, check_text, choose, choose_vectors, id_text, readable


class ArrowSource(VectorSource):
    """A table with a column of vectors. A subclass opens it, calls `_choose` and yields columns."""

    count: int

    @abstractmethod
    def _columns(self, size: int) -> Iterator[dict[str, Any]]:
        """Yield {column: arrow array} of at most `size` rows, of the columns in `_wanted`."""

    def _choose(self, schema: Any, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        """Find the columns in an arrow schema, and the dimension in the first row."""
        names = list(schema.names)
        fitting = [name for name in names if _number_type(schema.field(name).type) is not None]
        self._vectors = choose_vectors(self.source, vector_field, names, fitting, "a column of lists of numbers")
        self._ids = choose(self.source, "ids", ids_field, names, IDS)
        self._texts = choose(self.source, "texts", text_field, names, TEXTS)
        self._wanted = list(dict.fromkeys(name for name in (self._vectors, self._ids, self._texts) if name is not None))
        self.fields = [name for name in names if name not in self._wanted]
        if not self.count:
            raise InputError(f"{self.source}: no rows in it; give one with at least one vector")
        self.own_ids = self._ids is not None
        number: Any = _number_type(schema.field(self._vectors).type)  # not None, as the column is fitting
        self.dtype = np.dtype(number.to_pandas_dtype())
        first = _storage(next(self._columns(1))[self._vectors])
        # Without a first vector there is no dimension to expect; the check says so.
        self.dim = 0 if first.null_count else int(first.value_lengths()[0].as_py())
        self._check_lists(first, 0)

    def _check_lists(self, column: Any, row: int) -> None:
        """InputError unless the lists in a column, whose first row is number `row`, are all there and of one length."""
        if column.null_count:
            missing = row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise InputError(f"{self.source}, row {missing}: no vector in {self._vectors!r}; leave that row out")
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        other = np.flatnonzero((lengths != self.dim) | (lengths == 0))
        if len(other):
            found = f"a vector of {lengths[other[0]]} numbers where the first has {self.dim}"
            raise InputError(f"{self.source}, row {row + other[0]}: {found}; mend or remove that row")

    def _read(self, size: int) -> Iterator[VectorBatch]:
        row = 0
        for columns in self._columns(size):
            vectors = _storage(columns[self._vectors])
            self._check_lists(vectors, row)
            flat = vectors.flatten()  # unlike .values, it minds the offset of a slice
            if flat.null_count and self.dtype.kind != "f":
                raise InputError(
                    f"{self.source}, rows from {row}: a whole number is missing inside a vector; fill it in"
                )
            with readable(self.source):
                numbers = flat.to_numpy(zero_copy_only=False).astype(self.dtype, copy=False)  # a missing float is NaN
            n = len(vectors)
            ids = [str(row + i) for i in range(n)]
            if self._ids is not None:
                values = columns[self._ids].to_pylist()
                ids = [id_text(value, f"{self.source}, row {row + i}") for i, value in enumerate(values)]
            texts = None
            if self._texts is not None:
                values = columns[self._texts].to_pylist()
                texts = [check_text(value, f"{self.source}, row {row + i}") for i, value in enumerate(values)]
            yield VectorBatch(ids, numbers.reshape(n, self.dim), texts)
            row += n


def _storage(column: Any) -> Any:
    """The list array behind an array of fixed-shape tensors; any other array as it is."""
    return getattr(column, "storage", column)


def _number_type(kind: Any) -> Any | None:
    """The arrow type of the numbers in a list type (or in a fixed-shape tensor); None for any other type."""
    types = require("pyarrow.types", "parquet")
    kind = getattr(kind, "storage_type", kind)
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return None
    number = kind.value_type
    return number if types.is_floating(number) or types.is_integer(number) else None
