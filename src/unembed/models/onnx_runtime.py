"""A model of any family that was exported as ONNX (`unembed models export`), run by onnxruntime. It needs numpy,
tokenizers and onnxruntime, and no torch: with an embedder behind an API, a whole search needs none.

Shapes: B rows, E vector, S hypothesis tokens, V vocabulary. What a text's state consists of, only its graphs know; all
of it has the axis of rows first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.embedders.spec import EmbedderSpec
from unembed.embedders.vectors import validate_vectors
from unembed.errors import CheckpointError, InputError, require
from unembed.models.base import GREEDY, Hypothesis, InversionModel, Sampling
from unembed.models.lexicon import Lexicon
from unembed.models.variations import VARIED, changes
from unembed.models.wording import hints

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

ARCHITECTURE = "UnembedOnnx"
VERSION = 2
NEXT = "next."
"""In front of the name of a part of the state as it is after a step."""
READ_AS = ("longest", "before", "after", "pad")
"""How hypotheses become ids; see `unembed.export.parts.Hypotheses`."""
READER = "hypotheses.json"
"""The tokenizer of hypotheses, where it is not the one of texts."""
LEXICON = "lexicon.npz"
"""Of a model that has one."""
COMPACT_BELOW = 0.75  # drop finished rows once fewer than this share is still being written

State = dict[str, np.ndarray]


def digest(files: dict[str, str]) -> str:
    """Of an export, from the SHA-256 of its files by name."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


