"""From files to training batches: every kind of corpus, what is wrong with one, and how spans and batches are cut."""

from __future__ import annotations

import gzip
import importlib
import json
import lzma
import re
import sys
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest

from unembed.errors import InputError, MissingExtra, StorageError, install_line
from unembed.models.native.tokenizer import TextTokenizer
from unembed.scripts import chunks
from unembed.training.batches import SpanSource, StoredSource, batches_of_chunk, disturb, drop_condition
from unembed.training.config import ObjectiveConfig, OptimiserConfig, SourceConfig, SpanConfig, TrainConfig
from unembed.training.corpora import Corpus, PackedTexts, cut_span, read_texts
from unembed.training.optim import schedule

TEXTS = ["The first text.", "Größe 你好 👍🏽", "A third one, with\ttabs  and spaces"]
CLEAN = ["The first text.", "Größe 你好 👍🏽", "A third one, with tabs and spaces"]
STORY = (
    "It was late. The old house stood at the end of the road, and nobody had lived there for years! "
    "Why did the light burn? We never found out, although we asked everybody in the village twice."
)


def write(path, texts=TEXTS, field="text"):
    """`texts` as a corpus in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow as arrow
        from pyarrow import parquet

        parquet.write_table(arrow.table({"id": list(range(len(texts))), field: texts}), path)
        return path
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "wt", encoding="utf-8") as file:
        for text in texts:
            file.write((json.dumps({"id": 1, field: text}) if ".jsonl" in path.name else text) + "\n")
    return path


def read(path, **options):
    return list(read_texts(SourceConfig(str(path), **options)))


def refused(kind, match, path, **options):
    with pytest.raises(kind, match=match) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- reading ---


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.xz", "a.jsonl", "a.jsonl.gz", "a.jsonl.xz", "a.parquet"])
def test_each_kind_of_file(tmp_path, name):
    assert read(write(tmp_path / name)) == CLEAN
    assert read(tmp_path / name, limit=2) == CLEAN[:2]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write(tmp_path / "b.txt", ["from b"])
    write(tmp_path / "sub" / "c.jsonl.gz", ["from c"])
    write(tmp_path / "a.parquet", ["from a"])
    (tmp_path / "notes.md").write_text("not a corpus")
    assert read(tmp_path) == ["from a", "from b", "from c"]


def test_empty_lines_and_line_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("\r\none\r\n\n   \ntwo\n\u00a0\nthree".encode())
    assert read(tmp_path / "a.txt") == ["one", "two", "three"]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n"two"\n{"text": ""}\n{"text": " \\n "}\n')
    assert read(tmp_path / "a.jsonl") == ["one", "two"]
    assert read(write(tmp_path / "b.parquet", ["one", None, "", "two"])) == ["one", "two"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_another_field(tmp_path, name):
    path = write(tmp_path / name, field="body")
    assert read(path, field="body") == CLEAN
    assert "body" in refused(InputError, "'text'.*set field", path)
    refused(InputError, "'id'", path, field="id")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"text": "ok"}\n{"text": "cut\n', "line 2 is no JSON"),
        ("plain words\n", "line 1 is no JSON"),
        ('{"text": "ok"}\n{"body": "b", "id": 2}\n', r"line 2 has no text field 'text' \(it has: body, id\)"),
        ('{"text": 7}\n', "line 1 has no text field"),
        ("[1, 2]\n", "line 1 has no text field"),
        ("null\n", "line 1 has no text field"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, match):
    (tmp_path / "a.jsonl").write_text(content)
    assert "a.jsonl" in refused(InputError, match, tmp_path / "a.jsonl")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_that_is_not_utf8(tmp_path, name):
    (tmp_path / name).write_bytes('{"text": "Größe"}\n'.encode("latin-1"))
    refused(InputError, "is not UTF-8", tmp_path / name)


def test_damaged_files(tmp_path):
    whole = write(tmp_path / "a.txt.gz", [f"line {i} {i * i}" for i in range(3000)]).read_bytes()
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    refused(StorageError, "cannot be read", tmp_path / "cut.txt.gz")
    for at in (30, len(whole) // 2):
        (tmp_path / "bad.txt.gz").write_bytes(whole[:at] + bytes(200) + whole[at + 200 :])
        refused((StorageError, InputError), "cannot be read|not UTF-8", tmp_path / "bad.txt.gz")
    (tmp_path / "not.txt.gz").write_text("no gzip at all")
    refused(StorageError, "cannot be read", tmp_path / "not.txt.gz")
    packed = write(tmp_path / "a.txt.xz").read_bytes()
    (tmp_path / "cut.txt.xz").write_bytes(packed[:-20])
    refused(StorageError, "cannot be read", tmp_path / "cut.txt.xz")
    (tmp_path / "not.txt.xz").write_text("no xz at all")
    refused(StorageError, "cannot be read", tmp_path / "not.txt.xz")
    table = write(tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(table[:-30])
    refused(StorageError, "cannot be read as parquet", tmp_path / "cut.parquet")


def test_paths_that_are_no_corpus(tmp_path):
    refused(InputError, "does not exist", tmp_path / "missing.txt")
    (tmp_path / "a.docx").write_text("words")
    refused(InputError, "unknown ending", tmp_path / "a.docx")
    refused(InputError, r"holds no \.txt", tmp_path)
    refused(InputError, "limit is 0", tmp_path / "a.txt", limit=0)


def test_missing_packages_name_the_pip_line(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet")
    import_module = importlib.import_module

    def absent(name, *rest):
        if name.split(".")[0] in ("pyarrow", "datasets"):
            raise ImportError(name)
        return import_module(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    refused(MissingExtra, re.escape(install_line("parquet")), path)
    refused(MissingExtra, re.escape(install_line("train")), "hf:some/data")


def test_a_dataset_of_the_hub(monkeypatch):
    asked = []

    def load_dataset(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        if name == "gone":
            raise RuntimeError("no such dataset\nand a long explanation")
        return iter([{"text": " one "}, {"text": ""}, {"text": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read("hf:owner/data:en#test") == read("hf:data") == ["one", "two"]
    assert asked == [("owner/data", "en", "test", True), ("data", None, "train", True)]
    refused(InputError, "dataset 'gone' cannot be opened", "hf:gone")
    refused(InputError, "no text field 'body'", "hf:data", field="body")


def test_streaming_with_the_real_library(tmp_path):
    pytest.importorskip("datasets")
    folder = tmp_path / "letters"
    folder.mkdir()
    rows = "".join(json.dumps({"body": text}) + "\n" for text in ("one", "", "two", "three"))
    (folder / "train.jsonl").write_text(rows, encoding="utf-8")
    assert read(f"hf:{folder}", field="body") == ["one", "two", "three"]
    assert read(f"hf:{folder}#train", field="body", limit=2) == ["one", "two"]
    refused(InputError, "it has: body", f"hf:{folder}")
    refused(InputError, "cannot be opened", f"hf:{tmp_path / 'nothing'}")


# --- the corpus ---


def test_packed_texts_come_back():
    packed = PackedTexts(iter(TEXTS))
    assert len(packed) == 3 and [packed[i] for i in range(3)] == TEXTS
    packed.truncate(1)
    assert len(packed) == 1 and packed[0] == TEXTS[0]


def test_damage_beyond_the_beginning_is_one_line(tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bad.parquet"
    texts = [f"text number {i}" for i in range(5000)]
    parquet.write_table(pa.table({"text": texts}), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 4000] = bytes(4000)
    path.write_bytes(whole)
    refused(StorageError, "cannot be read as parquet .*: copy it again", path)

    def rows():
        yield {"text": "one"}
        raise ConnectionError("reset by peer\nby a server")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda *a, **k: rows()))
    refused(StorageError, r"'some/data' broke off \(reset by peer\): check the network", "hf:some/data")


def test_half_a_surrogate_pair_does_not_end_a_run(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "cut \\ud83d off"}\n')
    corpus = Corpus([SourceConfig(str(tmp_path / "a.jsonl"))], SpanConfig())
    [text] = [corpus.texts[0][0]]
    assert text.startswith("cut ") and text.endswith(" off") and text.encode()


def corpus_of(tmp_path, *sources, **spans):
    made = []
    for i, (texts, options) in enumerate(sources):
        made.append(SourceConfig(str(write(tmp_path / f"{i}.txt", texts)), **options))
    return Corpus(made, SpanConfig(**spans))


def test_spans_depend_on_the_generator_alone(tmp_path):
    corpus = corpus_of(tmp_path, ([STORY, STORY.upper()], {}))
    first = corpus.sample(20, np.random.default_rng(5))
    corpus.sample(7, np.random.default_rng(1))
    assert corpus.sample(20, np.random.default_rng(5)) == first
    assert corpus.sample(20, np.random.default_rng(6)) != first
    assert corpus.examples(5) == corpus.examples(5)
    assert list(corpus.tokenizer_texts(5)) == list(corpus.tokenizer_texts(5))


def test_lengths_of_spans(tmp_path):
    corpus = corpus_of(tmp_path, ([" ".join(f"w{i}" for i in range(500))], {}), min_words=2, max_words=30)
    lengths = [len(span.split()) for span in corpus.sample(2000, np.random.default_rng(0))]
    assert min(lengths) == 2 and max(lengths) == 30
    assert 0.35 < np.mean(np.array(lengths) < 8) < 0.7, "as many short as long ones, on the scale of logarithms"


def test_weights_and_whole_texts(tmp_path):
    corpus = corpus_of(tmp_path, (["aaa bbb ccc ddd"], {"weight": 3.0, "whole": True}), (["x y z"], {"weight": 1.0}))
    spans = corpus.sample(2000, np.random.default_rng(0))
    whole = [span for span in spans if span == "aaa bbb ccc ddd"]
    assert all(span == "aaa bbb ccc ddd" or set(span.split()) <= set("xyz") for span in spans)
    assert len(whole) / len(spans) == pytest.approx(0.75, abs=0.04)
    assert len(corpus) == 2


def test_what_is_no_corpus(tmp_path):
    with pytest.raises(InputError, match="holds no text"):
        corpus_of(tmp_path, (["", "  "], {}))
    for weights in ((0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(InputError, match="weights"):
            corpus_of(tmp_path, *[(["text"], {"weight": weight}) for weight in weights])


def test_held_out_texts_are_never_drawn(tmp_path):
    corpus = corpus_of(tmp_path, ([f"a{i}" * 3 for i in range(50)], {}), ([f"b{i}" * 3 for i in range(30)], {}))
    held = corpus.hold_out(6)
    assert held == [f"a{i}" * 3 for i in (47, 48, 49)] + [f"b{i}" * 3 for i in (27, 28, 29)]
    assert len(corpus) == 74
    assert not set(held) & set(corpus.sample(3000, np.random.default_rng(0)))
    assert len(corpus_of(tmp_path, (["one", "two", "three"], {})).hold_out(64)) == 0, "a tenth at most"


# --- spans ---


def spans(text, words, sentence_start=0.0, n=200):
    return [cut_span(text, words, sentence_start, np.random.default_rng(i)) for i in range(n)]


@pytest.mark.parametrize("words", [1, 3, 12])
def test_a_span_is_a_run_of_whole_words(words):
    found = spans(STORY, words)
    assert all(len(span.split()) == words and span in STORY for span in found)
    assert all(f" {span} " in f" {STORY} " for span in found), "no word is cut"
    assert len(set(found)) > 10


def test_spans_can_begin_where_sentences_do():
    starts = {span.split()[0] for span in spans(STORY, 4, sentence_start=1.0)}
    assert starts == {"It", "The", "Why", "We"}


def test_a_text_that_is_too_short_comes_whole():
    for text in ("Hello", "two words", "internationalisation", STORY):
        assert set(spans(text, 56, 0.6, n=20)) == {text}
    assert set(spans("internationalisation", 1, n=20)) == {"internationalisation"}, "one word is a run of one word"


@pytest.mark.parametrize(
    "text",
    [
        "今天天气很好，我们去公园散步吧。他说他不想去，因为他还有很多工作要做。",
        "これは日本語の文章です。空白がないので、文字で切ります。",
        "ประเทศไทยมีภาษาเป็นของตนเอง",
    ],
)
def test_text_without_spaces_is_cut_by_characters(text):
    found = spans(text, 4)
    assert all(7 <= len(span) <= 14 and span in text for span in found) and len(set(found)) > 5
    assert not any(unicodedata.combining(span[0]) for span in found), "a mark stays with its letter"
    assert set(spans(text, 100, n=5)) == {text}


def test_text_that_mixes_scripts_is_cut_at_words_and_characters():
    text = "用户可以在 Linux 系统上安装 TiDB 数据库，然后启动服务。" * 3
    found = spans(text, 5, n=200)
    assert all(len(chunks(span)) == 5 and span in text for span in found)
    assert all(len(span) < 30 for span in found), "not five runs between spaces"
    assert not any(span.endswith(("Linu", "TiD")) or span.startswith(("inux", "iDB")) for span in found)


def test_chinese_spans_can_begin_where_sentences_do():
    text = "今天天气很好。我们去公园吧！“他不想去。”因为有工作"
    assert {span[0] for span in spans(text, 2, sentence_start=1.0)} == {"今", "我", "“", "因"}


def test_examples_of_text_without_spaces_are_cut_too(tmp_path):
    (tmp_path / "a.txt").write_text("今天天气很好我们去公园散步吧\n" * 3, encoding="utf-8")
    corpus = Corpus([SourceConfig(str(tmp_path / "a.txt"))], SpanConfig())
    assert set(corpus.examples(4, words=3)) == {"今天天气很好"}


# --- batches ---


class Numbered:
    """Texts whose vector carries their number, so that rows can be told apart."""

    def __init__(self, texts):
        self.texts, self.asked = texts, []

    def chunk(self, number):
        self.asked.append(number)
        vectors = np.zeros((len(self.texts), 4), np.float32)
        vectors[:, 0] = np.arange(len(self.texts))
        return self.texts, vectors

    def encode(self, texts):
        return np.stack([np.full(4, float(len(text)), np.float32) for text in texts])


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train([STORY] * 3, 300)


def config(**fields):
    fields = {
        "output": "unused",
        "vectors": "unused",
        "batch_tokens": 96,
        "spans": SpanConfig(lengths=[48, 12, 24]),
        **fields,
    }
    return TrainConfig(**fields)


def test_batches_hold_each_text_once_at_a_width_that_fits(tokenizer):
    texts = [STORY[: 3 + i % 90] for i in range(200)] + [STORY * 3, ""]
    ids = tokenizer.encode(texts)
    found = list(batches_of_chunk(Numbered(texts), 0, tokenizer, config(), rank=0))
    seen = []
    for batch in found:
        assert batch.width in (12, 24, 48) and len(batch.ids) == len(batch.targets)
        assert 96 // batch.width / 2 <= len(batch.ids) <= 96 // batch.width
        for row, target in zip(batch.ids, batch.targets, strict=True):
            assert row == ids[int(target[0])] and 0 < len(row) <= batch.width
            seen.append(int(target[0]))
    assert len(seen) == len(set(seen)) and len(seen) > 180
    assert 200 not in seen and 201 not in seen, "too long, and empty"
    assert len({batch.width for batch in found}) == 3
    widths = [batch.width for batch in found]
    assert widths != sorted(widths), "lengths are mixed"


def test_the_same_chunk_gives_the_same_batches(tokenizer):
    texts = [STORY[: 3 + i % 90] for i in range(60)]

    def ids(number, rank=0, **fields):
        return [batch.ids for batch in batches_of_chunk(Numbered(texts), number, tokenizer, config(**fields), rank)]

    assert ids(3) == ids(3)
    assert ids(3) != ids(4) and ids(3) != ids(3, rank=1) and ids(3) != ids(3, seed=1)


def test_a_chunk_smaller_than_a_batch_is_one_batch(tokenizer):
    [batch] = batches_of_chunk(Numbered(["one", "two"]), 0, tokenizer, config(batch_tokens=4096), rank=0)
    assert len(batch.ids) == 2 and batch.width == 12


def test_the_share_of_batches_with_a_hypothesis(tokenizer):
    source = Numbered([STORY[: 3 + i % 90] for i in range(400)])
    for share, low, high in ((0.0, 0, 0), (1.0, 1, 1), (0.5, 0.3, 0.7)):
        made = config(objective=ObjectiveConfig(hypothesis_share=share), batch_tokens=48)
        drawn = [batch.with_hypothesis for batch in batches_of_chunk(source, 0, tokenizer, made, rank=0)]
        assert low <= np.mean(drawn) <= high


def test_noise_keeps_the_length_and_stays_near():
    targets = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)
    rng = np.random.default_rng(1)
    np.testing.assert_allclose(disturb(targets, ObjectiveConfig(noise_share=0.0), rng), targets, rtol=1e-6)
    noisy = disturb(targets, ObjectiveConfig(noise_share=0.5, noise_scale=0.1), rng)
    assert noisy.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=1), np.linalg.norm(targets, axis=1), rtol=1e-5)
    moved = np.linalg.norm(noisy - targets, axis=1) / np.linalg.norm(targets, axis=1)
    assert 0.4 < np.mean(moved > 1e-5) < 0.6 and moved.max() < 0.2
    assert not drop_condition(100, ObjectiveConfig(prior_share=0.0), rng).any()
    assert 0.1 < drop_condition(1000, ObjectiveConfig(prior_share=0.2), rng).mean() < 0.3


def test_fresh_spans_are_the_same_whenever_they_are_asked_for(tmp_path):
    corpus, embedder = corpus_of(tmp_path, ([STORY], {})), Numbered([])
    source = SpanSource(corpus, embedder, 8, seed=0, rank=0)
    texts, vectors = source.chunk(5)
    source.chunk(0)
    again, same = source.chunk(5)
    assert again == texts and (same == vectors).all() and (vectors[:, 0] == [len(text) for text in texts]).all()
    assert SpanSource(corpus, embedder, 8, seed=0, rank=1).chunk(5)[0] != texts
    assert SpanSource(corpus, embedder, 8, seed=1, rank=0).chunk(5)[0] != texts


def test_stored_vectors_are_dealt_out_once_in_each_pass():
    class Folder(SimpleNamespace):
        def __len__(self):
            return len(self.texts)

    folder = Folder(texts=[str(i) for i in range(60)], vectors=np.arange(60, dtype=np.float16)[:, None])
    sources = [StoredSource(folder, 10, seed=0, rank=rank, processes=2) for rank in (0, 1)]
    passes = []
    for epoch in range(2):
        dealt = [source.chunk(number) for number in range(3 * epoch, 3 * epoch + 3) for source in sources]
        passes.append([text for texts, _ in dealt for text in texts])
        assert sorted(passes[-1], key=int) == folder.texts
        for texts, vectors in dealt:
            assert vectors.dtype == np.float32 and vectors[:, 0].astype(int).astype(str).tolist() == texts
    assert passes[0] != passes[1]
    assert len(StoredSource(folder, 500, 0, 0, 1).chunk(0)[0]) == 60, "a chunk larger than the folder is the folder"


def test_the_learning_rate_rises_stays_and_falls():
    factors = [schedule(step, 100, OptimiserConfig(warmup=0.1, decay=0.5)) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[50] == 1.0
    assert factors[75] == pytest.approx(0.5) and 0 < factors[99] < 0.05
    assert schedule(0, 1, OptimiserConfig()) == 1.0
