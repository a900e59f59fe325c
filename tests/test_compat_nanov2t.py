"""nanoV2T's loop on its own checkpoints and reference texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

import unembed
from unembed.compat import nanov2t
from unembed.errors import InputError
from unembed.metrics import cosine


@pytest.fixture(scope="module")
def pair(parity_dir):
    folder = parity_dir / "nanov2t"
    embedder = unembed.embedder(folder / "embedder", id="tiny-embedder")  # as the checkpoints call it
    return unembed.load(f"{folder / 'stage1'}+{folder / 'stage2'}", embedder)


@pytest.fixture(scope="module")
def reference(parity_dir):
    return json.loads((parity_dir / "nanov2t" / "reference_texts.json").read_text(encoding="utf-8"))


def test_a_round_keeps_the_nearest_of_the_reference_beams(pair, reference):
    targets = pair.embedder.encode(reference["texts"])
    drafts, after = nanov2t.invert_embeddings(targets, pair, 1, 4, reference["drafts"])
    assert drafts == reference["drafts"]
    beams = np.array(reference["stage2_beam4"]).reshape(-1, 4)
    expected = []
    for row, vector in zip(beams, targets, strict=True):
        near = cosine(pair.embedder.encode(row.tolist()), np.repeat(vector[None], 4, axis=0))
        expected.append(row[near.argmax()])
    assert after == expected
    greedy = nanov2t.invert_embeddings(targets, pair, 1, 1, reference["drafts"])[-1]
    assert greedy == reference["stage2_greedy"]


def test_what_is_exact_leaves_and_the_loop_ends(pair, reference, monkeypatch):
    """The early stop fires: exact texts are corrected no more, and with the last of them the rounds end."""
    targets = pair.embedder.encode([*reference["texts"], "of the of the of the end of"])
    corrected = []
    correct = pair.model.correct

    def counted(e, *rest):
        corrected.append(sorted({int(i) for i in (e @ targets.T).argmax(axis=1)}))
        return correct(e, *rest)

    monkeypatch.setattr(pair.model, "correct", counted)
    rounds = nanov2t.invert_embeddings(targets, pair, 3, 2)
    known = list(range(len(reference["texts"])))
    assert [rounds[1][i] for i in known] == [rounds[-1][i] for i in known] == reference["texts"]
    assert corrected == [[*known, 8], [8], [8]], "the last one is not found, and it alone goes on"
    corrected.clear()
    assert len(nanov2t.invert_embeddings(targets[:8], pair, 50, 2)) == 2 and len(corrected) == 1


def test_what_cannot_be_is_one_line(pair, parity_dir):
    targets = pair.embedder.encode(["should marry Paige and he"])
    with pytest.raises(InputError, match="2 drafts for 1 vectors"):
        nanov2t.invert_embeddings(targets, pair, drafts=["a", "b"])
    with pytest.raises(InputError, match="has 40"):
        nanov2t.invert_embeddings(targets[:, :30], pair)
    folder = parity_dir / "nanov2t"
    alone = unembed.load(folder / "stage1", pair.embedder)
    assert len(nanov2t.invert_embeddings(targets, alone, 5, 2)) == 2, "without a corrector nothing follows the draft"
