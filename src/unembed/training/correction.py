"""What a corrector is trained on and measured by: drafts of each text of a batch, and what becomes of held-out ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from unembed.embedders import Embedder
from unembed.metrics import exact_match, token_f1
from unembed.models.base import GREEDY
from unembed.models.lexicon import Lexicon
from unembed.models.native import NativeNetwork
from unembed.models.native.generation import generate
from unembed.models.native.network import pad_rows, text_and_labels
from unembed.models.native.tokenizer import TextTokenizer
from unembed.models.wording import LACKING, behind
from unembed.scripts import pieces
from unembed.training.batches import Batch
from unembed.training.corruption import Corruption

log = logging.getLogger("unembed.train")

SHOWN = 4


class Correction:
    """Makes drafts of texts and embeds them."""

    def __init__(self, lexicon: Lexicon, mean: np.ndarray, tokenizer: TextTokenizer, embedder: Embedder) -> None:
        self.corruption = Corruption(lexicon, mean)
        self.lexicon, self.tokenizer, self.embedder = lexicon, tokenizer, embedder

    def hypotheses(self, batch: Batch, rng: np.random.Generator) -> tuple[list[list[int]], np.ndarray]:
        """Token ids of a draft of each row, with words that it may lack, and the drafts' vectors float32 [B, d]."""
        _, ids, vectors = self._drafts(self.tokenizer.decode(batch.ids), batch.targets, rng)
        return ids, vectors

    def _drafts(
        self, texts: Sequence[str], targets: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[str], list[list[int]], np.ndarray]:
        drafts = self.corruption.drafts(texts, targets, rng)
        vectors = self.embedder.encode(drafts)
        asked = self.lexicon.lacking(drafts, targets - vectors, LACKING)
        words = [self._hinted(*row, rng) for row in zip(texts, drafts, asked, strict=True)]
        return drafts, self.tokenizer.encode([a + b for a, b in zip(drafts, behind(words), strict=True)]), vectors

    def _hinted(self, text: str, draft: str, asked: list[str], rng: np.random.Generator) -> list[str]:
        """The words that are asked for, some of them exchanged for some that are in fact lacking: a search knows more
        than one difference."""
        own = {piece.strip().lower() for piece in pieces(draft)}
        share = rng.random() * 0.7
        true = [word for word in dict.fromkeys(piece.strip() for piece in pieces(text)) if word.lower() not in own]
        hints = [word for word in true if rng.random() < share]
        out = list(dict.fromkeys([*hints, *asked]))[: max(LACKING, len(hints))]
        return [out[i] for i in np.argsort(np.arange(len(out)) + 3 * rng.standard_normal(len(out))).tolist()]

    @torch.inference_mode()
    def evaluate(
        self, net: NativeNetwork, texts: Sequence[str], rng: np.random.Generator, dtype: torch.dtype
    ) -> dict[str, float]:
        """Of held-out texts: the loss given a draft, token F1 and mean cosine of the drafts and of what becomes of
        them, and how many texts come out word for word; logs some."""
        targets = self.embedder.encode(texts)
        drafts, ids, vectors = self._drafts(texts, targets, rng)
        e, e_drafts = (torch.from_numpy(part).to(net.device) for part in (targets, vectors))
        hypotheses = pad_rows(ids).to(net.device)
        text, labels = (t.to(net.device) for t in text_and_labels(self.tokenizer.encode(texts)))
        logits = net(e, text, hypotheses, e_drafts, dtype=dtype)
        loss = net.loss(logits, labels).item()
        written = generate(net, e, hypotheses, e_drafts, sampling=GREEDY, max_tokens=text.size(1) + 8, dtype=dtype)
        corrected = self.tokenizer.decode([row[0].ids for row in written])
        again = self.embedder.encode([found if found.strip() else "." for found in corrected])
        pairs = list(zip(texts, drafts, corrected, strict=True))
        for row in pairs[:SHOWN]:
            log.info("  text       %s\n  draft      %s\n  corrected  %s", *row)
        return {
            "heldout_loss": loss,
            "draft_f1": float(np.mean([token_f1(text, draft) for text, draft, _ in pairs])),
            "corrected_f1": float(np.mean([token_f1(text, found) for text, _, found in pairs])),
            "draft_cosine": float((targets * vectors).sum(axis=1).mean()),
            "corrected_cosine": float((targets * again).sum(axis=1).mean()),
            "draft_exact": float(np.mean([exact_match(text, draft, cased=False) for text, draft, _ in pairs])),
            "corrected_exact": float(np.mean([exact_match(text, found, cased=False) for text, _, found in pairs])),
        }
