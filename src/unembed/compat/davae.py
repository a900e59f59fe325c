"""The interface of Fengshenbang's DAVAE, so that its model card's snippet runs with one import changed.

from unembed.compat.davae import DAVAEModel

model = DAVAEModel.from_pretrained("IDEA-CCNL/Randeng-DAVAE-1.2B-General-Chinese")
model.simulate_batch(encoder_tokenizer, decoder_tokenizer, texts)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from unembed.checkpoints import resolve
from unembed.checkpoints.davae import Checkpoint, recognise
from unembed.devices import resolve_device
from unembed.embedders.base import check_texts
from unembed.errors import InputError
from unembed.models.davae.generation import Quirks, Settings
from unembed.models.davae.network import reparameterise
from unembed.models.davae.vae import TextVAE, generator


class DAVAEModel:
    """A DAVAE that writes texts like those it is given."""

    def __init__(self, vae: TextVAE) -> None:
        self.vae = vae

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> DAVAEModel:
        """A folder, a short name or a hub id. Raises CheckpointError, InputError."""
        folder = resolve(name)
        if not recognise(folder):
            raise InputError(f"{name} is no DAVAE: give a folder whose config.json names the architecture DAVAEModel")
        return cls(Checkpoint(folder).vae(resolve_device(device), dtype))

    def to(self, device: str | torch.device) -> DAVAEModel:
        self.vae.net.to(resolve_device(device))
        return self

    def simulate_batch(
        self,
        encoder_tokenizer: Any = None,  # noqa: ANN401  (any of transformers)
        decoder_tokenizer: Any = None,  # noqa: ANN401
        sent_inputs: Sequence[str] = (),
        prompt: Sequence[str] | None = None,
        *,
        seed: int | None = None,
        quirks: Quirks | None = None,
        **settings: Any,  # noqa: ANN401
    ) -> list[str]:
        """One text like each of `sent_inputs`.

        Args:
            encoder_tokenizer, decoder_tokenizer: the original wants them; the checkpoint's own, which are the same, are
                used whatever is given.
            sent_inputs: texts.
            prompt: what each new text begins with; it is not part of what is returned.
            seed: of the draws; None goes on with torch's own generator, as the original does.
            quirks: to switch off what the original does; by default as the checkpoint says.
            settings: fields of `Settings`, in place of the checkpoint's. `std_scale=0, top_k=1` draws nothing.

        Raises:
            InputError: no text, an empty one, or a prompt that leaves no room to write.
        """
        texts = check_texts(sent_inputs)
        if not texts:
            return []
        vae = TextVAE(
            self.vae.net, self.vae.reader, self.vae.pieces, chosen(self.vae.settings, settings),
            quirks or self.vae.quirks, batch_size=self.vae.batch_size,
        )  # fmt: skip
        draw = generator(seed, vae.net.device)
        mean, logvar = (vae.tensor(part) for part in vae.posterior(texts))
        latents = reparameterise(mean, logvar, vae.settings.std_scale, draw).cpu().numpy()
        return [vae.text(text.ids) for text in vae.write(latents, vae.starts(prompt, len(texts)), draw=draw)]


def chosen(settings: Settings, changes: dict[str, Any]) -> Settings:
    """`settings` with changes; InputError for an unknown one."""
    try:
        return replace(settings, **changes)
    except TypeError as error:
        known = ", ".join(Settings.__dataclass_fields__)
        raise InputError(f"{str(error).split('__init__() ')[-1]}; known are {known}") from error
