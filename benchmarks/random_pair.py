"""A vec2text pair of T5-base's size with random weights, for measuring speed: every text it writes has the same length.

Random weights say nothing about quality, but a step costs what it costs with real ones. Two changes make them write:

- The embeddings are small, so that the layers decide on the next token. As they are drawn, the residual stream is
  little but the last token's embedding, which is also its row of the output matrix: all texts repeat one token.
- In the decoder's first layer two heads end the text. Both see positions alone; one looks LENGTH tokens back, where
  there is so much, and otherwise at its own place, the other always at its own place. Their difference is nothing until
  the start token comes into sight, and then it is the end of text.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

LENGTH = 31
"""Tokens of each text without its end. A border of T5's buckets of distances, so that a head can see it."""
VOCABULARY, WIDTH, SOFT_TOKENS = 32128, 768, 16


def t5(seed: int, layers: int = 12) -> dict[str, Tensor]:
    """State dict of a T5-base whose texts have LENGTH tokens; tied tensors once."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=64, d_ff=3072, num_layers=layers, num_decoder_layers=layers,
        num_heads=12, decoder_start_token_id=0,
    )  # fmt: skip
    tensors = {
        name: tensor.clone()
        for name, tensor in T5ForConditionalGeneration(config).state_dict().items()
        if name not in ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    }
    table = tensors["shared.weight"].mul_(0.05)
    tensors["decoder.final_layer_norm.weight"].mul_(20)
    start, end = torch.nn.functional.normalize(table[:2], dim=1)
    own = "decoder.block.0.layer.0.SelfAttention"
    for head, sign in ((0, 1), (1, -1)):
        rows = slice(64 * head, 64 * head + 64)
        for name in "qkv":
            tensors[f"{own}.{name}.weight"][rows] = 0
        tensors[f"{own}.v.weight"][64 * head] = start
        tensors[f"{own}.o.weight"][:, rows] = 0
        tensors[f"{own}.o.weight"][:, 64 * head] = sign * 80 * end
    bias = tensors[f"{own}.relative_attention_bias.weight"]  # buckets, heads
    bias[:, :2] = -20
    bias[0, :2] = 20
    bias[21:, 0] = 60  # the buckets from 31 on
    return tensors


def projector(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    first, second = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, SOFT_TOKENS * WIDTH)
    layers = {"0": first, "3": second}
    return {f"{n}.{kind}": tensor for n, layer in layers.items() for kind, tensor in layer.state_dict().items()}


def under(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor.contiguous() for key, tensor in tensors.items()}


def write_tokenizer(folder: Path) -> None:
    """One token a word, `w3` to `w32127`, so that a text of n words is n tokens wherever it is read again."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", *(f"▁w{i}" for i in range(3, VOCABULARY))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    # The name of its class that all versions of transformers know.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    config |= {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_pair(folder: Path, settings: Path) -> None:
    """The pair under `folder`, as jxm/gtr__nq__32 and jxm/gtr__nq__32__correct with t5-base beside them. `settings`: a
    folder that holds a pair whose config.json are taken."""
    backbone = folder / "t5-base"
    write_tokenizer(backbone)
    config = json.loads((settings / "t5-base" / "config.json").read_text(encoding="utf-8"))
    config |= {"d_model": WIDTH, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12}
    config |= {"num_heads": 12, "vocab_size": VOCABULARY}
    (backbone / "config.json").write_text(json.dumps(config), encoding="utf-8")
    made = t5(0)
    save_file(made, backbone / "model.safetensors", {"format": "pt"})
    encoder = {n.removeprefix("encoder."): tensor for n, tensor in made.items() if n.startswith("encoder.")}
    encoder["embed_tokens.weight"] = made["shared.weight"]
    # Real embedders tell texts apart; one that was drawn hardly does, unless its tokens outweigh its layers.
    encoder["embed_tokens.weight"] = encoder["embed_tokens.weight"] * 200
    hypothesizer = {**under("encoder_decoder", t5(1)), **under("embedding_transform", projector(2))}
    hypothesizer |= under("embedder", encoder)
    corrector = under("encoder_decoder", t5(3))
    for i in (1, 2, 3):
        corrector |= under(f"embedding_transform_{i}", projector(3 + i))
    corrector |= under("layernorm", {"weight": torch.ones(WIDTH), "bias": torch.zeros(WIDTH)})
    for name, tensors in (("gtr__nq__32", hypothesizer), ("gtr__nq__32__correct", corrector)):
        place = folder / "jxm" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_bytes((settings / "jxm" / name / "config.json").read_bytes())
        save_file(tensors, place / "model.safetensors", {"format": "pt"})
