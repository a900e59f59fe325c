"""The OpenAI-compatible embedder against a real HTTP server on this machine, backed by the real MiniLM."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx", reason="needs the extra `api`")

from unembed.embedders import Embedder, check_match, embedder
from unembed.embedders.api import OpenAICompatibleEmbedder
from unembed.embedders.default import package_folder
from unembed.embedders.spec import FINGERPRINT_TEXTS
from unembed.errors import InputError, MissingExtra, SpecMismatch, install_line

Reply = tuple[int, dict[str, Any] | str, dict[str, str]]
TEXTS = ["Hello World", "Jack Morris lives in New York", "a", "The Quick Fox"]
PROBES = len(FINGERPRINT_TEXTS) + 2


class Server:
    """Speaks `POST /v1/embeddings`. `trouble` holds replies to give first; `change` alters the vectors."""

    def __init__(self, encode: Callable[[list[str]], np.ndarray]) -> None:
        self.encode = encode
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.trouble: list[Reply | float] = []
        self.change: Callable[[np.ndarray], np.ndarray] = lambda vectors: vectors
        self.answer: Callable[[list[dict[str, Any]]], Any] = lambda data: {"object": "list", "data": data}
        self.max_batch = 2048
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.requests.append(body)
                server.headers.append({key.lower(): value for key, value in self.headers.items()})
                status, said, headers = server.reply(self.path, body)
                payload = (said if isinstance(said, str) else json.dumps(said)).encode()
                self.send_response(status)
                for key, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def reply(self, path: str, body: dict[str, Any]) -> Reply:
        if self.trouble:
            trouble = self.trouble.pop(0)
            if not isinstance(trouble, float):
                return trouble
            time.sleep(trouble)
        if path != "/v1/embeddings":
            return 404, {"error": {"message": "Not Found"}}, {}
        if len(body["input"]) > self.max_batch:
            return 413, {"error": f"batch size {len(body['input'])} > maximum allowed batch size {self.max_batch}"}, {}
        vectors = self.change(self.encode(body["input"]).astype("<f4"))
        if body.get("dimensions"):
            vectors = vectors[:, : body["dimensions"]]
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        coded = body["encoding_format"] == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": base64.b64encode(v).decode() if coded else v.tolist()}
            for i, v in enumerate(vectors.astype("<f4"))
        ]
        return 200, self.answer(data[::-1]), {}  # out of order, as the protocol allows


@pytest.fixture
def server(minilm: Embedder) -> Iterator[Server]:
    running = Server(minilm.probe)
    yield running
    running.http.shutdown()
    running.http.server_close()


def client(server: Server, **options: Any) -> OpenAICompatibleEmbedder:
    return OpenAICompatibleEmbedder("minilm", server.url, **{"backoff": 0.01, "timeout": 10.0, **options})


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_same_vectors_as_the_model_behind_the_server(server: Server, minilm: Embedder, encoding_format: str) -> None:
    mine = client(server, encoding_format=encoding_format)
    np.testing.assert_allclose(mine.encode(TEXTS), minilm.probe(TEXTS), atol=1e-6)
    assert mine.queries == len(TEXTS) and mine.encode([]).shape == (0, 384)
    assert server.requests[0] == {"model": "minilm", "input": TEXTS, "encoding_format": encoding_format}
    assert "authorization" not in server.headers[0]


def test_the_spec_is_measured_and_matches_the_local_model(server: Server, minilm: Embedder) -> None:
    mine = client(server)
    spec = mine.spec
    assert (spec.dim, spec.normalized, spec.cased, spec.pooling) == (384, True, False, "unknown")
    assert spec.id == f"api:{server.url}#minilm" and len(server.requests) == 1
    assert (mine.probes, mine.queries) == (PROBES, 0)
    check_match(minilm.spec, spec)  # another name, the same fingerprint
    again = embedder(spec.id, device="cpu", dtype="float32")
    assert isinstance(again, OpenAICompatibleEmbedder) and again.base_url == server.url and again.model == "minilm"
    server.change = lambda vectors: np.roll(vectors, 1, axis=1)
    with pytest.raises(SpecMismatch, match="fingerprints"):
        check_match(minilm.spec, again.spec)


def test_a_cased_unnormalised_server_is_recognised(server: Server) -> None:
    server.encode = lambda texts: np.array([[len(text), sum(map(ord, text)), 5.0] for text in texts])
    spec = client(server).spec
    assert (spec.dim, spec.normalized, spec.cased) == (3, False, True)


def test_options_reach_the_server(server: Server, minilm: Embedder) -> None:
    mine = client(server, dimensions=64, prefix="query: ", extra={"input_type": "document"})
    vectors = mine.encode(["x"])
    assert vectors.shape == (1, 64) and mine.spec.dim == 64 and mine.spec.prefix == "query: "
    body = server.requests[0]
    assert (body["input"], body["dimensions"], body["input_type"]) == (["query: x"], 64, "document")


def test_batches_by_count_and_by_characters(server: Server) -> None:
    client(server, batch_size=2).encode(TEXTS)
    assert [len(body["input"]) for body in server.requests] == [2, 2]
    server.requests.clear()
    client(server, batch_chars=30).encode(["x" * 20, "y" * 20, "z" * 5, "w" * 100, "v"])
    assert [[text[0] for text in body["input"]] for body in server.requests] == [["x"], ["y", "z"], ["w"], ["v"]]


def test_a_batch_that_is_too_large_is_halved(server: Server, minilm: Embedder) -> None:
    server.max_batch = 2
    mine = client(server)
    texts = [*TEXTS, "five"]
    np.testing.assert_allclose(mine.encode(texts), minilm.probe(texts), atol=1e-6)
    assert mine.batch_size == 2
    server.max_batch = 0
    with pytest.raises(InputError, match="status 413"):
        mine.encode(["x"])


def test_busy_servers_are_retried(server: Server, minilm: Embedder) -> None:
    server.trouble = [
        (429, "slow down", {"retry-after": "0.02"}),
        (503, "", {}),
        (500, "oops", {"retry-after": "soon"}),
    ]
    np.testing.assert_allclose(client(server).encode(TEXTS), minilm.probe(TEXTS), atol=1e-6)
    assert len(server.requests) == 4


def test_a_slow_answer_is_retried_then_named(server: Server) -> None:
    server.trouble = [0.6]
    mine = client(server, timeout=0.3, max_retries=1)
    assert mine.encode(["x"]).shape == (1, 384)
    server.trouble = [0.6, 0.6]
    with pytest.raises(InputError, match=r"no answer .* within 0.3 s"):
        mine.encode(["x"])


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, {"error": {"message": "Incorrect API key: sk-secret"}}, {}), r"status 401 .*key in MY_KEY"),
        ((403, {"detail": "no"}, {}), "status 403"),
        ((404, {"error": {"message": "model not found"}}, {}), r"no model 'minilm' at .*model not found"),
        ((429, {"error": {"message": "later"}}, {}), "limits the rate or the quota"),
        ((429, {"error": {"code": "insufficient_quota"}}, {}), "quota"),
        ((500, "<html>broken\n</html>", {}), r"fails, status 500 \(<html>broken </html>\)"),
        ((422, {"message": "input too long"}, {}), "refuses the request, status 422 .input too long.; shorten"),
        ((302, "", {"location": "http://elsewhere"}), "redirects elsewhere"),
        ((200, "<html>a web page</html>", {}), "does not answer like an OpenAI embeddings API"),
        ((200, {"embeddings": [[1.0]]}, {}), "does not answer like"),
        ((200, {"data": [{"embedding": "not base64!"}]}, {}), "does not answer like"),
        ((200, {"data": [{"embedding": [[1.0]]}]}, {}), "does not answer like"),
        ((200, {"data": ["x"]}, {}), "does not answer like"),
        ((200, {"data": []}, {}), "gave 0 vectors, 0 of them numbered apart, for 1 texts"),
        ((200, {"data": [{"embedding": []}]}, {}), "different sizes"),
        ((200, {"data": [{"embedding": [None, 1.0]}]}, {}), "NaN or infinity|does not answer"),
    ],
)
def test_errors_are_one_line_without_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, message: str
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.trouble = [reply] * 2
    mine = client(server, api_key_env="MY_KEY", max_retries=1)
    with pytest.raises(InputError, match=message) as caught:
        mine.encode(["x"])
    said = str(caught.value)
    assert "\n" not in said and "sk-secret" not in said and "sk-secret" not in repr(mine)
    assert server.headers[0]["authorization"] == "Bearer sk-secret"


def test_lost_doubled_and_unequal_vectors_are_caught(server: Server) -> None:
    for answer, message in [
        (lambda data: {"data": data[:1]}, "gave 1 vectors"),
        (lambda data: {"data": data * 2}, "does not answer like|gave 4 vectors"),
        (lambda data: {"data": [{**item, "index": 0} for item in data]}, "1 of them numbered apart"),
        (lambda data: {"data": [data[0], {**data[1], "embedding": [1.0]}]}, "different sizes"),
    ]:
        server.answer = answer
        with pytest.raises(InputError, match=message):
            client(server).encode(["a", "b"])


def test_a_server_that_changes_its_mind_is_noticed(server: Server) -> None:
    mine = client(server)
    assert mine.spec.dim == 384
    server.change = lambda vectors: vectors[:, :100]
    with pytest.raises(SpecMismatch, match="now gives 100 dimensions, before it gave 384"):
        mine.encode(["x"])
    server.change = lambda vectors: vectors * 3
    with pytest.raises(SpecMismatch, match="length 3 to 3 after vectors of length 1"):
        mine.encode(["x"])
    server.change = lambda vectors: vectors
    with pytest.raises(InputError, match="gave 384 dimensions, 500 were asked for"):
        client(server, dimensions=500).encode(["x"])


def test_wrong_addresses_and_keys(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.http.server_port
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(InputError, match="cannot connect to http://127.0.0.1") as caught:
        client(server).encode(["x"])
    assert str(port) in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    openai = embedder("openai:text-embedding-3-small", dimensions=256)
    assert repr(openai) == "OpenAICompatibleEmbedder('openai:text-embedding-3-small')"
    with pytest.raises(InputError, match="set the environment variable OPENAI_API_KEY"):
        openai.encode(["x"])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\n\u00e9")
    with pytest.raises(InputError, match="characters that no key has"):
        openai.encode(["x"])
    for url in ("localhost:8000", "ftp://x/v1", "http://", "http://me:secret@host/v1"):
        with pytest.raises(InputError) as caught:
            OpenAICompatibleEmbedder("m", url)
        assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="encoding_format"):
        OpenAICompatibleEmbedder("m", encoding_format="hex")
    with pytest.raises(InputError, match="name of the model"):
        embedder("ollama:")
    with pytest.raises(InputError, match="dimensions must be"):
        embedder("mistral:m", dimensions=0)


def test_the_key_of_openai_goes_to_openai_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    client(server).encode(["x"])
    assert "authorization" not in server.headers[0]


def test_tokens_need_a_tokenizer(server: Server, minilm: Embedder) -> None:
    with pytest.raises(InputError, match="give tokenizer="):
        client(server).count_tokens(["x"])
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        client(server, tokenizer="/nowhere").count_tokens(["x"])
    mine = client(server, tokenizer=package_folder())
    assert mine.count_tokens(TEXTS) == minilm.count_tokens(TEXTS)
    assert mine.cut("Hello World again", 2) == "Hello World"
    assert mine.vocabulary() == minilm.vocabulary()
    assert not server.requests


def test_noise_of_a_server_is_measured(server: Server) -> None:
    mine = client(server)
    floor = mine.noise_floor()
    assert 0 < floor.max_distance < 1e-5 and mine.queries == 0 and mine.probes > 24
    mine.close()
    assert mine.encode(["x"]).shape == (1, 384)


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(MissingExtra, match=re.escape(install_line("api"))):
        OpenAICompatibleEmbedder("m", "http://127.0.0.1:9/v1").encode(["x"])
