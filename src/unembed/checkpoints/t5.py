"""What the two T5 formats share: a T5 built from its tensors alone, its tokenizer, and networks from key maps.

Sizes are read from the tensors, not from a second checkpoint: config.json of a vec2text model names its backbone but
holds none of its sizes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unembed.checkpoints.tensors import fill, shape
from unembed.errors import CheckpointError, InputError
from unembed.models.encoder_decoder import EncoderDecoderModel, EncoderDecoderNetwork, ProjectionConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5Config, T5EncoderModel

    from unembed.embedders.spec import EmbedderSpec


@dataclass(frozen=True)
class T5Pair:
    """A hypothesizer, perhaps its corrector, and what both need."""

    hypothesizer: EncoderDecoderNetwork
    corrector: EncoderDecoderNetwork | None
    tokenizer: PreTrainedTokenizerBase
    spec: EmbedderSpec
    max_tokens: int
    hypothesis_tokens: int
    embedder: str | None = None
    """By which name the embedder is to be opened, where that is not the spec's id."""

    def model(self) -> EncoderDecoderModel:
        model = EncoderDecoderModel(
            self.hypothesizer, self.corrector, self.tokenizer, self.spec, max_tokens=self.max_tokens,
            hypothesis_tokens=self.hypothesis_tokens,
        )  # fmt: skip
        model.embedder = self.embedder
        return model


TIED = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Copies of shared.weight in T5 1.0: .bin files hold them, safetensors files do not."""
TIED_INPUTS = ("t5.encoder.embed_tokens.weight", "t5.decoder.embed_tokens.weight")
"""Copies of shared.weight in every T5, also where the output embeddings are their own (1.1)."""
SPEC = "embedder.json"
"""The embedder's spec in full, which neither format has a place for; other programs do not look at it."""


def t5_config(tensors: Mapping[str, Tensor], folder: Path) -> T5Config:
    """The config of a T5 from its state dict's shapes."""
    from transformers import T5Config

    bias = shape(tensors, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", folder)
    vocab, width = shape(tensors, "shared.weight", folder)
    inner = shape(tensors, "encoder.block.0.layer.0.SelfAttention.q.weight", folder)[0]
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in tensors
    feed = "wi_0" if gated else "wi"
    layers = {
        side: len({match[1] for name in tensors if (match := re.match(rf"{side}\.block\.(\d+)\.", name))})
        for side in ("encoder", "decoder")
    }
    head = tensors.get("lm_head.weight")
    tied = head is None or torch.equal(head, tensors["shared.weight"])
    return T5Config(
        vocab_size=vocab, d_model=width, d_kv=inner // bias[1], num_heads=bias[1],
        d_ff=shape(tensors, f"encoder.block.0.layer.1.DenseReluDense.{feed}.weight", folder)[0],
        num_layers=layers["encoder"], num_decoder_layers=layers["decoder"], relative_attention_num_buckets=bias[0],
        feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=tied,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip


def encoder(tensors: dict[str, Tensor], folder: Path) -> T5EncoderModel:
    """A T5 encoder alone, of tensors named as in its stack (embed_tokens, block.0…, final_layer_norm)."""
    from transformers import T5EncoderModel

    full = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    full["shared.weight"] = full.pop("encoder.embed_tokens.weight", torch.empty(0, 0))
    config: T5Config = t5_config(full, folder)
    made = T5EncoderModel(config)
    fill(made, full, folder, tied=TIED)
    made.encoder.embed_tokens.weight = made.shared.weight
    return made.eval().requires_grad_(False)


def network(
    t5_tensors: dict[str, Tensor],
    projectors: Mapping[str, Tensor],
    folder: Path,
    *,
    layer_norm: bool,
    masked_start: bool,
    feedback: bool = True,
) -> EncoderDecoderNetwork:
    """A network of a T5's tensors and those of its projectors: target.{0,3}.*, and for a corrector hypothesis.*,
    difference.* and, with `layer_norm`, norm.*. On the CPU, in the precision of the file, for inference."""
    from transformers import T5ForConditionalGeneration

    config = t5_config(t5_tensors, folder)
    hidden, dim = shape(projectors, "target.0.weight", folder)
    tokens, rest = divmod(shape(projectors, "target.3.weight", folder)[0], config.d_model)
    if rest:
        raise CheckpointError(f"{folder}: the projector's output is no multiple of the T5's width {config.d_model}")
    projection = ProjectionConfig(
        dim, tokens, hidden, corrector="difference.0.weight" in projectors, layer_norm=layer_norm,
        masked_start=masked_start, feedback=feedback,
    )  # fmt: skip
    net = EncoderDecoderNetwork(T5ForConditionalGeneration(config), projection)
    tensors = {**{f"t5.{name}": tensor for name, tensor in t5_tensors.items()}, **projectors}
    fill(net, tensors, folder, tied=[f"t5.{name}" for name in TIED] if config.tie_word_embeddings else ())
    net.t5.tie_weights()
    if config.tie_word_embeddings and net.t5.lm_head.weight.data_ptr() != net.t5.shared.weight.data_ptr():
        raise CheckpointError(f"{folder}: the output embeddings could not be tied to the input embeddings")
    return net.eval().requires_grad_(False)


def read_spec(folder: Path) -> EmbedderSpec | None:
    """The embedder of a model that was trained here; None in folders of other programs, which do not say it all."""
    from unembed.embedders.spec import EmbedderSpec

    try:
        return EmbedderSpec.from_dict(json.loads((folder / SPEC).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, InputError) as error:
        raise CheckpointError(f"{folder / SPEC} is damaged ({error}): copy the model again") from error


def write(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    spec: EmbedderSpec,
) -> None:
    """A model folder of either format. `tensors` without copies of the tied ones."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / SPEC).write_text(json.dumps(spec.to_dict(), indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)


def stored(net: EncoderDecoderNetwork, names: Mapping[str, str], t5: str) -> dict[str, Tensor]:
    """A network's tensors by their names on disk: `t5` before those of the T5 (copies of tied ones left out), and for
    the projectors our beginning of a name → theirs."""
    tied = [f"t5.{name}" for name in TIED] if net.t5.config.tie_word_embeddings else TIED_INPUTS
    out = {}
    for name, tensor in net.state_dict().items():
        if name.startswith("t5."):
            if name not in tied:
                out[t5 + name.removeprefix("t5.")] = tensor
        else:
            start = next(start for start in names if name.startswith(start))
            out[names[start] + name.removeprefix(start)] = tensor
    return out


def tokenizer(folder: Path, backbone: str) -> PreTrainedTokenizerBase:
    """The T5 tokenizer: in the model's folder, in a folder named like its backbone beside it, or by the backbone's
    name from the hub's cache or the hub. Raises CheckpointError with what to do when it is nowhere."""
    from transformers import AutoTokenizer

    places = [folder, folder.parent / backbone, folder.parent.parent / backbone]
    for place in places:
        if (place / "tokenizer.json").is_file() or (place / "spiece.model").is_file():
            return AutoTokenizer.from_pretrained(place)
    try:
        return AutoTokenizer.from_pretrained(backbone)
    except Exception as error:  # offline, absent: the library has a class for each
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{folder} has no tokenizer, and that of {backbone} cannot be fetched ({first}): copy {backbone}'s "
            "tokenizer.json into the folder"
        ) from error
