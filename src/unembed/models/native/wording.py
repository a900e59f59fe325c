"""How a corrector is shown a hypothesis: the text, and behind it, on a line of its own, words that it may lack."""

from __future__ import annotations

from collections.abc import Sequence

LACKING = 12
"""Words behind a hypothesis."""


def behind(words: Sequence[Sequence[str]]) -> list[str]:
    """What stands behind each hypothesis."""
    return ["\n " + " ".join(lacking) for lacking in words]
