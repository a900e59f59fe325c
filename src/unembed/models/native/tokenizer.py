"""The native model's tokenizer: byte-level BPE, cased by default, so that every Unicode text can be written and read
back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from unembed.errors import CheckpointError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2


class TextTokenizer:
    """Text ↔ token ids (lists of int, no special tokens added)."""

    def __init__(self, core: Tokenizer) -> None:
        core.encode_special_tokens = True  # "<eos>" in a text is five characters, not the end of it
        self.core = core

    @property
    def vocab_size(self) -> int:
        return self.core.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return [encoding.ids for encoding in self.core.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        """Text of each row of ids; special tokens are skipped, bytes that are no UTF-8 become U+FFFD."""
        return self.core.decode_batch([list(row) for row in rows])

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 8192, lowercase: bool = False) -> TextTokenizer:
        """Learn a vocabulary of `vocab_size` entries (256 bytes and 3 special tokens among them) from `texts`; in
        lower case it spends none of them on capitals, and writes none."""
        core = Tokenizer(models.BPE())
        if lowercase:
            core.normalizer = normalizers.Lowercase()
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=24,
            show_progress=False,
        )
        core.train_from_iterator(texts, trainer)
        return cls(core)

    def save(self, path: str | Path) -> None:
        self.core.save(str(path), pretty=False)

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """Read a `tokenizer.json`. Raises CheckpointError when it is missing or damaged."""
        if not Path(path).is_file():
            raise CheckpointError(f"{path} is missing: the model folder is incomplete; copy or download it again")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # the Rust library raises plain Exception
            raise CheckpointError(f"{path} cannot be read ({error}); copy or download the model again") from error
