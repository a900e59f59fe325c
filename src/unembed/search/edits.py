"""Moves that need no network: crossover of two candidates, and substituting, inserting, deleting or moving a word.

The words come from the target's own candidates: what the hypothesizer wrote in any of its samples is likely to be in
the text, though seldom all of it in one sample and in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from unembed.scripts import BRACKETS, pieces, spaced
from unembed.search.types import Candidate

_MOVES = ("crossover", "substitution", "insertion", "deletion", "move")
_SHARES = (0.25, 0.35, 0.2, 0.1, 0.1)


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


def vocabulary(candidates: Sequence[Candidate], sharpness: float = 20.0) -> tuple[list[str], np.ndarray]:
    """Pieces of the candidates and how much each is worth trying [n]: candidates count by exp(sharpness · cosine)."""
    if not candidates:
        return [], np.zeros(0)
    best = max(candidate.cosine for candidate in candidates)
    counts: Counter[str] = Counter()
    for candidate in candidates:
        weight = float(np.exp(sharpness * (candidate.cosine - best)))
        for piece in dict.fromkeys(pieces(candidate.text)):  # a set has another order in each run
            counts[piece.strip()] += weight  # type: ignore[assignment]  # weighted counts
    words = list(counts)
    weights = np.sqrt(np.array([counts[word] for word in words]))  # flattened: rare words deserve their try as well
    return words, weights / weights.sum()


def propose(
    beam: Sequence[Candidate], pool: Sequence[Candidate], n: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """n edited texts as (text, move): of the beam's candidates, with words and halves of the pool's. May repeat."""
    words, weights = vocabulary(pool)
    out = []
    for move in rng.choice(_MOVES, size=n, p=_SHARES).tolist():
        # The best candidate is edited as often as all others together.
        rank = 0 if rng.random() < 0.5 else int(rng.integers(len(beam)))
        parts = pieces(beam[rank].text)
        if move == "crossover":
            other = pieces(pool[int(rng.integers(len(pool)))].text)
            text = crossover(parts, other, rng)
        else:
            text = edit(parts, move, words, weights, rng)
        if text.strip():
            out.append((text, move))
    return out


def crossover(a: list[str], b: list[str], rng: np.random.Generator) -> str:
    """The start of one and the end of the other, cut at about the same place; which is which is drawn."""
    if rng.random() < 0.5:
        a, b = b, a
    at = int(rng.integers(len(a) + 1))
    other = round(at / max(1, len(a)) * len(b)) + int(rng.integers(-1, 2))
    return join(a[:at] + b[max(0, other) :])


def edit(parts: list[str], move: str, words: list[str], weights: np.ndarray, rng: np.random.Generator) -> str:
    """One word edit of a text given as pieces."""
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
        word = words[int(rng.choice(len(words), p=weights))]
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
