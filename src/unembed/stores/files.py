"""Vectors in files, picked by suffix: .npy, .npz, .parquet, .jsonl(.gz), .safetensors; `-` is standard input.

Notable:
- Everything streams: .npy is memory-mapped, an array inside an .npz is decompressed batch by batch, tensors are sliced.
- No pickle, ever: an array of Python objects is refused.

To add a format: one new file and one line in `FORMATS`.
"""

from __future__ import annotations

import difflib
import importlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from unembed.errors import InputError, StorageError
from unembed.stores.base import VectorBatch, VectorSource
from unembed.stores.fields import IDS, TEXTS, check_numeric, check_text, choose, choose_vectors, id_text, readable

# suffix -> "module:class"; a class takes (path, ids_field, vector_field, text_field).
FORMATS: dict[str, str] = {
    ".npy": "unembed.stores.files:NpySource",
    ".npz": "unembed.stores.files:NpzSource",
    ".safetensors": "unembed.stores.files:SafetensorsSource",
    ".parquet": "unembed.stores.parquet:ParquetSource",
    ".jsonl": "unembed.stores.jsonl:JsonlSource",
    ".jsonl.gz": "unembed.stores.jsonl:JsonlSource",
    ".ndjson": "unembed.stores.jsonl:JsonlSource",
    ".faiss": "unembed.stores.faiss:FaissSource",
}


def open_source(
    source: str, *, ids_field: str | None = None, vector_field: str | None = None, text_field: str | None = None
) -> VectorSource:
    """Open a file by its suffix, or standard input (`-`); see `unembed.stores.open_vectors`."""
    if source == "-":
        suffix = ".jsonl"
    else:
        path = Path(source)
        # The missing file first: a mistyped name often has a mistyped suffix, too.
        _check_exists(path)
        name = path.name.lower()
        suffix = max((known for known in FORMATS if name.endswith(known)), key=len, default="")
        if not suffix:
            raise InputError(f"{source}: unknown kind of file; known suffixes: {', '.join(FORMATS)}")
    module, cls = FORMATS[suffix].split(":")
    opener: Any = getattr(importlib.import_module(module), cls)
    return opener(source, ids_field, vector_field, text_field)


