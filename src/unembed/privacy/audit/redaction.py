"""A report without the texts it is about: how much was recovered, and nothing of what."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from unembed.scripts import UNSPACED

MASK = "█"
SHOWN = (4, 7, 11)
"""Lengths that words are given: short, middle, long. Their own would help to guess them."""
_UNIT = re.compile(rf"[{UNSPACED}]+|(?:(?![{UNSPACED}])\w)+")


def redacted(report: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose reconstructions and personal data are masked ("J███ M██████") and whose true texts are left out."""
    out = copy.deepcopy(dict(report))
    for record in out["records"]:
        record["text"] = masked(record["text"])
        record["true_text"] = None
        for found in (record["pii"], record["leaked"]):
            for kind, strings in found.items():
                found[kind] = [masked(string) for string in strings]
    return out


def masked(text: str) -> str:
    """`text` with all but the first letter of each word masked, digits altogether, and all else that is no space."""
    out, end = [], 0
    for match in _UNIT.finditer(text):
        out += [_blank(text[end : match.start()]), _mask(match.group())]
        end = match.end()
    return "".join([*out, _blank(text[end:])])


def _mask(word: str) -> str:
    length = next((shown for shown in SHOWN if len(word) <= shown), SHOWN[-1])
    return (word[0] if word[0].isalpha() else MASK) + MASK * (length - 1)


def _blank(between: str) -> str:
    """Of what stands between words only whether there was a space: "@" and dots tell an address's parts."""
    return " " if any(map(str.isspace, between)) else "·" if between else ""
