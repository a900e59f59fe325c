"""The native inverter as the search sees it: texts in and out, in batches, around one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unembed.models.base import GREEDY, Hypothesis, InversionModel, Sampling
from unembed.models.batching import in_batches
from unembed.models.native.generation import generate
from unembed.models.native.guide import Guide, along, guided
from unembed.models.native.network import IGNORED, NativeNetwork, pad_rows, text_and_labels
from unembed.models.native.tokenizer import BOS_ID, EOS_ID, PAD_ID, TextTokenizer
from unembed.models.variations import VARIED, changes
from unembed.models.wording import hints

if TYPE_CHECKING:
    from unembed.embedders.spec import EmbedderSpec

READ = 32  # texts read at a time by `score` and `vary`: their logits stay in the cache
PRIOR_WEIGHT = 0.0007  # SearchConfig's, found for vectors whose mean is short


def _log_p(logits: Tensor, wanted: Tensor) -> Tensor:
    """Log p of the tokens `wanted` [B, T, 1]: [B, T]. One pass over the logits [B, T, V], where cross_entropy would
    write them anew twice."""
    return logits.gather(-1, wanted)[:, :, 0] - logits.logsumexp(dim=-1)


class NativeModel(InversionModel):
    """A native network with its tokenizer and the spec of the embedder it inverts."""

    family = "native"
    guide: Guide | None = None
    """What guides it where it writes, scores and varies texts of a vector."""
    corrector: NativeNetwork | None = None
    """What corrects in the network's stead: blocks of its own between the network's tables."""

    def __init__(
        self, net: NativeNetwork, tokenizer: TextTokenizer, spec: EmbedderSpec, *, batch_size: int = 256
    ) -> None:
        self.net, self.tokenizer, self.spec = net, tokenizer, spec
        self.max_tokens = net.config.max_tokens
        self.batch_size = batch_size
        """Texts written at a time: memory grows with it, results do not depend on it when decoding greedily."""

    @property
    def dtype(self) -> torch.dtype:
        return self.net.embed.weight.dtype

    def tensor(self, vectors: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(vectors, dtype=np.float32, order="C"), device=self.net.device)

    def lift(self, targets: Tensor) -> Tensor | None:
        """What the guide adds to log p of each token [rows, V]; None without a guide, or where no row has a vector."""
        return None if self.guide is None or not targets.any() else self.guide.lift(targets)

    @property
    def takes_words(self) -> bool:  # type: ignore[override]
        return self.corrector is not None and self.lexicon is not None

    def feedback(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        vectors: np.ndarray,
        words: Sequence[Sequence[str]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Ids [B, H] of hypotheses as what corrects is shown them, and their vectors as a tensor [B, E]."""
        rows = [row[: self.max_tokens] for row in self.tokenizer.encode(hypotheses)]
        if self.corrector is not None and self.lexicon is not None:
            more = self.tokenizer.encode(hints(self.lexicon, hypotheses, targets - vectors, words))
            rows = [[*row, *said[: self.max_tokens]] for row, said in zip(rows, more, strict=True)]
        return pad_rows(rows).to(self.net.device), self.tensor(vectors)

    def write(
        self,
        targets: np.ndarray,
        n: int,
        sampling: Sampling,
        seed: int,
        hypotheses: Sequence[str] | None = None,
        hypothesis_vectors: np.ndarray | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Hypothesis]]:
        """Both ways of writing, in batches of about `batch_size` texts."""
        generator = torch.Generator(device=self.net.device).manual_seed(seed)

        def some(part: slice) -> list[list[Hypothesis]]:
            aims = self.tensor(targets[part])
            net = self.net
            shown: tuple[Tensor | None, Tensor | None] = (None, None)
            if hypotheses is not None and hypothesis_vectors is not None:
                net = self.corrector or self.net
                known = None if words is None else words[part]
                shown = self.feedback(targets[part], hypotheses[part], hypothesis_vectors[part], known)
            written = generate(
                net,
                aims,
                *shown,
                n=n,
                sampling=sampling,
                max_tokens=self.max_tokens,
                generator=generator,
                dtype=self.dtype,
                lift=self.lift(aims),
            )
            texts = self.tokenizer.decode([text.ids for row in written for text in row])
            flat = iter(texts)
            return [[Hypothesis(next(flat), text.logprob) for text in row] for row in written]

        return in_batches(self, len(targets), max(n, sampling.beams), some)

    def hypothesize(
        self, targets: np.ndarray, n: int = 1, sampling: Sampling = GREEDY, seed: int = 0
    ) -> list[list[Hypothesis]]:
        return self.write(targets, n, sampling, seed)

    def correct(
        self,
        targets: np.ndarray,
        hypotheses: Sequence[str],
        hypothesis_vectors: np.ndarray,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        words: Sequence[Sequence[str]] | None = None,
    ) -> list[list[Hypothesis]]:
        return self.write(targets, n, sampling, seed, hypotheses, hypothesis_vectors, words=words)

    def search_fields(self, sequence_beam_width: int) -> dict[str, Any]:
        """Where all vectors point much the same way, the cosines of right and wrong texts lie closer together, and the
        prior weighs that much less beside them. With a corrector of its own, what it would write in one place helps
        more than what it writes whole, for less time (docs/lab.md)."""
        fields: dict[str, Any] = {}
        if self.net.config.centred:
            varied = self.net.config.embedding_dim * float(self.net.spread) ** 2
            fields["prior_weight"] = PRIOR_WEIGHT * varied / (varied + float(self.net.centre.double().square().sum()))
        if self.corrector is not None:
            fields |= {"corrections": 1, "variations": 7}
        return fields

    def _read(self, targets: Tensor, text: Tensor, lift: Tensor | None, *feedback: Tensor) -> Tensor:
        """log p [B, T, V] of what comes after each token of `text` [B, T], as it would be written."""
        net = self.corrector if feedback and self.corrector is not None else self.net
        logprobs = net(targets, text, *feedback, dtype=self.dtype).log_softmax(dim=-1)
        return logprobs if lift is None else guided(logprobs, along(lift, text))

    @torch.inference_mode()
    def vary(
        self, targets: np.ndarray, hypotheses: Sequence[str], hypothesis_vectors: np.ndarray, n: int = 1, seed: int = 0
    ) -> list[list[str]]:
        """One forward pass along each hypothesis gives, at every place, what the model would rather have written there;
        n (place, token) pairs are drawn by that probability and substituted, inserted, or, when the token is the
        hypothesis' next one, the token before it is left out."""
        rng = np.random.default_rng(seed)
        generator = torch.Generator(device=self.net.device).manual_seed(seed)
        out: list[list[str]] = []
        for i in range(0, len(hypotheses), READ):
            part = slice(i, i + READ)
            encoded = self.tokenizer.encode(hypotheses[part])
            rows = [row[: self.max_tokens - 1] for row in encoded]
            text, labels = (t.to(self.net.device) for t in text_and_labels(rows))
            feedback = self.feedback(targets[part], hypotheses[part], hypothesis_vectors[part])
            aims = self.tensor(targets[part])
            doubt = self._read(aims, text, self.lift(aims), *feedback).exp()  # B T V
            doubt[:, :, [PAD_ID, BOS_ID, EOS_ID]] = 0
            doubt.scatter_(2, labels.clamp(min=0)[:, :, None], 0)  # what stands there already is no change
            doubt[labels == IGNORED] = 0
            weights, tokens = doubt.topk(VARIED, dim=-1)  # B T k
            drawn = (
                weights.flatten(1).clamp(min=1e-12).multinomial(min(n, VARIED * text.size(1)), generator=generator)
            )  # B n
            chosen = tokens.flatten(1).gather(1, drawn).tolist()
            for ids, numbers, new in zip(rows, drawn.tolist(), chosen, strict=True):
                out.append(self.tokenizer.decode(changes(ids, numbers, new, rng)))
        return out

    @torch.inference_mode()
    def score(self, texts: Sequence[str], targets: np.ndarray | None = None) -> np.ndarray:
        rows = [row[: self.max_tokens] for row in self.tokenizer.encode(texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # little padding
        out = np.zeros(len(rows), dtype=np.float32)
        for i in range(0, len(rows), READ):
            part = order[i : i + READ]
            text, labels = (t.to(self.net.device) for t in text_and_labels([rows[j] for j in part]))
            wanted = labels.clamp(min=0)[:, :, None]  # B T 1
            if targets is None:
                no_target = torch.zeros(1, self.net.config.embedding_dim, device=self.net.device)
                chosen = _log_p(self.net.after_one(no_target, text, self.dtype), wanted)  # B T
            else:
                aims = self.tensor(targets[part])
                lift = self.lift(aims)
                if lift is None:
                    chosen = _log_p(self.net(aims, text, dtype=self.dtype), wanted)  # B T
                else:
                    chosen = self._read(aims, text, lift).gather(-1, wanted)[:, :, 0]  # B T
            out[part] = chosen.masked_fill(labels == IGNORED, 0).sum(dim=1).cpu().numpy()
        return out
