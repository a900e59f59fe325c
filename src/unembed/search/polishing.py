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
from unembed.search.edits import Order, arranged, enclosing, exchanging, moving, replacing
from unembed.search.estimate import units
from unembed.search.forecast import Forecast

RUN, EXCHANGED = 5, 2
"""Pieces that are moved or enclosed together, and that are exchanged with others, at most."""
ENCLOSURES = "()", ",,", '""'
UNITS = 250_000
"""Of all texts that are looked at: of a long one not all changes are, but another share of them each time."""
KNOWN, FORM = "known", "form"
OWN = frozenset({FORM, "move", "exchange", "enclosure"})
"""Kinds that take no turns with the others, even if the forecast knows all of their words."""
SHARES = {KNOWN: 3, "move": 2, "exchange": 2, FORM: 2, "enclosure": 1, "substitution": 1, "insertion": 1}
"""How often each kind has its turn: words put in, exchanged or left out that the forecast knows, words and phrases in
another place, other forms, marks around a phrase, and words that the forecast does not know, of which it can only tell
where they may stand."""


@dataclass(frozen=True)
class Change:
    """One change of a text, of some kind."""

    move: str
    order: Order

    @property
    def words(self) -> list[str]:
        """The new ones."""
        return [run for run in self.order if isinstance(run, str)]

    def of(self, parts: Sequence[str]) -> str:
        """The text of `parts`, changed."""
        return arranged(parts, self.order)


def changes(parts: Sequence[str], words: Sequence[str], lexicon: Lexicon | None) -> Iterator[Change]:
    """Each piece left out, exchanged for another form of it or for one of `words`, each of those put in everywhere,
    each run of up to `RUN` pieces moved to everywhere or enclosed by marks, and each two shorter ones exchanged."""
    n = len(parts)
    for at in range(n):
        yield Change("deletion", replacing(n, at, at + 1))
        forms = lexicon.forms(parts[at].strip()) if lexicon is not None else []
        yield from (Change(FORM, replacing(n, at, at + 1, form)) for form in forms)
        yield from (Change("substitution", replacing(n, at, at + 1, word)) for word in words)
    yield from (Change("insertion", replacing(n, at, at, word)) for at in range(n + 1) for word in words)
    for start, end in _runs(n, RUN):
        yield from (Change("move", moving(n, start, end, to)) for to in range(n - end + start + 1) if to != start)
        for dropped in range(min(1, start) + 1):  # "and" before what then stands in brackets
            yield from (Change("enclosure", enclosing(n, start, end, marks, dropped)) for marks in ENCLOSURES)
    for a, b in _runs(n, EXCHANGED):
        yield from (Change("exchange", exchanging(n, a, b, c, d)) for c, d in _runs(n, EXCHANGED, b + 1))


def _runs(n: int, longest: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """Start and end of each run of up to `longest` of n pieces, from the one numbered `first` on."""
    for start in range(first, n):
        yield from ((start, end) for end in range(start + 1, min(n, start + longest) + 1))


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
        known = all(unit in forecast for word in change.words for unit in units(word))
        kind = KNOWN if known and change.move not in OWN else change.move
        taken[kind] += 1
        turns.append((taken[kind] / SHARES[kind], texts[i]))
    return [text for _, text in sorted(turns, key=lambda turn: turn[0])]
