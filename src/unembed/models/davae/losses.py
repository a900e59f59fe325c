"""The four losses of DAVAE: reconstruction, KL with free bits, and the two sides of the adversarial latent.

Shapes: B rows, T tokens, L latent, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

FREE_BITS_MODES = (0, 1, 2)


def reconstruction(logits: Tensor, ids: Tensor, ignored: int) -> Tensor:
    """−log p of the tokens after the first, in nats [B], for ids [B, T] and logits [B, T or T − 1, V].

    Those `ignored` cost nothing. In the public recipe that is the end of text, with which texts are padded too; with a
    padding of its own the end is learned.
    """
    wanted = ids[:, 1:]
    costs = F.cross_entropy(
        logits[:, : wanted.size(1)].float().flatten(0, 1), wanted.flatten(), ignore_index=ignored, reduction="none"
    )
    return costs.view_as(wanted).sum(1)


def kl(mean: Tensor, logvar: Tensor, mode: int = 0, floor: float = 0.0) -> Tensor:
    """KL(N(mean, exp(logvar)) ‖ N(0, 1)) in nats [B], for mean and logvar [B, L].

    mode: 0 the plain sum; 1 free bits: a dimension of a row counts only above `floor` nats, below it there is no
    gradient; 2 a posterior whose deviation is held at 1: logvar is not used.
    """
    if mode == 2:
        logvar = torch.zeros_like(logvar)
    costs = 0.5 * (mean**2 + logvar.exp() - logvar - 1)  # B L
    if mode == 1:
        costs = costs * (costs > floor)
    return costs.sum(1)


def adversarial(
    discriminator: nn.Module, latents: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """(loss of the discriminator, loss of the encoder) for latents [B, L]. The discriminator tells them from the prior
    N(0, 1); the encoder is to make that impossible. Neither loss has a gradient for the other's weights, so that their
    sum can be minimised. In the discriminator's own precision; the original casts to float16 and works in no other."""
    prior = torch.empty_like(latents).normal_(generator=generator)
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    dtype = next(discriminator.parameters()).dtype

    def loss(found: Tensor, real: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(found.float(), torch.full_like(found, real, dtype=torch.float32))

    theirs = loss(discriminator(latents.detach().to(dtype)), 0.0) + loss(discriminator(prior.to(dtype)), 1.0)
    return theirs, loss(functional_call(discriminator, frozen, latents.to(dtype)), 1.0)
