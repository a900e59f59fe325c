"""What a run of the DAVAE family needs besides: two tokenizers, the network, and the map."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from unembed.checkpoints import resolve
from unembed.checkpoints.davae import BERT, Checkpoint, recognise
from unembed.errors import InputError
from unembed.models.davae.generation import Quirks, Settings
from unembed.models.davae.model import LatentMap
from unembed.models.davae.network import DAVAEConfig, DAVAENetwork, DecoderConfig
from unembed.models.davae.tokenizer import PieceTokenizer, train_pieces
from unembed.training.corpora import PackedTexts
from unembed.training.davae.config import DAVAETrainConfig
from unembed.training.davae.data import PieceRows, cut_texts
from unembed.training.preparation import Preparation, unfetched
from unembed.training.rows import Rows, TokenRows, texts_of
from unembed.training.vectors import VectorFolder

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerBase

log = logging.getLogger("unembed.train")


class DAVAEPreparation(Preparation):
    """Each part is opened or made when it is asked for. `tokenizer` is the decoder's."""

    config: DAVAETrainConfig

    @cached_property
    def source(self) -> Checkpoint | None:
        """The auto-encoder that this run starts from."""
        if self.config.vae is None:
            return None
        folder = resolve(self.config.vae)
        if not recognise(folder):
            raise InputError(f"vae is {self.config.vae}, which is no DAVAE: give the folder of a stage vae")
        return Checkpoint(folder)

    @cached_property
    def reader(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer."""
        from transformers import BertTokenizer

        if self.source:
            return self.source.reader()
        if self.config.encoder:
            try:
                return BertTokenizer.from_pretrained(self.config.encoder)
            except Exception as error:  # offline, absent: the library has a class for each
                raise unfetched("encoder", self.config.encoder, error) from error
        path = self.output / "tokenizer" / "vocab.txt"
        if self.processes.rank == 0 and not path.exists():
            made = BertTokenizer().train_new_from_iterator(self._all_texts(), self.config.sizes.encoder_vocab_size)
            words = sorted(made.get_vocab().items(), key=lambda pair: pair[1])
            path.write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
        self.processes.wait()
        return BertTokenizer.from_pretrained(path.parent)

    def settings(self) -> Settings:
        """How the model writes when it is not told otherwise."""
        if self.source:
            return self.source.settings
        return Settings(max_out_length=self.config.max_seq_length + 2, top_k=1, std_scale=0.0)

    def quirks(self) -> Quirks:
        return self.source.quirks if self.source else Quirks.none()

    def network(self) -> DAVAENetwork:
        """That of `vae`, or one whose decoder is new and whose encoder is, unless a pretrained one is named."""
        torch.manual_seed(self.config.seed)
        if self.source:
            net = self.source.network(torch.device("cpu")).requires_grad_(not self.config.fits_map)
            return self._settle(net)
        sizes, bert = self.config.sizes, self._bert()
        decoder = DecoderConfig(
            vocab_size=-(-self.tokenizer.size // 8) * 8, hidden_size=sizes.hidden_size, num_layers=sizes.num_layers,
            num_attention_heads=sizes.num_attention_heads, embedding_dropout_prob=sizes.dropout,
            output_dropout_prob=sizes.dropout, max_sequence_length=self.config.max_seq_length + 2,
        )  # fmt: skip
        if bert is None:
            width, longest = sizes.encoder_hidden_size, 2 * self.config.max_seq_length + 8
            read = {
                "vocab_size": len(self.reader), "hidden_size": width, "num_hidden_layers": sizes.encoder_num_layers,
                "num_attention_heads": sizes.encoder_num_attention_heads, "intermediate_size": 4 * width,
                "hidden_dropout_prob": sizes.dropout, "attention_probs_dropout_prob": sizes.dropout,
                "max_position_embeddings": longest,
            }  # fmt: skip
            # BERT's own deviation, 0.02, is one for wide networks: in a narrow one all texts would begin alike.
            read["initializer_range"] = width**-0.5
        else:
            read = {key: getattr(bert.config, key) for key in BERT}
        net = DAVAENetwork(DAVAEConfig(read, decoder, sizes.latent_size))
        net.initialise()
        if bert is not None:
            net.bert.load_state_dict(bert.state_dict())
        return self._settle(net)

    def _settle(self, net: DAVAENetwork) -> DAVAENetwork:
        net.embedding_noise = self.config.embedding_noise
        if not self.config.adversarial:
            net.discriminator.requires_grad_(False)  # several processes insist on a gradient for what may have one
        return net

    def latent_map(self) -> LatentMap | None:
        """For stage inversion, new."""
        if not self.config.fits_map or self.source is None:
            return None
        torch.manual_seed(self.config.seed)
        return LatentMap(self.embedder.spec.dim, self.config.map_hidden, self.source.sizes.latent_size)

    def _bert(self) -> BertModel | None:
        from transformers import BertModel

        if not self.config.encoder:
            return None
        try:
            return BertModel.from_pretrained(self.config.encoder, dtype=torch.float32)
        except Exception as error:  # offline, absent, no BERT: the library has a class for each
            raise unfetched("encoder", self.config.encoder, error) from error

    def _tokenizer(self) -> PieceTokenizer:
        if self.source:
            return self.source.pieces()
        path = self.output / "tokenizer" / "spiece.model"
        if self.processes.rank == 0 and not path.exists():
            train_pieces(self._all_texts(), self.config.sizes.vocab_size, path)
        self.processes.wait()
        return PieceTokenizer(path)

    def _all_texts(self) -> Iterator[str]:
        return texts_of(self.config.texts, self.config.use_less_data)

    def tokens(self, texts: Sequence[str] | PackedTexts) -> TokenRows:
        return PieceRows(texts, self.tokenizer, self.config.label_tokens)

    def _cut(self, texts: Iterator[str]) -> list[str]:
        return cut_texts(texts, self.tokenizer, self.config.max_seq_length)

    def _complete(self, rows: Rows, made: VectorFolder, prefix: str) -> None:
        """The texts again, for the encoder."""
        rows.texts = PackedTexts(made.texts)

    def saving(self) -> dict[str, Any]:
        """What of a model folder no step changes."""
        config = self.config
        return {
            "reader": self.reader, "pieces": self.tokenizer, "settings": self.settings(), "quirks": self.quirks(),
            "spec": self.embedder.spec if config.fits_map else None,
            "training": {"dim_target_kl": config.free_bits, "length_weighted_loss": config.length_weighted},
        }  # fmt: skip
