"""What families with two stages share: the hypotheses that a corrector learns from, and the batches of both stages.

Shapes: n rows, E vector, B rows of a batch, T text tokens, S hypothesis tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unembed.checkpoints import load_model
from unembed.embedders import Embedder, check_match
from unembed.errors import InputError
from unembed.models.base import IGNORED, InversionModel
from unembed.training.hypotheses import KIND, HypothesisFolder, embed_drafts, write_hypotheses
from unembed.training.preparation import Preparation
from unembed.training.rows import Rows, TokenRows, pad
from unembed.training.run_config import StagedConfig
from unembed.training.vectors import VectorFolder, finished

log = logging.getLogger("unembed.train")

SAME = 1e-3
"""A hypothesis whose vector is this near to the target, relative to its length, leaves nothing to correct; float16
alone moves a vector by less than half of it."""


class StagedPreparation(Preparation):
    """Each part is opened or made when it is asked for."""

    config: StagedConfig
    hypothesizer: InversionModel | None = None

    def rows(self) -> tuple[Rows, Rows]:
        train, held = super().rows()
        if train.hypotheses is not None:
            kept = not_yet_right(train, train.hypotheses)
            if not len(kept):
                raise InputError(
                    "every hypothesis is right already, or empty: there is nothing for a corrector to learn"
                )
            log.info("%d rows left out: their hypothesis is right already, or empty", len(train) - len(kept))
            train = train.part(kept)
        return train, held

    def open_hypothesizer(self) -> InversionModel:
        config = self.config
        assert config.hypothesizer is not None
        if self.hypothesizer is None:
            model = load_model(config.hypothesizer, self.device, calibrated=False)
            check_match(model.spec, self.embedder.spec, expected_name="the hypothesizer", actual_name="the embedder")
            self._suit(model)
            self.hypothesizer = model
        return self.hypothesizer

    def _suit(self, model: InversionModel) -> None:
        """See that a family's corrector can learn from this hypothesizer, and fit its settings to the run's."""

    def _complete(self, rows: Rows, made: VectorFolder, prefix: str) -> None:
        """The hypotheses of a corrector."""
        config = self.config
        if not config.corrects:
            return
        place = Path(config.hypotheses) if config.hypotheses and not prefix else self.output / f"{prefix}hypotheses"
        if config.hypothesizer and not finished(place, KIND):
            write_hypotheses(
                self.open_hypothesizer(), self.embedder, made.path, place, dtype=config.store,
                processes=self.processes, progress=self._progress("hypotheses"),
            )  # fmt: skip
        rows.hypotheses = HypothesisFolder(place, made.path)
        check_match(made.spec, rows.hypotheses.spec, expected_name=str(made.path), actual_name=str(place))
        rows.hypothesis_tokens = self.tokens(rows.hypotheses.drafts)


def not_yet_right(rows: Rows, hypotheses: HypothesisFolder, chunk: int = 4096) -> np.ndarray:
    """Of `rows.used` those whose hypothesis has something to correct and to learn from: not empty, and not embedded to
    the target already."""
    assert rows.vectors is not None
    keep = np.zeros(len(rows.labels), dtype=bool)
    for start in range(0, len(rows.labels), chunk):
        part = slice(start, start + chunk)
        target = np.asarray(rows.vectors[part], dtype=np.float32)
        theirs = np.asarray(hypotheses.vectors[part], dtype=np.float32)
        far = np.linalg.norm(target - theirs, axis=1) > SAME * np.linalg.norm(target, axis=1)
        keep[part] = far & theirs.any(axis=1)
    return rows.used[keep[rows.used]]


class Collator:
    """Rows → a batch: targets [B, E], labels [B, T], and for a corrector hypothesis_ids [B, S] and hypothesis_vectors
    [B, E]. What is not precomputed is embedded and written here."""

    def __init__(
        self,
        tokens: Callable[[Sequence[str]], TokenRows],
        *,
        fill: int = 0,
        start: bool = False,
        noise: float = 0.0,
        embedder: Embedder | None = None,
        hypothesizer: InversionModel | None = None,
    ) -> None:
        """tokens: of hypotheses that are written here. fill: stands behind the shorter ones. start: a 0 stands in front
        of each. embedder, hypothesizer: for rows without vectors or hypotheses."""
        self.tokens, self.fill, self.start, self.noise = tokens, fill, start, noise
        self.embedder, self.hypothesizer = embedder, hypothesizer

    def __call__(self, items: Sequence[tuple[Rows, int]]) -> dict[str, Tensor]:
        rows, at = items[0][0], [i for _, i in items]
        if rows.vectors is None:
            assert rows.texts is not None and self.embedder is not None
            targets = self.embedder.encode([rows.texts[i] for i in at])
        else:
            targets = np.asarray(rows.vectors[at], dtype=np.float32)
        if self.noise:
            targets = targets + self.noise * torch.randn(targets.shape).numpy()
        batch: dict[str, Any] = {
            "targets": torch.from_numpy(targets),
            "labels": pad([rows.labels[i] for i in at], IGNORED),
        }
        if rows.hypotheses is not None:
            assert rows.hypothesis_tokens is not None
            ids = [rows.hypothesis_tokens[i] for i in at]
            vectors = np.asarray(rows.hypotheses.vectors[at], dtype=np.float32)
        elif self.hypothesizer is not None and self.embedder is not None:
            drafts = [row[0].text for row in self.hypothesizer.hypothesize(targets)]
            vectors = embed_drafts(drafts, self.embedder)
            tokens = self.tokens(drafts)
            ids = [tokens[i] for i in range(len(tokens))]
        else:
            return batch
        hypothesis = pad(ids, self.fill)
        batch["hypothesis_ids"] = torch.nn.functional.pad(hypothesis, (1, 0)) if self.start else hypothesis
        batch["hypothesis_vectors"] = torch.from_numpy(vectors)
        return batch
