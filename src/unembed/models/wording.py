"""How a corrector is shown a hypothesis: the text, and behind it, on a line of its own, words that it may lack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unembed.models.lexicon import Lexicon

LACKING = 12
"""Words behind a hypothesis."""


def behind(words: Sequence[Sequence[str]]) -> list[str]:
    """What stands behind each hypothesis."""
    return ["\n " + " ".join(lacking) for lacking in words]


def hints(
    lexicon: Lexicon, hypotheses: Sequence[str], differences: np.ndarray, words: Sequence[Sequence[str]] | None = None
) -> list[str]:
    """What stands behind each hypothesis, whose difference [rows, d] is its target less its vector: `words` that are
    known to be lacking before those of the lexicon."""
    found = lexicon.lacking(hypotheses, differences, LACKING)
    if words is not None:
        found = [list(dict.fromkeys([*known, *more]))[:LACKING] for known, more in zip(words, found, strict=True)]
    return behind(found)
