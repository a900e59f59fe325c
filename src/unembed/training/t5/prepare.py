"""What a run of the encoder-decoder family needs besides: tokenizer and T5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unembed.checkpoints import resolve, vec2text
from unembed.embedders import Embedder
from unembed.embedders.checkpoint import CheckpointEmbedder
from unembed.embedders.local import RAW, SentenceTransformerEmbedder
from unembed.errors import InputError
from unembed.models.base import InversionModel
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork, ProjectionConfig
from unembed.training.preparation import unfetched
from unembed.training.stages import StagedPreparation
from unembed.training.t5.config import T5TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration


class T5Preparation(StagedPreparation):
    """Each part is opened or made when it is asked for."""

    config: T5TrainConfig

    def network(self) -> EncoderDecoderNetwork:
        """A T5 with projectors that are new."""
        config, t5 = self.config, self._t5()
        for off, side in ((config.encoder_dropout_disabled, t5.encoder), (config.decoder_dropout_disabled, t5.decoder)):
            if off:
                without_dropout(side)
        dim, vec2text = self.embedder.spec.dim, config.family == "vec2text"
        projection = ProjectionConfig(
            dim, config.num_repeat_tokens, dim if vec2text else t5.config.d_model, corrector=config.corrects,
            layer_norm=config.corrects and (vec2text or config.layer_norm), masked_start=vec2text,
            feedback=not config.ignore_hypothesis_embedding,
        )  # fmt: skip
        return EncoderDecoderNetwork(t5, projection)

    def _suit(self, model: InversionModel) -> None:
        if not isinstance(model, EncoderDecoderModel):
            return
        if model.tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise InputError(
                f"{self.config.hypothesizer} has another tokenizer than this corrector would have: a pair shares one; "
                "give its folder as tokenizer"
            )
        # start token, text, </s>
        model.max_tokens, model.batch_size = self.config.label_tokens + 1, self.config.eval_batch_size

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        config = self.config
        if config.tokenizer or config.scratch is None:
            return open_tokenizer(config.tokenizer or config.backbone)
        if config.hypothesizer:
            return open_tokenizer(str(resolve(config.hypothesizer)))
        return open_tokenizer(str(self._own_tokenizer(train_tokenizer, config.scratch.vocab_size)))

    def _t5(self) -> T5ForConditionalGeneration:
        from transformers import T5Config, T5ForConditionalGeneration

        sizes = self.config.scratch
        torch.manual_seed(self.config.seed)
        if sizes is None:
            try:
                return T5ForConditionalGeneration.from_pretrained(self.config.backbone, dtype=torch.float32)
            except Exception as error:  # offline, absent, no T5: the library has a class for each
                raise unfetched("backbone", self.config.backbone, error) from error
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(self.tokenizer), d_model=sizes.d_model, d_ff=sizes.d_ff, d_kv=sizes.d_kv,
                num_heads=sizes.num_heads, num_layers=sizes.num_layers, dropout_rate=sizes.dropout_rate,
                decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip


def carried(judge: Embedder) -> Mapping[str, torch.Tensor] | None:
    """The tensors of an embedder that is a raw T5 encoder, by their names in it, for vec2text's file of a hypothesizer;
    None of any other embedder."""
    if isinstance(judge, CheckpointEmbedder):
        return vec2text.Checkpoint(judge.folder).embedder_tensors()
    if isinstance(judge, SentenceTransformerEmbedder) and judge.spec.id.endswith(RAW):
        network: Any = judge.model[0].auto_model
        return network.encoder.state_dict() if network.config.model_type == "t5" else None
    return None


def open_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A T5 tokenizer by folder or hub id."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:  # offline, absent: the library has a class for each
        raise unfetched("tokenizer", name, error) from error
    if (tokenizer.pad_token_id, tokenizer.eos_token_id) != (0, 1):
        raise InputError(f"the tokenizer of {name} is none of a T5 (its <pad> must be 0 and its </s> 1): give another")
    return tokenizer


def train_tokenizer(texts: Iterator[str], size: int, folder: Path) -> None:
    """A unigram tokenizer of T5's kind with at most `size` entries, into `folder`."""
    from transformers import T5Tokenizer

    T5Tokenizer(extra_ids=0).train_new_from_iterator(texts, size).save_pretrained(folder)


def without_dropout(module: nn.Module) -> None:
    """Switch dropout off: its modules, and the rate that T5's attention keeps as a number."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        elif isinstance(getattr(part, "dropout", None), float):
            setattr(part, "dropout", 0.0)  # noqa: B010  (a module's plain attribute, which mypy takes for a tensor)
