"""The part of Qdrant's REST interface that reads, over HTTP, on a store of its local mode: the form of its answers is
the published one, and their content comes from the client's own implementation. A real server needs a binary."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

KEY = "test-key"


@contextmanager
def serve(folder: str | Path, stops_after: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yields HOST:PORT, and the requests so far. After `stops_after` scrolls it answers with an error."""
    store, lock, seen = QdrantClient(path=str(folder)), threading.Lock(), []

    def answer(path: list[str], body: dict[str, Any]) -> Any:
        match path:
            case ["collections"]:
                return store.get_collections()
            case ["collections", name]:
                return store.get_collection(name)
            case ["collections", name, "points", "count"]:
                return store.count(name, exact=body["exact"])
            case ["collections", name, "points", "scroll"]:
                if stops_after is not None and sum("scroll" in line for line in seen) > stops_after:
                    raise OSError("out of disk")
                keys = "limit", "offset", "with_payload"
                points, following = store.scroll(
                    name, with_vectors=body.get("with_vector", False), **{key: body[key] for key in keys if key in body}
                )
                return {"points": [point.model_dump(mode="json") for point in points], "next_page_offset": following}
        raise KeyError(path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            seen.append(f"{self.command} {self.path}")
            if self.headers.get("api-key") != KEY:
                return self.reply(403, {"status": {"error": "Must provide an API key"}})
            try:
                with lock:
                    result = answer(self.path.split("?")[0].strip("/").split("/"), body)
            except OSError as error:
                return self.reply(500, {"status": {"error": str(error)}})
            content = result if isinstance(result, dict) else result.model_dump(mode="json")
            return self.reply(200, {"result": content, "status": "ok", "time": 0.001})

        do_POST = do_GET

        def reply(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        store.close()
