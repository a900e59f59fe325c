"""DAVAE's parts: the map from vectors to latents, and its own decoder on a cache that grows by being copied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unembed.embedders.tokens import copy_tokenizer
from unembed.export.parts import Hypotheses, Parts, State
from unembed.export.pieces import tokenizer
from unembed.models.davae.model import DAVAEModel
from unembed.models.davae.vae import CLS, LONGEST, SEP, TextVAE


class Grown:
    """Stands in for the decoder's Past."""

    def __init__(self, state: State, distances: Tensor) -> None:
        """distances: of all layers, [layers, H, room, d]."""
        self.state, self.distances, self.room = state, list(distances), distances.size(2)
        self.length = state["keys.0"].size(2) if "keys.0" in state else 0

    def keep(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        kept = []
        for name, new in ((f"keys.{layer}", k), (f"values.{layer}", v)):
            self.state[name] = torch.cat([self.state[name], new], dim=2) if name in self.state else new
            kept.append(self.state[name])
        return kept[0], kept[1]


class LatentNetwork(nn.Module):
    """What the graphs need of a model."""

    distances: Tensor

    def __init__(self, model: DAVAEModel, longest: int) -> None:
        """longest: tokens read at most, the begin of text included."""
        super().__init__()
        self.map, self.vae = model.latent_map or nn.Identity(), model.vae.net
        with torch.no_grad():  # a tensor like the weights, so that the graphs share it
            self.register_buffer("distances", torch.stack(self.vae.decoder.distances(longest)))


class LatentWriter:
    def __init__(self, net: LatentNetwork, begin: int) -> None:
        self.net, self.begin = net, begin

    def read(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, State]:
        latents = self.net.map(targets)
        if hypothesis_ids is not None and hypothesis_vectors is not None:
            latents = self.net.vae.encode(hypothesis_ids)[0] + latents - self.net.map(hypothesis_vectors)
        logits, state = self.step(torch.zeros_like(targets[:, 0], dtype=torch.long) + self.begin, {"latents": latents})
        return logits, state | {"latents": latents}

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        changed = {name: tensor for name, tensor in state.items() if name != "latents"}
        past = Grown(changed, self.net.distances)
        logits = self.net.vae.decoder(tokens[:, None], state["latents"], past)[:, 0]
        return logits, changed


def parts(model: DAVAEModel) -> Parts:
    """Raises InputError for a vocabulary that the library `tokenizers` cannot express."""
    vae, pieces = model.vae, model.vae.pieces
    writer = LatentWriter(LatentNetwork(model, model.max_tokens + 1), pieces.bos_id)
    return Parts(
        writer, writer, tokenizer(pieces, vae.quirks), model.spec.dim, pieces.eos_id, model.max_tokens,
        hypotheses(vae), literal=True,
    )  # fmt: skip


def hypotheses(vae: TextVAE) -> Hypotheses:
    """As the encoder reads texts (`Encoder.read`)."""
    reader, room = vae.reader, int(vae.net.config.encoder.get("max_position_embeddings", 512))
    cls, sep, longest = reader.cls_token_id, reader.sep_token_id, min(LONGEST, room - 2)
    cut = copy_tokenizer(reader.backend_tokenizer)
    if vae.quirks.doubled_marks:
        return Hypotheses(longest - 2, 0, (CLS, cls), (sep, SEP), cut)
    return Hypotheses(longest, 0, (cls,), (sep,), cut)
