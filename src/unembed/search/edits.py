"""Changes of a text that need no network: a word substituted, inserted, left out or moved, phrases exchanged, other
digits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from string import digits
from typing import TypeVar

import numpy as np

from unembed.scripts import BRACKETS, spaced

T = TypeVar("T")


def join(parts: Sequence[str]) -> str:
    """The text of pieces in any order: words that would run into one get a space between them, and what opens a bracket
    has none behind it."""
    out: list[str] = []
    word = opens = False  # what the piece before is
    for part in parts:
        bare = part.lstrip()
        if opens:
            part = bare
        out.append(" " + part if word and spaced(part) else part)
        word, opens = spaced(bare), bool(bare) and bare in BRACKETS
    return "".join(out).strip()


Order = Sequence[tuple[int, int] | str]
"""A text made from the pieces of another: runs of them, from a start up to an end, and new words in between."""


def arranged(parts: Sequence[str], order: Order) -> str:
    """The text of `parts` in this order."""
    out: list[str] = []
    for run in order:
        if isinstance(run, str):
            out.append(f" {run}" if spaced(run) else run)
        else:
            out += parts[run[0] : run[1]]
    return join(out)


def replacing(n: int, start: int, end: int, *words: str) -> Order:
    """Of n pieces `start` up to `end` taken out, and `words` put there, of which empty ones are none."""
    return (0, start), *filter(None, words), (end, n)


def moving(n: int, start: int, end: int, to: int) -> Order:
    """Of n pieces `start` up to `end` at `to`, counted in what is left without them."""
    behind = to + end - start
    return exchanging(n, to, start, start, end) if to <= start else exchanging(n, start, end, end, behind)


def exchanging(n: int, a: int, b: int, c: int, d: int) -> Order:
    """Of n pieces those from a up to b and those from c up to d, which are no earlier, in each other's place."""
    return (0, a), (c, d), (b, c), (a, b), (d, n)


def enclosing(n: int, start: int, end: int, marks: str, dropped: int = 0) -> Order:
    """Of n pieces `start` up to `end` between two marks, the first in the stead of the `dropped` pieces before."""
    return (0, start - dropped), marks[0], (start, end), marks[1], (end, n)


def edit(parts: Sequence[str], move: str, word: str, rng: np.random.Generator) -> str:
    """One edit of a text given as pieces, somewhere: a `deletion`, a `move`, or of `word` a `substitution` or an
    `insertion`."""
    n = len(parts)
    if not n:
        return ""
    at = int(rng.integers(n))
    if move == "deletion":
        return arranged(parts, replacing(n, at, at + 1))
    if move == "move":
        return arranged(parts, moving(n, at, at + 1, int(rng.integers(n))))
    if move == "substitution":
        return arranged(parts, replacing(n, at, at + 1, word))
    at = int(rng.integers(n + 1))
    return arranged(parts, replacing(n, at, at, word))


def exchanged(parts: Sequence[str], rng: np.random.Generator) -> str:
    """Two runs of pieces (of two or more) exchanged, half of the time neighbours: a word or a phrase moved."""
    n = len(parts)
    if rng.random() < 0.5:
        a, b, d = sorted(rng.choice(n + 1, 3, replace=False).tolist())
        c = b
    else:
        a, b, c, d = (np.sort(rng.choice(n + 2, 4, replace=False)) - [0, 0, 1, 1]).tolist()
    return arranged(parts, exchanging(n, a, b, c, d))


def by_rank(ranked: Sequence[T], share: float, rng: np.random.Generator) -> T:
    """One of `ranked` (at least one), drawn by its rank: the chance falls by `share` from each to the next."""
    return ranked[min(len(ranked), int(rng.geometric(share))) - 1]


def renumbered(text: str, rng: np.random.Generator) -> Iterator[str]:
    """The text with one of its digits another, or left out of its number, in any order."""
    others = [(at, other) for at, digit in enumerate(text) if digit in digits for other in digits if other != digit]
    others += [(at, "") for number in re.finditer("[0-9]{2,}", text) for at in range(*number.span())]
    for i in rng.permutation(len(others)).tolist():
        at, digit = others[i]
        yield text[:at] + digit + text[at + 1 :]
