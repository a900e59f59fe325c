"""A stand-in for Qdrant's server, for bench_stores.py: it makes the points up as they are asked for and keeps none.

    python benchmarks/qdrant_stand_in.py POINTS DIM

prints its port and answers until it is stopped. It knows the requests that unembed makes (the collections, one of
them, its count, a scroll by offset), in the form of Qdrant's REST interface, and no other. What is measured with it is
the reader and Qdrant's client; it says nothing about how fast Qdrant's own server gives its points.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import orjson  # comes with Chroma; it writes a float32 with as few digits as Qdrant does, json would with twice as many

COLLECTION = "docs"


def vector(point: int, dim: int) -> np.ndarray:
    """The unit vector float32 [dim] of a point: its id decides, not the page that it is on."""
    row = np.random.default_rng(point).standard_normal(dim, dtype=np.float32)
    return row / np.linalg.norm(row)


def answer(request: str, body: dict[str, Any], n: int, dim: int) -> dict[str, Any] | None:
    """The result of a request, None for one that is not known."""
    collection = f"/collections/{COLLECTION}"
    if request == "GET /collections":
        return {"collections": [{"name": COLLECTION}]}
    if request == f"GET {collection}":
        config = {
            "params": {"vectors": {"size": dim, "distance": "Cosine"}},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {"default_segment_number": 0, "flush_interval_sec": 5},
        }
        state = {"status": "green", "optimizer_status": "ok", "points_count": n, "segments_count": 1}
        return {**state, "config": config, "payload_schema": {}}
    if request == f"POST {collection}/points/count":
        return {"count": n}
    if request == f"POST {collection}/points/scroll":
        first = body.get("offset") or 0
        after = min(first + body["limit"], n)
        payload = {} if body["with_payload"] else None
        points = [
            {"id": point, "payload": payload, "vector": vector(point, dim) if body.get("with_vector") else None}
            for point in range(first, after)
        ]
        return {"points": points, "next_page_offset": after if after < n else None}
    return None


def serve(n: int, dim: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            result = answer(f"{self.command} {self.path.partition('?')[0]}", body, n, dim)
            status = "ok" if result else {"error": f"no answer to {self.command} {self.path}"}
            content = {"result": result, "status": status, "time": 0.001}
            data = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
            self.send_response(200 if result else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:]))
