"""Names, numbers and their like: found by shape, counted when they come back whole."""

from __future__ import annotations

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
    ],
)
def test_what_is_found(text, found):
    assert rare_strings(text) == found


def test_a_string_counts_only_whole_and_in_any_case():
    assert stands_in("Miller", "dear MILLER, hello") and not stands_in("Miller", "the millers")
    assert stands_in("3.5", "only 3.5 left") and not stands_in("3.5", "13.5") and not stands_in("3.5", "3x5")


def test_recall_by_kind():
    references = ["Call Anna Miller at 12:30", "Call Bob at 7"]
    recall = rare_recall(references, ["call anna at 12:30", "call at 8"])
    assert list(recall) == ["number", "name"]
    assert recall["number"].value == 0.5 and recall["number"].n == 2
    assert recall["name"].value == pytest.approx(1 / 3) and recall["name"].n == 3
    assert rare_recall(["nothing of the kind"], ["at all"]) == {}
