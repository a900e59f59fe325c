"""Strings that seldom repeat and therefore leak: names, numbers, dates, e-mail addresses, identifiers. How many of
those in a text stand in its reconstruction?

Found by their shape, so that the measure needs no model and no list. An audit for personal data wants a recogniser of
its own: here "Paris" is a name like "Miller".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unembed.metrics import Estimate, bootstrap

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_DATE = (
    rf"\b{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?\b|\b\d{{1,2}} {_MONTH}(?:,? \d{{4}})?\b"
    r"|\b\d{1,4}[/-]\d{1,2}[/-]\d{1,4}\b"
)
_IDENTIFIER = r"\b(?=[\w.-]*[^\W\d_])(?=[\w.-]*\d)[\w.-]{3,}\w"
_NUMBER = r"\b\d(?:[\d.,:-]*\d)?"
# A capital inside a sentence: after a word, a comma or a title. "Dr" and months are no names.
_NAME = (
    rf"(?:(?<=[\w,;] )|(?<=Dr\. )|(?<=Mr\. )|(?<=Ms\. ))(?!(?i:{_MONTH})\b)"
    r"[^\W\d_a-z][^\W\d_A-Z]{2,}(?:['-][^\W\d_]+)*\b"
)

KINDS = ("e-mail", "date", "identifier", "number", "name")
"""In the order in which they are looked for: what one has found is no other's."""
_PATTERNS = {
    "e-mail": re.compile(_EMAIL),
    "date": re.compile(_DATE, re.IGNORECASE),
    "identifier": re.compile(_IDENTIFIER),
    "number": re.compile(_NUMBER),
    "name": re.compile(_NAME),
}


def rare_strings(text: str) -> dict[str, list[str]]:
    """The distinct strings of each kind in `text`; kinds without one are left out."""
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        matches = [match.group() for match in _PATTERNS[kind].finditer(text)]
        if matches:
            found[kind] = list(dict.fromkeys(matches))
            text = _PATTERNS[kind].sub(lambda match: " " * len(match.group()), text)
    return found


def rare_recall(references: Sequence[str], predictions: Sequence[str]) -> dict[str, Estimate]:
    """Share of the references' strings of each kind that stand whole, in any case, in the prediction of the same row;
    `n` of each estimate counts strings, and its interval is a bootstrap over them."""
    hits: dict[str, list[float]] = {}
    for reference, prediction in zip(references, predictions, strict=True):
        for kind, strings in rare_strings(reference).items():
            hits.setdefault(kind, []).extend(float(stands_in(string, prediction)) for string in strings)
    return {kind: bootstrap(hits[kind]) for kind in KINDS if kind in hits}


def stands_in(string: str, text: str) -> bool:
    """Whether `string` occurs in `text`, in any case and not as a part of a longer word or number."""
    return re.search(rf"(?<!\w){re.escape(string)}(?!\w)", text, re.IGNORECASE) is not None
