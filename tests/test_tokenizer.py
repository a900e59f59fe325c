"""The tokenizer of the native model: every text of every script goes in and comes out as it was."""

from __future__ import annotations

import pytest

from unembed.checkpoints import resolve
from unembed.errors import CheckpointError
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID, TextTokenizer


@pytest.fixture(scope="module")
def shipped():
    return TextTokenizer.load(resolve("all-MiniLM-L6-v2") / "tokenizer.json")


def tokenizer_of(texts, size=300):
    return TextTokenizer.train(texts, size)


@pytest.mark.parametrize(
    "text",
    [
        "", "plain text", " leading and trailing ", "two  spaces\tand\na\r\nline", "CamelCase 3.14 €", "x" * 300,
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 and \U0001f1e8\U0001f1ed and \U0001f44d\U0001f3fd",  # emoji
        "你好，世界。これは？ 한국어", "مرحبا بالعالم — שלום", "नमस्ते สวัสดี", "e\u0301 versus \u00e9", "ﬁ ﷽ Ⅳ", "𝔘𝔫𝔦 𐍈",
        "\x00\x01\x1f\x7f\x85", "\u200b\u200d\ufeff\u2028\u2029", "\U0010ffff\ufffd\ufffe",
        "a <pad> of <bos> and <eos> here", "<eos>", "<|endoftext|> [SEP] </s>", "ĠĠ Ċ",
    ],
)  # fmt: skip
def test_every_text_can_be_written_and_read_back(shipped, text):
    [ids] = shipped.encode([text])
    assert shipped.decode([ids]) == [text]
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids), "the special tokens are never part of a text"
    assert all(0 <= token < shipped.vocab_size for token in ids)


def test_every_character_of_unicode_has_tokens(shipped):
    points = [chr(point) for point in range(1, 0x110000, 61) if not 0xD800 <= point < 0xE000]
    text = "".join(points)
    assert shipped.decode(shipped.encode([text])) == [text]


def test_half_a_character_becomes_a_replacement(shipped):
    [ids] = tokenizer_of(["plain letters only"]).encode(["😀"])
    assert len(ids) == 4 and tokenizer_of(["plain letters only"]).decode([ids[:-1]]) == ["\ufffd"]
    assert shipped.decode([[PAD_ID, BOS_ID, EOS_ID]]) == [""]


def test_a_vocabulary_is_learned_saved_and_read_back(tmp_path):
    texts = ["the cat and the other cat", "the cat sat"] * 5
    made = tokenizer_of(texts, 280)
    assert 259 < made.vocab_size <= 280, "256 bytes, 3 special tokens, and what was learned"
    [ids] = made.encode(["the cat"])
    assert len(ids) < len("the cat") and made.decode([ids]) == ["the cat"]
    made.save(tmp_path / "tokenizer.json")
    loaded = TextTokenizer.load(tmp_path / "tokenizer.json")
    mixed = [*texts, "<eos> 你好"]
    assert loaded.encode(mixed) == made.encode(mixed) and loaded.vocab_size == made.vocab_size
    assert made.encode([]) == [] and made.decode([]) == []


def test_a_tokenizer_that_is_missing_or_damaged(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="is missing"):
        TextTokenizer.load(path)
    for content in ("", "{}", "[1]", '{"model": '):
        path.write_text(content)
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            TextTokenizer.load(path)
        assert "\n" not in str(caught.value)


def test_a_vocabulary_without_capitals(tmp_path):
    made = TextTokenizer.train(["The CAT and the Cat"] * 3, 280, lowercase=True)
    made.save(tmp_path / "tokenizer.json")
    loaded = TextTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.decode(loaded.encode(["The CAT, ÄÖ"])) == ["the cat, äö"]
    assert loaded.encode(["CAT"]) == loaded.encode(["cat"])
