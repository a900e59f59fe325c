"""Texts that are worth a query, chosen among many by what is known of the target's neighbourhood.

Some are put together from an estimate of what the target holds; the others are the best by their forecast cosine of
thousands of variations of the nearest texts, so that only they cost a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import islice

import numpy as np

from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces
from unembed.search.continuations import Continuations
from unembed.search.continuing import Continued
from unembed.search.edits import by_rank, edit, exchanged, join
from unembed.search.estimate import Estimate, Estimator, units
from unembed.search.forecast import Forecast
from unembed.search.polishing import polished
from unembed.search.types import SearchConfig

UNITS = 60_000
"""Of all variations whose forecast is made: long texts have fewer variations, for the time that they take."""
TOGETHER = 3 / 8
"""Of the texts chosen, those that are put together from estimates, whatever is forecast of them: what follows the
forecast alone ends in long texts that hold a little of everything."""
VARIANCE = 0.3
"""Of the mean variance of the known texts in a direction, added to each: a few hundred texts do not vary in all."""
STARTS = 5
"""Texts from one estimate."""
WORDS = 120
"""Units of the estimate, and words of the lexicon, that a variation may bring in."""
WANTED = 0.05
"""A word of the lexicon is drawn by its rank, the chance falling by this share from each to the next."""
FROM_LEXICON = 0.4
LOOKED_FOR, COMMON = 50, 80
"""Units of the estimate, as many words of the lexicon, and its commonest ones, that are tried everywhere in the end."""
_MOVES = ("deletion", "insertion", "substitution", "form", "exchange", "move")
_SHARES = (0.1, 0.15, 0.25, 0.1, 0.3, 0.1)


class Neighbourhood:
    """Texts known around a target (n, at least one), nearest first, their vectors [n, d], and the target [d]; all of
    length 1."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray, target: np.ndarray) -> None:
        self.texts, self.vectors, self.target = texts, vectors, target
        self.estimator = Estimator(texts, vectors, target)

    @cached_property
    def estimate(self) -> Estimate:
        """What the target holds, by all of the texts."""
        return self.estimator.estimate()

    @cached_property
    def forecast(self) -> Forecast:
        """How close other texts would come, by all of these."""
        return Forecast(self.texts, self.vectors)

    @cached_property
    def whitening(self) -> np.ndarray:
        """What makes the known texts vary alike in all directions [d, d]."""
        apart = self.vectors - self.vectors.mean(axis=0)
        covariance = apart.T @ apart / len(apart)  # d d
        mean = np.trace(covariance) / len(covariance) or 1.0  # of one text there is no variance
        return np.linalg.cholesky(np.linalg.inv(covariance / mean + VARIANCE * np.eye(len(covariance))))

    def screened(
        self,
        beam: Sequence[str],
        missed: np.ndarray,
        lexicon: Lexicon | None,
        continuations: Continuations | None,
        config: SearchConfig,
        rng: np.random.Generator,
        untried: Callable[[str], bool],
    ) -> list[str]:
        """`config.screened` texts that are `untried`, fewer where no more were thought of; from the best texts, and the
        target less the embedding of the best one, `missed` [d]."""
        n, nearest = config.screened, min(config.screened_from, len(self.texts))

        def start() -> str:
            return self.texts[int(rng.integers(nearest))] if nearest else _start(beam, rng)

        out: list[str] = []
        together = round(TOGETHER * n)
        for _ in range(-(-together // STARTS)):
            estimate = self.estimator.estimate(rng)
            for _ in range(min(STARTS, together - len(out))):
                text = estimate.text(start())
                if text not in out and untried(text):
                    out.append(text)
        if continuations is not None:
            within = Continued(continuations, continuations.wanted(missed, self.whitening), lexicon)
            most = min(n, len(out) + config.continued)
            for _ in range(4 * config.continued):
                text = within.text(beam[0] if rng.random() < 0.5 else start(), rng)
                if len(out) < most and text not in out and untried(text):
                    out.append(text)
        drawn = min(config.forecast, UNITS // max(1, len(units(self.texts[0]))))
        brought = _Brought(*self.estimate.likeliest(WORDS), lexicon, missed)
        varied = dict.fromkeys(_varied(start(), brought, rng) for _ in range(drawn))
        others = [text for text in varied if text not in out]
        if others:
            best = np.argsort(-self.forecast.cosines(others, self.target), kind="stable")
            promising = (others[i] for i in best.tolist())
            out += islice((text for text in promising if untried(text)), n - len(out))
        return out

    def polished(self, text: str, missed: np.ndarray, lexicon: Lexicon | None, rng: np.random.Generator) -> list[str]:
        """Texts that are one change away from `text`, whose embedding misses the target by `missed` [d], the most
        promising first. New words are those expected, those that are missed, and the commonest."""
        words = self.estimate.likeliest(LOOKED_FOR)[0]
        if lexicon is not None:
            words += [*lexicon.wanted_words(missed, LOOKED_FOR), *lexicon.words[:COMMON]]
        return polished(text, list(dict.fromkeys(words)), lexicon, self.forecast, self.target, rng)


class _Brought:
    """The words that variations bring in: those expected, and those of the lexicon that the best text lacks."""

    def __init__(self, units: list[str], counts: np.ndarray, lexicon: Lexicon | None, lacking: np.ndarray) -> None:
        self.units, self.lexicon = units, lexicon
        worth = np.clip(counts, 0.02, None)
        self.worth = worth / worth.sum()
        self.wanted: list[str] = []
        if lexicon is not None:
            self.wanted = lexicon.wanted_words(lacking, WORDS)

    def word(self, rng: np.random.Generator) -> str:
        if self.wanted and (not self.units or rng.random() < FROM_LEXICON):
            return by_rank(self.wanted, WANTED, rng)
        return self.units[int(rng.choice(len(self.units), p=self.worth))] if self.units else ""


def _start(beam: Sequence[str], rng: np.random.Generator) -> str:
    """The best of the beam as often as all of it together."""
    return beam[0 if rng.random() < 0.5 else int(rng.integers(len(beam)))]


def _varied(text: str, brought: _Brought, rng: np.random.Generator) -> str:
    """A text with one change, or in three of ten cases two."""
    for _ in range(2 if rng.random() < 0.3 else 1):
        parts = pieces(f" {text}")
        move = _MOVES[int(rng.choice(len(_MOVES), p=_SHARES))]
        if move == "exchange":
            text = exchanged(parts, rng) if len(parts) > 1 else text
        elif move == "form":
            text = _other_form(parts, brought.lexicon, rng)
        else:
            text = edit(parts, move, brought.word(rng), rng)
    return text


def _other_form(parts: list[str], lexicon: Lexicon | None, rng: np.random.Generator) -> str:
    """The text with another form of one of its words, if the lexicon has one."""
    at = int(rng.integers(len(parts))) if parts else 0
    forms = lexicon.forms(parts[at].strip()) if parts and lexicon is not None else []
    if forms:
        parts[at] = " " + forms[int(rng.integers(len(forms)))]
    return join(parts)
