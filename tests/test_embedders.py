"""Embedders that run here: spec, fingerprint, vectors against sentence-transformers, tokens, noise, names."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from unembed.embedders import Embedder, EmbedderSpec, check_match
from unembed.embedders.default import DEFAULT_ID, package_folder
from unembed.embedders.local import SentenceTransformerEmbedder
from unembed.embedders.spec import FINGERPRINT_TEXTS, FINGERPRINT_TOLERANCE, fingerprint_distance, take_fingerprint
from unembed.embedders.tokens import cut_text, is_cased, vocabulary
from unembed.errors import InputError, SpecMismatch, TokensUnknown

TEXTS = [
    "Hello World",
    "Jack Morris is a PhD student at Cornell Tech in New York City",
    " spaces  at both ends \n",
    "[SEP] [MASK] [UNK] café naïve 北京",
    "x" * 500,
    "a long one that is cut, " * 120,
    "🦄 emoji, \u200b zero width and \x07 bell",
    "?",
]


class Shouting(Embedder):
    """The least an embedder can be: vectors of letter counts, upper case and lower case alike."""

    @property
    def spec(self) -> EmbedderSpec:
        return EmbedderSpec(id="shouting", dim=26, normalized=False, cased=False)

    def _embed(self, texts: list[str]) -> np.ndarray:
        return np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float64)


@pytest.fixture(scope="module")
def package() -> str:
    folder = package_folder()
    assert folder is not None
    return str(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, package: str) -> str:
    """A random two-layer model with CLS pooling, Dense, Normalize, a prompt and MiniLM's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=30522, max_position_embeddings=64, **sizes)).save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(package).save_pretrained(folder / "base")
    modules = [Transformer(str(folder / "base")), Pooling(32, "cls"), Dense(32, 16), Normalize()]
    SentenceTransformer(modules=modules, prompts={"query": "query: "}, device="cpu").save(str(folder / "tiny"))
    return str(folder / "tiny")


# -- spec --


def test_spec_survives_json() -> None:
    spec = EmbedderSpec(id="a", dim=3, prefix="query: ", fingerprint=(0.5, -1.0))
    assert EmbedderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert EmbedderSpec.from_dict({"id": "a", "dim": 3}) == EmbedderSpec(id="a", dim=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.dim = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id": "a", "dim": 3, "colour": 1}, "unknown key colour; known are"),
        ({"id": "a"}, "dim missing"),
        ([], "expected a mapping"),
        ({"id": " ", "dim": 3}, "id is empty"),
        ({"id": 5, "dim": 3}, "id must be a string"),
        ({"id": "a", "dim": 0}, "dim must be a whole number"),
        ({"id": "a", "dim": True}, "dim must be a whole number"),
        ({"id": "a", "dim": 3, "normalized": 1}, "normalized must be true or false"),
        ({"id": "a", "dim": 3, "dtype": "int8"}, "unknown dtype 'int8'"),
        ({"id": "a", "dim": 3, "revision": 1}, "revision must be"),
        ({"id": "a", "dim": 3, "fingerprint": [float("nan")]}, "finite numbers"),
        ({"id": "a", "dim": 3, "fingerprint": "abc"}, "finite numbers"),
    ],
)
def test_bad_specs_are_refused(values: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbedderSpec.from_dict(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 4}, "dimension 3 against 4"),
        ({"normalized": False}, "normalized True against False"),
        ({"prefix": "q: "}, "prefix '' against 'q: '"),
        ({"pooling": "cls"}, "pooling 'mean' against 'cls'"),
        ({"id": "other"}, "id 'sentence-transformers/A' against 'other'"),
    ],
)
def test_mismatch_names_both_sides(change: dict[str, object], message: str) -> None:
    spec = EmbedderSpec(id="sentence-transformers/A", dim=3)
    with pytest.raises(SpecMismatch, match=message) as caught:
        check_match(spec, dataclasses.replace(spec, **change), expected_name="model m", actual_name="store s")
    assert "model m" in str(caught.value) and "store s" in str(caught.value) and "\n" not in str(caught.value)


