"""What a run of the encoder-decoder family needs besides: tokenizer, T5, and the hypotheses of a corrector."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unembed.checkpoints import load_model, resolve, vec2text
from unembed.embedders import Embedder, check_match
from unembed.embedders.checkpoint import CheckpointEmbedder
from unembed.embedders.local import RAW, SentenceTransformerEmbedder
from unembed.errors import InputError
from unembed.models.base import InversionModel
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork, ProjectionConfig
from unembed.training.hypotheses import KIND, HypothesisFolder, write_hypotheses
from unembed.training.preparation import Preparation, unfetched
from unembed.training.rows import Rows, TokenRows, texts_of
from unembed.training.t5.config import T5TrainConfig
from unembed.training.t5.data import not_yet_right
from unembed.training.vectors import VectorFolder, finished

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

log = logging.getLogger("unembed.train")


class T5Preparation(Preparation):
    """Each part is opened or made when it is asked for."""

    config: T5TrainConfig
    hypothesizer: InversionModel | None = None

    def rows(self) -> tuple[Rows, Rows]:
        train, held = super().rows()
        if train.hypotheses is not None:
            kept = not_yet_right(train, train.hypotheses)
            if not len(kept):
                raise InputError(
                    "every hypothesis is right already, or empty: there is nothing for a corrector to learn"
                )
            log.info("%d rows left out: their hypothesis is right already, or empty", len(train) - len(kept))
            train = train.part(kept)
        return train, held

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

    def open_hypothesizer(self) -> InversionModel:
        config = self.config
        assert config.hypothesizer is not None
        if self.hypothesizer is None:
            model = load_model(config.hypothesizer, self.device, calibrated=False)
            check_match(model.spec, self.embedder.spec, expected_name="the hypothesizer", actual_name="the embedder")
            if isinstance(model, EncoderDecoderModel) and model.tokenizer.get_vocab() != self.tokenizer.get_vocab():
                raise InputError(
                    f"{config.hypothesizer} has another tokenizer than this corrector would have: a pair shares one; "
                    "give its folder as tokenizer"
                )
            if isinstance(model, EncoderDecoderModel):  # start token, text, </s>
                model.max_tokens, model.batch_size = config.label_tokens + 1, config.eval_batch_size
            self.hypothesizer = model
        return self.hypothesizer

    def _complete(self, rows: Rows, made: VectorFolder, prefix: str) -> None:
        """The hypotheses of a corrector."""
        config = self.config
        if not config.corrects:
            return
        place = Path(config.hypotheses) if config.hypotheses and not prefix else self.output / f"{prefix}hypotheses"
        if config.hypothesizer and not finished(place, KIND):
            write_hypotheses(
                self.open_hypothesizer(), self.embedder, made.path, place, dtype=config.store,
                processes=self.processes, progress=self._progress("hypotheses"),
            )  # fmt: skip
        rows.hypotheses = HypothesisFolder(place, made.path)
        check_match(made.spec, rows.hypotheses.spec, expected_name=str(made.path), actual_name=str(place))
        rows.hypothesis_tokens = TokenRows(rows.hypotheses.drafts, self.tokenizer, config.label_tokens)

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        config = self.config
        if config.tokenizer or config.scratch is None:
            return open_tokenizer(config.tokenizer or config.backbone)
        if config.hypothesizer:
            return open_tokenizer(str(resolve(config.hypothesizer)))
        folder = self.output / "tokenizer"
        if self.processes.rank == 0 and not (folder / "tokenizer_config.json").exists():
            train_tokenizer(self._all_texts(), config.scratch.vocab_size, folder)
        self.processes.wait()
        return open_tokenizer(str(folder))

    def _all_texts(self) -> Iterator[str]:
        if self.config.texts:
            return texts_of(self.config.texts, self.config.use_less_data)
        return iter(VectorFolder(str(self.config.vectors)).texts)

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
