"""What a run of the causal-LM family needs besides: tokenizer and language model, or the hypothesizer that goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from unembed.checkpoints import prefix, resolve
from unembed.embedders import check_match
from unembed.errors import InputError
from unembed.models.base import InversionModel
from unembed.models.native.tokenizer import EOS, PAD, TextTokenizer
from unembed.models.prefix_decoder import PrefixConfig, PrefixDecoderModel, PrefixNetwork
from unembed.training.causal.config import CausalTrainConfig
from unembed.training.config import SourceConfig
from unembed.training.corpora import PackedTexts
from unembed.training.preparation import unfetched
from unembed.training.rows import Rows, TokenRows, texts_of
from unembed.training.stages import StagedPreparation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class CausalPreparation(StagedPreparation):
    """Each part is opened or made when it is asked for."""

    config: CausalTrainConfig

    def tokens(self, texts: Sequence[str] | PackedTexts) -> TokenRows:
        return TokenRows(texts, self.tokenizer, self.config.label_tokens, end=self.tokenizer.eos_token_id)

    def network(self) -> PrefixNetwork:
        """With new projections, or for a corrector the hypothesizer's. Raises InputError for what does not fit."""
        config, dim = self.config, self.embedder.spec.dim
        torch.manual_seed(config.seed)
        if config.corrects:
            net = self._corrector()
        else:
            lm = self._language_model()
            wiring = PrefixConfig(
                dim, config.prefix_tokens, lm.get_input_embeddings().weight.size(1) if config.prefix_tokens else 0,
                prior=config.prior_share > 0,
            )  # fmt: skip
            net = PrefixNetwork(lm, wiring)
        rows = net.lm.get_input_embeddings().weight.size(0)
        if len(self.tokenizer) > rows:
            raise InputError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the language model {rows}: give the one that "
                "belongs to it"
            )
        longest = net.config.length(config.max_seq_length) + config.label_tokens
        if longest > (room := getattr(net.lm.config, "max_position_embeddings", longest)):
            raise InputError(
                f"the language model reads {room} positions and this run needs {longest}: lower max_seq_length or "
                "prefix_tokens"
            )
        return net

    def shown(self, held: Rows) -> tuple[list[str], np.ndarray]:
        """Some held-out texts and their vectors [n, E]."""
        at = held.used[: self.config.samples]
        texts = [self.tokenizer.decode(held.labels[i], skip_special_tokens=True) for i in at]
        if held.vectors is not None:
            return texts, np.asarray(held.vectors[at], dtype=np.float32)
        return texts, self.embedder.encode(texts)

    def _texts(self, sources: Sequence[SourceConfig], limit: int | None) -> Iterator[str]:
        longest = self.config.max_characters
        kept = (text for text in texts_of(sources, None) if longest is None or len(text) <= longest)
        return islice(kept, limit)

    def _suit(self, model: InversionModel) -> None:
        suited = cast(PrefixDecoderModel, model)
        suited.max_tokens, suited.batch_size = self.config.max_seq_length, self.config.eval_batch_size

    def _first(self) -> Path:
        """The folder of the hypothesizer, from which a corrector goes on."""
        folder = resolve(str(self.config.hypothesizer))
        if not prefix.recognise(folder):
            raise InputError(f"{folder} is no model of the causal family: a corrector goes on from one that is")
        return folder

    def _corrector(self) -> PrefixNetwork:
        folder = self._first()
        check_match(prefix.describe(folder)[3], self.embedder.spec, expected_name="the hypothesizer")
        first = prefix.network(folder, torch.float32)
        wiring = replace(first.config, corrector=True, prior=first.config.prior or self.config.prior_share > 0)
        net = PrefixNetwork(first.lm, wiring)
        # The two other vectors are of the same space, so they begin with the target's projection.
        for name in net.vectors:
            net.vectors[name].load_state_dict(first.vectors[name if name in first.vectors else "target"].state_dict())
        return net

    def _language_model(self) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

        config, sizes = self.config, self.config.scratch
        if sizes is None:
            try:
                with prefix.silent():
                    return AutoModelForCausalLM.from_pretrained(config.backbone, dtype=torch.float32)
            except Exception as error:  # offline, absent, no causal language model: the library has a class for each
                raise unfetched("backbone", config.backbone, error) from error
        end = self.tokenizer.eos_token_id
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(self.tokenizer), n_embd=sizes.n_embd, n_layer=sizes.n_layer, n_head=sizes.n_head,
                n_positions=sizes.n_positions, resid_pdrop=sizes.dropout, embd_pdrop=sizes.dropout,
                attn_pdrop=sizes.dropout, bos_token_id=end, eos_token_id=end,
            )
        )  # fmt: skip

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        config = self.config
        if config.corrects:
            return prefix.tokenizer(self._first())
        if config.tokenizer or config.scratch is None:
            return open_tokenizer(config.tokenizer or config.backbone, config.end_token)
        return open_tokenizer(str(self._own_tokenizer(train_tokenizer, config.scratch.vocab_size)), config.end_token)


def open_tokenizer(name: str, end: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer by folder or hub id, with `end` as its end of text if that is given. Raises InputError where it has
    none, or is not of the kind that tokenizer.json describes."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # offline, absent: the library has a class for each
        raise unfetched("tokenizer", name, error) from error
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {name} has no tokenizer.json: choose a language model that has one")
    if end is not None:
        if end not in tokenizer.get_vocab():
            raise InputError(f"end_token {end!r} is no token of {name}: choose one of its vocabulary")
        tokenizer.eos_token = end
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {name} names no end of text: say which token it is with end_token")
    return tokenizer


def train_tokenizer(texts: Iterator[str], size: int, folder: Path) -> None:
    """A byte-level BPE tokenizer with at most `size` entries, into `folder`."""
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    TextTokenizer.train(texts, size).save(folder / "tokenizer.json")
    path = str(folder / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=path, eos_token=EOS, pad_token=PAD).save_pretrained(folder)
