"""The aware attacker's inverter: trained further on public texts that went through a simulated defence.

Carlini's rule for defences (Tramèr et al., NeurIPS 2020): one that was only tried against attackers who do not know of
it was not tried. Published figures of quantisation and noise mostly were (Morris et al., EMNLP 2023, §6).

Notable:
- It reads what the denoising attacker restores, so both see the same numbers; that also brings vectors of another
  dimension back to the one that the network reads.
- Any further training helps, also without a defence. So the same is done for clean vectors, and defences are compared
  with that.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np

from unembed.embedders.vectors import unit
from unembed.errors import InputError, require
from unembed.inverter import Inverter
from unembed.models.native import NativeModel
from unembed.training.config import ModelConfig, ObjectiveConfig, OptimiserConfig, SourceConfig, SpanConfig, TrainConfig
from unembed.training.corpora import Corpus
from unembed.training.vectors import VectorFolder, store_vectors, write_vectors

BATCH_TOKENS = 2048
HYPOTHESES = 0.25
"""Share of the batches with a hypothesis, where the search corrects."""
RATE = 0.5
"""Of the learning rates of training from scratch: the weights are not far from where they should be."""


class Aware:
    """Trains one inverter a setting.

    folder: where the public texts and each training have their state, so that a killed run goes on.
    start: the folder of the model that `inverter` was loaded from.
    sources: public texts, as `unembed train` reads them; `spans` runs of words are cut out of them, of up to `longest`
    words.
    """

    def __init__(
        self, inverter: Inverter, start: Path, folder: Path, sources: list[str], *, spans: int, longest: int,
        corrects: bool, seed: int,
    ) -> None:  # fmt: skip
        require("accelerate", "train")
        if not isinstance(inverter.model, NativeModel):
            raise InputError("the aware attacker trains inverters of the native family: leave out public, or the model")
        self.inverter, self.model, self.start, self.folder = inverter, inverter.model, start, folder
        self.objective = ObjectiveConfig(
            hypothesis_share=HYPOTHESES if corrects else 0.0, hypothesis_from=0.0, noise_share=0.0
        )
        self.seed = seed
        corpus = Corpus([SourceConfig(path) for path in sources], SpanConfig(2, longest, 0.85))
        texts = corpus.sample(spans, np.random.default_rng(seed))
        write_vectors(texts, inverter.embedder, folder / "public")
        self.public = VectorFolder(folder / "public")

    def __call__(self, name: str, restored: Callable[[np.ndarray], np.ndarray]) -> Inverter:
        """The inverter for vectors that `restored` (clean public vectors [k, d] → what the attacker would restore of
        them [k, d]) gives."""
        # Imported here: it brings accelerate, which the other attackers do without.
        from unembed.training.loop import Trainer

        place = self.folder / name
        store_vectors(
            self.public.texts, unit(restored(np.asarray(self.public.vectors))), self.public.spec, place / "in"
        )
        net = self.model.net.config
        sizes = {field.name: getattr(net, field.name) for field in fields(ModelConfig)}
        tokens = sum(map(len, self.model.tokenizer.encode(self.public.texts)))
        usual = OptimiserConfig()
        rates = {
            key: RATE * getattr(usual, key) for key in ("muon_lr", "head_lr", "reader_lr", "embed_lr", "vector_lr")
        }
        config = TrainConfig(
            str(place / "run"), vectors=str(place / "in"), embedder=self.inverter.embedder.spec.id,
            init_from=str(self.start), model=ModelConfig(**sizes), objective=self.objective,
            optimiser=OptimiserConfig(**rates, warmup=0.1, decay=0.9), max_steps=-(-tokens // BATCH_TOKENS),
            batch_tokens=BATCH_TOKENS, chunk=len(self.public), seed=self.seed, tracker="none",
            device=str(self.model.net.device),
        )  # fmt: skip
        trained = Trainer(config).run()
        trained.net.eval()
        shutil.rmtree(place)
        return Inverter(trained, self.inverter.embedder)
