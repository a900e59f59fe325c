"""What every family of inverters offers to the search, to evaluation and to the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.confidence import Calibration
    from unembed.embedders.spec import EmbedderSpec
    from unembed.models.lexicon import Lexicon


@dataclass(frozen=True)
class Sampling:
    """How to draw texts: temperature, then top-k, then top-p, in the field's order. temperature 0 is greedy."""

    temperature: float = 1.0
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p."""
    beams: int = 0
    """Beam search of this width instead of sampling; 0 is sampling."""


GREEDY = Sampling(temperature=0.0)
IGNORED = -100
"""The label of a place that no loss is taken at, as in torch."""


@dataclass(frozen=True)
class Hypothesis:
    """A candidate text and its log-probability in nats, end of text included, under the model that wrote it."""

    text: str
    logprob: float


class InversionModel(ABC):
    """Vectors (and hypotheses) → text. Implementations are one file each and know nothing of any embedder."""

    spec: EmbedderSpec
    """The embedder whose vectors this model was trained on."""
    embedder: str | None = None
    """By which name that embedder is opened, where it is not the spec's id: some checkpoints carry it along."""
    max_tokens: int
    """Longest text it writes, in its own tokens."""
    digest: str = ""
    """Of the weights, so that results of other weights under one name are not mixed."""
    controls: Sequence[str] = ()
    """Some texts it was trained on, for the control in evaluations."""
    has_prior: bool = True
    """Whether it knows log p(text) without a vector. Without, `score` takes targets only, and the score of a search is
    the cosine alone."""
    takes_words: bool = False
    """Whether `correct` takes `words`: some that each hypothesis may lack, besides what the model finds itself."""
    lexicon: Lexicon | None = None
    """Where the search looks words up that a text seems to lack; None for a model that has none."""
    calibration: Calibration | None = None
    """What its results are worth, measured; None until `unembed calibrate`."""

    @abstractmethod
    def hypothesize(
        self, targets: np.ndarray, n: int = 1, sampling: Sampling = GREEDY, seed: int = 0
    ) -> list[list[Hypothesis]]:
        """targets float32 [rows, d] → n hypotheses for each row."""

    @abstractmethod
    def correct(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> list[list[Hypothesis]]:
        """targets, hypothesis_vectors float32 [rows, d], one hypothesis a row → n better hypotheses for each row."""

    def vary(
        self, targets: np.ndarray, hypotheses: Sequence[str], hypothesis_vectors: np.ndarray, n: int = 1, seed: int = 0
    ) -> list[list[str]]:
        """Up to n texts for each row that differ from its hypothesis in one token, where and as the model doubts it.
        A family that cannot tell proposes none."""
        return [[] for _ in hypotheses]

    def search_fields(self, sequence_beam_width: int) -> dict[str, Any]:
        """Fields of a SearchConfig that find more with this family than the defaults do."""
        return {}

    @abstractmethod
    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        """log p(text | target), or the prior log p(text) without targets, in nats [rows]."""

    def cut(self, text: str, n: int) -> str | None:
        """The longest start of `text` with exactly n of the model's own tokens, for evaluations beside an embedder that
        shows none (an API); None if it has fewer. Raises InputError where the model does not know how."""
        raise InputError("neither the embedder nor the model can cut texts by tokens: give the embedder its tokenizer")

    def sample_prior(self, n: int, sampling: Sampling, seed: int = 0) -> list[Hypothesis]:
        """n texts from the model's unconditional prior: the control that shows what a fluent guess is worth."""
        rows = self.hypothesize(np.zeros((n, self.spec.dim), dtype=np.float32), 1, sampling, seed)
        return [row[0] for row in rows]
