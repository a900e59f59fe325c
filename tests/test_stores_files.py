"""Vectors from files: every format streams the same vectors, and every fault is one line that says what to do."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tracemalloc
import types
import zipfile

import numpy as np
import pytest

from unembed.errors import InputError, MissingExtra, StorageError, UnembedError, install_line
from unembed.stores import VectorBatch, VectorSource, base, open_vectors, read_vectors

N, D = 10, 4
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
IDS = [f"doc-{i}" for i in range(N)]
TEXTS = [f"text {i} Привет 你好" for i in range(N)]


def write_npy(folder):
    np.save(folder / "v.npy", VECTORS)
    return folder / "v.npy", False


def write_npy_fortran(folder):
    np.save(folder / "f.npy", np.asfortranarray(VECTORS))
    return folder / "f.npy", False


def write_npz(folder):
    np.savez(folder / "v.npz", vectors=VECTORS, ids=np.array(IDS), texts=np.array(TEXTS))
    return folder / "v.npz", True


def write_npz_compressed(folder):
    np.savez_compressed(folder / "c.npz", embedding=np.asfortranarray(VECTORS), ids=np.array(IDS), text=np.array(TEXTS))
    return folder / "c.npz", True


def write_parquet(folder, kind="list"):
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS)
    else:
        types_ = {
            "list": pa.list_(pa.float32()),
            "large": pa.large_list(pa.float32()),
            "fixed": pa.list_(pa.float32(), D),
        }
        column = pa.array(VECTORS.tolist(), type=types_[kind])
    table = pa.table({"id": IDS, "page": list(range(N)), "emb": column, "text": TEXTS})
    pq.write_table(table, folder / f"{kind}.parquet", row_group_size=4)
    return folder / f"{kind}.parquet", True


def jsonl_rows():
    return "".join(
        json.dumps({"id": i, "vector": v.tolist(), "text": t}, ensure_ascii=False) + "\n"
        for i, v, t in zip(IDS, VECTORS, TEXTS, strict=True)
    )


def write_jsonl(folder):
    (folder / "v.jsonl").write_text(jsonl_rows(), encoding="utf-8")
    return folder / "v.jsonl", True


def write_jsonl_gz(folder):
    (folder / "v.jsonl.gz").write_bytes(gzip.compress(jsonl_rows().encode()))
    return folder / "v.jsonl.gz", True


def write_jsonl_lists(folder):
    (folder / "l.NDJSON").write_text("\ufeff" + "\n\n".join(json.dumps(v.tolist()) for v in VECTORS), encoding="utf-8")
    return folder / "l.NDJSON", False


def write_safetensors(folder):
    from safetensors.numpy import save_file

    save_file({"embeddings": VECTORS, "other": np.zeros(3)}, folder / "v.safetensors")
    return folder / "v.safetensors", False


WRITERS = {
    "npy": write_npy,
    "npy-fortran": write_npy_fortran,
    "npz": write_npz,
    "npz-compressed": write_npz_compressed,
    "parquet-list": write_parquet,
    "parquet-large": lambda folder: write_parquet(folder, "large"),
    "parquet-fixed": lambda folder: write_parquet(folder, "fixed"),
    "parquet-tensor": lambda folder: write_parquet(folder, "tensor"),
    "jsonl": write_jsonl,
    "jsonl-gz": write_jsonl_gz,
    "jsonl-lists": write_jsonl_lists,
    "safetensors": write_safetensors,
}


def refused(kind, message, source, **fields):
    """Reading `source` to its end raises `kind`, in one line, with all parts of `message`."""
    with pytest.raises(kind) as caught, open_vectors(source, **fields) as opened:
        list(opened.batches(3))
    text = str(caught.value)
    assert "\n" not in text
    for part in [message] if isinstance(message, str) else message:
        assert part in text, text


# --- the same vectors from every format ---


@pytest.mark.parametrize("size", [1, 3, N, 1000])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format(tmp_path, name, size):
    path, named = WRITERS[name](tmp_path)
    with open_vectors(str(path)) as source:
        assert source.count == (None if "jsonl" in name else N)
        assert source.dim == D
        assert source.dtype == np.float32
        for _ in range(2):  # from the start each time
            batches = list(source.batches(size))
            assert all(1 <= len(batch.ids) == len(batch.vectors) <= size for batch in batches)
            assert all(batch.vectors.dtype == source.dtype for batch in batches)
            np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), VECTORS)
            assert sum((batch.ids for batch in batches), []) == (IDS if named else [str(i) for i in range(N)])
            if named:
                assert sum((batch.texts for batch in batches), []) == TEXTS
            else:
                assert all(batch.texts is None for batch in batches)


@pytest.mark.parametrize("name", WRITERS)
def test_read_vectors(tmp_path, name):
    path, named = WRITERS[name](tmp_path)
    whole = read_vectors(str(path))
    np.testing.assert_array_equal(whole.vectors, VECTORS)
    part = read_vectors(path, limit=3)  # a Path will do, too
    np.testing.assert_array_equal(part.vectors, VECTORS[:3])
    assert len(part.ids) == 3
    assert part.texts == (TEXTS[:3] if named else None)
    with pytest.raises(InputError, match="limit 0"):
        read_vectors(path, limit=0)


@pytest.mark.parametrize("name", ["npz", "parquet-list", "jsonl"])
def test_fields_can_be_left_out(tmp_path, name):
    path, _ = WRITERS[name](tmp_path)
    batch = read_vectors(path, ids_field="", text_field="")
    assert batch.ids == [str(i) for i in range(N)]
    assert batch.texts is None


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", ">f4"])
def test_dtypes_are_kept(tmp_path, dtype):
    array = (VECTORS * 10).astype(dtype)
    np.save(tmp_path / "v.npy", array)
    np.savez(tmp_path / "v.npz", array)
    for name in ("v.npy", "v.npz"):
        with open_vectors(tmp_path / name) as source:
            [batch] = source.batches(N)
        assert batch.vectors.dtype == source.dtype == np.dtype(dtype).newbyteorder("=")
        assert batch.vectors.dtype.isnative
        np.testing.assert_array_equal(batch.vectors, array)


def test_bfloat16_becomes_float32(tmp_path):
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.from_numpy(VECTORS).bfloat16()}, tmp_path / "v.safetensors")
    with open_vectors(tmp_path / "v.safetensors") as source:
        assert source.dtype == np.float32
        [batch] = source.batches(100)
    np.testing.assert_allclose(batch.vectors, VECTORS, rtol=0.01)


def test_safetensors_ids(tmp_path):
    from safetensors.numpy import save_file

    save_file({"vectors": VECTORS, "ids": np.arange(N) * 7}, tmp_path / "v.safetensors")
    assert read_vectors(tmp_path / "v.safetensors").ids == [str(i * 7) for i in range(N)]


def test_one_vector_alone(tmp_path):
    from safetensors.numpy import save_file

    np.save(tmp_path / "v.npy", VECTORS[0])
    np.savez(tmp_path / "v.npz", v=VECTORS[0])
    save_file({"v": VECTORS[0]}, tmp_path / "v.safetensors")
    for name, field in (("v.npy", None), ("v.npz", "v"), ("v.safetensors", "v")):
        np.testing.assert_array_equal(read_vectors(tmp_path / name, vector_field=field).vectors, VECTORS[:1])


def test_nan_is_not_judged_here(tmp_path):
    (tmp_path / "v.jsonl").write_text("[NaN, 1, 1e999]\n[1e300, 2, 3]\n")
    batch = read_vectors(tmp_path / "v.jsonl")
    np.testing.assert_array_equal(batch.vectors, np.array([[np.nan, 1, np.inf], [np.inf, 2, 3]], np.float32))


def test_a_batch_can_be_written_to_and_outlives_the_source(tmp_path):
    for name in ("npy", "npz"):
        path, _ = WRITERS[name](tmp_path)
        batch = read_vectors(path)
        batch.vectors[0, 0] = 5
        np.testing.assert_array_equal(read_vectors(path).vectors, VECTORS)


@pytest.mark.parametrize("name", ["npy", "npz", "jsonl", "parquet", "safetensors"])
def test_streams(tmp_path, name):
    """No more than a part of the file is ever in (Python's or numpy's) memory."""
    big = np.random.default_rng(0).random((20_000, 64), dtype=np.float32)
    path = tmp_path / f"big.{name}"
    if name == "npy":
        np.save(path, big)
    elif name == "npz":
        np.savez_compressed(path, big)
    elif name == "safetensors":
        from safetensors.numpy import save_file

        save_file({"v": big}, path)
    elif name == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"v": pa.FixedSizeListArray.from_arrays(big.ravel(), 64)}), path, row_group_size=1000)
    else:
        with open(path, "w") as file:
            for row in big[:5000].round(3).tolist():
                file.write(json.dumps(row) + "\n")
        big = big[:5000]
    read_vectors(path, limit=1)  # so that what is imported does not count
    tracemalloc.start()
    with open_vectors(path) as source:
        total = sum(len(batch.ids) for batch in source.batches(50))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == len(big)
    assert peak < big.nbytes / 3, peak


# --- standard input ---


def feed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input(monkeypatch):
    feed(monkeypatch, jsonl_rows().encode())
    with open_vectors("-") as source:
        assert source.count is None
        assert source.dim == D
        batches = list(source.batches(4))
        assert [len(batch.ids) for batch in batches] == [4, 4, 2]
        assert batches[0].texts == TEXTS[:4]
        with pytest.raises(InputError, match="only once"):
            list(source.batches(4))


def test_standard_input_faults(monkeypatch):
    feed(monkeypatch, b"")
    refused(InputError, ["standard input", "no vectors"], "-")
    feed(monkeypatch, b"[1, 2]\n[1, 2, 3]\n")
    refused(InputError, ["standard input, line 2", "3 numbers", "has 2"], "-")


# --- names that lead nowhere ---


def test_missing_file_names_the_nearest(tmp_path):
    write_npy(tmp_path)
    (tmp_path / "vectors.parquet").touch()
    refused(InputError, ["no such file", f"did you mean {tmp_path / 'vectors.parquet'}?"], tmp_path / "vectros.parquet")
    refused(InputError, ["no such file", "check the path"], tmp_path / "entirely-different.jsonl")
    refused(InputError, ["the folder", "does not exist"], tmp_path / "nowhere" / "v.npy")
    refused(InputError, ["is a folder", ".parquet"], tmp_path)


def test_unknown_suffix_lists_the_known(tmp_path):
    (tmp_path / "v.csv").touch()
    refused(
        InputError, ["unknown kind of file", ".npy", ".npz", ".parquet", ".jsonl", ".safetensors"], tmp_path / "v.csv"
    )


def test_unknown_scheme(monkeypatch):
    refused(InputError, ["no store of kind 'nosuch'", "a file"], "nosuch://localhost/x")
    monkeypatch.setitem(base.SCHEMES, "mem", "none:none")
    refused(InputError, ["one of", "mem:"], "nosuch://localhost/x")


def test_a_store_is_one_module_and_one_line(monkeypatch):
    class Memory(VectorSource):
        def __init__(self, source, ids_field, vector_field, text_field):
            self.source, self.count, self.dim, self.dtype, self.own_ids = source, 2, D, VECTORS.dtype, True
            self.ids = source.partition("://")[2].split(",")

        def _read(self, size):
            for i, name in enumerate(self.ids):
                yield VectorBatch([name], VECTORS[i : i + 1], None)

    module = types.ModuleType("memory_store")
    module.open_source = lambda source, **fields: Memory(source, **fields)
    monkeypatch.setitem(sys.modules, "memory_store", module)
    monkeypatch.setitem(base.SCHEMES, "mem", "memory_store:open_source")
    assert read_vectors("mem://a,b").ids == ["a", "b"]
    refused(InputError, ["the id 'a' occurs more than once"], "MEM://a,a")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user to whom permissions apply")
def test_no_permission(tmp_path):
    path, _ = write_npy(tmp_path)
    path.chmod(0)
    refused(StorageError, "no permission", path)


# --- wrong fields ---


@pytest.mark.parametrize("name", ["npz", "parquet-list", "jsonl"])
@pytest.mark.parametrize("field", ["ids_field", "vector_field", "text_field"])
def test_wrong_field_lists_those_there(tmp_path, name, field):
    path, _ = WRITERS[name](tmp_path)
    refused(InputError, ["no field 'nope'", "id", "text"], path, **{field: "nope"})


def test_fields_that_the_format_cannot_have(tmp_path):
    for name in ("npy", "jsonl-lists"):
        path, _ = WRITERS[name](tmp_path)
        for field in ("ids_field", "vector_field", "text_field"):
            refused(InputError, "'x'", path, **{field: "x"})
    refused(InputError, "no texts", write_safetensors(tmp_path)[0], text_field="x")
    refused(InputError, ["no field 'x'", "embeddings, other"], write_safetensors(tmp_path)[0], vector_field="x")


def test_which_field_holds_the_vectors(tmp_path):
    np.savez(tmp_path / "two.npz", a=VECTORS, b=VECTORS)
    refused(InputError, ["which field", "a, b"], tmp_path / "two.npz")
    assert len(read_vectors(tmp_path / "two.npz", vector_field="b").ids) == N
    np.savez(tmp_path / "usual.npz", a=VECTORS[:3], embeddings=VECTORS)
    assert len(read_vectors(tmp_path / "usual.npz").ids) == N
    np.savez(tmp_path / "none.npz", a=np.zeros(3), b=np.array(["x"]))
    refused(InputError, ["no field is an array [n, d] of numbers", "a, b"], tmp_path / "none.npz")
    (tmp_path / "o.jsonl").write_text('{"v": [1, 2], "w": "x"}\n')
    assert read_vectors(tmp_path / "o.jsonl").vectors.shape == (1, 2)
    refused(InputError, ["line 1", "'w' is not a list of numbers"], tmp_path / "o.jsonl", vector_field="w")
    refused(InputError, ["'page' is not a column of lists"], write_parquet(tmp_path)[0], vector_field="page")


def test_other_fields_may_serve(tmp_path):
    path, _ = write_parquet(tmp_path)
    batch = read_vectors(path, ids_field="page", text_field="id")
    assert batch.ids == [str(i) for i in range(N)]
    assert batch.texts == IDS


# --- ids and texts ---


@pytest.mark.parametrize("name", ["npz", "parquet", "jsonl"])
@pytest.mark.parametrize("ids", [["a", "b", "c", "a"], ["1", 2, 3, 1]])
def test_duplicate_ids(tmp_path, name, ids):
    ids = [str(i) for i in ids]
    vectors = VECTORS[: len(ids)]
    path = tmp_path / f"v.{name}"
    if name == "npz":
        np.savez(path, vectors=vectors, ids=np.array(ids))
    elif name == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"id": ids, "vector": vectors.tolist()}), path)
    else:
        rows = zip(ids, vectors.tolist(), strict=True)
        path.write_text("".join(json.dumps({"id": i, "vector": v}) + "\n" for i, v in rows))
    refused(InputError, [f"the id {ids[0]!r} occurs more than once", 'or ""'], path)
    assert read_vectors(path, ids_field="").ids == ["0", "1", "2", "3"]


def test_ids_of_other_types(tmp_path):
    (tmp_path / "i.jsonl").write_text('{"id": 12345678901234567890, "vector": [1]}\n{"id": "b", "vector": [2]}\n')
    assert read_vectors(tmp_path / "i.jsonl").ids == ["12345678901234567890", "b"]
    (tmp_path / "b.jsonl").write_text('{"id": 1, "vector": [1]}\n{"id": true, "vector": [2]}\n')
    refused(InputError, ["line 2", "the id is True"], tmp_path / "b.jsonl")
    (tmp_path / "m.jsonl").write_text('{"id": 1, "vector": [1]}\n{"vector": [2]}\n')
    refused(InputError, ["line 2", "no field 'id'; it has: vector"], tmp_path / "m.jsonl")
    np.savez(tmp_path / "s.npz", vectors=VECTORS[:2], ids=np.array([b"x", b"y"]))
    assert read_vectors(tmp_path / "s.npz").ids == ["x", "y"]
    np.savez(tmp_path / "f.npz", vectors=VECTORS[:2], ids=np.array([1.0, 2.0]))
    refused(InputError, ["row 0", "the id is 1.0"], tmp_path / "f.npz")
    np.savez(tmp_path / "n.npz", vectors=VECTORS, ids=np.arange(3))
    refused(InputError, "3 ids for 10 vectors", tmp_path / "n.npz")


def test_a_text_that_is_missing_is_empty(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "t.jsonl").write_text('{"vector": [1], "text": "a"}\n{"vector": [2], "text": null}\n{"vector": [3]}\n')
    assert read_vectors(tmp_path / "t.jsonl").texts == ["a", "", ""]
    table = pa.table({"vector": [[1.0], [2.0]], "text": pa.array(["a", None])})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert read_vectors(tmp_path / "t.parquet").texts == ["a", ""]


def test_texts_must_be_texts(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"vector": [1], "text": "a"}\n{"vector": [2], "text": 7}\n')
    refused(InputError, ["line 2", "int where a text is needed"], tmp_path / "t.jsonl")
    assert read_vectors(tmp_path / "t.jsonl", text_field="").texts is None


# --- damage ---


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "jsonl-lists"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_cut_short(tmp_path, name, share):
    path, _ = WRITERS[name](tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(UnembedError, path.name, path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet", ".jsonl", ".jsonl.gz", ".safetensors"])
def test_not_what_the_name_says(tmp_path, suffix):
    for number, data in enumerate((b"\x00" * 300, b"hello\n" * 50, np.random.default_rng(0).bytes(3000), b"\x80\x04.")):
        path = tmp_path / f"bad{number}{suffix}"
        path.write_bytes(data)
        refused(UnembedError, path.name, path)


def test_a_flipped_byte_in_a_compressed_array(tmp_path):
    path, _ = write_npz(tmp_path)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("vectors.npy").header_offset + 300
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    refused(StorageError, "CRC", path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [1, 3, N, 100])
def test_the_checksum_of_an_array_is_compared(tmp_path, compressed, size):
    path = tmp_path / "v.npz"
    (np.savez_compressed if compressed else np.savez)(path, VECTORS)
    with zipfile.ZipFile(path) as archive:
        crc = archive.infolist()[0].CRC
    path.write_bytes(path.read_bytes().replace(crc.to_bytes(4, "little"), (crc ^ 1).to_bytes(4, "little")))
    with pytest.raises(StorageError, match="CRC"), open_vectors(path) as source:
        list(source.batches(size))


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("pickle-was-loaded",))


def test_objects_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.array([[Bomb(), 1.0]], dtype=object)
    np.save("v.npy", array, allow_pickle=True)
    np.savez("v.npz", vectors=array)
    np.savez("ids.npz", vectors=VECTORS[:2], ids=array[0])
    (tmp_path / "raw.npy").write_bytes(b"\x80\x04cos\nmkdir\n(Vpickle-was-loaded\ntR.")
    refused(InputError, "Python objects", "v.npy")
    refused(InputError, "Python objects", "v.npz", vector_field="vectors")
    refused(InputError, "no field is an array", "v.npz")
    refused(InputError, ["'ids'", "Python objects"], "ids.npz")
    refused(StorageError, "raw.npy", "raw.npy")
    assert not (tmp_path / "pickle-was-loaded").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4), np.float32), "no vectors"),
        (np.zeros((3, 0), np.float32), "no vectors"),
        (np.zeros((2, 3, 4)), "shape [2, 3, 4]"),
        (np.float32(3), "shape []"),
        (np.array([["a", "b"]]), "not numbers"),
        (np.zeros((2, 2), bool), "not numbers"),
        (np.zeros((2, 2), complex), "not numbers"),
        (np.zeros(3, [("x", "f4")]), "not numbers"),
    ],
)
def test_arrays_that_are_no_vectors(tmp_path, array, message):
    np.save(tmp_path / "v.npy", array)
    np.savez(tmp_path / "v.npz", x=array)
    refused(InputError, message, tmp_path / "v.npy")
    refused(InputError, message, tmp_path / "v.npz", vector_field="x")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no vectors"),
        ("\n \n", "no vectors"),
        ("[1, 2]\n\n[1, 2, 3]\n", ["line 3", "3 numbers where the first has 2"]),
        ("[1, 2]\n[1, 2", ["line 2", "not JSON, or cut short"]),
        ('[1, 2]\n{"vector": [1, 2]}\n', ["line 2", "dict where a list is needed"]),
        ('{"vector": [1, 2]}\n[1, 2]\n', ["line 2", "list where an object is needed"]),
        ("3\n", ["line 1", "int where a list"]),
        ("null\n", ["line 1", "NoneType where a list"]),
        ("[]\n", ["line 1", "not a list of numbers"]),
        ('[1, 2]\n[1, "2"]\n', ["line 2", "not a list of numbers"]),
        ("[1, 2]\n[1, null]\n", ["line 2", "not a list of numbers"]),
        ("[1, 2]\n[true, 2]\n", ["line 2", "not a list of numbers"]),
        ("[1, 2]\n[[1], [2]]\n", ["line 2", "not a list of numbers"]),
        ('{"vector": [1]}\n{"embedding": [1]}\n', ["line 2", "no field 'vector'; it has: embedding"]),
        ('{"name": "x"}\n', ["line 1", "no field is a list of numbers; it has: name"]),
        ("{}\n", ["line 1", "no field is a list of numbers; it has: none"]),
        ("[1, 2]\n[" + "1" * 400 + ", 2]\n", ["line 2", "too large"]),
        ("[1]\n" + "[" * 200_000 + "\n", ["line 2", "not JSON"]),
    ],
)
def test_jsonl_faults_name_the_line(tmp_path, lines, message):
    (tmp_path / "v.jsonl").write_text(lines)
    refused(InputError, message, tmp_path / "v.jsonl")


def test_jsonl_must_be_utf8(tmp_path):
    (tmp_path / "v.jsonl").write_bytes('{"vector": [1], "text": "é"}\n'.encode("latin-1"))
    refused(InputError, ["line 1", "not UTF-8"], tmp_path / "v.jsonl")


def test_parquet_faults_name_the_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "v.parquet"

    def write(values, kind=None):
        pq.write_table(pa.table({"vector": pa.array(values, type=kind)}), path)

    write([[1.0, 2.0]] * 4 + [[1.0]])
    refused(InputError, ["row 4", "1 numbers where the first has 2"], path)
    write([[1.0, 2.0]] * 4 + [None])
    refused(InputError, ["row 4", "no vector"], path)
    write([None, [1.0]])
    refused(InputError, ["row 0", "no vector"], path)
    write([[], []], pa.list_(pa.float32()))
    refused(InputError, ["row 0", "0 numbers"], path)
    write([[1, 2], [3, None]], pa.list_(pa.int32()))
    refused(InputError, "whole number is missing", path)
    write([[1.0, 2.0], [3.0, None]])
    assert np.isnan(read_vectors(path).vectors[1, 1])
    write([], pa.list_(pa.float32()))
    refused(InputError, "no rows", path)
    write([["a"], ["b"]])
    refused(InputError, "no field is a column of lists of numbers; it has: vector", path)
    pq.write_table(pa.table({"vector": [[1.0], [2.0]], "id": ["a", None]}), path)
    refused(InputError, ["row 1", "the id is None"], path)


def test_parquet_keeps_nothing_of_what_was_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, rows = tmp_path / "v.parquet", np.random.default_rng(0).standard_normal((40_000, 64), dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(rows.ravel(), 64)
    pq.write_table(pa.table({"vector": vectors}), path, row_group_size=2000)
    before, most = pa.total_allocated_bytes(), 0
    with open_vectors(str(path)) as source:
        for _ in source.batches(500):
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < rows.nbytes / 4


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    path, _ = write_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(MissingExtra, install_line("parquet"), path)


def test_batch_size_must_be_positive(tmp_path):
    with open_vectors(write_npy(tmp_path)[0]) as source, pytest.raises(InputError, match="batch size 0"):
        source.batches(0)
