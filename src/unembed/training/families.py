"""The families that `unembed train` trains on transformers' Trainer, by the `family` of a recipe.

To add one: a folder with `config.py` (a RunConfig) and `run.py` (`train(config)`), and one entry here.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from unembed.errors import InputError
from unembed.training.run_config import RunConfig

FAMILIES = {
    "vec2text": ("unembed.training.t5", "T5TrainConfig"),
    "nanov2t": ("unembed.training.t5", "T5TrainConfig"),
    "causal": ("unembed.training.causal", "CausalTrainConfig"),
    "davae": ("unembed.training.davae", "DAVAETrainConfig"),
}
"""Family → its package and the class of its recipes."""


def config_class(family: str) -> type[RunConfig]:
    """The class of a family's recipes. Raises InputError for a family that there is not."""
    package, name = _known(family)
    return getattr(importlib.import_module(f"{package}.config"), name)


def train(family: str, config: RunConfig) -> Path:
    """Carry a recipe of a family out and return the folder of the model."""
    return importlib.import_module(f"{_known(family)[0]}.run").train(config)


def _known(family: str) -> tuple[str, str]:
    if family not in FAMILIES:
        raise InputError(
            f"family '{family}' is unknown: choose {', '.join(FAMILIES)}, or leave it out for the native network"
        )
    return FAMILIES[family]
