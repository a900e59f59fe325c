"""The decoder's vocabulary: a SentencePiece model, and three tokens of DAVAE's own behind its last piece."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from unembed.errors import CheckpointError, InputError, require

LONGEST_LINE = 4096
"""Bytes of a text that training a vocabulary reads."""


class PieceTokenizer:
    """Texts ↔ ids. In the public checkpoint, whose model has 50,000 pieces: end 50000, padding 50001, begin 50002."""

    def __init__(self, path: str | Path) -> None:
        """path: spiece.model. Raises CheckpointError where it is missing or damaged."""
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"{path} is missing: the decoder cannot write without its vocabulary; copy it again")
        self.pieces  # noqa: B018  (so that a damaged file is found now)
        self.eos_id = self.pieces.get_piece_size()
        self.pad_id, self.bos_id, self.size = self.eos_id + 1, self.eos_id + 2, self.eos_id + 3

    @cached_property
    def pieces(self) -> Any:  # noqa: ANN401  (SentencePiece comes with the extra)
        library = require("sentencepiece", "davae")
        try:
            return library.SentencePieceProcessor(model_file=str(self.path))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} is no SentencePiece model: copy it again") from error

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without begin and end."""
        return self.pieces.encode(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. `<unk>` stands as it is; DAVAE's own tokens, and ids without a piece, are left out."""
        unknown = self.pieces.unk_id()
        known = [i for i in ids if i < self.eos_id]
        runs = ["<unk>" * len(list(run)) if odd else self._join(run) for odd, run in groupby(known, unknown.__eq__)]
        return "".join(runs).strip()

    def _join(self, ids: Iterable[int]) -> str:
        # A plain decode would take away the blank in front of what follows an unknown piece.
        ids = list(ids)
        blank = " " if self.pieces.id_to_piece(ids[0]).startswith("▁") else ""
        return blank + self.pieces.decode(ids)

    def _ends(self, text: str) -> list[int]:
        """Where in the text each piece ends."""
        return [end for _, end in self.pieces.encode(text, return_type="offset_mapping")["offsets"]]

    def start(self, text: str, n: int) -> str:
        """The longest start of `text` of at most n pieces; perhaps empty."""
        ends = self._ends(text)
        if len(ends) <= n:
            return text
        starts = (text[:end].strip() for end in reversed(ends[:n]))
        return next((start for start in starts if len(self.pieces.encode(start)) <= n), "")

    def cut(self, text: str, n: int) -> str | None:
        """The longest start of `text` of exactly n pieces; None where there is none."""
        if n < 1:
            raise InputError(f"cannot cut a text to {n} tokens; ask for at least 1")
        for end in sorted({*self._ends(text)[: n + 4]}, reverse=True):
            start = text[:end].rstrip()
            if start and len(self.pieces.encode(start)) == n:
                return start
        return None

    def save(self, path: str | Path) -> None:
        shutil.copyfile(self.path, path)


def train_pieces(texts: Iterable[str], size: int, path: Path, threads: int = 1) -> None:
    """Train a unigram vocabulary of at most `size` pieces into `path`. The 256 bytes are among them, so that every text
    can be written. Raises InputError where the texts need more."""
    library = require("sentencepiece", "davae")

    def lines() -> Iterator[str]:
        for text in texts:
            yield text.encode("utf-8")[:LONGEST_LINE].decode("utf-8", "ignore")

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "wb") as file:
            library.SentencePieceTrainer.train(
                sentence_iterator=lines(), model_writer=file, vocab_size=size, model_type="unigram",
                byte_fallback=True, hard_vocab_limit=False, character_coverage=0.9995, minloglevel=2,
                num_threads=threads, shuffle_input_sentence=False, normalization_rule_name="identity",
            )  # fmt: skip
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        said = str(error).splitlines()[0].rpartition("] ")[2] or "too few texts"
        raise InputError(
            f"no vocabulary of {size} pieces can be made of these texts ({said}): change vocab_size"
        ) from error
