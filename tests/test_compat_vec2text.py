"""vec2text's interface on its own reference: the same texts step by step, and our search never worse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from unembed.compat import vec2text
from unembed.errors import InputError
from unembed.metrics import cosine


@pytest.fixture(scope="module")
def reference(parity_dir):
    folder = parity_dir / "vec2text"
    found = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    return found | {"embeddings": np.load(folder / "reference.npz")["embeddings"]}


def open_pair(parity_dir, **options):
    folder = parity_dir / "vec2text" / "jxm"
    return vec2text.load_corrector(
        vec2text.models.InversionModel.from_pretrained(folder / "gtr__nq__32"),
        vec2text.models.CorrectorEncoderModel.from_pretrained(folder / "gtr__nq__32__correct"),
        **options,
    )


@pytest.fixture(scope="module")
def faithful(parity_dir):
    return open_pair(parity_dir, faithful=True)


@pytest.fixture(scope="module")
def corrector(parity_dir):
    return open_pair(parity_dir)


GRID = [(None, 0), (1, 0), (5, 0), (5, 2), (5, 4)]


@pytest.mark.parametrize(("steps", "beam"), GRID)
def test_faithful_gives_the_same_texts(faithful, reference, steps, beam):
    vectors = torch.from_numpy(reference["embeddings"])
    expected = reference["results"][f"steps={steps},beam={beam}"]["texts"]
    assert vec2text.invert_embeddings(vectors, faithful, num_steps=steps, sequence_beam_width=beam) == expected


@pytest.mark.parametrize(("steps", "beam"), GRID)
def test_our_search_is_never_worse(corrector, reference, steps, beam):
    expected = reference["results"][f"steps={steps},beam={beam}"]
    found = vec2text.invert_embeddings(reference["embeddings"], corrector, steps, beam)
    cosines = cosine(corrector.inverter.embedder.encode(found), reference["embeddings"])
    assert np.mean(cosines) >= np.mean(expected["cos"]) - 1e-5
    truth = reference["texts"]
    ours, theirs = (sum(map(str.__eq__, texts, truth)) for texts in (found, expected["texts"]))
    assert ours >= theirs


def test_strings_interpolation_and_hypotheses(corrector, faithful, reference):
    texts = reference["texts"][:2]
    found = vec2text.invert_strings(texts, corrector=corrector, num_steps=5, sequence_beam_width=2)
    assert found == texts
    a, b = torch.from_numpy(reference["embeddings"][:2])
    mixed = torch.lerp(input=a, end=b, weight=0.5)
    assert vec2text.invert_embeddings(embeddings=mixed[None], corrector=corrector, num_steps=1)[0].strip()
    for made in (corrector, faithful):
        steps, vectors = vec2text.invert_embeddings_and_return_hypotheses(reference["embeddings"][:3], made, 2, 2)
        assert [len(step) for step in steps] == [3, 3, 3] and [v.shape for v in vectors] == [(3, 768)] * 3
        assert steps[-1] == vec2text.invert_embeddings(reference["embeddings"][:3], made, 2, 2)


def test_what_cannot_be_is_one_line(corrector):
    with pytest.raises(InputError, match="choose from gtr-base"):
        vec2text.load_pretrained_corrector("gtr-huge")
    import unembed

    with pytest.raises(InputError, match="needs a pair"):
        vec2text.Corrector(unembed.load("all-MiniLM-L6-v2"), faithful=True)
    with pytest.raises(InputError):
        vec2text.invert_embeddings(np.full((1, 768), np.nan), corrector)
