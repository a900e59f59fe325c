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
    word = opens = False  # what the piece before is
    for part in parts:
        bare = part.lstrip()
        if opens:
            part = bare
        out.append(" " + part if word and spaced(part) else part)
        word, opens = spaced(bare), bool(bare) and bare in BRACKETS
    return "".join(out).strip()


def replaced(parts: Sequence[str], start: int, end: int, word: str = "") -> str:
    """The text of `parts` with `word`, or nothing, where `start` to `end` were."""
    new = [f" {word}" if spaced(word) else word] if word else []
    return join([*parts[:start], *new, *parts[end:]])


def moved(parts: Sequence[str], start: int, end: int, to: int) -> str:
    """The text of `parts` with `start` to `end` at `to`, counted in what is left without them."""
    rest = [*parts[:start], *parts[end:]]
    return join([*rest[:to], *parts[start:end], *rest[to:]])


def edit(parts: Sequence[str], move: str, word: str, rng: np.random.Generator) -> str:
    """One edit of a text given as pieces, somewhere: a `deletion`, a `move`, or of `word` a `substitution` or an
    `insertion`."""
    n = len(parts)
    if not n:
        return ""
    at = int(rng.integers(n))
    if move == "deletion":
        return replaced(parts, at, at + 1)
    if move == "move":
        return moved(parts, at, at + 1, int(rng.integers(n)))
    if move == "substitution":
        return replaced(parts, at, at + 1, word)
    at = int(rng.integers(n + 1))
    return replaced(parts, at, at, word)


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
