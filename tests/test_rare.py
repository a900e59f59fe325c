"""Names, numbers and their like: found by shape, counted when they come back whole."""

from __future__ import annotations

import time

import pytest

from unembed.rare import rare_recall, rare_strings, stands_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mail anna.lee+x@example.co.uk now", {"e-mail": ["anna.lee+x@example.co.uk"]}),
        ("On May 3, 2024 and 4 June 2023, or 2024-05-03.", {"date": ["May 3, 2024", "4 June 2023", "2024-05-03"]}),
        ("It may rain in May.", {}),
        ("Call 902.837.5179x945 about B66250.", {"identifier": ["902.837.5179x945", "B66250"]}),
        ("At 18:30 it cost $3,237.50, twice 18:30", {"number": ["18:30", "3,237.50"]}),
        ("Patient Mallory Pena saw Dr. O'Brien-Smith", {"name": ["Mallory", "Pena"]}),
        ("We met Dr. Lee, Jean-Luc and NASA. Then we left", {"name": ["Lee", "Jean-Luc"]}),
        ("The first word is none. Nor is this, nor I", {}),
        ("Wir sahen Ärzte in Łódź", {"name": ["Ärzte", "Łódź"]}),
        ("", {}),
        ("Вчера Анна Петрова видела Ёжика; она живёт в Москве", {"name": ["Анна", "Петрова", "Ёжика", "Москве"]}),
        ("Он пришёл 3 мая 2024 и 19.06.2027 в 14:30", {"date": ["3 мая 2024", "19.06.2027"], "number": ["14:30"]}),
        ("Заказ D229187, почта anna@пример.рф", {"e-mail": ["anna@пример.рф"], "identifier": ["D229187"]}),
        (
            "何婷的银行卡尾号8720在2027年7月5日被扣款2392.00元",
            {"date": ["2027年7月5日"], "number": ["8720", "2392.00"]},
        ),
        ("邮箱是tao@example.com，订单AB-1029已发货", {"e-mail": ["tao@example.com"], "identifier": ["AB-1029"]}),
        ("在 北京 见 王伟 先生，1998年毕业", {"date": ["1998年"]}),
        ("التقى محمد بسارة في القاهرة عام 2019", {"number": ["2019"]}),
        ("राम ने सीता को 500 रुपये दिए", {"number": ["500"]}),
    ],
)
def test_what_is_found(text, found):
    assert rare_strings(text) == found


def test_a_string_counts_only_whole_and_in_any_case():
    assert stands_in("Miller", "dear MILLER, hello") and not stands_in("Miller", "the millers")
    assert stands_in("3.5", "only 3.5 left") and not stands_in("3.5", "13.5") and not stands_in("3.5", "3x5")


def test_a_string_is_whole_between_characters_of_a_script_without_spaces():
    assert stands_in("8720", "尾号8720在") and not stands_in("8720", "尾号18720在")
    assert stands_in("2027年7月5日", "于2027年7月5日被") and stands_in("Анна", "вот АННА.")
    assert not stands_in("Анна", "Иоанна")


@pytest.mark.parametrize("run", ["aB3", "-.", "a.", "+", "1:", "中a"])
def test_a_long_run_takes_no_longer_than_many_short_ones(run):
    began = time.process_time()
    rare_strings(run * 50_000)
    assert time.process_time() - began < 3, "once it was minutes"


def test_an_interval_is_over_rows_since_strings_of_a_row_are_found_together():
    names = "we met Anna Bella Carla Doris Emily Fiona Grace Helen there"
    whole = rare_recall([names] * 40, [names] * 12 + ["nobody"] * 28)["name"]
    assert whole.n == 320 and whole.high - whole.low > 0.2, "320 independent names would have half of that"


def test_recall_by_kind():
    references = ["Call Anna Miller at 12:30", "Call Bob at 7"]
    recall = rare_recall(references, ["call anna at 12:30", "call at 8"])
    assert list(recall) == ["number", "name"]
    assert recall["number"].value == 0.5 and recall["number"].n == 2
    assert recall["name"].value == pytest.approx(1 / 3) and recall["name"].n == 3
    assert rare_recall(["nothing of the kind"], ["at all"]) == {}