def test_match_ignores_what_is_noise_and_how_the_name_is_written() -> None:
    spec = EmbedderSpec(id="sentence-transformers/A", dim=3)
    check_match(spec, dataclasses.replace(spec, id="a", dtype="bfloat16", revision="abc", max_tokens=128))
    check_match(spec, dataclasses.replace(spec, pooling="unknown"))
    seen = dataclasses.replace(spec, fingerprint=(1.0, -1.0, 0.5))
    check_match(seen, dataclasses.replace(seen, id="/a/folder", fingerprint=(1.001, -1.0, 0.5)))
    named = dataclasses.replace(spec, id="sentence-transformers/gtr-t5-base#raw")
    for folder in ("/models/gtr-t5-base#raw", "./gtr-t5-base#raw", "C:\\models\\GTR-T5-base#raw"):
        check_match(named, dataclasses.replace(named, id=folder))
    for folder in ("/models/gtr-t5-base", "/gtr-t5-base#raw/other", "api:http://here/v1/gtr-t5-base#raw"):
        with pytest.raises(SpecMismatch):
            check_match(named, dataclasses.replace(named, id=folder))
    with pytest.raises(SpecMismatch, match="fingerprints .* apart"):
        check_match(seen, dataclasses.replace(seen, fingerprint=(1.0, 1.0, 0.5)))


def test_fingerprint_sees_rotation_and_scale_but_not_precision() -> None:
    vectors = np.random.default_rng(0).normal(size=(len(FINGERPRINT_TEXTS), 64))
    print_ = take_fingerprint(vectors)
    assert fingerprint_distance(print_, take_fingerprint(vectors.astype(np.float16))) < 0.002
    assert fingerprint_distance(print_, take_fingerprint(np.roll(vectors, 1, axis=1))) > 0.5
    assert fingerprint_distance(print_, take_fingerprint(vectors * 2)) > 0.4
    assert fingerprint_distance(print_, print_[:-1]) == np.inf
    with pytest.raises(InputError, match="probe texts"):
        take_fingerprint(vectors[:2])


def test_fingerprint_of_the_real_model_tells_others_from_itself(minilm: Embedder, package: str) -> None:
    mine = minilm.spec.fingerprint
    assert mine is not None

    def distance(other: SentenceTransformerEmbedder) -> float:
        return fingerprint_distance(mine, other.take_fingerprint())

    for dtype in ("bfloat16", "float16"):
        other = SentenceTransformerEmbedder(package, device="cpu", dtype=dtype)
        assert distance(other) < FINGERPRINT_TOLERANCE / 3
        check_match(minilm.spec, other.spec)

    pooled = SentenceTransformerEmbedder(package, device="cpu")
    pooled.model[1].pooling_mode = "cls"
    assert pooled.spec.pooling == "cls" and distance(pooled) > 5 * FINGERPRINT_TOLERANCE
    with pytest.raises(SpecMismatch, match="pooling 'mean' against 'cls'; fingerprints"):
        check_match(minilm.spec, pooled.spec)

    assert distance(SentenceTransformerEmbedder(package, device="cpu", prefix="query: ")) > 3 * FINGERPRINT_TOLERANCE
    raw = SentenceTransformerEmbedder(package, device="cpu", raw=True)
    assert not raw.spec.normalized and raw.spec.id.endswith("#raw")
    np.testing.assert_allclose(_unit(raw.encode(TEXTS)), minilm.encode(TEXTS), atol=1e-6)

    tuned = SentenceTransformerEmbedder(package, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weights in tuned.model.parameters():
        weights += 0.05 * weights.std() * torch.randn(weights.shape, generator=generator)
    with pytest.raises(SpecMismatch, match="fingerprints"):
        check_match(minilm.spec, tuned.spec)


# -- vectors --


def test_default_embedder_is_the_documented_one(minilm: Embedder) -> None:
    spec = minilm.spec
    assert (spec.id, spec.dim, spec.pooling, spec.normalized) == (DEFAULT_ID, 384, "mean", True)
    assert (spec.prefix, spec.max_tokens, spec.truncation, spec.dtype, spec.cased) == ("", 256, True, "float32", False)
    assert EmbedderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_vectors_are_those_of_sentence_transformers(package: str, batch_size: int) -> None:
    mine = SentenceTransformerEmbedder(package, device="cpu", batch_size=batch_size)
    theirs = SentenceTransformer(package, device="cpu").encode(TEXTS, show_progress_bar=False)
    vectors = mine.encode(TEXTS)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(vectors, theirs, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"prefix": "passage: "}, {"prompt": "query"}, {"max_tokens": 12}])
