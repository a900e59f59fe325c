"""Where words are in the scripts of the world, as far as cutting, editing and showing texts needs to know.

Some are written without spaces, some write vowels as marks that combine with the letter before them, and an emoji may
be several characters. None of these is torn apart here.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""The scripts that are written without spaces, as a range of a regular expression: Thai to Lao, Myanmar, Khmer, kana,
Bopomofo, Han and its extensions."""
BRACKETS = "([{（［｛「『《〈【〔"
"""Those that open; “ and ‘ open in some languages and close in others."""
_OPENING = re.escape(f"{BRACKETS}“‘")
_JOINERS = "\u00ad\u200c\u200d"  # soft hyphen, and those that Persian and Indic words and emoji have inside
_TONES, _FLAGS = "\U0001f3fb-\U0001f3ff", "\U0001f1e6-\U0001f1ff"  # of skin; two letters make a flag
_LETTER = re.compile(rf"(?![{UNSPACED}])\w")


@cache
def _marks() -> str:
    """All combining marks and variation selectors, as a range of a regular expression."""
    found = {code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"}
    found.update(range(0xE0100, 0xE01F0))
    starts, ends = (sorted(code for code in found if code + step not in found) for step in (-1, 1))
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    character = f"[{UNSPACED}][{_marks()}{_JOINERS}]*+"
    word = f"[^\\s{UNSPACED}]++"
    if kind == "chunk":
        return re.compile(f"[{_OPENING}]*+(?:{character}){{1,2}}+[^\\w\\s{_OPENING}]*+|{word}")
    if kind == "unit":
        return re.compile(f"\\s*(?:{character}|{word})")
    letters = f"(?![{UNSPACED}])\\w(?:(?![{UNSPACED}])[\\w{_marks()}{_JOINERS}])*+"
    symbol = f"[{_FLAGS}]{{2}}|[^\\w\\s](?:[{_marks()}{_TONES}]|\u200d\\S)*+"
    return re.compile(f"\\s*(?:{character}|{letters}|{symbol})")


def script_of(text: str) -> str:
    """The script that most letters of `text` are of, by Unicode's names: Latin, Cyrillic, Han, Hiragana, Arabic, …;
    "none" where it has no letter."""
    names = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    found = names.most_common(1)[0][0] if names else "none"
    return "Han" if found == "CJK" else found if found == "none" else found.capitalize()


def chunks(text: str) -> list[re.Match[str]]:
    """Where the words of `text` stand, in order, each with the punctuation around it: for cutting. Where words are set
    apart by spaces, those are they; of a script without spaces two characters make one, about a word of Chinese."""
    return list(_pattern("chunk").finditer(text))


def first_words(text: str, n: int) -> str:
    """The first n (at least 1) `chunks` of `text`, all of it when there are fewer."""
    found = chunks(text)
    return text[found[0].start() : found[n - 1].end()] if len(found) > n else text


def units(text: str) -> list[str]:
    """What a reader compares: words with their punctuation, or single characters of a script without spaces, each with
    the white space before it; joined they are the text without trailing space."""
    return _pattern("unit").findall(text)


def pieces(text: str) -> list[str]:
    """What an edit puts, takes or moves: words, marks of punctuation, emoji, single characters of a script without
    spaces, each with the white space before it; joined they are the text without trailing space."""
    return _pattern("piece").findall(text)


@lru_cache(maxsize=20_000)
def spaced(piece: str) -> bool:
    """Whether a piece is a word of a script with spaces, with none before it."""
    return _LETTER.match(piece) is not None


def encodable(text: str) -> str:
    """The text, with a question mark for each half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text.encode(errors="replace").decode()
