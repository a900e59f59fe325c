"""Does the latent carry anything? The measures of posterior collapse, on held-out texts.

Shapes: n texts, L latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unembed.models.davae.losses import kl

ACTIVE = 0.01
"""A unit whose posterior mean varies less than this over the texts is dead (Burda et al., ICLR 2016)."""
LEAST_INFORMATION = 0.1
"""Nats of mutual information, and nats a token that the right latent saves, below which a model has collapsed."""


@dataclass(frozen=True)
class Measures:
    """Of one model on n texts; all but active_units in nats."""

    n: int
    active_units: int
    """Dimensions of the latent that tell texts apart."""
    kl: float
    """Mean KL of a text's posterior from N(0, 1), all dimensions, no free bits."""
    mutual_information: float
    """Between text and latent; cannot exceed log n."""
    reconstruction: float
    """−log p of a token, given the mean of the text's own posterior."""
    reconstruction_wrong: float
    """The same, given that of another text: a decoder that ignores its latent loses nothing by it."""

    @property
    def collapsed(self) -> bool:
        """Whether the latent says next to nothing, or the decoder does not listen."""
        return (
            not self.active_units
            or self.mutual_information < LEAST_INFORMATION
            or self.reconstruction_wrong - self.reconstruction < LEAST_INFORMATION
        )


def active_units(means: Tensor) -> int:
    """Of posterior means [n, L], the dimensions whose variance over the texts is above ACTIVE."""
    return int((means.var(dim=0) > ACTIVE).sum())


def mutual_information(means: Tensor, logvars: Tensor, generator: torch.Generator | None = None) -> float:
    """I(x; z) in nats under the posteriors of n texts, [n, L] each: E log q(z|x) − log q(z), where z is drawn once for
    each text and q(z) is the mean of all n posteriors (Hoffman & Johnson, 2016; He et al., ICLR 2019)."""
    n = len(means)
    z = means + torch.empty_like(means).normal_(generator=generator) * (0.5 * logvars).exp()
    logs = torch.stack([-0.5 * ((row - means) ** 2 / logvars.exp() + logvars).sum(1) for row in z])  # n n, + a constant
    return float((logs.diagonal() - logs.logsumexp(1) + math.log(n)).mean())


def mean_kl(means: Tensor, logvars: Tensor) -> float:
    return float(kl(means, logvars).mean())