def test_every_option_agrees_with_the_librarys_own_path(tiny: str, options: dict[str, object]) -> None:
    fast = SentenceTransformerEmbedder(tiny, device="cpu", **options)
    reference = SentenceTransformer(tiny, device="cpu")
    if "max_tokens" in options:
        reference.max_seq_length = 12
    prompt = options.get("prefix", "query: " if "prompt" in options else None)
    theirs = reference.encode(TEXTS, prompt=prompt, show_progress_bar=False)
    np.testing.assert_allclose(fast.encode(TEXTS), theirs, atol=1e-6)
    assert fast._batch_tokenizer is not None, "this model should take the fast path"
    fast._batch_tokenizer = None
    np.testing.assert_allclose(fast.encode(TEXTS), theirs, atol=1e-6)
    assert (fast.spec.dim, fast.spec.pooling, fast.spec.prefix) == (16, "cls", prompt or "")
    assert fast.spec.max_tokens == options.get("max_tokens", 64)


def test_left_padding_and_windows(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, reference = SentenceTransformerEmbedder(tiny, device="cpu"), SentenceTransformer(tiny, device="cpu")
    monkeypatch.setattr("unembed.embedders.local.WINDOW", 3)
    for side in ("right", "left"):
        mine.model.tokenizer.padding_side = reference.tokenizer.padding_side = side
        theirs = reference.encode(TEXTS, show_progress_bar=False, batch_size=3)
        if side == "right":
            np.testing.assert_allclose(mine.encode(TEXTS), theirs, atol=1e-6)
        one_by_one = np.concatenate([mine.encode([text]) for text in TEXTS[:2]])
        batch = mine._pad(mine.model, mine._tokenize(mine._batch_tokenizer, TEXTS[:2]))
        expected = reference.preprocess(TEXTS[:2])
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(batch[name], expected[name])
        assert one_by_one.shape == (2, 16)


def test_memory_shortage_halves_the_batch(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = SentenceTransformerEmbedder(tiny, device="cpu", batch_size=8)
    expected = mine.encode(TEXTS)
    forward = mine._forward

    def tight(model, features):
        if len(features["input_ids"]) > 2:
            raise torch.OutOfMemoryError("simulated")
        return forward(model, features)

    monkeypatch.setattr(mine, "_forward", tight)
    np.testing.assert_allclose(mine.encode(TEXTS), expected, atol=1e-6)
    monkeypatch.setattr(mine, "_forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("simulated")))
    with pytest.raises(InputError, match="out of memory on cpu with a single text"):
        mine.encode(TEXTS)


def test_a_model_of_another_shape_takes_the_librarys_path(tmp_path: Path, package: str) -> None:
    tokenizer = Tokenizer.from_file(str(Path(package) / "tokenizer.json"))
    torch.manual_seed(0)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu").save(str(tmp_path))
    mine = SentenceTransformerEmbedder(tmp_path, device="cpu")
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(mine.encode(TEXTS), theirs, atol=1e-6)
    assert (mine.spec.dim, mine.spec.normalized, mine.spec.pooling, mine.spec.cased) == (8, False, "mean", False)
    assert mine.spec.max_tokens > 10**9 and mine.count_tokens(["one two"]) == [2]


def test_reduced_precision_keeps_unit_length(minilm: Embedder, package: str) -> None:
    mine = SentenceTransformerEmbedder(package, device="cpu", dtype="bfloat16")
    vectors = mine.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert 0 < np.linalg.norm(vectors - minilm.encode(TEXTS), axis=1).max() < 0.03
    assert mine.spec.dtype == "bfloat16" and mine.with_dtype("float32").spec.dtype == "float32"


def test_queries_count_texts_and_nothing_else(tiny: str) -> None:
    mine = SentenceTransformerEmbedder(tiny, device="cpu")
    assert mine.spec.fingerprint and mine.queries == 0 and mine.probes == len(FINGERPRINT_TEXTS)
    mine.encode(TEXTS)
    mine.encode(tuple(TEXTS[:2]))
    assert mine.encode([]).shape == (0, 16)
    assert mine.queries == len(TEXTS) + 2
    other = Shouting()
    assert other.queries == 0 and other.encode(["a"]).dtype == np.float32 and other.queries == 1


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "got a single one"),
        (b"bytes", "got a single one"),
        (5, "got int"),
        (["fine", 5], "text 1 is of type int"),
        (["fine", None], "text 1 is of type NoneType"),
        (["fine", ""], "text 1 is empty"),
        ([" \n"], "text 0 is empty"),
        (["half \ud83e pair"], "half a surrogate pair at position 5"),
    ],
)
def test_what_is_not_a_text_is_refused(texts: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Shouting().encode(texts)  # type: ignore[arg-type]


def test_an_embedder_that_gives_nonsense_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Shouting()
    monkeypatch.setattr(mine, "_embed", lambda texts: np.full((len(texts), 26), np.nan))
    with pytest.raises(InputError, match="NaN or infinity for text 0"):
        mine.encode(["a"])
    monkeypatch.setattr(mine, "_embed", lambda texts: np.zeros((1, 26)))
    with pytest.raises(InputError, match=r"shape \(1, 26\) for 2 texts"):
        mine.encode(["a", "b"])
    with pytest.raises(InputError, match="no tokenizer"):
        mine.count_tokens(["a"])


# -- tokens --


def test_tokens_of_the_default_embedder(minilm: Embedder) -> None:
    assert minilm.count_tokens(["Hello World", "unaffable", "", "x " * 1000]) == [2, 3, 0, 1000]
    assert minilm.cut("Jack  Morris, PhD.  And more", 3) == "Jack  Morris,"
    assert minilm.cut("Jack Morris", 2) == "Jack Morris"
    assert minilm.cut("Jack Morris \n", 2) == "Jack Morris"
    assert minilm.cut("Jack Morris", 3) is None
    assert minilm.cut("", 1) is None
    assert minilm.cut("Unaffable", 2) == "Unaffa"
    for n in (1, 7, 63, 200):
        for text in ("The quick brown Fox. " * 4000, "no.spaces" * 3000):
            start = minilm.cut(text, n)
            assert start is not None and text.startswith(start) and minilm.count_tokens([start]) == [n]
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="at least 1"):
            minilm.cut("text", bad)  # type: ignore[arg-type]


