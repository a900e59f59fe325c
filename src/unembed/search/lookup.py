"""Moves that look closely at one text: words it seems to lack, looked up in a lexicon, the same words in another order,
and other digits.

The network proposes what it finds likely, and the other moves use what it wrote. A word that it never wrote for a
target comes from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import digits

import numpy as np

from unembed.models.lexicon import Lexicon
from unembed.scripts import BRACKETS, pieces, spaced
from unembed.search.edits import exchanged, join

LOOSE = 3
"""Pieces of a text, those that the difference speaks against most, in whose place a word is tried."""
GAPS = 3
"""Gaps between pieces where it is tried as well. An embedder feels a word wherever it stands; its place is found by
moving it."""
DRAWN = 200
"""Exchanges of two runs of pieces, and digits, that are drawn for a text; of a short one many exchanges twice."""


def with_words(text: str, difference: np.ndarray, lexicon: Lexicon, rng: np.random.Generator) -> Iterator[str]:
    """Texts with one word that the difference [d], target less embedding of `text`, asks for: word by word, the one
    most asked for first, in the place of a piece that is least asked for, or in a gap."""
    parts = pieces(text)
    wanted = lexicon.wanted(difference)
    own = lexicon.rows(part.strip() for part in parts)
    worth = np.array([0.0 if row is None else wanted[row] for row in own])
    there = {row for row in own if row is not None}
    loose = np.argsort(worth, kind="stable")[:LOOSE].tolist()
    for row in np.argsort(-wanted, kind="stable").tolist():
        if row in there:
            continue
        word = lexicon.words[row]
        for at in loose:
            yield join([*parts[:at], _set(word, at), *parts[at + 1 :]])
        for at in rng.permutation(len(parts) + 1)[:GAPS].tolist():
            yield join([*parts[:at], _set(word, at), *parts[at:]])


def rearranged(text: str, rng: np.random.Generator) -> Iterator[str]:
    """The text less one of its pieces or two that stand side by side, each in turn; then by turns, in any order, with
    another digit and with two runs of pieces exchanged, half of them neighbours: a word or a phrase moved."""
    parts = pieces(_set(text, 1))  # the first word keeps its distance where it is moved to
    n = len(parts)
    for run in (1, 2):
        for at in range(n - run + 1):
            yield join(parts[:at] + parts[at + run :])
    places = [at for at, character in enumerate(text) if character in digits]
    others = [(at, digit) for at in places for digit in digits if digit != text[at]]
    renumbered = iter(rng.permutation(len(others)).tolist())
    for _ in range(DRAWN):
        if (i := next(renumbered, None)) is not None:
            at, digit = others[i]
            yield text[:at] + digit + text[at + 1 :]
        if n > 1:
            yield exchanged(parts, rng)


def _set(word: str, at: int) -> str:
    """A word, or a text, as a piece that comes after `at` others."""
    return f" {word}" if at and (spaced(word) or word in BRACKETS) else word
