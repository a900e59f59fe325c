"""Recognising personal data, and whether it stands in another text."""

from __future__ import annotations

import importlib
import re

import pytest

from unembed.errors import MissingExtra, install_line
from unembed.privacy.audit.names import names
from unembed.privacy.audit.pii import Recogniser, installed_ner, leaked


@pytest.fixture(scope="module")
def recogniser():
    pytest.importorskip("presidio_analyzer")
    return Recogniser(ner={})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mail admin@corp.internal or see https://a.example.com/x", {
            "EMAIL_ADDRESS": ["admin@corp.internal"], "URL": ["https://a.example.com/x"],
        }),
        ("card 4111 1111 1111 1111, not 4111 1111 1111 1112", {"CREDIT_CARD": ["4111 1111 1111 1111"]}),
        ("to DE89370400440532013000 today", {"IBAN_CODE": ["DE89370400440532013000"]}),
        ("to DE89370400440532013001 today", {}),
        ("my number is 379-52-6533 from 99.189.145.14", {"US_SSN": ["379-52-6533"], "IP_ADDRESS": ["99.189.145.14"]}),
        ("call +49 30 901820, (415) 555-2671", {"PHONE_NUMBER": ["+49 30 901820", "(415) 555-2671"]}),
        ("on June 3, 2027 and 2024-08-27", {"DATE_TIME": ["2024-08-27", "June 3, 2027"]}),
        ("Встреча с Нестеров Юрий Фокич 24.12.2025, тел. +7 (846) 989-0348", {
            "DATE_TIME": ["24.12.2025"], "PHONE_NUMBER": ["+7 (846) 989-0348"], "NAME": ["Нестеров Юрий Фокич"],
        }),
        ("请联系袁俊先生，邮箱weimao@example.org，电话18044773554，2025年9月13日，扣款3479.25元", {
            "EMAIL_ADDRESS": ["weimao@example.org"], "PHONE_NUMBER": ["18044773554"], "DATE_TIME": ["2025年9月13日"],
            "NAME": ["袁俊"],
        }),
        ("nothing of that kind is here", {}),
    ],
)  # fmt: skip
def test_what_is_found(recogniser, text, found):
    assert recogniser.find(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Aaron Patterson saw Dr. Schaefer in March.", ["Aaron Patterson", "Schaefer"]),
        ("Patient Kevin Foster-Hill met J. O'Neil. It rained. The United States won.",
         ["Kevin Foster-Hill", "J. O'Neil", "United States"]),
        ("Ashley told us on Friday that NASA hired Jo and Dunn.", ["Ashley", "Jo", "Dunn"]),
        ("Will you come? Rose bushes bloom. Anna does. Tables fell. Светлана звонила. Мир не вечен.",
         ["Anna", "Светлана"]),
        ("昨天王秀英给公司打了电话", ["王秀英"]),
        ("Invoice A644992 for Austin-Cannon, FtsZ1.", ["Austin-Cannon"]),
        ("李明先生和张建国医生开会，高兴的人。", ["李明", "张建国"]),
        ("今天，李明先生和王医生来了", ["李明"]),
        ("", []),
    ],
)  # fmt: skip
def test_names_by_how_they_are_written(text, found):
    assert names(text) == found


def test_what_counts_as_leaked():
    assert leaked("CREDIT_CARD", "4111 1111 1111 1111", "pay 4111-1111-1111-1111.")
    assert not leaked("CREDIT_CARD", "4111 1111 1111 1111", "pay 94111111111111111.")
    assert leaked("PHONE_NUMBER", "(415) 555-2671", "call 415.555.2671 now")
    assert leaked("NAME", "Anna Miller", "so anna miller said") and not leaked("NAME", "Anna Miller", "Anna Millers")


def test_a_model_of_spacys_takes_the_place_of_capitals(recogniser, tmp_path, monkeypatch):
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns(
        [
            {"label": "PERSON", "pattern": "ashley"},
            {"label": "GPE", "pattern": "Oslo"},
            {"label": "CARDINAL", "pattern": "two"},
        ]
    )
    monkeypatch.setattr(spacy.util, "get_installed_models", lambda: ["en_core_web_sm", "de_core_news_sm"])
    monkeypatch.setattr(spacy, "load", lambda name: {"en_core_web_sm": pipeline}[name])
    found = Recogniser()
    assert found.languages == ["en"]
    assert found.find("ashley left Oslo for two weeks") == {"PERSON": ["ashley"], "LOCATION": ["Oslo"]}
    assert found.find("Вчера приехала Анна Иванова") == {"NAME": ["Анна Иванова"]}, "no model of that language"
    monkeypatch.undo()
    assert installed_ner() == {} or set(installed_ner()) <= {"en", "ru", "zh"}


def test_without_presidio(monkeypatch):
    real = importlib.import_module

    def absent(name, *rest):
        if name == "presidio_analyzer":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=re.escape(install_line("audit"))):
        Recogniser()