def _check_exists(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file in it ({', '.join(FORMATS)})")
        if path.exists():
            return
        neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else None
    except OSError as error:
        raise StorageError(f"{path}: cannot be looked at ({error.strerror}); check the folder's permissions") from error
    if neighbours is None:
        raise InputError(f"{path}: the folder {path.parent} does not exist; check the path")
    nearest = difflib.get_close_matches(path.name, neighbours, n=1, cutoff=0.5)
    hint = f"did you mean {path.parent / nearest[0]}?" if nearest else "check the path"
    raise InputError(f"{path}: no such file; {hint}")


def _rows_and_dim(source: str, what: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """(n, d) of an array [n, d], or of one vector [d]; InputError for another shape or for no vectors."""
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2:
        raise InputError(f"{source}: {what} has shape {list(shape)}; vectors are [n, d] (or [d] for one)")
    if not shape[0] or not shape[1]:
        raise InputError(f"{source}: {what} has shape {list(shape)}, so no vectors; give at least one")
    return shape[0], shape[1]


class _ArraySource(VectorSource):
    """Vectors of known shape, with ids and texts (if any) beside them in memory."""

    count: int
    _ids: list[str] | None = None
    _texts: list[str] | None = None

    def _arrays(self, size: int) -> Iterator[np.ndarray]:
        """Yield [n, d] arrays, n <= size, from the start, in either byte order."""
        raise NotImplementedError

    def _read(self, size: int) -> Iterator[VectorBatch]:
        start = 0
        for vectors in self._arrays(size):
            stop = start + len(vectors)
            ids = [str(i) for i in range(start, stop)] if self._ids is None else self._ids[start:stop]
            texts = None if self._texts is None else self._texts[start:stop]
            yield VectorBatch(ids, vectors.astype(self.dtype, copy=False), texts)
            start = stop

    def _set_beside(self, ids: list[Any] | None, texts: list[Any] | None) -> None:
        """Check and keep what stands beside the vectors."""
        for what, values in (("ids", ids), ("texts", texts)):
            if values is not None and len(values) != self.count:
                raise InputError(f"{self.source}: {len(values)} {what} for {self.count} vectors; they must go together")
        if ids is not None:
            self._ids = [id_text(value, f"{self.source}, row {row}") for row, value in enumerate(ids)]
            self.own_ids = True
        if texts is not None:
            self._texts = [check_text(value, f"{self.source}, row {row}") for row, value in enumerate(texts)]


class NpySource(_ArraySource):
    """A .npy file, memory-mapped."""

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        for what, name in (("ids", ids_field), ("vectors", vector_field), ("texts", text_field)):
            if name:
                raise InputError(f"{source}: a .npy file has no field {name!r} for the {what}, only one array")
        self.source = source
        with readable(source), open(source, "rb") as file:
            shape, _, dtype = _npy_header(file)
        check_numeric(source, "the array", dtype)
        self.count, self.dim = _rows_and_dim(source, "the array", shape)
        self.dtype = dtype.newbyteorder("=")  # torch takes no other byte order
        self._map()  # a file that is cut short is reported now, not after an hour

    def _map(self) -> np.ndarray:
        with readable(self.source):
            return np.lib.format.open_memmap(self.source, mode="r").reshape(self.count, self.dim)

    def _arrays(self, size: int) -> Iterator[np.ndarray]:
        array = self._map()
        for start in range(0, self.count, size):
            # A copy, so that no batch keeps the file mapped.
            yield np.array(array[start : start + size])


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, dtype) of an open .npy stream, which is left at its first number."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    # Version 3 differs from 2 only in the names of structured fields, which vectors do not have.
    return np.lib.format.read_array_header_2_0(file)


class NpzSource(_ArraySource):
    """One array of an .npz archive; arrays of ids and texts may stand beside it."""

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        self.source = source
        headers: dict[str, tuple[tuple[int, ...], bool, np.dtype]] = {}
        with readable(source), zipfile.ZipFile(source) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        headers[member.removesuffix(".npy")] = _npy_header(file)
        names = list(headers)
        fitting = [name for name, (shape, _, dtype) in headers.items() if len(shape) == 2 and dtype.kind in "fiu"]
        if vector_field in headers:
            # Asked for by name: a single vector [d] will do, and every fault gets its own message.
            shape, _, dtype = headers[vector_field]
            check_numeric(source, f"the array {vector_field!r}", dtype)
            fitting.append(vector_field)
        self._name = choose_vectors(source, vector_field, names, fitting, "an array [n, d] of numbers")
        shape, self._fortran, self._stored = headers[self._name]
        self.dtype = self._stored.newbyteorder("=")
        self.count, self.dim = _rows_and_dim(source, f"the array {self._name!r}", shape)
        beside = []
        for what, asked, usual in (("ids", ids_field, IDS), ("texts", text_field, TEXTS)):
            name = choose(source, what, asked, names, usual)
            if name is not None and headers[name][2].hasobject:
                raise InputError(
                    f"{source}: {name!r} holds Python objects, which are never loaded; save it as dtype=str"
                )
            beside.append(self._list(name))
        self._set_beside(*beside)

    def _list(self, name: str | None) -> list[Any] | None:
        if name is None:
            return None
        with readable(self.source), np.load(self.source, allow_pickle=False) as archive:
            array = archive[name]
            array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        if array.ndim != 1:
            raise InputError(f"{self.source}: {name!r} has shape {list(array.shape)}; one entry per vector is needed")
        return array.tolist()

    def _arrays(self, size: int) -> Iterator[np.ndarray]:
        if self._fortran:  # stored column by column: no row is there before the end
            with readable(self.source), np.load(self.source, allow_pickle=False) as archive:
                array = archive[self._name].reshape(self.count, self.dim)
            for start in range(0, self.count, size):
                yield array[start : start + size]
            return
        width = self.dim * self._stored.itemsize
        with readable(self.source):
            archive = zipfile.ZipFile(self.source)
        with archive:
            with readable(self.source):
                file = archive.open(f"{self._name}.npy")
                _npy_header(file)
            with file:
                for start in range(0, self.count, size):
                    rows = min(size, self.count - start)
                    with readable(self.source):
                        # An archive that ends too early fails here; reading the last row compares the checksum.
                        flat = np.frombuffer(file.read(rows * width), dtype=self._stored, count=rows * self.dim)
                    yield flat.reshape(rows, self.dim).copy()


class SafetensorsSource(_ArraySource):
    """One tensor [n, d] of a .safetensors file; a tensor [n] of whole numbers may hold the ids."""

    def __init__(self, source: str, ids_field: str | None, vector_field: str | None, text_field: str | None) -> None:
        if text_field:
            raise InputError(f"{source}: a .safetensors file holds no texts; leave out the text field {text_field!r}")
        self.source = source
        with readable(source), self._open("numpy") as file:
            names = list(file.keys())
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            kinds = {name: str(file.get_slice(name).get_dtype()) for name in names}
        fitting = [name for name in names if len(shapes[name]) == 2 or name == vector_field]
        self._name = choose_vectors(source, vector_field, names, fitting, "a tensor [n, d]")
        self.count, self.dim = _rows_and_dim(source, f"the tensor {self._name!r}", shapes[self._name])
        # numpy has no bfloat16 and no float8: torch reads these, and they come out as float32.
        self._framework = "pt" if kinds[self._name].startswith(("BF", "F8", "F4", "F6")) else "numpy"
        self.dtype = np.dtype(np.float32) if self._framework == "pt" else self._slice(slice(0, 1)).dtype
        check_numeric(source, f"the tensor {self._name!r}", self.dtype)
        ids = choose(source, "ids", ids_field, names, IDS)
        if ids is not None:
            with readable(source), self._open("numpy") as file:
                numbers = file.get_tensor(ids)
            if numbers.ndim != 1:
                raise InputError(f"{source}: {ids!r} has shape {list(numbers.shape)}; one id per vector is needed")
            self._set_beside(numbers.tolist(), None)

    def _open(self, framework: str) -> Any:
        from safetensors import safe_open

        return safe_open(self.source, framework=framework)

    def _slice(self, rows: slice) -> np.ndarray:
        with readable(self.source), self._open(self._framework) as file:
            tensor = file.get_slice(self._name)
            part = tensor[rows] if len(tensor.get_shape()) == 2 else tensor[:]
            array = part.float().numpy() if self._framework == "pt" else part
        return array.reshape(-1, self.dim)

    def _arrays(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, self.count, size):
            yield self._slice(slice(start, min(start + size, self.count)))
