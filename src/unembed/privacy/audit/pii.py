"""Personal data in a text, by type: presidio's pattern recognisers, dates, and names.

Notable:
- Patterns and checksums only (Luhn for cards, mod 97 for IBANs), asked directly: no language model is loaded for them,
  and nothing is asked of the network. presidio would check an e-mail's domain against a list that it fetches; here the
  shape is enough, so that addresses inside a company count as well.
- Names are spaCy's (PERSON, LOCATION, ORGANIZATION) for languages of which one of its models is installed, such as
  `en_core_web_sm`; for others they are found by their capitals, as one type NAME (`unembed.privacy.audit.names`).
- What one recogniser has found is no other's, in the order of `TYPES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from unembed.errors import require
from unembed.privacy.audit.names import names
from unembed.rare import rare_strings, stands_in
from unembed.scripts import UNSPACED, script_of

TYPES = (
    "EMAIL_ADDRESS", "URL", "IBAN_CODE", "CRYPTO", "CREDIT_CARD", "IP_ADDRESS", "MAC_ADDRESS", "US_SSN", "DATE_TIME",
    "PHONE_NUMBER", "PERSON", "LOCATION", "ORGANIZATION", "NAME",
)  # fmt: skip
_RECOGNISERS = {
    "EMAIL_ADDRESS": "EmailRecognizer", "URL": "UrlRecognizer", "IBAN_CODE": "IbanRecognizer",
    "CRYPTO": "CryptoRecognizer", "CREDIT_CARD": "CreditCardRecognizer", "IP_ADDRESS": "IpRecognizer",
    "MAC_ADDRESS": "MacAddressRecognizer", "US_SSN": "UsSsnRecognizer", "DATE_TIME": "DateRecognizer",
    "PHONE_NUMBER": "PhoneRecognizer",
}  # fmt: skip
LEAST_SCORE = 0.4
"""presidio's own certainty from which on a match counts; a card without a valid check digit has 0."""
REGIONS = ("US", "GB", "DE", "FR", "IN", "BR", "RU", "CN")
"""Whose telephone numbers are known without a country code."""
FEWEST_DIGITS = 7
"""Of a telephone number: presidio takes an amount such as 3479.25 for one."""
LANGUAGES = {"Latin": "en", "Cyrillic": "ru", "Han": "zh"}
"""Script → the language whose spaCy model is asked."""
_ENTITIES = {
    "PERSON": "PERSON", "PER": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION",
}  # fmt: skip
_UNSPACED = re.compile(f"^[{UNSPACED}]+")
"""What stands in front of an address in a script without spaces, and is a part of it to presidio."""
_GROUPED = frozenset(("CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER"))
"""Written with or without spaces, dashes and brackets."""


class Recogniser:
    """Finds personal data. Raises MissingExtra without presidio.

    ner: for a language ("en", "ru", "zh"), what finds names in a text as (string, label of spaCy's); by default the
        spaCy models that are installed.
    """

    def __init__(self, ner: dict[str, Callable[[str], Iterable[tuple[str, str]]]] | None = None) -> None:
        require("presidio_analyzer", "audit")
        self._patterns = dict(_recognisers())
        self._ner = installed_ner() if ner is None else ner

    @property
    def languages(self) -> list[str]:
        """Those whose names a model recognises."""
        return sorted(self._ner)

    def find(self, text: str) -> dict[str, list[str]]:
        """The distinct strings of each type in `text`; types without one are left out."""
        found: dict[str, list[str]] = {}
        for kind, recogniser in self._patterns.items():
            text = _take(text, found, kind, _matches(recogniser, kind, text))
        text = _take(text, found, "DATE_TIME", rare_strings(text).get("date", []))
        ner = self._ner.get(LANGUAGES.get(script_of(text), ""))
        if ner is None:
            _take(text, found, "NAME", names(text))
        else:
            for string, label in ner(text):
                if label in _ENTITIES and string.strip():
                    _take(text, found, _ENTITIES[label], [string])
        return {kind: list(dict.fromkeys(found[kind])) for kind in TYPES if kind in found}


def leaked(kind: str, string: str, text: str) -> bool:
    """Whether a string of this type stands in `text`: whole, in any case, numbers however they are grouped."""
    if kind not in _GROUPED:
        return stands_in(string, text)
    characters = r"[\W_]*".join(re.escape(character) for character in string if character.isalnum())
    return re.search(rf"(?<![^\W_]){characters}(?![^\W_])", text, re.IGNORECASE) is not None


def _recognisers() -> Iterator[tuple[str, Any]]:
    known = require("presidio_analyzer.predefined_recognizers", "audit")
    for kind in TYPES:
        if kind in _RECOGNISERS:
            options: dict[str, Any] = {"supported_regions": REGIONS} if kind == "PHONE_NUMBER" else {}
            recogniser = getattr(known, _RECOGNISERS[kind])(**options)
            if kind == "EMAIL_ADDRESS":
                recogniser.validate_result = lambda text: None
            yield kind, recogniser


def _matches(recogniser: Any, kind: str, text: str) -> list[str]:
    found = recogniser.analyze(text, [kind])
    kept = sorted((match.start, -match.end) for match in found if match.score >= LEAST_SCORE)
    out, end = [], 0
    for start, negative in kept:
        if start >= end:  # of matches that overlap, the first and longest
            end = -negative
            out.append(_UNSPACED.sub("", text[start:end]))
    return [match for match in out if kind != "PHONE_NUMBER" or sum(map(str.isdigit, match)) >= FEWEST_DIGITS]


def _take(text: str, found: dict[str, list[str]], kind: str, strings: Iterable[str]) -> str:
    """Note the strings, and give back the text with blanks where they stood."""
    for string in strings:
        found.setdefault(kind, []).append(string.strip())
        text = text.replace(string, " " * len(string))
    return text


def installed_ner() -> dict[str, Callable[[str], Iterable[tuple[str, str]]]]:
    """For each language of `LANGUAGES` of which a spaCy model is installed, what finds its names."""
    spacy = require("spacy", "audit")
    found: dict[str, Callable[[str], Iterable[tuple[str, str]]]] = {}
    for language in LANGUAGES.values():
        models = sorted(name for name in spacy.util.get_installed_models() if name.startswith(f"{language}_core_"))
        if models:
            found[language] = _entities(spacy.load(models[0]))
    return found


def _entities(pipeline: Any) -> Callable[[str], Iterable[tuple[str, str]]]:
    return lambda text: [(entity.text, entity.label_) for entity in pipeline(text).ents]
