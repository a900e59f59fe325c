"""A batch that does not fit into memory is halved, said once, and changes nothing of the results."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from unembed.checkpoints import load_model
from unembed.errors import InputError
from unembed.models.base import GREEDY, Sampling
from unembed.models.batching import in_batches


class Small(torch.nn.Module):
    """A network in front of which only so many rows fit: more raise what the accelerator raises."""

    def __init__(self, net, most, error=torch.OutOfMemoryError):
        super().__init__()
        self.net, self.most, self.error, self.sizes = net, most, error, []

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.net, name)

    def _check(self, targets):
        self.sizes.append(len(targets))
        if len(targets) > self.most:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")

    def generate(self, targets, *rest, **options):
        self._check(targets)
        return self.net.generate(targets, *rest, **options)

    def forward(self, targets, *rest, **options):
        self._check(targets)
        return self.net(targets, *rest, **options)

    def condition(self, targets, *rest):
        self._check(targets)
        return self.net.condition(targets, *rest)


def pair(parity_dir):
    folder = parity_dir / "vec2text" / "jxm"
    return load_model(f"{folder / 'gtr__nq__32'}+{folder / 'gtr__nq__32__correct'}", torch.device("cpu"))


def test_the_t5_familys_results_are_those_of_the_whole_batch(parity_dir, caplog):
    vectors = np.load(parity_dir / "vec2text" / "reference.npz")["embeddings"]
    whole, halved = pair(parity_dir), pair(parity_dir)
    halved.hypothesizer, halved.corrector = Small(halved.hypothesizer, 3), Small(halved.corrector, 2)
    expected = whole.hypothesize(vectors)
    texts = [row[0].text for row in expected]
    with caplog.at_level(logging.WARNING, "unembed.models.batching"):
        found = halved.hypothesize(vectors)
        assert [row[0].text for row in found] == texts
        assert halved.hypothesizer.sizes[:5] == [12, 6, 3, 3, 3]  # 12 rows at once, halved until they fit
        again = halved.hypothesize(vectors[:4])
        assert [row[0].text for row in again] == texts[:4] and halved.batch_size == 3
    assert [record.message for record in caplog.records] == [
        "64 texts at a time do not fit into memory: 3 from here on"
    ]
    log_p = [[row[0].logprob for row in rows] for rows in (expected, found)]
    np.testing.assert_allclose(*log_p, atol=1e-4)
    np.testing.assert_allclose(halved.score(texts, vectors), whole.score(texts, vectors), atol=1e-4)
    for sampling, n in ((GREEDY, 1), (Sampling(beams=2), 2)):
        one, other = (model.correct(vectors[:5], texts[:5], vectors[:5], n, sampling) for model in (whole, halved))
        assert [[h.text for h in row] for row in one] == [[h.text for h in row] for row in other]


def test_the_native_familys_results_are_those_of_the_whole_batch(inverter, monkeypatch):
    model = inverter.model
    vectors = inverter.embedder.encode(["the cat", "a letter of May", "two", "three more", "and five"])
    expected = model.hypothesize(vectors)
    monkeypatch.setattr(model, "batch_size", model.batch_size)
    monkeypatch.setattr(model, "net", Small(model.net, 2))
    assert [row[0].text for row in model.hypothesize(vectors)] == [row[0].text for row in expected]
    assert model.net.sizes == [5, 2, 2, 1] and model.batch_size == 2


def test_one_row_that_does_not_fit_and_other_errors(parity_dir):
    model = pair(parity_dir)
    model.hypothesizer = Small(model.hypothesizer, 0)
    with pytest.raises(InputError, match="8 texts of one vector do not fit into memory"):
        model.hypothesize(np.ones((2, 768), dtype=np.float32), 8, Sampling())

    def broken(part):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(SimpleNamespace(batch_size=4), 4, 1, broken)


def test_memory_of_the_cpu_that_runs_out_is_halved_too():
    def work(part):
        if part.stop - part.start > 2:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return list(range(part.start, part.stop))

    model = SimpleNamespace(batch_size=8)
    assert in_batches(model, 7, 2, work) == list(range(7)) and model.batch_size == 4
