"""What stands before the first step: tokenizer, T5, and the rows with what is computed once, shared by processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from unembed.checkpoints import load_model, resolve, vec2text
from unembed.embedders import Embedder, check_match, embedder
from unembed.embedders.checkpoint import CheckpointEmbedder
from unembed.embedders.local import RAW, SentenceTransformerEmbedder
from unembed.errors import CheckpointError, InputError
from unembed.models.base import InversionModel
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork, ProjectionConfig
from unembed.processes import Processes
from unembed.training.config import SourceConfig
from unembed.training.corpora import PackedTexts
from unembed.training.hypotheses import KIND, HypothesisFolder, write_hypotheses
from unembed.training.t5.config import T5TrainConfig
from unembed.training.t5.data import Rows, TokenRows, cut_texts, hold_out, not_yet_right, texts_of
from unembed.training.vectors import VectorFolder, finished, write_vectors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

log = logging.getLogger("unembed.train")


class Preparation:
    """All that a run needs; each part is opened or made when it is asked for."""

    def __init__(self, config: T5TrainConfig, processes: Processes, device: torch.device) -> None:
        self.config, self.processes, self.device, self.output = config, processes, device, Path(config.output)
        self.embedder: Embedder = embedder(config.embedder, device=str(device), dtype=config.embedder_dtype)
        self.tokenizer = self._tokenizer()
        self.hypothesizer: InversionModel | None = None

    def rows(self) -> tuple[Rows, Rows]:
        """For training and for evaluation."""
        config = self.config
        rows = self._open(config.texts, config.vectors, config.hypotheses, "", config.use_less_data)
        if not config.eval_texts:
            train, held = hold_out(rows, config.max_eval_samples)
        else:
            train = rows
            held = self._open(config.eval_texts, None, None, "eval-", config.max_eval_samples)
        if train.hypotheses is not None:
            kept = not_yet_right(train, train.hypotheses)
            if not len(kept):
                raise InputError(
                    "every hypothesis is right already, or empty: there is nothing for a corrector to learn"
                )
            log.info("%d rows left out: their hypothesis is right already, or empty", len(train) - len(kept))
            train = train.part(kept)
        log.info("%d texts to train on, %d held out", len(train), len(held))
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

    def _open(
        self,
        sources: Sequence[SourceConfig],
        vectors: str | None,
        hypotheses: str | None,
        prefix: str,
        limit: int | None,
    ) -> Rows:
        """Rows of texts, or of a folder of vectors that is there or is made of the texts now."""
        config = self.config
        if not config.precompute:
            texts = self._read(sources, limit)
            labels = TokenRows(texts, self.tokenizer, config.label_tokens)
            return Rows(labels, np.arange(len(labels)), texts=PackedTexts(texts))
        folder = Path(vectors) if vectors else self.output / f"{prefix}vectors"
        if sources and not finished(folder):
            write_vectors(
                self._read(sources, limit), self.embedder, folder, dtype=config.store, processes=self.processes,
                progress=self._progress("vectors"),
            )  # fmt: skip
        made = VectorFolder(folder)
        check_match(made.spec, self.embedder.spec, expected_name=str(folder))
        if made.vectors.shape[1] != self.embedder.spec.dim:
            raise InputError(
                f"{folder} holds vectors of {made.vectors.shape[1]} numbers, the embedder's have "
                f"{self.embedder.spec.dim}: embed the texts again into a new folder"
            )
        labels = TokenRows(made.texts, self.tokenizer, config.label_tokens)
        used = np.flatnonzero(labels.whole)[:limit]
        if long := int((~labels.whole).sum()):
            log.info("%d of %d texts left out: more than %d tokens", long, len(labels), config.max_seq_length)
        if not len(used):
            raise InputError(f"all texts of {folder} have more than {config.max_seq_length} tokens: raise it")
        rows = Rows(labels, used, vectors=made.vectors)
        if config.corrects:
            place = Path(hypotheses) if hypotheses else self.output / f"{prefix}hypotheses"
            if config.hypothesizer and not finished(place, KIND):
                write_hypotheses(
                    self.open_hypothesizer(), self.embedder, folder, place, dtype=config.store,
                    processes=self.processes, progress=self._progress("hypotheses"),
                )  # fmt: skip
            rows.hypotheses = HypothesisFolder(place, folder)
            check_match(made.spec, rows.hypotheses.spec, expected_name=str(folder), actual_name=str(place))
            rows.hypothesis_tokens = TokenRows(rows.hypotheses.drafts, self.tokenizer, config.label_tokens)
        return rows

    def _read(self, sources: Sequence[SourceConfig], limit: int | None) -> list[str]:
        texts = cut_texts(texts_of(sources, limit), self.tokenizer, self.config.label_tokens - 1)
        if not texts:
            raise InputError(f"{', '.join(source.path for source in sources)}: no text there; give other texts")
        return texts

    def _progress(self, what: str) -> Any:  # noqa: ANN401  (a callback, or None)
        if self.processes.rank > 0:
            return None
        return lambda done, total: log.info("%s: %d of %d", what, done, total)

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
                raise _unfetched("backbone", self.config.backbone, error) from error
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
        raise _unfetched("tokenizer", name, error) from error
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


def _unfetched(what: str, name: str, error: Exception) -> CheckpointError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"{what} {name} is no folder here and cannot be fetched ({first}): give a folder or a hub id"
    )