class OnnxModel(InversionModel):
    """Writes texts from vectors greedily or by sampling."""

    family = "onnx"

    sessions: dict[str, InferenceSession]
    """A graph of each file that the config names."""
    tokenizer: Tokenizer
    reader: Tokenizer | None
    """Of hypotheses, where it is another one."""

    def __init__(self, config: dict[str, Any]) -> None:
        """config: as exported. `load` opens the files that belong to it."""
        self.spec = EmbedderSpec.from_dict(config["embedder"])
        self.embedder = config["opened_as"]
        self.max_tokens, self.batch_size = int(config["max_tokens"]), int(config["batch_size"])
        self.has_prior, self.end = bool(config["has_prior"]), int(config["end"])
        self.files = {
            role: {kind: str(files[kind]) for kind in ("read", "step")} for role, files in config["writers"].items()
        }
        self.read_as = {name: config["hypotheses"][name] for name in READ_AS} if "correct" in self.files else {}
        self.literal, self.closes = bool(config["literal"]), bool(config["closes"])
        self.takes_words = bool(config.get("told", False))  # there was none in version 1
        self.varies = bool(config.get("varies", False))  # nor this and the next in early exports of version 2
        self.searched = dict(config.get("search", {}))
        self.digest = digest(config["sha256"])

    @classmethod
    def load(
        cls, folder: str | Path, *, threads: int | None = None, providers: Sequence[Any] = ("CPUExecutionProvider",)
    ) -> OnnxModel:
        """Open an exported folder.

        Args:
            folder: what `unembed models export` wrote.
            threads: of the CPU; None leaves it to onnxruntime.
            providers: of onnxruntime, the best first.

        Raises:
            MissingExtra: without onnxruntime. CheckpointError: a file that is missing or is not what it was.
        """
        onnxruntime = require("onnxruntime", "onnx")
        from tokenizers import Tokenizer

        folder = Path(folder).expanduser()
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config["architectures"] != [ARCHITECTURE]:
                raise CheckpointError(f"{folder} is no exported model: unembed models export NAME --onnx {folder}")
            if config["version"] > VERSION:
                raise CheckpointError(f"{folder} is of format version {config['version']}: pip install -U unembed")
            model, digests = cls(config), dict(config["sha256"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise CheckpointError(
                f"{folder}/config.json is missing or damaged ({error}): export the model again"
            ) from error
        _verify(folder, digests)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        try:
            model.sessions = {
                name: onnxruntime.InferenceSession(folder / name, options, providers=list(providers))
                for name in {name for files in model.files.values() for name in files.values()}
            }
            model.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            model.reader = Tokenizer.from_file(str(folder / READER)) if READER in digests else None
            if LEXICON in digests:
                with np.load(folder / LEXICON) as stored:
                    model.lexicon = Lexicon(stored["words"].tolist(), stored["directions"])
        except Exception as error:  # both libraries have classes of their own
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{folder} cannot be opened ({first}): export the model again") from error
        model.tokenizer.encode_special_tokens = model.literal
        return model

    def texts(self, vectors: Any, *, normalize: bool = False) -> list[str]:
        """The greedy text of each vector: what `unembed.load(FOLDER).invert(vectors, steps=0)` gives, without torch.

        Args:
            vectors: [n, E] or [E], anything that holds numbers.
            normalize: scale them to unit length instead of insisting that they have it.

        Raises:
            InputError: vectors that are not this embedder's (dimension, NaN, zero, length), in one line.
        """
        targets = validate_vectors(vectors, self.spec, normalize=normalize)
        return [row[0].text for row in self.hypothesize(targets)]

    def hypothesize(
        self, targets: np.ndarray, n: int = 1, sampling: Sampling = GREEDY, seed: int = 0
    ) -> list[list[Hypothesis]]:
        return self._write("hypothesize", [{"targets": part} for part in self._parts(targets, n)], n, sampling, seed)

    def correct(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Hypothesis]]:
        """n better texts of each row; none at all without a corrector."""
        if "correct" not in self.files:
            return [[] for _ in hypotheses]
        read = self._feedback(targets, hypotheses, hypothesis_vectors, n, words)
        return self._write("correct", read, n, sampling, seed)

    def _feedback(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[State]:
        """What the corrector reads, in batches of about `batch_size` texts where n are written of each row."""
        said = [""] * len(hypotheses)
        if self.takes_words and self.lexicon is not None and len(hypotheses):
            said = hints(self.lexicon, hypotheses, targets - hypothesis_vectors, words)
        columns = (targets, hypothesis_vectors, hypotheses, said)
        parts = zip(*(self._parts(column, n) for column in columns), strict=True)
        return [
            {"targets": aims, "hypothesis_vectors": vectors, "hypothesis_ids": self._ids(texts, more)}
            for aims, vectors, texts, more in parts
        ]

    def vary(
        self, targets: np.ndarray, hypotheses: Sequence[str], hypothesis_vectors: np.ndarray, n: int = 1, seed: int = 0
    ) -> list[list[str]]:
        """As the model that was exported, a step for each token of the longest; other draws of the same chances."""
        if not self.varies:
            return super().vary(targets, hypotheses, hypothesis_vectors, n, seed)
        rng = np.random.default_rng(seed)
        out: list[list[str]] = []
        texts = self._parts(hypotheses, 1)
        for batch, some in zip(self._feedback(targets, hypotheses, hypothesis_vectors, 1), texts, strict=True):
            rows = tokens(self.tokenizer, some, self.max_tokens - 1)
            weights, likely = self._doubts(batch, rows)  # B T*VARIED
            # The n largest of log p and Gumbel noise are n draws without replacement.
            noisy = np.log(weights.clip(1e-12)) + rng.gumbel(size=weights.shape)
            drawn = np.argsort(-noisy, axis=1)[:, :n]
            chosen = np.take_along_axis(likely, drawn, 1)
            for ids, numbers, new in zip(rows, drawn.tolist(), chosen.tolist(), strict=True):
                out.append(self.tokenizer.decode_batch(changes(ids, numbers, new, rng)))
        return out

    def _doubts(self, batch: State, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """What would rather be written than the tokens of texts given as ids: at each place, the end's included, the
        VARIED likeliest and their probabilities, both [B, T * VARIED]; behind the end 0."""
        ids = _padded([[*row, self.end] for row in rows], -1)
        weights, likely = [], []
        for column, state in enumerate(self._along("correct", batch, ids)):
            doubt = np.exp(state["logits"] - state["logsumexp"][:, None])  # B V
            doubt[:, self.end] = 0
            np.put_along_axis(doubt, ids[:, column : column + 1].clip(0), 0, axis=1)  # what stands there is no change
            doubt[ids[:, column] < 0] = 0
            best = np.argpartition(-doubt, VARIED - 1, axis=1)[:, :VARIED]
            likely.append(best)
            weights.append(np.take_along_axis(doubt, best, 1))
        return np.concatenate(weights, axis=1), np.concatenate(likely, axis=1)

    def search_fields(self, sequence_beam_width: int) -> dict[str, Any]:
        return self.searched

    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        if targets is None:
            if not self.has_prior:
                raise InputError("this model has no prior: set prior_weight to 0")
            targets = np.zeros((len(texts), self.spec.dim), dtype=np.float32)
        longest = self.max_tokens if self.reader else self.read_as.get("longest", self.max_tokens)
        found = [
            self._follow(part, tokens(self.tokenizer, some, longest))
            for part, some in zip(self._parts(targets, 1), self._parts(texts, 1), strict=True)
        ]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)

    def _parts(self, rows: Any, each: int) -> Iterator[Any]:
        """Rows in batches of about `batch_size` texts."""
        size = max(1, self.batch_size // each)
        return (rows[start : start + size] for start in range(0, len(rows), size))

    def _ids(self, texts: Sequence[str], said: Sequence[str]) -> np.ndarray:
        """Hypotheses [B, S] as the corrector reads them, with what is said behind them."""
        how, tokenizer = self.read_as, self.reader or self.tokenizer
        read = zip(tokens(tokenizer, texts, how["longest"]), tokens(tokenizer, said, how["longest"]), strict=True)
        rows = [[*how["before"], *row, *more, *how["after"]] for row, more in read]
        return _padded(rows, how["pad"])

    def _run(self, file: str, feeds: State) -> State:
        session = self.sessions[file]
        wanted = [value.name for value in session.get_outputs()]
        taken = {value.name: feeds[value.name] for value in session.get_inputs()}
        found = dict(zip(wanted, session.run(wanted, taken), strict=True))
        return {name.removeprefix(NEXT): value for name, value in found.items()}

    def _write(self, role: str, batches: list[State], n: int, sampling: Sampling, seed: int) -> list[list[Hypothesis]]:
        """n texts of each row of each batch. log p holds the end where it came, or must come (`closes`)."""
        if sampling.beams or (n > 1 and sampling.temperature == 0):
            raise InputError("exported models write greedily or by sampling, not by beam search: leave out beams")
        files, rng = self.files[role], np.random.default_rng(seed)
        out = []
        for batch in batches:
            state = {name: np.repeat(value, n, axis=0) for name, value in self._run(files["read"], batch).items()}
            rows = np.arange(len(state["logits"]))  # which text each row of the state is writing
            alive = np.ones(len(rows), dtype=bool)
            ids: list[list[int]] = [[] for _ in rows]
            logprobs = np.zeros(len(rows))
            for at in range(self.max_tokens + self.closes):
                if "tokens" in state:
                    state |= self._run(files["step"], state)
                full = at == self.max_tokens  # no room but for the end
                tokens = np.full(len(rows), self.end) if full else choose(state["logits"], sampling, rng)
                state["tokens"] = tokens
                gained = np.take_along_axis(state["logits"], tokens[:, None], 1)[:, 0] - state["logsumexp"]
                logprobs[rows] += np.where(alive, gained, 0)
                alive &= tokens != self.end
                for row, token in zip(rows[alive].tolist(), tokens[alive].tolist(), strict=True):
                    ids[row].append(token)
                if not alive.any():
                    break
                if alive.mean() < COMPACT_BELOW:
                    state = {name: value[alive] for name, value in state.items()}
                    rows, alive = rows[alive], alive[alive]
            texts = self.tokenizer.decode_batch(ids)
            found = [Hypothesis(*pair) for pair in zip(texts, logprobs.tolist(), strict=True)]
            out += [found[i : i + n] for i in range(0, len(found), n)]
        return out

    def _follow(self, targets: np.ndarray, rows: list[list[int]]) -> np.ndarray:
        """log p [B] of texts given as ids, their end included."""
        ids, out = _padded([[*row, self.end] for row in rows], -1), np.zeros(len(rows), dtype=np.float32)
        for column, state in enumerate(self._along("hypothesize", {"targets": targets}, ids)):
            wanted = ids[:, column : column + 1].clip(0)
            gained = np.take_along_axis(state["logits"], wanted, 1)[:, 0] - state["logsumexp"]
            out += np.where(ids[:, column] >= 0, gained, 0)
        return out

    def _along(self, role: str, batch: State, ids: np.ndarray) -> Iterator[State]:
        """The state in front of each column of texts given as ids [B, T], -1 behind their end."""
        state = self._run(self.files[role]["read"], batch)
        for column in ids.T[:-1]:
            yield state
            state |= self._run(self.files[role]["step"], state | {"tokens": column.clip(0)})
        yield state


def _padded(rows: list[list[int]], pad: int) -> np.ndarray:
    """Rows of ids as one array int64 [B, T], T at least 1, with `pad` behind the shorter ones."""
    width = max(1, max(map(len, rows)))
    return np.array([row + [pad] * (width - len(row)) for row in rows], dtype=np.int64)


def tokens(tokenizer: Tokenizer, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Ids of each text, without special ones."""
    return [found.ids[:longest] for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def choose(logits: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> np.ndarray:
    """One token a row [B] from logits [B, V]: temperature, then top-k, then top-p."""
    if sampling.temperature == 0:
        return logits.argmax(axis=1)
    width = sampling.top_k if 0 < sampling.top_k < logits.shape[1] else logits.shape[1]
    tokens = np.argpartition(-logits, width - 1, axis=1)[:, :width]
    scores = np.take_along_axis(logits, tokens, 1).astype(np.float64)
    order = np.argsort(-scores, axis=1)  # likeliest first
    tokens, scores = np.take_along_axis(tokens, order, 1), np.take_along_axis(scores, order, 1) / sampling.temperature
    weights = np.exp(scores - scores[:, :1])
    weights /= weights.sum(axis=1, keepdims=True)
    weights[weights.cumsum(axis=1) - weights >= sampling.top_p] = 0  # mass of the tokens ahead: the first is kept
    sums = weights.cumsum(axis=1)
    drawn = (sums > rng.random((len(sums), 1)) * sums[:, -1:]).argmax(axis=1)
    return tokens[np.arange(len(tokens)), drawn]


def _verify(folder: Path, digests: dict[str, str]) -> None:
    """Raise CheckpointError unless the files are those that were written."""
    for name, digest in digests.items():
        try:
            with open(folder / name, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{folder / name} is missing or cannot be read: export the model again") from error
        if found != digest:
            raise CheckpointError(f"{folder / name} is not the file it was (SHA-256 differs): export the model again")
