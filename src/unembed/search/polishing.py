"""All texts that are one change away from another, the most promising first.

At the end of a search one word, form or mark is wrong. The texts that differ in one are some thousand, of which
variations that are drawn pass most over; but what is known of the neighbourhood tells which of them are worth a query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unembed.models.lexicon import Lexicon
from unembed.scripts import pieces
from unembed.search.edits import moved, replaced
from unembed.search.estimate import units
from unembed.search.forecast import Forecast

RUN = 5
"""Pieces that are moved together, at most."""
UNITS = 250_000
"""Of all texts that are looked at: of a long one not all changes are, but another share of them each time."""
KNOWN, FORM = "known", "form"
SHARES = {KNOWN: 4, FORM: 2, "substitution": 1, "insertion": 1}
"""How often each kind has its turn: a change whose words the forecast knows, another form of a word, and words that it
does not know, of which it can only tell where they may stand."""


@dataclass(frozen=True)
class Change:
    """Pieces `start` to `end` taken out, and `word` put there, or what was taken out put back at `to`, counted in what
    is left."""

    move: str
    start: int
    end: int
    word: str = ""
    to: int = 0

    def of(self, parts: Sequence[str]) -> str:
        """The text of `parts`, changed."""
        if self.move == "move":
            return moved(parts, self.start, self.end, self.to)
        return replaced(parts, self.start, self.end, self.word)


def changes(parts: Sequence[str], words: Sequence[str], lexicon: Lexicon | None) -> Iterator[Change]:
    """Each piece left out, exchanged for another form of it or for one of `words`, each of those put in everywhere, and
    each run of up to `RUN` pieces moved to everywhere."""
    n = len(parts)
    for at in range(n):
        yield Change("deletion", at, at + 1)
        forms = lexicon.forms(parts[at].strip()) if lexicon is not None else []
        yield from (Change(FORM, at, at + 1, form) for form in forms)
        yield from (Change("substitution", at, at + 1, word) for word in words)
    yield from (Change("insertion", at, at, word) for at in range(n + 1) for word in words)
    for start in range(n):
        for end in range(start + 1, min(n, start + RUN) + 1):
            yield from (Change("move", start, end, to=to) for to in range(n - end + start + 1) if to != start)


def polished(
    text: str,
    words: Sequence[str],
    lexicon: Lexicon | None,
    forecast: Forecast,
    target: np.ndarray,
    rng: np.random.Generator,
) -> list[str]:
    """The texts that are one change away from `text`, the most promising first: by their forecast cosine to the target
    [d], the kinds in turn."""
    parts = pieces(f" {text}")
    every = list(changes(parts, words, lexicon))
    most = UNITS // max(1, len(parts))
    if len(every) > most:
        every = [every[i] for i in np.sort(rng.choice(len(every), most, replace=False)).tolist()]
    found: dict[str, Change] = {}
    for change in every:
        found.setdefault(change.of(parts), change)
    found.pop(text, None)
    texts = list(found)
    if not texts:
        return []
    taken: Counter[str] = Counter()
    turns: list[tuple[float, str]] = []
    for i in np.argsort(-forecast.cosines(texts, target), kind="stable").tolist():
        change = found[texts[i]]
        known = change.move != FORM and all(unit in forecast for unit in units(change.word))
        kind = KNOWN if known else change.move
        taken[kind] += 1
        turns.append((taken[kind] / SHARES[kind], texts[i]))
    return [text for _, text in sorted(turns, key=lambda turn: turn[0])]
