"""In which language a text is. Needs the extra `audit` (py3langid)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from unembed.errors import require
from unembed.scripts import script_of

SURE = 0.5
"""Probability from which a language is named. Of the held-out texts, cut to 4, 8 and 16 words, at least 93, 97 and 98 %
of those that it names are right (docs/lab.md); short texts, names and numbers stay below it."""


def language_of(text: str) -> str:
    """The code of the text's language ("en", "ru", "zh"; ISO 639-1); where that is not certain enough its script
    ("Latin", see `script_of`), or "none" where it has no letter.

    Raises MissingExtra without py3langid.
    """
    script = script_of(text)
    return _classifier()(text) or script if script != "none" else script


@cache
def _classifier() -> Callable[[str], str]:
    """Text → language, "" where none is likely enough."""
    langid = require("py3langid.langid", "audit")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    # Languages of three letters are those that it takes short texts for: Wu, Cantonese, Nigerian Pidgin.
    identifier.set_languages([code for code in identifier.labels if len(code) == 2])

    def classify(text: str) -> str:
        code, probability = identifier.classify(text)
        return str(code) if probability >= SURE else ""

    return classify
