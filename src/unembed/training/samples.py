"""Inversions shown while a model is trained, so that one sees what it has learned and not only its loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn
from transformers import TrainerCallback

from unembed.models.base import InversionModel

log = logging.getLogger("unembed.train")


class ShowSamples(TrainerCallback):
    """At each evaluation, held-out texts and what the model writes greedily for their vectors, a line each in the log.
    It draws no random numbers, so that the run goes on as it would without."""

    def __init__(
        self, texts: Sequence[str], targets: np.ndarray, inverter: Callable[[nn.Module], InversionModel]
    ) -> None:
        """targets: float32 [n, E], of the texts. inverter: the model behind the Trainer's module."""
        self.texts, self.targets, self.inverter = texts, targets, inverter

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        was_training = model.training
        model.eval()
        for text, [found] in zip(self.texts, self.inverter(model).hypothesize(self.targets), strict=True):
            log.info("step %d: %s → %s", state.global_step, text, found.text)
        model.train(was_training)
