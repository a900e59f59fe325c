"""Counting and cutting texts in an embedder's own tokens, on the Rust tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unembed.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def copy_tokenizer(tokenizer: Tokenizer, encode_special_tokens: bool = False) -> Tokenizer:
    """An independent copy without truncation and padding, so that the model's own tokenizer keeps its settings.

    `encode_special_tokens`: read `[SEP]` in a text as characters, not as the special token (transformers'
    `split_special_tokens`, which a copy does not inherit).
    """
    copied = type(tokenizer).from_str(tokenizer.to_str())
    copied.no_truncation()
    copied.no_padding()
    copied.encode_special_tokens = encode_special_tokens
    return copied


def is_cased(tokenizer: Tokenizer) -> bool:
    """Whether capitals have tokens of their own. Asked of the tokenizer, because lower-casing hides in many places."""
    upper, lower = tokenizer.encode_batch(["The Quick BROWN Fox", "the quick brown fox"], add_special_tokens=False)
    return upper.ids != lower.ids


def count_tokens(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """Number of content tokens in each text."""
    return [len(encoding) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The tokens in their order, without what marks whether they begin a word (WordPiece, SentencePiece, byte-level
    BPE), each once."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    texts = (token.removeprefix("##").lstrip("\u2581\u0120") for token, _ in tokens)
    return [text for text in dict.fromkeys(texts) if text]


def cut_text(tokenizer: Tokenizer, text: str, n: int) -> str | None:
    """The start of `text` that has exactly `n` tokens.

    It keeps the text's own casing and spacing and loses trailing white space. The result is verified by tokenising it
    again.

    Args:
        tokenizer: without truncation and padding.
        text: any text.
        n: tokens wanted, at least 1; special tokens not counted.

    Returns:
        The start, or None if the text has fewer tokens or none of its starts has exactly `n`.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"cannot cut a text to {n!r} tokens; ask for a whole number of at least 1")
    if not isinstance(text, str):
        raise InputError(f"cannot cut a {type(text).__name__}; give a str")
    offsets = _offsets(tokenizer, text, n)
    if len(offsets) < n:
        return None
    # The n-th token's end is right almost always; the rest is for tokenizers that split a shortened word differently:
    # the ends of the neighbouring tokens, then every character between them, longest first.
    first, last = max(n - 4, 0), min(n + 3, len(offsets)) - 1
    ends = [offsets[index][1] for index in (n - 1, *range(last, first - 1, -1))]
    for end in dict.fromkeys([*ends, *range(offsets[last][1], max(offsets[first][1], offsets[last][1] - 64), -1)]):
        start = text[:end].rstrip()
        if start and len(tokenizer.encode(start, add_special_tokens=False).ids) == n:
            return start
    return None


def _offsets(tokenizer: Tokenizer, text: str, n: int) -> list[tuple[int, int]]:
    """Character spans of the tokens; of a long text only as many as are sure and needed."""
    near = 16 * n + 256
    if len(text) > near:
        part = text[:near]
        offsets = tokenizer.encode(part, add_special_tokens=False).offsets
        # White space after the tokens in question: their words are whole, so the rest of the text cannot change them.
        if len(offsets) > n + 3 and any(character.isspace() for character in part[offsets[n + 2][1] :]):
            return offsets[: n + 3]
    return tokenizer.encode(text, add_special_tokens=False).offsets
