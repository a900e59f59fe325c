"""The text auto-encoder as it is used: texts → latents → texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unembed.embedders.base import check_texts
from unembed.errors import InputError
from unembed.models.batching import in_batches
from unembed.models.davae.generation import Quirks, Settings, Written, original, write
from unembed.models.davae.network import DAVAENetwork, reparameterise
from unembed.models.davae.tokenizer import PieceTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLS, SEP = 101, 102
"""Written around a text that has them already (`Quirks.doubled_marks`)."""
LONGEST = 510
"""Tokens of a text that the original's encoder reads, without those."""
BLANKS = re.compile(r" (?=[.?!,]|n't|'(?:m|s|ve|re))")
"""Those that tokenizers of transformers 4 take out of what they decode."""
WIDE = "\u4e00-\u9fa50-9|，。？！@¥…—《》“”、；：‘’（）「」【】·～+"
SPACED = rf"(?<=[{WIDE}])\s+(?=[{WIDE}])"
NOISE = (
    r"引用日期.*$", r"参考资料.*$", r"\[.*\]", r"【.*】", "原文地址：", "原文转载：", "本文转自：", "本文摘要：",
    "<unk>",
)  # fmt: skip


class Encoder:
    """The half that reads."""

    def __init__(
        self, net: DAVAENetwork, reader: PreTrainedTokenizerBase, quirks: Quirks, *, batch_size: int = 64
    ) -> None:
        """reader: the encoder's tokenizer, BERT's. batch_size: texts at a time."""
        self.net, self.reader, self.quirks, self.batch_size = net.eval(), reader, quirks, batch_size

    @property
    def latent_size(self) -> int:
        return self.net.config.latent_size

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids for the encoder. Raises InputError for an empty text."""
        room = int(self.net.config.encoder.get("max_position_embeddings", 512))
        rows = self.reader(check_texts(texts), add_special_tokens=self.quirks.doubled_marks)["input_ids"]
        cls, sep = (CLS, SEP) if self.quirks.doubled_marks else (self.reader.cls_token_id, self.reader.sep_token_id)
        return [[cls, *row[: min(LONGEST, room - 2)], sep] for row in rows]

    @torch.inference_mode()
    def posterior(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """mean and logvar of the latents of texts, float32 [n, L] each."""
        rows = self.read(texts)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # little padding

        def some(part: slice) -> list[Tensor]:
            return list(torch.cat(self.net.encode(self.pad([rows[i] for i in order[part]])), dim=1).float().cpu())

        found = in_batches(self, len(rows), 1, some)
        out = np.empty((len(rows), 2 * self.latent_size), dtype=np.float32)
        for i, row in zip(order, found, strict=True):
            out[i] = row.numpy()
        mean, logvar = np.split(out, 2, axis=1)
        return mean, logvar

    def pad(self, rows: Sequence[list[int]]) -> Tensor:
        """[B, S], right-padded with 0."""
        width = max(map(len, rows))
        return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.net.device)


class TextVAE(Encoder):
    """A DAVAE with its tokenizers. Latents are float32 [n, L]."""

    def __init__(
        self,
        net: DAVAENetwork,
        reader: PreTrainedTokenizerBase,
        pieces: PieceTokenizer,
        settings: Settings,
        quirks: Quirks,
        *,
        batch_size: int = 64,
    ) -> None:
        """reader: the encoder's tokenizer, BERT's. pieces: the decoder's. batch_size: texts at a time."""
        super().__init__(net, reader, quirks, batch_size=batch_size)
        self.pieces, self.settings = pieces, settings

    def encode(self, texts: Sequence[str], std_scale: float | None = None, seed: int | None = None) -> np.ndarray:
        """Latents [n, L]: the posterior's mean and `std_scale` times its noise, by default as the settings say.

        Raises InputError for an empty text.
        """
        scale = self.settings.std_scale if std_scale is None else std_scale
        mean, logvar = (torch.from_numpy(part) for part in self.posterior(texts))
        return reparameterise(mean, logvar, scale, generator(seed)).numpy() if scale else mean.numpy()

    def decode(
        self,
        latents: np.ndarray,
        prompts: Sequence[str] | None = None,
        *,
        settings: Settings | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """One text of each latent [n, L], or what follows its prompt; drawn as the original draws, by `settings` (by
        default the checkpoint's). top_k=1 is greedy.

        Raises InputError: latents of another size or with NaN, a prompt that leaves no room to write.
        """
        draw = generator(seed, self.net.device)
        return [self.text(row.ids) for row in self.write(latents, self.starts(prompts, len(latents)), settings, draw)]

    def text(self, ids: Sequence[int]) -> str:
        found = self.pieces.decode(ids)
        return filter_noise(BLANKS.sub("", found)) if self.quirks.filter_noise else found.replace("<unk>", "")

    def starts(self, prompts: Sequence[str] | None, n: int) -> list[list[int]]:
        """Ids that the texts begin with."""
        if prompts is None:
            return [[self.pieces.bos_id]] * n
        if isinstance(prompts, str) or len(prompts) != n:
            raise InputError(f"give one prompt for each of the {n} texts, in a list")
        return [[self.pieces.bos_id, *row] for row in self.pieces.encode(check_texts(prompts, allow_empty=True))]

    def write(
        self,
        latents: np.ndarray,
        starts: Sequence[Sequence[int]],
        settings: Settings | None = None,
        draw: torch.Generator | None = None,
    ) -> list[Written]:
        """As `decode`, in ids. All at once, so that draws are the original's."""
        settings, found = settings or self.settings, self.tensor(latents)
        for i, start in enumerate(starts):
            if len(start) >= settings.max_out_length:
                raise InputError(
                    f"prompt {i} has {len(start) - 1} tokens, and a text with its prompt has at most "
                    f"{settings.max_out_length - 1} (max_out_length): shorten it, or raise max_out_length"
                )
        return write(
            self.net.decoder, found, starts, original(settings, self.quirks, draw), end=self.pieces.eos_id,
            longest=settings.max_out_length, first_mark=self.quirks.first_mark,
        )  # fmt: skip

    def tensor(self, latents: np.ndarray) -> Tensor:
        """On the network's device; InputError for what are no latents of this model."""
        found = torch.as_tensor(np.array(latents, dtype=np.float32, order="C"))
        if found.ndim != 2 or found.size(1) != self.latent_size or not len(found):
            raise InputError(f"latents have shape {tuple(found.shape)}: this model's are [n, {self.latent_size}]")
        if bad := (~found.isfinite().all(1)).nonzero()[:, 0].tolist():
            raise InputError(f"latent {bad[0]} holds NaN or infinity: encode its text again")
        return found.to(self.net.device)

    def interpolate(self, a: str, b: str, n: int = 9, seed: int | None = None) -> list[str]:
        """n texts on the straight line between the latents of two texts, both ends included."""
        if n < 2:
            raise InputError(f"n is {n}: an interpolation has at least its 2 ends")
        first, last = self.encode([a, b], std_scale=0.0)
        share = np.linspace(0, 1, n, dtype=np.float32)[:, None]
        return self.decode((1 - share) * first + share * last, seed=seed)

    def sample(self, n: int, seed: int | None = None) -> list[str]:
        """n texts of latents drawn from the prior."""
        latents = torch.empty(n, self.latent_size).normal_(generator=generator(seed))
        return self.decode(latents.numpy(), seed=seed)


def generator(seed: int | None, device: torch.device | str = "cpu") -> torch.Generator | None:
    """None, torch's own, without a seed."""
    return None if seed is None else torch.Generator(device).manual_seed(seed)


def filter_noise(text: str) -> str:
    """The original's last touch: no blanks between Chinese characters, digits and their punctuation, no traces of web
    pages."""
    for pattern in (SPACED, *NOISE):
        text = re.sub(pattern, "", text)
    return text.strip()
