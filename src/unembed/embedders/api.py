"""Embedders behind an HTTP API that speaks OpenAI's `POST /embeddings`: OpenAI, vLLM, TEI, Ollama, LM Studio, LiteLLM,
Mistral...

A server says little about itself, so its dimension, whether it normalises, whether it sees capitals and its fingerprint
are measured with one small request on first use. The key is read from the environment when it is needed; it is never
stored, shown or sent to another address than the one it was named for.
"""

from __future__ import annotations

import base64
import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from unembed.embedders.spec import FINGERPRINT_TEXTS, UNKNOWN, EmbedderSpec, take_fingerprint
from unembed.embedders.tokenized import TokenizedEmbedder
from unembed.embedders.tokens import copy_tokenizer
from unembed.embedders.vectors import NORM_TOLERANCE
from unembed.errors import InputError, SpecMismatch, TokensUnknown, require

if TYPE_CHECKING:
    import httpx
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
CASE_TEXTS = ("The Quick BROWN Fox Jumps", "the quick brown fox jumps")
CASE_DISTANCE = 0.005
"""Relative distance below which two texts that differ in case only are one text to the server; above the noise of
bfloat16 batches of equal length, and a tenth of what casing does to a cased model."""
LONGEST_WAIT = 60.0
"""Seconds to wait at most before a retry, whatever the server asks for."""
BUSY = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""HTTP states worth a retry."""


class OpenAICompatibleEmbedder(TokenizedEmbedder):
    """A model behind an OpenAI-compatible server as an `Embedder`. Needs the extra `api`.

    Args:
        model: name of the model at the server.
        base_url: address up to and including `/v1`.
        api_key_env: name of the environment variable that holds the key; by default OPENAI_API_KEY at OpenAI and none
            elsewhere.
        dimensions: ask for shortened vectors (`text-embedding-3-*`).
        prefix: text put before every input.
        batch_size: texts in a request at most; halved by itself when the server says that it is too many.
        batch_chars: characters in a request at most.
        max_tokens: longest input, as documented by the server.
        truncation: whether the server cuts longer inputs (Ollama) or refuses them (OpenAI).
        encoding_format: `float` or `base64` (a third of the bytes, not understood by every server).
        extra: further fields of the request, such as `{"input_type": "document"}`.
        tokenizer: `tokenizer.json` or its folder, for `count_tokens` and `cut`, which no API offers.
        max_retries: retries of one request when the server is busy or the connection breaks.
        backoff: seconds before the first retry, doubled before each further one.
        timeout: seconds to wait for one answer.
    """

    def __init__(
        self,
        model: str,
        base_url: str = OPENAI_URL,
        api_key_env: str | None = None,
        dimensions: int | None = None,
        *,
        prefix: str = "",
        batch_size: int = 256,
        batch_chars: int = 100_000,
        max_tokens: int = 8191,
        truncation: bool = False,
        encoding_format: str = "float",
        extra: dict[str, Any] | None = None,
        tokenizer: str | Path | None = None,
        max_retries: int = 6,
        backoff: float = 0.5,
        timeout: float = 60.0,
    ) -> None:
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InputError(f"'{base_url}' is not the address of a server; write it like {OPENAI_URL}")
        if address.username or address.password:
            raise InputError(
                "the address of the server contains a password; "
                "put it in an environment variable, name that in api_key_env"
            )
        if not model:
            raise InputError("the name of the model at the server is missing; give it, such as text-embedding-3-small")
        if encoding_format not in ("float", "base64"):
            raise InputError(f"unknown encoding_format {encoding_format!r}; use float or base64")
        for name, value in (("dimensions", dimensions), ("batch_size", batch_size), ("batch_chars", batch_chars)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}; correct it")
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.api_key_env = "OPENAI_API_KEY" if api_key_env is None and self.base_url == OPENAI_URL else api_key_env
        self.dimensions = dimensions
        self.prefix = prefix
        self.batch_size = batch_size
        self.batch_chars = batch_chars
        self.max_tokens = max_tokens
        self.truncation = truncation
        self.encoding_format = encoding_format
        self.extra = dict(extra or {})
        self.tokenizer = tokenizer
        self.max_retries = max_retries
        self.backoff = backoff
        self.timeout = timeout
        self._client: httpx.Client | None = None
        self._spec: EmbedderSpec | None = None
        self._tokenizer: Tokenizer | None = None
        self._answered = False
        self._jitter = random.Random(0)  # its own, so that the user's seed is not consumed

    @property
    def id(self) -> str:
        """Name that `unembed.embedder` understands."""
        return f"openai:{self.model}" if self.base_url == OPENAI_URL else f"api:{self.base_url}#{self.model}"

    @property
    def spec(self) -> EmbedderSpec:
        """Measured with one request of a few short texts on first use."""
        if self._spec is None:
            texts = [*FINGERPRINT_TEXTS, *CASE_TEXTS]
            vectors = self.probe(texts).astype(np.float64)
            norms = np.linalg.norm(vectors, axis=1)
            upper, lower = vectors[-2:]
            self._spec = EmbedderSpec(
                id=self.id,
                dim=vectors.shape[1],
                pooling=UNKNOWN,
                normalized=bool(np.abs(norms - 1.0).max() <= NORM_TOLERANCE),
                prefix=self.prefix,
                max_tokens=self.max_tokens,
                truncation=self.truncation,
                cased=bool(np.linalg.norm(upper - lower) > CASE_DISTANCE * norms.max()),
                fingerprint=take_fingerprint(vectors[: len(FINGERPRINT_TEXTS)]),
            )
        return self._spec

    # -- requests --

    def _embed(self, texts: list[str]) -> np.ndarray:
        """Vectors [n, d], in as few requests as the limits allow."""
        rows = [row for batch in self._batches(texts) for row in self._request(batch)]
        vectors = np.stack(rows)  # [n, d]
        if self._spec is not None:
            if vectors.shape[1] != self._spec.dim:
                raise SpecMismatch(
                    f"{self.id} now gives {vectors.shape[1]} dimensions, before it gave {self._spec.dim}; "
                    "the model behind the address was changed, start anew with the right one"
                )
            norms = np.linalg.norm(vectors, axis=1)
            if self._spec.normalized and np.abs(norms - 1.0).max() > NORM_TOLERANCE:
                raise SpecMismatch(
                    f"{self.id} gave vectors of length {norms.min():.4g} to {norms.max():.4g} after vectors of "
                    "length 1; "
                    "the server's settings were changed, start anew"
                )
        return vectors

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        """Consecutive texts within `batch_size` and `batch_chars`; a longer text goes alone."""
        batch: list[str] = []
        chars = 0
        for text in texts:
            text = self.prefix + text
            if batch and (len(batch) >= self.batch_size or chars + len(text) > self.batch_chars):
                yield batch
                batch, chars = [], 0
            batch.append(text)
            chars += len(text)
        yield batch

    def _request(self, batch: list[str]) -> list[np.ndarray]:
        """The vectors of one batch, which is halved when the server finds it too large."""
        body: dict[str, Any] = {
            "model": self.model,
            "input": batch,
            "encoding_format": self.encoding_format,
            **self.extra,
        }
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        response = self._post(body)
        if response.status_code == 200:
            return self._parse(response, len(batch))
        message = _server_message(response)
        too_many = response.status_code == 413 or (response.status_code in (400, 422) and "batch" in message.lower())
        if too_many and len(batch) > 1:
            half = (len(batch) + 1) // 2
            self.batch_size = min(self.batch_size, half)
            return self._request(batch[:half]) + self._request(batch[half:])
        raise self._refusal(response.status_code, message)

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        """One answer from the server, retried while it is busy; raises InputError when there is none."""
        httpx = require("httpx", "api")
        headers = self._headers()
        if self._client is None:
            self._client = httpx.Client(timeout=self.timeout)
        attempt = 0
        while True:
            wait = min(LONGEST_WAIT, self.backoff * 2.0**attempt) * self._jitter.uniform(1.0, 1.25)
            last = attempt >= self.max_retries
            try:
                response = self._client.post(f"{self.base_url}/embeddings", json=body, headers=headers)
            except httpx.TimeoutException as error:
                # An address that never answered is most likely the wrong one: say so at once, here and below.
                if last or (not self._answered and isinstance(error, httpx.ConnectTimeout)):
                    raise InputError(
                        f"no answer from {self.base_url} within {self.timeout:g} s; raise timeout or lower batch_size"
                    ) from error
                reason = "timeout"
            except (httpx.RequestError, httpx.InvalidURL) as error:
                if last or not self._answered:
                    raise InputError(
                        f"cannot connect to {self.base_url} ({error}); check the address and that the server runs"
                    ) from error
                reason = type(error).__name__
            else:
                self._answered = True
                if response.status_code not in BUSY or last or "insufficient_quota" in response.text:
                    return response
                wait = _retry_after(response, wait)
                reason = f"status {response.status_code}"
            attempt += 1
            logger.info("%s: %s, retry %d of %d in %.1f s", self.id, reason, attempt, self.max_retries, wait)
            time.sleep(wait)

    def _headers(self) -> dict[str, str]:
        """The key, if one is named; raises InputError when its variable is empty."""
        if not self.api_key_env:
            return {}
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise InputError(f"{self.id} needs a key: set the environment variable {self.api_key_env}")
        if not key.isascii() or not key.isprintable():
            raise InputError(f"the key in {self.api_key_env} holds characters that no key has; copy it again")
        return {"Authorization": f"Bearer {key}"}

    def _parse(self, response: httpx.Response, count: int) -> list[np.ndarray]:
        """The vectors of an answer, put in the order of the request by their index."""
        try:
            items = list(response.json()["data"])
            order = [int(item.get("index", position)) for position, item in enumerate(items)]
            rows = dict(zip(order, (_vector(item["embedding"]) for item in items), strict=True))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.base_url} does not answer like an OpenAI embeddings API ({type(error).__name__}); "
                "check that the address ends in /v1"
            ) from error
        if len(items) != count or rows.keys() != set(range(count)):
            raise InputError(
                f"{self.id} gave {len(items)} vectors, {len(rows)} of them numbered apart, for {count} texts; "
                "try batch_size=1, or mend the server"
            )
        vectors = [rows[index] for index in range(count)]
        sizes = {row.size for row in vectors}
        if len(sizes) > 1 or 0 in sizes:
            raise InputError(
                f"{self.id} gave vectors of different sizes ({sorted(sizes)}); check the model at the server"
            )
        if self.dimensions is not None and sizes != {self.dimensions}:
            raise InputError(
                f"{self.id} gave {sizes.pop()} dimensions, {self.dimensions} were asked for; "
                "this model cannot shorten its vectors, leave dimensions out"
            )
        return vectors

    def _refusal(self, status: int, message: str) -> InputError:
        """The one-line error for a status that is not 200."""
        key = os.environ.get(self.api_key_env or "", "").strip()
        message = message.replace(key, "***") if key else message  # some servers repeat it
        said = f" ({message})" if message else ""
        if status in (401, 403):
            where = (
                f"check the key in {self.api_key_env}"
                if self.api_key_env
                else "it needs a key: name its variable in api_key_env"
            )
            return InputError(f"{self.base_url} refuses access, status {status}{said}; {where}")
        if status == 404:
            return InputError(
                f"no model '{self.model}' at {self.base_url}, status 404{said}; "
                "check the model's name and that the address ends in /v1"
            )
        if status == 429:
            return InputError(
                f"{self.base_url} limits the rate or the quota is used up, status 429{said}; wait, or lower batch_size"
            )
        if 300 <= status < 400:
            return InputError(f"{self.base_url} redirects elsewhere, status {status}; give the final address")
        if status >= 500:
            return InputError(f"{self.base_url} fails, status {status}{said}; look at the server, then run again")
        return InputError(
            f"{self.base_url} refuses the request, status {status}{said}; shorten the texts or change the options"
        )

    # -- tokens --

    def _tokens(self) -> Tokenizer:
        """The tokenizer given by the user."""
        if self._tokenizer is None:
            if self.tokenizer is None:
                raise TokensUnknown(
                    f"{self.id} shows no tokens; give tokenizer= the tokenizer.json of the model to count or cut"
                )
            from tokenizers import Tokenizer

            path = Path(self.tokenizer).expanduser()
            path = path / "tokenizer.json" if path.is_dir() else path
            try:
                self._tokenizer = copy_tokenizer(Tokenizer.from_file(str(path)))
            except Exception as error:  # tokenizers raises bare Exception
                raise InputError(
                    f"{path} is not a tokenizer.json ({' '.join(str(error).split())[:100]}); give one"
                ) from error
        return self._tokenizer

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __repr__(self) -> str:
        """The name; never the key."""
        return f"OpenAICompatibleEmbedder({self.id!r})"


def _vector(value: Any) -> np.ndarray:
    """One embedding of an answer: a list of numbers, or base64 of little-endian float32."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    vector = np.asarray(value, dtype=np.float32)
    if vector.ndim != 1:
        raise ValueError("an embedding must be a list of numbers")
    return vector


def _server_message(response: httpx.Response) -> str:
    """What the server said, on one line and short; servers disagree on where they put it."""
    try:
        body = response.json()
    except ValueError:
        return " ".join(response.text.split())[:160]
    said = body
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(key):
            said = said[key]
    return " ".join(str(said).split())[:160]


def _retry_after(response: httpx.Response, wait: float) -> float:
    """Seconds the server asks to wait (`Retry-After`), within reason, else `wait`."""
    try:
        asked = float(response.headers.get("retry-after", ""))
    except ValueError:  # absent, or a date
        return wait
    return min(LONGEST_WAIT, max(asked, 0.0)) if asked == asked else wait
