"""A small DAVAE with random weights, for the tests of the family: shapes and wiring, nothing about quality."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertTokenizer

from unembed.checkpoints import davae
from unembed.models.davae.generation import Quirks, Settings
from unembed.models.davae.model import LatentMap
from unembed.models.davae.network import DAVAEConfig, DAVAENetwork, DecoderConfig
from unembed.models.davae.tokenizer import PieceTokenizer, train_pieces

TEXTS = [
    "超市面积不算大，挺方便附近的居民购买的。",
    "生活用品也比较齐全，价格适中。",
    "这家餐馆的周边有哪些景点啊？",
    "餐馆的地址是在哪啊？",
    "The cat sat on the mat.",
    "门票已经发完了。",
]
LATENT = 8


def words(folder: Path) -> Path:
    """vocab.txt with [CLS] and [SEP] at 101 and 102, as in bert-base-chinese."""
    letters = sorted({letter.lower() for text in TEXTS for letter in text if not letter.isspace()})
    rows = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    rows += [f"##{letter}" for letter in letters if letter.isascii()]
    path = folder / "vocab.txt"
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def pieces(folder: Path) -> PieceTokenizer:
    train_pieces(TEXTS * 4, 340, folder / "spiece.model")
    return PieceTokenizer(folder / "spiece.model")


def network(pieces: PieceTokenizer, vocabulary: int, seed: int = 0) -> DAVAENetwork:
    torch.manual_seed(seed)
    encoder = {
        "vocab_size": vocabulary, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 40,
    }  # fmt: skip
    decoder = DecoderConfig(pieces.size + 2, 24, 3, 3, 0.1, 0.1, 64)
    net = DAVAENetwork(DAVAEConfig(encoder, decoder, LATENT))
    net.initialise()
    for name, parameter in net.decoder.named_parameters():  # far enough from zero for texts to differ
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.6 if "emb" in name else 0.3)
    torch.nn.init.normal_(net.posterior.weight)
    return net.eval()


def folder(path: Path, *, quirks: Quirks | None = None, spec=None, **settings) -> Path:
    """A model folder as unembed writes it; with `spec`, with a map of that embedder."""
    path.mkdir()
    reader = BertTokenizer.from_pretrained(words(path).parent)
    found = pieces(path)
    net = network(found, len(reader))
    torch.manual_seed(1)
    davae.save(
        net, path.parent / "model", reader=reader, pieces=found,
        settings=Settings(**{"max_out_length": 24, "top_k": 1, "std_scale": 0.0, **settings}),
        quirks=quirks or Quirks(), latent_map=spec and LatentMap(spec.dim, 12, LATENT), spec=spec,
    )  # fmt: skip
    return path.parent / "model"