def test_key_is_what_the_embedder_sees(minilm: Embedder) -> None:
    assert minilm.key("  The CAFÉ\n in Paris ") == minilm.key("the cafe in paris")
    for a, b in (("The CAFÉ", "the cafe"), ("a  b", "a\nb"), ("(at 3.7", "( at 3. 7"), ("\U0001f600", "\U0001f680")):
        assert minilm.key(a) == minilm.key(b)
        np.testing.assert_allclose(minilm.encode([a]), minilm.encode([b]), atol=1e-6)
    for a, b in (("in Paris", "in Paris."), ("well being", "wellbeing"), ("5 0", "50")):
        assert minilm.key(a) != minilm.key(b)
    assert minilm.key("") == minilm.key(" \n") == ""
    assert Shouting().key(" A  b") == "a b"


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def cased_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A byte-level BPE (white space matters) or a SentencePiece-like unigram tokenizer, trained on this file."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    if request.param == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
        )
        trainer = trainers.UnigramTrainer(
            vocab_size=400, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def test_the_vocabulary_is_what_stands_in_texts(cased_tokenizer: Tokenizer, minilm: Embedder) -> None:
    for found in (vocabulary(cased_tokenizer), minilm.vocabulary()):
        assert len(found) == len(set(found)) > 250
        assert not any(token == "" or token.startswith(("##", "\u2581", "\u0120")) for token in found)
    assert {"hagen", "the", "##"} & set(minilm.vocabulary()) == {"hagen", "the"}
    assert "tokenizer" in vocabulary(cased_tokenizer)
    with pytest.raises(TokensUnknown, match="has no tokenizer here; give it one to list its tokens"):
        Shouting().vocabulary()


def test_cut_with_tokenizers_that_split_again(cased_tokenizer: Tokenizer) -> None:
    text = "def encode(texts):  tokenizer.train_from_iterator(lines)  and  Paris½ is nice, très. " * 3
    total = len(cased_tokenizer.encode(text, add_special_tokens=False).ids)
    found = 0
    for n in range(1, total + 2):
        start = cut_text(cased_tokenizer, text, n)
        if start is not None:
            found += 1
            assert text.startswith(start) and start == start.rstrip()
            assert len(cased_tokenizer.encode(start, add_special_tokens=False).ids) == n
    assert found > 0.85 * total and cut_text(cased_tokenizer, text, total + 1) is None
    assert is_cased(cased_tokenizer)


def test_loading_is_silent_and_changes_no_settings(tiny: str, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging as transformers_logging

    environment, level = dict(os.environ), logging.getLogger("sentence_transformers").level
    bars = transformers_logging.is_progress_bar_enabled()
    threads = torch.get_num_threads()
    mine = SentenceTransformerEmbedder(tiny, device="cpu")
    mine.encode(TEXTS)
    assert mine.model.tokenizer.backend_tokenizer.truncation is None or mine.model.max_seq_length == 64
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment and torch.get_num_threads() == threads
    assert logging.getLogger("sentence_transformers").level == level
    assert transformers_logging.is_progress_bar_enabled() == bars


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
