"""Embedders whose tokenizer is at hand: what they know of texts without embedding them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unembed.embedders.base import Embedder, check_texts
from unembed.embedders.tokens import count_tokens, cut_text, vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenizedEmbedder(Embedder):
    """An embedder with a tokenizer of the library `tokenizers`."""

    @abstractmethod
    def _tokens(self) -> Tokenizer:
        """The tokenizer without truncation and padding. Raises TokensUnknown where there is none after all."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of content tokens in each whole text."""
        return count_tokens(self._tokens(), check_texts(texts, allow_empty=True))

    def cut(self, text: str, n: int) -> str | None:
        """The longest start of `text` with exactly `n` tokens; see `Embedder.cut`."""
        return cut_text(self._tokens(), text, n)

    def vocabulary(self) -> list[str]:
        """The tokens as they are written in a text; see `Embedder.vocabulary`."""
        return vocabulary(self._tokens())
