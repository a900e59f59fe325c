"""The figures of an audit, its verdict, and what a redacted report still shows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from unembed.errors import InputError
from unembed.metrics import share_estimate
from unembed.privacy.audit.language import language_of
from unembed.privacy.audit.leakage import Control, Record, length_class, measure
from unembed.privacy.audit.plausibility import by_shape, by_texts
from unembed.privacy.audit.redaction import masked, redacted
from unembed.privacy.audit.verdict import Check, headline, limits, remediation, severity
from unembed.scripts import script_of
from unembed.stores.address import without_password

TRUE = [
    "Anna Miller lives in Oslo and writes from anna@example.org.",
    "The card of Ben Carter is 4111 1111 1111 1111.",
    "it rained all night",
]
WRITTEN = [
    "anna miller lives in Oslo and writes mails",
    "the card of Ben is 4111-1111-1111-1111",
    "it rained all night",
]


class Recogniser:
    """Finds what these texts hold, so that no test waits for presidio."""

    languages = ()

    def find(self, text):
        known = {
            "EMAIL_ADDRESS": ["anna@example.org"], "CREDIT_CARD": ["4111 1111 1111 1111"],
            "NAME": ["Anna Miller", "Ben Carter", "Oslo"],
        }  # fmt: skip
        found = {kind: [string for string in strings if string in text] for kind, strings in known.items()}
        return {kind: strings for kind, strings in found.items() if strings}


def records(truth=TRUE, good=0.5):
    return [
        Record(f"r{i}", text, 0.9, i == 2, good, good / 2, true, "a" if i < 2 else "b")
        for i, (text, true) in enumerate(zip(WRITTEN, truth, strict=True))
    ]


def report(leakage, **more):
    made = {
        "truth": leakage.truth, "confidence": leakage.confidence, "scores": leakage.scores, "pii": leakage.pii,
        "controls": leakage.controls, "records": leakage.records, "threat_model": {"steps": 0}, "defences": None,
        "target": {"usable": 3, "count": None, "fields": [{"name": "owner"}], "embedder": {"plausible": None}},
    }  # fmt: skip
    return {**made, **more}


@pytest.fixture(scope="module")
def leakage():
    control = Control(["oslo is far away", "nothing", "it snowed"], [0.1, 0.2, 0.3])
    return measure(records(), {"random text": control}, Recogniser())


def test_recall_counts_strings_by_type(leakage):
    assert {kind: (part["found"], part["recall"]["value"]) for kind, part in leakage.pii.items()} == {
        "any": (5, 3 / 5), "EMAIL_ADDRESS": (1, 0.0), "CREDIT_CARD": (1, 1.0), "NAME": (3, 2 / 3),
    }  # fmt: skip
    assert leakage.controls["random text"]["pii_recall"]["value"] == 1 / 5, "Oslo stands in a random text as well"
    assert leakage.scores["exact_uncased"]["value"] == pytest.approx(1 / 3) and leakage.scores["cosine"]["value"] == 0.9
    worst = leakage.records[0]
    assert worst["id"] == "r0" and worst["leaked"] == {"NAME": ["Anna Miller", "Oslo"]} and not worst["recovered"]
    assert leakage.records[1]["leaked"] == {"CREDIT_CARD": ["4111 1111 1111 1111"]}


def test_parts(leakage):
    assert {name: {label: part["n"] for label, part in parts.items()} for name, parts in leakage.by.items()} == {
        "length": {"0–8 words": 1, "9–16 words": 2}, "language": {"Latin": 1, "en": 2}, "domain": {"a": 2, "b": 1},
    }  # fmt: skip
    assert leakage.by["domain"]["a"]["pii_recall"]["value"] == 3 / 5 and leakage.by["domain"]["b"]["pii_recall"] is None
    assert leakage.by["domain"]["b"]["scores"]["exact_uncased"] == {"value": 1.0, "low": None, "high": None, "n": 1}
    assert length_class("word " * 65) == "65 words or more"


def test_an_interval_resamples_rows_since_what_stands_in_one_is_found_together():
    together = share_estimate([5, 0] * 10, [5, 5] * 10)
    apart = share_estimate([1, 0] * 50, [1, 1] * 50)
    assert together.value == apart.value == 0.5 and together.n == apart.n == 100
    assert together.high - together.low > 1.7 * (apart.high - apart.low)
    assert share_estimate([1, 0], [2, 0]).low is None, "only one row could be hit"
    with pytest.raises(InputError, match="nothing could be hit"):
        share_estimate([0], [0])


def test_without_truth_only_confidence_is_told():
    found = measure(records([None] * 3), {}, Recogniser())
    assert (found.truth, found.scores, found.pii, found.by, found.controls) == (False, {}, {}, {}, {})
    assert found.confidence["good"]["value"] == 0.5 and found.confidence["verified"]["value"] == pytest.approx(1 / 3)
    assert all(row["true_text"] is row["token_f1"] is row["recovered"] is None for row in found.records)
    whole = report(found)
    assert headline(whole)["measure"] == "confidence_good" and severity(whole)[0] == "critical"
    assert "not known" in limits(whole, ())[0]
    uncalibrated = report(measure(records([None] * 3, good=0) and [Record("a", "x", 0.5, False)], {}, Recogniser()))
    assert headline(uncalibrated)["measure"] == "verified" and severity(uncalibrated)[0] == "none"
    with pytest.raises(InputError, match="no calibration"):
        Check.parse("confidence_good>0.1").apply(uncalibrated)
    with pytest.raises(InputError, match="nothing to measure"):
        measure([], {}, Recogniser())


def test_records_without_a_text_are_told_apart():
    found = measure(records([TRUE[0], None, None]), {}, Recogniser())
    assert found.truth and found.scores["token_f1"]["n"] == 1 and len(found.records) == 3
    assert found.confidence["good"]["n"] == 3 and "2 of the vectors have no true text" in limits(report(found), ())[0]


def test_severity_counts_what_is_above_the_best_control(leakage):
    assert severity(report(leakage))[0] == "critical"
    level = measure(records(), {"same": Control(WRITTEN, [0.9] * 3)}, Recogniser())
    assert severity(report(level))[0] == "none", "a control that reads as much"
    alone = measure(records()[:1], {}, Recogniser())
    assert alone.scores["token_f1"]["low"] is None and severity(report(alone))[0] == "critical", (
        "no interval of one row"
    )
    some = records([TRUE[0], "It is late.", "You are here."])
    assert severity(report(measure(some, {}, Recogniser())))[0] == "critical", "personal data in one row alone"


def test_the_headline_is_a_figure_that_the_severity_comes_from(leakage):
    assert headline(report(leakage))["measure"] == "pii_recall"
    near = [Record("r", "Please write to the office today.", 0.9, False, 0.5, 0.5, "Please write to anna@example.org.")]
    words = report(measure(near, {}, Recogniser()))
    assert words["pii"]["any"]["recall"]["value"] == 0 and severity(words)[0] == "critical"
    assert headline(words)["measure"] == "token_f1" and "no more personal data" in headline(words)["label"]
    guessed = {"same": Control([near[0].text], [0.9])}
    assert headline(report(measure(near, guessed, Recogniser())))["measure"] == "pii_recall", "nor is token F1 higher"


@pytest.mark.parametrize(
    ("rule", "value", "failed"),
    [
        ("pii_recall>0.05", 0.6, True), ("pii_recall.EMAIL_ADDRESS > 0", 0.0, False), ("pii_recall.URL>=0", 0.0, True),
        ("exact_uncased<=.5", 1 / 3, True), ("cosine<0.5", 0.9, False), ("verified>1e-1", 1 / 3, True),
    ],
)  # fmt: skip
def test_rules(leakage, rule, value, failed):
    assert Check.parse(rule).apply(report(leakage)) == {"rule": rule, "value": pytest.approx(value), "failed": failed}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("pii_recall", "cannot read the rule"), ("pii_recall>", "cannot read"), ("pii_recall=0.1", "cannot read"),
        ("leaks>0.1", "no measure is called 'leaks'"), ("bleu.NAME>1", "no measure"), ("pii_recall.SHOE>0", "no type"),
    ],
)  # fmt: skip
def test_rules_that_say_nothing(rule, said):
    with pytest.raises(InputError, match=said):
        Check.parse(rule)


def test_remediation_names_measured_effects(leakage):
    def leak(name, f1, attacker):
        return {
            "defence": name,
            "strength": 4.0,
            "loss": 0.01,
            "attacker": attacker,
            "scores": {"token_f1": {"value": f1}},
        }

    rows = [leak("none", 0.7, "static"), leak("pca", 0.5, "denoising"), leak("quantisation", 0.6, "static")]
    found = remediation(report(leakage, defences={"leaks": rows, "worst": rows}))
    assert "owner" in found[0]["what"] and "0.70 → 0.50" in found[-2]["effect"] and "0.70 → 0.60" in found[-1]["effect"]
    assert "unembed defend" in remediation(report(leakage))[-1]["what"]
    with pytest.raises(InputError, match="without a defence"):
        remediation(report(leakage, defences={"leaks": [], "worst": []}))


def test_a_redacted_report_holds_no_recovered_text(leakage):
    whole = report(leakage)
    shown = json.dumps(redacted(whole), ensure_ascii=False).lower()
    for word in ("miller", "oslo", "carter", "4111", "anna@", "rained", "example.org"):
        assert word not in shown
    assert whole["records"][0]["leaked"] == {"NAME": ["Anna Miller", "Oslo"]}, "the report itself stays whole"
    assert redacted(whole)["scores"] == whole["scores"] and "true_text" in redacted(whole)["records"][0]


def test_masks_keep_first_letters_and_coarse_lengths():
    assert masked("Jack Morrison") == "J███ M██████████" and masked("Jill Mo") == "J███ M███"
    assert masked("call 415-555 now") == "c███ ████·████ n███"
    assert masked("李明住在北京") == "李██████" and masked("") == ""


def test_whose_vectors_they_are():
    generator = np.random.default_rng(0)
    spread = np.geomspace(1, 0.05, 96)
    public, own, other = (generator.standard_normal((n, 96)) * spread for n in (200, 60, 60))
    other = other[:, ::-1]
    assert by_shape(own, public).plausible and not by_shape(other, public).plausible
    assert by_shape(own[:1], public).plausible, "one vector is enough"
    noisy = own + 0.3 * generator.standard_normal(own.shape)
    assert by_texts(own, own).plausible and by_texts(noisy, own).plausible and by_texts(own[:1], own[:1]).plausible
    assert not by_texts(other, own).plausible and not by_texts(own[::-1], own).plausible
    shifted = by_texts(own + 5, own[::-1] + 5)
    assert not shifted.plausible, "vectors that all point the same way agree with any text"


def test_addresses_are_shown_without_passwords():
    assert without_password("pgvector:postgresql://ann:s3cret@db/docs#t") == "pgvector:postgresql://ann@db/docs#t"
    assert without_password("pgvector:host=db password=s3cret#t") == "pgvector:host=db password=…"
    assert without_password("qdrant://localhost:6333/docs") == "qdrant://localhost:6333/docs"


def test_languages():
    texts = {
        "en": "The invoice was sent to the wrong address last week.",
        "de": "Die Rechnung wurde letzte Woche an die falsche Adresse geschickt.",
        "ru": "Счёт был отправлен по неверному адресу на прошлой неделе.",
        "zh": "发票上周寄到了错误的地址。",
        "Latin": "Anna",
        "Cyrillic": "Анна",
        "none": "4111 1111",
    }
    assert [language_of(text) for text in texts.values()] == list(texts), "too little to tell: the script"


def test_scripts():
    assert [script_of(text) for text in ("Ein Haus", "дом и house, и сад", "今天 OK", "1 2", "")] == [
        "Latin", "Cyrillic", "Han", "none", "none",
    ]  # fmt: skip
