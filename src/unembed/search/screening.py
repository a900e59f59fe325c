"""Texts that are worth a query, chosen among many by what is known of the target's neighbourhood.

Some are put together from an estimate of what the target holds; the others are the best by their forecast cosine of
hundreds of variations of the beam, so that only they cost a query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces
from unembed.search.edits import by_rank, edit, exchanged, join
from unembed.search.estimate import Estimate, Estimator
from unembed.search.forecast import Forecast

DRAWN = 600
"""Variations of the beam that are looked at in a round."""
TOGETHER = 3 / 8
"""Of the texts chosen, those that are put together from estimates, whatever is forecast of them: what follows the
forecast alone ends in long texts that hold a little of everything."""
STARTS = 5
"""Texts from one estimate."""
WORDS = 120
"""Units of the estimate, and words of the lexicon, that a variation may bring in."""
WANTED = 0.05
"""A word of the lexicon is drawn by its rank, the chance falling by this share from each to the next."""
FROM_LEXICON = 0.4
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

    def screened(
        self,
        beam: Sequence[str],
        missed: np.ndarray,
        lexicon: Lexicon | None,
        n: int,
        rng: np.random.Generator,
        untried: Callable[[str], bool],
        nearest: int = 0,
    ) -> list[str]:
        """n texts that are `untried`, fewer where no more were thought of; from the best texts, and the target less the
        embedding of the best one, `missed` [d]. With `nearest`, from so many of the texts known, all alike."""

        def start() -> str:
            return self.texts[int(rng.integers(min(nearest, len(self.texts))))] if nearest else _start(beam, rng)

        out: list[str] = []
        together = round(TOGETHER * n)
        for _ in range(-(-together // STARTS)):
            estimate = self.estimator.estimate(rng)
            for _ in range(min(STARTS, together - len(out))):
                text = estimate.text(start())
                if text not in out and untried(text):
                    out.append(text)
        brought = _Brought(*self.estimate.likeliest(WORDS), lexicon, missed)
        varied = dict.fromkeys(_varied(start(), brought, rng) for _ in range(DRAWN))
        others = [text for text in varied if text not in out and untried(text)]
        if others:
            forecast = Forecast(self.texts, self.vectors)
            best = np.argsort(-forecast.cosines(others, self.target), kind="stable")[: n - len(out)]
            out += [others[i] for i in best.tolist()]
        return out


class _Brought:
    """The words that variations bring in: those expected, and those of the lexicon that the best text lacks."""

    def __init__(self, units: list[str], counts: np.ndarray, lexicon: Lexicon | None, lacking: np.ndarray) -> None:
        self.units, self.lexicon = units, lexicon
        worth = np.clip(counts, 0.02, None)
        self.worth = worth / worth.sum()
        self.wanted: list[str] = []
        if lexicon is not None:
            best = np.argsort(-lexicon.wanted(lacking), kind="stable")[:WORDS]
            self.wanted = [lexicon.words[i] for i in best.tolist()]

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
