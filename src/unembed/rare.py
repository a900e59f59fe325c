"""Strings that seldom repeat and therefore leak: names, numbers, dates, e-mail addresses, identifiers. How many of
those in a text stand in its reconstruction?

Found by their shape, so that the measure needs no model and no list. An audit for personal data wants a recogniser of
its own: here "Paris" is a name like "Miller". Numbers, e-mail addresses and identifiers are found in every script,
dates in digits, in English, Russian and Chinese; names where a script has capitals (Latin, Cyrillic, Greek, ...), and
none in Chinese, Arabic or Hindi. A Russian name counts in the case that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unembed.metrics import Estimate, share_estimate
from unembed.scripts import UNSPACED

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_MONTH_RU = r"(?:января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря)"
# Characters of Chinese or Thai stand next to a number or a Latin word without ending it, so they are no part of one.
_W = rf"[^\W{UNSPACED}]"
_START, _END = rf"(?<!{_W})", rf"(?!{_W})"
# These begin where a run of their characters does, or a long run would be gone through from each of its characters.
_EMAIL = rf"{_START}(?<![.+-])(?:{_W}|[.+-])++@(?:{_W}|-)+(?:\.(?:{_W}|-)+)+"
_DATE = (
    rf"\b{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?\b|\b\d{{1,2}} {_MONTH}(?:,? \d{{4}})?\b"
    rf"|\b\d{{1,2}} {_MONTH_RU}(?: \d{{4}})?\b"
    r"|(?<!\d)\d{2,4}年(?:\d{1,2}月(?:\d{1,2}[日号])?)?|(?<!\d)\d{1,2}月\d{1,2}[日号]"
    rf"|{_START}\d{{1,4}}[/-]\d{{1,2}}[/-]\d{{1,4}}{_END}|{_START}\d{{1,2}}\.\d{{1,2}}\.\d{{4}}{_END}"
)
_PART = rf"(?:{_W}|[.-])"
_IDENTIFIER = rf"{_START}(?<![.-])(?={_PART}*[^\W\d_{UNSPACED}])(?={_PART}*\d){_PART}{{3,}}{_W}"
_NUMBER = rf"{_START}\d(?:[\d.,:-]*\d)?"
# A word inside a sentence: after a word, a comma or a title; whether it begins with a capital is asked for each, since
# a pattern knows the capitals of English alone. "Dr" and months are no names.
_NAME = (
    rf"(?:(?<=[\w,;] )|(?<=Dr\. )|(?<=Mr\. )|(?<=Ms\. ))(?!(?i:{_MONTH})\b)"
    r"[^\W\d_]{3,}(?:['-][^\W\d_]+)*\b"
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
        if kind == "name":
            matches = [match for match in matches if _capitalised(match)]
        if matches:
            found[kind] = list(dict.fromkeys(matches))
            text = _PATTERNS[kind].sub(lambda match: " " * len(match.group()), text)
    return found


def _capitalised(word: str) -> bool:
    """Whether a word begins with a capital and has no other in its first part."""
    first = re.split("['-]", word)[0]
    return first[0].isupper() and not any(letter.isupper() for letter in first[1:])


def rare_recall(references: Sequence[str], predictions: Sequence[str]) -> dict[str, Estimate]:
    """Share of the references' strings of each kind that stand whole, in any case, in the prediction of the same row;
    `n` of each estimate counts strings, and its interval is a bootstrap over rows."""
    hits: dict[str, list[tuple[int, int]]] = {}
    for reference, prediction in zip(references, predictions, strict=True):
        for kind, strings in rare_strings(reference).items():
            hits.setdefault(kind, []).append((count_in(strings, prediction), len(strings)))
    return {kind: share_estimate(*zip(*hits[kind], strict=True)) for kind in KINDS if kind in hits}


def count_in(strings: Sequence[str], text: str) -> int:
    """How many of `strings` stand in `text`."""
    return sum(stands_in(string, text) for string in strings)


def stands_in(string: str, text: str) -> bool:
    """Whether `string` occurs in `text`, in any case and not as a part of a longer word or number."""
    start, end = (_edge(character, side) for character, side in ((string[0], _START), (string[-1], _END)))
    return re.search(f"{start}{re.escape(string)}{end}", text, re.IGNORECASE) is not None


def _edge(character: str, side: str) -> str:
    """What must not stand beside a string that ends in `character`; nothing where the script has no word ends."""
    return side if re.match(_W, character) else ""
