"""Linear layers for inference: what they compute, what they may not change, and where they are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import unembed
from unembed.checkpoints import load_model
from unembed.errors import InputError
from unembed.models.linear import Int8, Packed, for_inference

CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(
    not Packed.suits(nn.Linear(256, 256)), reason="this machine has no kernels for packed layers"
)


def linear(inner=256, outer=192, bias=False):
    torch.manual_seed(0)
    return nn.Linear(inner, outer, bias=bias).requires_grad_(False)


def distance(a, b):
    return float((a - b).norm() / b.norm())


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (2, 4, 9)])
def test_a_packed_layer_computes_the_same(dtype, shape):
    plain = linear(bias=True).to(dtype)
    if not Packed.suits(plain):
        pytest.skip("no bfloat16 kernels here")
    x = torch.randn(*shape, 256).to(dtype)
    found = Packed(plain)(x)
    assert found.dtype == dtype and found.shape == plain(x).shape
    assert distance(found.float(), plain(x).float()) < (1e-6 if dtype == torch.float32 else 5e-3)


def test_int8_is_near_and_knows_no_other_rows():
    plain = linear(bias=True)
    x = torch.randn(3, 5, 256)
    x[0] *= 1000  # in one scale with it, the others would be rounded to nothing
    made = Int8(plain)
    together = made(x)
    assert distance(together, plain(x)) < 0.02 and distance(together[1:], plain(x[1:])) < 0.02
    assert all(torch.equal(made(row[None])[0], found) for row, found in zip(x, together, strict=True))
    assert made.rounded.dtype == torch.int8


def test_int8_of_nothing_is_nothing():
    plain = linear()
    plain.weight[3] = 0
    made = Int8(plain)
    assert not made(torch.zeros(2, 256)).any()
    assert not made(torch.ones(2, 256))[:, 3].any() and made(torch.ones(2, 256)).isfinite().all()


def test_what_is_small_stays():
    small = nn.Sequential(linear(8, 8), linear(8, 4))
    for_inference(small, small)
    assert all(type(layer) is nn.Linear for layer in small)
    for_inference(small, small, int8=True)
    assert all(type(layer) is Int8 for layer in small)


@pytest.fixture(scope="module")
def pair(parity_dir):
    folder = parity_dir / "vec2text/jxm"
    return f"{folder / 'gtr__nq__32'}+{folder / 'gtr__nq__32__correct'}"


@pytest.fixture(scope="module")
def vectors(parity_dir):
    return np.load(parity_dir / "vec2text" / "reference.npz")["embeddings"]


def test_the_trained_pair_in_int8(pair, vectors):
    """The reference pair's texts: rounding changes hardly any, and log p by little."""
    plain, rounded = (load_model(pair, CPU, dtype) for dtype in (torch.float32, torch.int8))
    assert {type(m) for m in rounded.corrector.t5.modules()} >= {Int8}
    assert not any(type(m) is nn.Linear for m in rounded.corrector.t5.modules())
    texts, others = ([row[0].text for row in model.hypothesize(vectors)] for model in (plain, rounded))
    assert np.mean([a == b for a, b in zip(texts, others, strict=True)]) >= 0.8
    assert np.allclose(plain.score(texts, vectors), rounded.score(texts, vectors), atol=0.3)


def test_int8_by_name(pair, vectors):
    inverter = unembed.load(pair, device="cpu", model_dtype="int8")
    assert all(found.text for found in inverter.invert(vectors[:2], steps=1, sequence_beam_width=2))


def test_int8_where_it_makes_no_sense(pair):
    with pytest.raises(InputError, match="int8 is for the T5 family in a CPU's memory"):
        unembed.load(pair, device="cpu", model_dtype="int8", device_map="auto")
    with pytest.raises(InputError, match="int8 is for the T5 family in a CPU's memory"):
        unembed.load("all-MiniLM-L6-v2", device="cpu", model_dtype="int8")
    with pytest.raises(InputError, match="int8 is for the T5 family in a CPU's memory"):
        load_model(pair, torch.device("cuda"), torch.int8)
