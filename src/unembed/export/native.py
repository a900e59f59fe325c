"""The native family's parts: one network that reads with or without a hypothesis and writes in one way, or two."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unembed.embedders.tokens import copy_tokenizer
from unembed.export.parts import Hypotheses, Parts, State
from unembed.models.native import NativeModel, NativeNetwork
from unembed.models.native.guide import Guide, guided, unwritten
from unembed.models.native.network import Condition
from unembed.models.native.pointer import Shown
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID


class Grown:
    """Stands in for the network's Cache: keys and values that grow by being copied, which a graph can express."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if layer < len(self.keys):
            k, v = torch.cat([self.keys[layer], k], dim=2), torch.cat([self.values[layer], v], dim=2)
            self.keys[layer], self.values[layer] = k, v
        else:
            self.keys.append(k)
            self.values.append(v)
        return k, v

    def state(self) -> State:
        keys = {f"keys.{layer}": k for layer, k in enumerate(self.keys)}
        return keys | {f"values.{layer}": v for layer, v in enumerate(self.values)}


class NativeWriter:
    def __init__(self, network: NativeNetwork, guide: Guide | None) -> None:
        self.network, self.guide = network, guide
        self.net = nn.ModuleDict({"network": network, **({"guide": guide} if guide else {})})
        self.never = torch.zeros(network.config.vocab_size)
        self.never[[PAD_ID, BOS_ID]] = -torch.inf

    def read(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, State]:
        prefix, condition = self.network.condition(targets, hypothesis_ids, hypothesis_vectors)
        cache = Grown([], [])
        seen = torch.ones_like(prefix.x[:, :, 0], dtype=torch.bool) if prefix.keys is None else prefix.keys
        x = self.network.run(prefix.x, prefix.positions, seen[:, None, None, :], cache)  # type: ignore[arg-type]
        first = torch.zeros_like(targets[:, 0], dtype=torch.long)
        state = {"seen": seen, "position": first + self.network.config.prefix_slots, **cache.state()}
        if condition.everywhere is not None:
            state["everywhere"] = condition.everywhere
        if condition.lexical is not None:
            state["lexical"] = condition.lexical
        if shown := self.network.shown(x, hypothesis_ids):
            state |= {"shown_keys": shown.keys, "shown_ids": shown.ids}
        if self.guide:
            state["lift"] = self.guide.lift(targets)
        logits, changed = self.step(first + BOS_ID, state)
        return logits, state | changed

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        layers = range(self.network.config.n_layers)
        cache = Grown([state[f"keys.{i}"] for i in layers], [state[f"values.{i}"] for i in layers])
        condition = Condition(state.get("everywhere"), state.get("lexical"))
        x = self.network.text_input(tokens[:, None], condition, torch.float32)
        seen = F.pad(state["seen"], (0, 1), value=True)
        # All rows are at the same position.
        x = self.network.run(x, state["position"][:1], seen[:, None, None, :], cache)  # type: ignore[arg-type]
        shown = Shown(state["shown_keys"], state["shown_ids"]) if "shown_keys" in state else None
        logits = self.network.logits(x, condition, shown)[:, 0] + self.never
        changed = {"seen": seen, "position": state["position"] + 1, **cache.state()}
        if self.guide:
            changed["lift"] = unwritten(state["lift"], tokens)
            whole = logits.logsumexp(dim=-1, keepdim=True)
            logits = guided(logits - whole, changed["lift"]) + whole  # at the scale that they had
        return logits, changed


def parts(model: NativeModel) -> Parts:
    writer = NativeWriter(model.net, model.guide)
    corrector = NativeWriter(model.corrector, model.guide) if model.corrector else writer
    tokenizer = copy_tokenizer(model.tokenizer.core, encode_special_tokens=True)
    hypotheses = Hypotheses(model.max_tokens, PAD_ID)
    return Parts(
        writer, corrector, tokenizer, model.spec.dim, EOS_ID, model.max_tokens, hypotheses, closes=True, literal=True,
        told=model.takes_words, varies=True, search=model.search_fields(1),
    )  # fmt: skip
