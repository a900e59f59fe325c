"""From one T5 format to another, where the other program then computes the same function, and only there.

The two wirings differ in three things:
- The projector's hidden layer is as wide as the vector in vec2text and as wide as the T5 in nanoV2T. A narrower one is
  widened by units that are silent (no weight leads out of them), which changes nothing. A wider one is narrowed only
  as far as it has silent units.
- vec2text's corrector has a masked token in front of the hypothesis. It shifts the hypothesis against the vectors in
  the T5's relative positions, which no change of the weights makes up for: correctors keep their format.
- vec2text's file of a hypothesizer holds the embedder as well; nanoV2T has no place for it, and it is left out.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import torch

from unembed.checkpoints.placement import Placement
from unembed.checkpoints.tensors import Weights
from unembed.errors import CheckpointError, InputError
from unembed.models.encoder_decoder import EncoderDecoderNetwork, Projector

T5_FORMATS = {"vec2text": "unembed.checkpoints.vec2text", "nanov2t": "unembed.checkpoints.nanov2t"}
BACKBONES = {(512, 6, 2048): "t5-small", (768, 12, 3072): "t5-base", (1024, 24, 4096): "t5-large",
             (1024, 24, 16384): "t5-3b", (1024, 24, 65536): "t5-11b"}  # fmt: skip
"""Width, layers and inner width of the T5s that a vec2text model can be built on, by the name that it asks for."""


def convert(source: Path, folder: str | Path, format: str, *, backbone: str | None = None) -> None:
    """Write the model of one folder in a format, the same one included (which makes safetensors of a .bin).

    Args:
        source: a hypothesizer or a corrector of a T5 format.
        folder: to be made.
        format: vec2text or nanov2t.
        backbone: the T5 by which vec2text finds sizes and tokenizer; by default told from the sizes.

    Raises:
        InputError: an unknown format. CheckpointError: a conversion that would change what the model computes, or a
        damaged source. StorageError: a full disk.
    """
    if format not in T5_FORMATS:
        raise InputError(f"unknown format '{format}': choose {' or '.join(T5_FORMATS)}")
    modules = {name: importlib.import_module(path) for name, path in T5_FORMATS.items()}
    own = next((name for name, module in modules.items() if module.recognise(source)), None)
    if own is None:
        raise CheckpointError(
            f"{source} is of no format that can be converted: give a folder of {' or '.join(modules)}"
        )
    checkpoint = modules[own].Checkpoint(source)
    net = checkpoint.network(Placement(torch.device("cpu"), _precision(checkpoint.tensors)))
    if own != format and net.config.corrector:
        raise CheckpointError(
            f"{source} is a corrector of {own}, which {format} would feed otherwise (a masked token in front of the "
            f"hypothesis in vec2text, none in nanoV2T), so that it would write other texts: train one with {format}"
        )
    if own != format:
        wide = net.config.embedding_dim if format == "vec2text" else net.t5.config.d_model
        _resize(net, wide, source)
        if format == "vec2text":
            backbone = backbone or _backbone(net, source)
    modules[format].save(
        net, folder, backbone=backbone or checkpoint.backbone, tokenizer=checkpoint.tokenizer(), spec=checkpoint.spec,
        max_tokens=checkpoint.length, embedder_tensors=checkpoint.embedder_tensors(),
    )  # fmt: skip


def _precision(tensors: Weights) -> torch.dtype:
    """The precision of a file's tensors."""
    return tensors[next(iter(tensors))].dtype


def _backbone(net: EncoderDecoderNetwork, source: Path) -> str:
    config = net.t5.config
    sizes = config.d_model, config.num_layers, config.d_ff
    if sizes not in BACKBONES:
        raise CheckpointError(
            f"vec2text builds its T5 by name, and none that it knows is of the sizes of {source}: give one on the hub "
            "that is with --backbone"
        )
    return BACKBONES[sizes]


def _resize(net: EncoderDecoderNetwork, hidden: int, source: Path) -> None:
    """Give a hypothesizer's projector another hidden width without changing its function."""
    first, second = net.target.layers()
    heard = second.weight.ne(0).any(dim=0).nonzero().flatten()  # units that something depends on
    if hidden == net.config.hidden:
        return
    if len(heard) > hidden:
        raise CheckpointError(
            f"{source}: the projector's hidden layer is {net.config.hidden} wide and would have to be {hidden}; "
            "narrowing it changes what it computes, so this model keeps its format"
        )
    net.config = replace(net.config, hidden=hidden)
    made = Projector(net.config, net.t5.config.d_model, net.t5.config.dropout_rate).to(first.weight.dtype)
    made.eval().requires_grad_(False)
    inner, outer = made.layers()
    for parameter in made.parameters():
        parameter.zero_()
    inner.weight[: len(heard)], inner.bias[: len(heard)] = first.weight[heard], first.bias[heard]
    outer.weight[:, : len(heard)] = second.weight[:, heard]
    outer.bias.copy_(second.bias)
    net.target = made
