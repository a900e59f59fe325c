"""Text that comes from outside, made fit to be shown: what cannot be seen is written out, what is too long is cut off.

A reconstruction can be anything, and so can the names of a store's fields. Escaping what has a meaning in a format is
the work of the module that writes it; here goes what deceives in all of them (Unicode TR 36, section 2): marks that
turn the direction of what follows, characters without width, control characters, half surrogates, piles of accents.
"""

from __future__ import annotations

import unicodedata
from typing import Any

LIMIT = 1000
"""Characters that are shown of one text."""
MARKS = 4
"""Accents that one letter may carry; Vietnamese needs two, Hebrew and Tibetan seldom more than three."""
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of control, format, surrogate, private and unassigned characters, and separators of lines."""
BREAKS = {"\n": " ⏎ ", "\t": " "}


def visible(text: str, limit: int = LIMIT) -> str:
    """`text` on one line of at most `limit` characters, in which a character that cannot be seen stands as its number,
    ‹U+202E›; what was cut off is said at the end."""
    out, marks = [], 0
    for character in text[:limit].replace("\r\n", "\n"):
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if character in BREAKS:
            out.append(BREAKS[character])
        elif category in UNSEEN or marks > MARKS:
            out.append(f"‹U+{ord(character):04X}›")
        else:
            out.append(character)
    if len(text) > limit:
        out.append(f"… ({len(text):,} characters)")
    return "".join(out)


def cleaned(value: Any) -> Any:
    """A value of JSON with `visible` applied to every text in it, keys included."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        out: dict[str, Any] = {}
        for key, item in value.items():
            name = visible(str(key))
            # Two long names may be cut off to the same.
            out[name if name not in out else f"{name} #{len(out)}"] = cleaned(item)
        return out
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    return value
