"""`Embedder`: the interface between texts and vectors. The search, the training and the audit know no other.

A new embedder is one class with `spec` and `_embed`; with a tokenizer it is a `TokenizedEmbedder` with `_tokens`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unembed.embedders.spec import FINGERPRINT_TEXTS, EmbedderSpec, take_fingerprint
from unembed.errors import InputError, TokensUnknown

if TYPE_CHECKING:
    from unembed.embedders.noise import NoiseFloor


class Embedder(ABC):
    """Texts in, vectors out, and all there is to know about the way between."""

    queries: int = 0
    """Texts embedded through `encode` so far; what a query budget is counted in."""
    probes: int = 0
    """Texts embedded for the embedder's own measurements (fingerprint, noise floor). An API bills them as well."""
    _noise_floor: NoiseFloor | None = None

    @property
    @abstractmethod
    def spec(self) -> EmbedderSpec:
        """What changes the geometry of the vectors. May load the model or ask the server on first use."""

    @abstractmethod
    def _embed(self, texts: list[str]) -> np.ndarray:
        """The vectors [n, d] of at least one valid text, in their order. Counts nothing, checks nothing."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts.

        Args:
            texts: n texts, none of them empty. The list itself may be.

        Returns:
            float32 [n, d], row i for text i, unit length if `spec.normalized`.

        Raises:
            InputError: something that is not a text, or an empty one.
        """
        texts = check_texts(texts)
        if not texts:
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        vectors = self._checked(texts)
        self.queries += len(texts)
        return vectors

    def probe(self, texts: Sequence[str]) -> np.ndarray:
        """`encode` for measurements of the embedder itself: counted in `probes`, not in `queries`."""
        texts = check_texts(texts)
        vectors = self._checked(texts)
        self.probes += len(texts)
        return vectors

    def _checked(self, texts: list[str]) -> np.ndarray:
        """`_embed` as contiguous float32, with one finite row for each text or an InputError."""
        vectors = np.ascontiguousarray(self._embed(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise InputError(
                f"the embedder gave an array of shape {vectors.shape} for {len(texts)} texts; one row each is needed"
            )
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise InputError(f"the embedder gave NaN or infinity for text {row}; let it compute in float32")
        return vectors

    def take_fingerprint(self) -> tuple[float, ...]:
        """Measure the numbers that identify this embedder; see `unembed.embedders.spec.take_fingerprint`."""
        return take_fingerprint(self.probe(FINGERPRINT_TEXTS))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of the embedder's own tokens in each text, whole texts, special tokens and prefix not counted."""
        raise TokensUnknown(f"embedder {self.spec.id} has no tokenizer here; give it one to count tokens")

    def cut(self, text: str, n: int) -> str | None:
        """The longest start of `text` that has exactly `n` tokens, as it stands there, without trailing white space.

        Returns None if the text has fewer tokens, or (rare, some sub-word tokenizers) none of its starts has that many.
        """
        raise TokensUnknown(f"embedder {self.spec.id} has no tokenizer here; give it one to cut texts by tokens")

    def vocabulary(self) -> list[str]:
        """The tokens as they are written in a text, each once, without what marks a word's beginning; mostly the
        frequent ones first."""
        raise TokensUnknown(f"embedder {self.spec.id} has no tokenizer here; give it one to list its tokens")

    def key(self, text: str) -> str:
        """What the embedder can distinguish: two texts with one key are one text to it.

        The text as it is for a cased embedder; without case and with white space collapsed for an uncased one. A
        subclass that knows its tokenizer does better.
        """
        return text if self.spec.cased else " ".join(text.split()).lower()

    def noise_floor(self) -> NoiseFloor:
        """How far apart two embeddings of one text can be; measured once for this object, then remembered."""
        if self._noise_floor is None:
            from unembed.embedders.noise import measure_noise

            self._noise_floor = measure_noise(self)
        return self._noise_floor

    def __repr__(self) -> str:
        """Short, and without loading anything."""
        return f"{type(self).__name__}()"


def check_texts(texts: Sequence[str], *, allow_empty: bool = False) -> list[str]:
    """`texts` as a list of encodable strings, by default none empty; raises InputError naming the first that is not."""
    if isinstance(texts, (str, bytes)):
        raise InputError("expected a list of texts, got a single one; write encode([text])")
    try:
        texts = list(texts)
    except TypeError as error:
        raise InputError(f"expected a list of texts, got {type(texts).__name__}; write encode([text, ...])") from error
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is of type {type(text).__name__}, not str; convert or drop it")
        if not allow_empty and (not text or text.isspace()):
            raise InputError(f"text {row} is empty; drop it before embedding")
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(
                    f"text {row} has half a surrogate pair at position {error.start}; repair its encoding"
                ) from error
    return texts
