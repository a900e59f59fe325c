"""Where training text comes from, and how it is cut into spans."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from unembed.errors import InputError, StorageError, first_line, require
from unembed.scripts import chunks, first_words
from unembed.training.config import SourceConfig, SpanConfig

SUFFIXES = (".txt", ".jsonl", ".parquet")
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}
# After a full stop and a space; a full stop of Chinese or Japanese needs none, and its closing quote belongs to it.
_SENTENCE_START = re.compile(r"(?<=[.!?؟।])\s+(?=\S)|(?<=[。！？．])[。！？．”’」』）]*+\s*+(?=\S)")


def read_texts(source: SourceConfig) -> Iterator[str]:
    """The non-empty texts of one source, in order. Raises InputError or StorageError in one line."""
    if source.limit is not None and source.limit < 1:
        raise InputError(f"limit is {source.limit}: it must be 1 or more")
    texts = _read_hub(source) if source.path.startswith("hf:") else _read_path(Path(source.path), source.field)
    stripped = (" ".join(text.split()) for text in texts)
    return islice((text for text in stripped if text), source.limit)


def _read_hub(source: SourceConfig) -> Iterator[str]:
    datasets = require("datasets", "train")
    name, _, split = source.path[3:].partition("#")
    name, _, config = name.partition(":")
    try:
        rows = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
    except Exception as error:  # the library raises many kinds for one cause: it is not there or not reachable
        raise InputError(f"dataset '{name}' cannot be opened ({first_line(error)}); check name and network") from error
    for row in _each(rows, f"dataset '{name}' broke off", "check the network and run again"):
        yield _pick(row, source.field, source.path)


def _read_path(path: Path, field: str) -> Iterator[str]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) in SUFFIXES)
        if not files:
            raise InputError(f"{path} holds no {', '.join(SUFFIXES)} file (also .gz, .xz): give a folder that does")
        for file in files:
            yield from _read_path(file, field)
        return
    if not path.is_file():
        raise InputError(f"{path} does not exist: give a text, jsonl or parquet file, a folder, or hf:NAME")
    kind = _kind(path)
    if kind == ".parquet":
        yield from _read_parquet(path, field)
    elif kind in SUFFIXES:
        yield from _read_lines(path, kind, field)
    else:
        raise InputError(f"{path} has an unknown ending: known are {', '.join(SUFFIXES)}, each also with .gz or .xz")


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def _read_lines(path: Path, kind: str, field: str) -> Iterator[str]:
    opener: Any = COMPRESSED.get(path.suffix, open)
    try:
        file: IO[str]
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if kind == ".txt":
                    yield line
                    continue
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(f"{path} line {number} is no JSON ({error.msg}): mend or remove it") from error
                yield _pick(row, field, f"{path} line {number}")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise StorageError(f"{path} cannot be read ({error}): copy it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): convert it first") from error


def _read_parquet(path: Path, field: str) -> Iterator[str]:
    parquet = require("pyarrow.parquet", "parquet")
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:
        raise StorageError(f"{path} cannot be read as parquet ({first_line(error)}): copy it again") from error
    names = file.schema_arrow.names
    if field not in names:
        raise InputError(f"{path} has no column '{field}': its columns are {', '.join(names)}; set field")
    for texts in _each(_column(file, field), f"{path} cannot be read as parquet", "copy it again"):
        for text in texts:
            if text is not None and not isinstance(text, str):
                raise InputError(f"{path} holds {type(text).__name__} in its column '{field}', not text: set field")
            if text:
                yield text


def _column(file: Any, field: str) -> Iterator[list[Any]]:
    for batch in file.iter_batches(columns=[field]):
        yield batch.column(0).to_pylist()


def _each(items: Iterable[Any], what: str, fix: str) -> Iterator[Any]:
    """The items; an error of the library that reads them as a StorageError of one line. Errors of who takes them
    pass."""
    coming = iter(items)
    while True:
        try:
            item = next(coming)
        except StopIteration:
            return
        except Exception as error:  # of many kinds, as damage is
            raise StorageError(f"{what} ({first_line(error)}): {fix}") from error
        yield item


def _pick(row: object, field: str, where: str) -> str:
    if isinstance(row, str):
        return row
    if isinstance(row, dict) and isinstance(row.get(field), str):
        return row[field]
    keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
    raise InputError(f"{where} has no text field '{field}' (it has: {keys}): set field")


class PackedTexts:
    """Many texts in one byte buffer: a million Python strings would take several times the memory."""

    def __init__(self, texts: Iterable[str]) -> None:
        pieces = [text.encode(errors="replace") for text in texts]  # half surrogate pairs, which JSON can hold
        self._ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self._buffer = b"".join(pieces)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        start = int(self._ends[i - 1]) if i else 0
        return self._buffer[start : int(self._ends[i])].decode()

    def truncate(self, n: int) -> None:
        self._ends = self._ends[:n]


class Corpus:
    """Weighted sources from which spans are drawn. Draws depend on the generator alone, never on earlier draws."""

    def __init__(self, sources: list[SourceConfig], spans: SpanConfig) -> None:
        self.sources, self.spans = sources, spans
        self.texts = [PackedTexts(read_texts(source)) for source in sources]
        for source, texts in zip(sources, self.texts, strict=True):
            if not len(texts):
                raise InputError(f"{source.path} holds no text: give another source or another field")
        weights = np.array([source.weight for source in sources], dtype=np.float64)
        if (weights < 0).any() or weights.sum() <= 0:
            raise InputError("corpus weights must be 0 or more, and one of them more than 0")
        self.weights = weights / weights.sum()

    def __len__(self) -> int:
        return sum(len(texts) for texts in self.texts)

    def hold_out(self, n: int) -> list[str]:
        """Take up to n texts (at most a tenth of each source) out of training, from the ends of the sources."""
        held: list[str] = []
        for texts in self.texts:
            take = min(-(-n // len(self.texts)), len(texts) // 10)
            held += [texts[i] for i in range(len(texts) - take, len(texts))]
            texts.truncate(len(texts) - take)
        return held[:n]

    def sample(self, n: int, rng: np.random.Generator) -> list[str]:
        """n spans. Lengths are log-uniform in words, so that every scale from word to paragraph is seen as often."""
        picks = rng.choice(len(self.texts), size=n, p=self.weights)
        low, high = np.log(self.spans.min_words), np.log(self.spans.max_words + 1)
        lengths = np.exp(rng.uniform(low, high, size=n)).astype(int)
        out = []
        for pick, words in zip(picks.tolist(), lengths.tolist(), strict=True):
            text = self.texts[pick][int(rng.integers(len(self.texts[pick])))]
            out.append(text if self.sources[pick].whole else cut_span(text, words, self.spans.sentence_start, rng))
        return out

    def examples(self, n: int, words: int = 64, seed: int = 0) -> list[str]:
        """n training texts, cut to `words` words, in the proportions of training."""
        rng = np.random.default_rng([seed, 4])
        picks = rng.choice(len(self.texts), size=n, p=self.weights).tolist()
        texts = [self.texts[pick][int(rng.integers(len(self.texts[pick])))] for pick in picks]
        return [first_words(text, words) for text in texts]

    def tokenizer_texts(self, n: int = 200_000, seed: int = 0) -> Iterator[str]:
        """Texts for training the tokenizer, in the proportions of training."""
        rng = np.random.default_rng(seed)
        for pick in rng.choice(len(self.texts), size=n, p=self.weights).tolist():
            yield self.texts[pick][int(rng.integers(len(self.texts[pick])))][:2000]


def cut_span(text: str, words: int, sentence_start: float, rng: np.random.Generator) -> str:
    """A run of `words` words of the text (all of it when it is shorter); see `scripts.chunks` for what a word is."""
    found = chunks(text)
    latest = max(0, len(found) - words)
    first = int(rng.integers(latest + 1))
    if rng.random() < sentence_start:
        starts = [0] + [match.end() for match in _SENTENCE_START.finditer(text)]
        at = starts[int(rng.integers(len(starts)))]
        first = min(next((i for i, word in enumerate(found) if word.start() >= at), latest), latest)
    last = min(first + words, len(found)) - 1
    return text[found[first].start() : found[last].end()]
