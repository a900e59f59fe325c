"""Changes of a text that need no network: a word substituted, inserted, left out or moved, phrases exchanged, other
digits."""

from __future__ import annotations

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
    for part in parts:
        before = out[-1].lstrip() if out else ""
        if before and before in BRACKETS:
            part = part.lstrip()
        out.append(" " + part if spaced(part) and spaced(before) else part)
    return "".join(out).strip()


def edit(parts: list[str], move: str, word: str, rng: np.random.Generator) -> str:
    """One edit of a text given as pieces, somewhere: a `deletion`, a `move`, or of `word` a `substitution` or an
    `insertion`."""
    parts = list(parts)
    if not parts:
        return ""
    at = int(rng.integers(len(parts)))
    if move == "deletion":
        del parts[at]
    elif move == "move":
        piece = parts.pop(at)
        parts.insert(int(rng.integers(len(parts) + 1)), piece)
    else:
        space = " " if spaced(word) else ""
        if move == "substitution":
            parts[at] = (parts[at][: len(parts[at]) - len(parts[at].lstrip())] or (space if at else "")) + word
        else:
            parts.insert(int(rng.integers(len(parts) + 1)), space + word)
    return join(parts)


def exchanged(parts: list[str], rng: np.random.Generator) -> str:
    """Two runs of pieces (of two or more) exchanged, half of the time neighbours: a word or a phrase moved."""
    n = len(parts)
    if rng.random() < 0.5:
        a, b, d = sorted(rng.choice(n + 1, 3, replace=False).tolist())
        c = b
    else:
        a, b, c, d = (np.sort(rng.choice(n + 2, 4, replace=False)) - [0, 0, 1, 1]).tolist()
    return join([*parts[:a], *parts[c:d], *parts[b:c], *parts[a:b], *parts[d:]])


def by_rank(ranked: Sequence[T], share: float, rng: np.random.Generator) -> T:
    """One of `ranked` (at least one), drawn by its rank: the chance falls by `share` from each to the next."""
    return ranked[min(len(ranked), int(rng.geometric(share))) - 1]


def renumbered(text: str, rng: np.random.Generator) -> Iterator[str]:
    """The text with one of its digits another, in any order."""
    places = [at for at, character in enumerate(text) if character in digits]
    others = [(at, digit) for at in places for digit in digits if digit != text[at]]
    for i in rng.permutation(len(others)).tolist():
        at, digit = others[i]
        yield text[:at] + digit + text[at + 1 :]
