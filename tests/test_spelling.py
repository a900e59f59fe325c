"""How a result is spelled, with the real embedder and the prior of the inverter that ships."""

from __future__ import annotations

import numpy as np
import pytest

from unembed.inverter import Inverter
from unembed.models.base import Hypothesis
from unembed.search.loop import Search
from unembed.search.spelling import spelled
from unembed.search.types import SearchConfig

WRITTEN = {
    "Los Angeles(at 3. 7 million people) and San Diego(at 1": "Los Angeles (at 3.7 million people) and San Diego (at 1",
    "since the 2005 revival, he travels with a companion , who": (
        "Since the 2005 revival, he travels with a companion, who"
    ),
    "The Nominal cost of Attendance is": "The nominal cost of attendance is",
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_the_embedder_cannot_tell_is_spelled_as_one_would(text: str, inverter: Inverter) -> None:
    before = inverter.embedder.queries, inverter.embedder.probes
    found = spelled(text, inverter.model, inverter.embedder)
    assert found == WRITTEN[text]
    assert (inverter.embedder.queries, inverter.embedder.probes) == before, "costs no query"
    np.testing.assert_allclose(inverter.embedder.encode([found]), inverter.embedder.encode([text]), atol=1e-6)
    assert spelled(found, inverter.model, inverter.embedder) == found


@pytest.mark.parametrize("text", [".", "我去北京。", "क्या हिन्दी में", "a", "\U0001f600 !", "e\u0301tat", "x" * 300])
def test_any_text_keeps_its_tokens(text: str, inverter: Inverter) -> None:
    found = spelled(text, inverter.model, inverter.embedder)
    assert found and inverter.embedder.key(found) == inverter.embedder.key(text)


def test_a_search_gives_the_spelling_and_a_look_without_steps_what_was_written(
    inverter: Inverter, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, right = "los Angeles(at 3. 7 million", "Los Angeles (at 3.7 million"
    targets = inverter.embedder.encode([right])
    monkeypatch.setattr(inverter.model, "hypothesize", lambda targets, n, *_: [[Hypothesis(wrong, -1.0)] * n])
    for steps, text in ((1, right), (0, wrong)):
        [found] = Search(inverter.model, inverter.embedder, SearchConfig(steps=steps), 1e-5).run(targets)
        assert found.exact and found.stopped == "exact"
        assert found.text == found.candidates[0].text == text
