"""The noise floor: measured, within it the same text, outside it every other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unembed.embedders import Embedder, EmbedderSpec, storage_dtype
from unembed.embedders.default import package_folder
from unembed.embedders.local import SentenceTransformerEmbedder
from unembed.embedders.noise import NOISE_TEXTS, SAFETY, NoiseFloor, measure_noise
from unembed.errors import InputError


class Constant(Embedder):
    """An embedder without any noise."""

    @property
    def spec(self) -> EmbedderSpec:
        return EmbedderSpec(id="constant", dim=4)

    def _embed(self, texts: list[str]) -> np.ndarray:
        return np.tile([0.5, 0.5, 0.5, 0.5], (len(texts), 1))


@pytest.fixture(scope="module")
def floor(minilm: Embedder) -> NoiseFloor:
    return minilm.noise_floor()


def test_noise_texts_are_varied() -> None:
    words = [len(text.split()) for text in NOISE_TEXTS]
    assert len(set(NOISE_TEXTS)) == len(NOISE_TEXTS) == 24 and min(words) == 1 and 55 <= max(words) <= 65


def test_noise_floor_is_measured_and_small(minilm: Embedder, floor: NoiseFloor) -> None:
    assert minilm.noise_floor() is floor
    assert 0 < floor.mean_distance <= floor.max_distance < 1e-5
    assert (floor.n, floor.n_texts, floor.dim, floor.dtype) == (144, 24, 384, "float32")
    assert abs(floor.scale - 1) < 1e-6 and floor.safety == SAFETY
    order = ["float32", "decimal6", "float16", "bfloat16", "int8"]
    assert sorted(order, key=floor.tolerance) == order


STORED = {
    "float32": lambda v: v,
    "float16": lambda v: v.astype(np.float16),
    "bfloat16": lambda v: torch.from_numpy(v.copy()).bfloat16().float().numpy(),
    "decimal6": lambda v: np.round(v.astype(np.float64), 6),
    "int8": lambda v: np.round(v * 127 / np.abs(v).max(axis=1, keepdims=True)).astype(np.int8),
}


@pytest.fixture(scope="module")
def neighbours(minilm: Embedder) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Texts, their vectors, the same embedded again, and those of texts one short word or full stop away."""
    rows = []
    for text in [*NOISE_TEXTS[2:23:3], NOISE_TEXTS[-1], "She lives in Paris", "the contract ends in May"]:
        words = text.split()
        others = {text.rstrip(".?!。") if text[-1] in ".?!。" else text + ".", "the " + text, text + " too"}
        short = [i for i, word in enumerate(words) if len(word) <= 3][:8]
        others |= {" ".join(words[:i] + words[i + 1 :]) for i in short}
        others = {other for other in others if minilm.key(other) != minilm.key(text)}
        together = minilm.encode([text, *sorted(others)])
        rows.append((text, together[0], minilm.encode([text])[0], together[1:]))
    return rows


@pytest.mark.parametrize("dtype", STORED)
def test_the_same_text_is_within_tolerance_and_another_is_not(
    floor: NoiseFloor, neighbours: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]], dtype: str
) -> None:
    stored = STORED[dtype](np.stack([vector for _, vector, _, _ in neighbours]))
    assert storage_dtype(stored) == dtype
    tolerance = floor.tolerance(dtype)
    for (text, _, again, others), target in zip(neighbours, _unit(np.asarray(stored, dtype=np.float64)), strict=True):
        assert np.linalg.norm(again - target) <= tolerance, text
        assert np.linalg.norm(others - target, axis=1).min() > tolerance, text


def test_noise_of_other_precisions_is_reported_apart(minilm: Embedder, floor: NoiseFloor) -> None:
    few = NOISE_TEXTS[:6]
    measured = measure_noise(minilm, other_dtypes=["float16"], texts=few)
    assert 1e-4 < measured.other_dtypes["float16"] < 0.01
    assert measured.tolerance() < 1e-4 < measured.tolerance(computed_in="float16") < 0.01
    with pytest.raises(InputError, match="bfloat16 was not measured"):
        measured.tolerance(computed_in="bfloat16")
    half = measure_noise(SentenceTransformerEmbedder(str(package_folder()), device="cpu", dtype="float16"), texts=few)
    # A target made in float32 must be within reach of an embedder that runs in float16.
    assert half.max_distance >= measured.other_dtypes["float16"] * 0.9 and half.dtype == "float16"


def test_noise_bad_inputs(floor: NoiseFloor) -> None:
    with pytest.raises(InputError, match="unknown storage type 'int4'"):
        floor.tolerance("int4")
    with pytest.raises(InputError, match="at least 2 texts"):
        measure_noise(Constant(), texts=["a"])
    with pytest.raises(InputError, match="one precision only"):
        measure_noise(Constant(), other_dtypes=["float16"])
    assert measure_noise(Constant()).max_distance == 0.0 and measure_noise(Constant()).tolerance() > 0


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
