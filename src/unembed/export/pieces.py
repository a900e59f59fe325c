"""DAVAE's SentencePiece vocabulary for the library `tokenizers`, which the runtime of exports reads.

The ids are the same. So are the texts, but for bytes that are no UTF-8: where SentencePiece writes one � for each wrong
byte, here all bytes of the run become one each.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from unembed.errors import InputError, require
from unembed.models.davae.vae import BLANKS, NOISE, SPACED

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from unembed.models.davae.generation import Quirks
    from unembed.models.davae.tokenizer import PieceTokenizer

UNIGRAM, BPE = 1, 2
NORMAL, CONTROL, DEFINED = 1, 3, 4
"""Kinds of a model and of its pieces, by the numbers of SentencePiece's format."""
OUTER = r"\A[\s\x1c-\x1f]+|[\s\x1c-\x1f]+\z"  # as str.strip


def tokenizer(pieces: PieceTokenizer, quirks: Quirks) -> Tokenizer:
    """Writes as `TextVAE.text` does. Raises InputError for a model that is neither Unigram nor BPE."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import generate_merges

    proto = require("sentencepiece.sentencepiece_model_pb2", "davae").ModelProto()
    proto.ParseFromString(pieces.path.read_bytes())
    kinds = {piece.piece: piece.type for piece in proto.pieces}
    model: models.Model
    training, normalizing = proto.trainer_spec, proto.normalizer_spec
    if training.model_type == UNIGRAM:
        scores = [(piece.piece, piece.score) for piece in proto.pieces]
        model = models.Unigram(scores, unk_id=pieces.pieces.unk_id(), byte_fallback=training.byte_fallback)
    elif training.model_type == BPE:
        ids = {p.piece: i for i, p in enumerate(proto.pieces)}
        merges = generate_merges(
            ids, {p.piece: p.score for p in proto.pieces}, [p for p in kinds if kinds[p] != NORMAL]
        )
        model = models.BPE(
            ids, merges, unk_token=training.unk_piece, fuse_unk=True, byte_fallback=training.byte_fallback,
            ignore_merges=True,
        )  # fmt: skip
    else:
        raise InputError(f"{pieces.path} is neither a Unigram model nor a BPE: it cannot be exported")
    found = Tokenizer(model)
    steps: list[normalizers.Normalizer]
    steps = [normalizers.Precompiled(charsmap)] if (charsmap := normalizing.precompiled_charsmap) else []
    if normalizing.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(pattern), by) for pattern, by in ((r"\A +| +\z", ""), (" {2,}", " "))]
    if normalizing.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    found.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    apart = [re.escape(piece) for piece, kind in kinds.items() if kind == DEFINED]
    if training.model_type == UNIGRAM:
        apart += [_first(piece) for piece, kind in kinds.items() if kind not in (NORMAL, DEFINED)]
    if apart:
        found.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(apart)), "isolated")
    found.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Replace(Regex(OUTER), ""),
            *(decoders.Replace(Regex(pattern), "") for pattern in _removed(quirks)),
        ]
    )  # fmt: skip
    own = ["<davae:end>", "<davae:padding>", "<davae:begin>"]  # in the order of their ids
    special = [*(piece for piece, kind in kinds.items() if kind == CONTROL), *own]
    found.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return found


def _first(piece: str) -> str:
    """Pattern of the first letter of what looks like <unk>, a control token or a byte, and is text."""
    return f"{re.escape(piece[0])}(?={re.escape(piece[1:])})"


def _removed(quirks: Quirks) -> list[str]:
    """What is taken out of a text, in the patterns of `tokenizers`, where $ would end any line."""
    patterns = [BLANKS.pattern, SPACED, *NOISE, OUTER] if quirks.filter_noise else ["<unk>"]
    return [pattern.replace("$", r"\Z") for pattern in patterns]
