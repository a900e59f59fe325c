"""The encoder-decoder family's parts: hypothesizer and corrector are a T5 each, with its projectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unembed.embedders.tokens import copy_tokenizer
from unembed.errors import InputError
from unembed.export.parts import Hypotheses, Parts, State
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork
from unembed.models.linear import Int8, Packed
from unembed.models.t5_generation import attend, mask_to_bias


class T5Writer:
    """What transformers' encoder and the steps of `t5_generation.Decoder` compute, in operations that keep the sizes of
    their inputs open, on a cache that grows by being copied. L encoder inputs, H heads of width d, t past tokens."""

    def __init__(self, net: EncoderDecoderNetwork, longest: int) -> None:
        """longest: tokens of a text at most, start included."""
        self.net, self.t5 = net, net.t5
        first = net.t5.decoder.block[0].layer[0].SelfAttention
        self.heads, self.width = first.n_heads, first.key_value_proj_dim
        with torch.no_grad():
            self.bias = first.compute_bias(longest, longest)[0, :, -1]  # H longest: by the distance, nearest last

    def read(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, State]:
        x, mask = self.net.inputs(targets, hypothesis_ids, hypothesis_vectors)
        state = {} if hypothesis_ids is None else {"unseen": mask_to_bias(mask, x.dtype)}  # B 1 1 L
        encoded = self._encode(x, state.get("unseen"))
        for i, block in enumerate(self.t5.decoder.block):
            attention = block.layer[1].EncDecAttention
            state[f"cross_keys.{i}"] = self._heads(attention.k(encoded))
            state[f"cross_values.{i}"] = self._heads(attention.v(encoded))
            state[f"keys.{i}"] = state[f"values.{i}"] = state[f"cross_keys.{i}"][:, :, :0]
        logits, changed = self.step(torch.zeros_like(targets[:, 0], dtype=torch.long), state)
        return logits, state | changed

    def _encode(self, x: Tensor, unseen: Tensor | None) -> Tensor:
        """The encoder's inputs [B, L, D] → its states."""
        blocks, L = self.t5.encoder.block, x.size(1)
        bias = blocks[0].layer[0].SelfAttention.compute_bias(L, L)  # 1 H L L
        bias = bias if unseen is None else bias + unseen
        for block in blocks:
            own, feed = block.layer
            attention, normed = own.SelfAttention, own.layer_norm(x)
            past = self._heads(attention.k(normed)), self._heads(attention.v(normed))
            x = feed(x + self._found(attention, normed, *past, bias))
        return self.t5.encoder.final_layer_norm(x)

    def _heads(self, x: Tensor) -> Tensor:
        """[B, t, H · d] → [B, H, t, d]"""
        return x.unflatten(2, (self.heads, self.width)).transpose(1, 2)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        written = state["keys.0"].size(2)
        bias = self.bias[:, None, self.bias.size(1) - 1 - written :]  # H 1 t
        x, changed = self.t5.shared(tokens)[:, None], {}  # B 1 D
        for i, block in enumerate(self.t5.decoder.block):
            own, cross, feed = block.layer
            normed = own.layer_norm(x)
            for name, layer in (("keys", own.SelfAttention.k), ("values", own.SelfAttention.v)):
                changed[f"{name}.{i}"] = torch.cat([state[f"{name}.{i}"], self._heads(layer(normed))], dim=2)
            x = x + self._found(own.SelfAttention, normed, changed[f"keys.{i}"], changed[f"values.{i}"], bias)
            past = state[f"cross_keys.{i}"], state[f"cross_values.{i}"]
            x = feed(x + self._found(cross.EncDecAttention, cross.layer_norm(x), *past, state.get("unseen")))
        x = self.t5.decoder.final_layer_norm(x)[:, 0]
        if self.t5.config.scale_decoder_outputs:
            x = x * self.t5.model_dim**-0.5
        return self.t5.lm_head(x), changed

    def _found(self, attention: nn.Module, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """What tokens of each row [B, q, D] find among keys and values [B, H, t, d] → [B, q, D]."""
        found = attend(self._heads(attention.q(x)), keys, values, bias)  # type: ignore[operator]
        return attention.o(found.transpose(1, 2).flatten(2))  # type: ignore[operator]


def parts(model: EncoderDecoderModel) -> Parts:
    """Raises InputError for a model that is spread over several devices, or made faster for this machine."""
    nets = [net for net in (model.hypothesizer, model.corrector) if net is not None]
    if any(hasattr(net.t5, "hf_device_map") for net in nets):
        raise InputError("a model that is spread over several devices cannot be exported: load it without device_map")
    if any(isinstance(layer, Packed | Int8) for net in nets for layer in net.modules()):
        raise InputError("a model whose layers were packed for this machine cannot be exported: load it packed=False")
    hypothesizer, *corrector = [T5Writer(net, model.max_tokens) for net in nets]
    tokenizer, end = copy_tokenizer(model.tokenizer.backend_tokenizer), nets[0].t5.config.eos_token_id
    hypotheses = None
    if corrector:
        before = (0,) if nets[1].config.masked_start else ()
        hypotheses = Hypotheses(model.hypothesis_tokens - 1, 0, before, (end,))
    longest = model.max_tokens - 1  # without the start token
    return Parts(hypothesizer, corrector[0] if corrector else None, tokenizer, model.spec.dim, end, longest, hypotheses)
