"""The causal-LM family's parts: transformers' own language model, on a cache that is made of tensors at each call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from unembed.embedders.tokens import copy_tokenizer
from unembed.errors import InputError
from unembed.export.parts import Hypotheses, Parts, State
from unembed.models.base import IGNORED
from unembed.models.prefix_decoder import PrefixDecoderModel, PrefixNetwork


class PrefixWriter:
    def __init__(self, net: PrefixNetwork) -> None:
        self.net = net

    def read(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x, mask = self.net.prefix(targets, hypothesis_ids, hypothesis_vectors)
        return self._read(x, {"mask": torch.ones_like(x[:, :, 0], dtype=torch.long) if mask is None else mask})

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        return self._read(self.net.embed(tokens)[:, None], state | {"mask": F.pad(state["mask"], (0, 1), value=1)})

    def _read(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, t, D] after what the state holds → logits [B, V], and the state behind it."""
        layers = range(sum(name.startswith("keys.") for name in state))
        cache = DynamicCache([(state[f"keys.{i}"], state[f"values.{i}"]) for i in layers])
        logits = self.net.read(x, state["mask"], 1, cache)[:, -1]
        changed = {"mask": state["mask"]}
        for i, layer in enumerate(cache.layers):
            changed |= {f"keys.{i}": layer.keys, f"values.{i}": layer.values}
        return logits, changed


def parts(model: PrefixDecoderModel) -> Parts:
    """Raises InputError for a language model that remembers more than keys and values."""
    lm = model.net.lm.config
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=lm).layers):
        raise InputError(f"a {lm.model_type} remembers more than keys and values: it cannot be exported")
    # Two writers, so that the steps of corrections are compared with padded hypotheses.
    hypothesizer, corrector = PrefixWriter(model.net), PrefixWriter(model.net) if model.net.config.corrector else None
    hypotheses = Hypotheses(model.max_tokens, IGNORED, after=(model.eos,)) if corrector else None
    tokenizer = copy_tokenizer(model.tokenizer.backend_tokenizer, encode_special_tokens=True)
    return Parts(
        hypothesizer, corrector, tokenizer, model.spec.dim, model.eos, model.max_tokens, hypotheses, closes=True,
        literal=True,
    )  # fmt: skip
