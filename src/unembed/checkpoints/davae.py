"""DAVAE's format: folders of `DAVAEModel` as IDEA-CCNL/Randeng-DAVAE-1.2B-General-Chinese is, without fengshen.

config.json (sizes of encoder and decoder, and how to write), weights (.bin or safetensors, float16 in public),
vocab.txt (the encoder's), spiece.model (the decoder's). A size that config.json does not name is read from the tensors,
and one that it names is held against them.

What is written here has three things more, which the original does not look at: `quirks` and `embedder_spec` in
config.json, and tensors `latent_map.*`, where there is a map from an embedder's vectors to latents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unembed.checkpoints.tensors import Weights, architecture, digest, fill, read_config, read_tensors
from unembed.checkpoints.writing import SHARD_SIZE, replacing
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError, InputError
from unembed.models.davae.generation import Quirks, Settings
from unembed.models.davae.model import DAVAEModel, LatentMap
from unembed.models.davae.network import DAVAEConfig, DAVAENetwork, DecoderConfig, frequencies
from unembed.models.davae.tokenizer import PieceTokenizer
from unembed.models.davae.vae import TextVAE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARCHITECTURE = "DAVAEModel"
PREFIXES = {
    "vae_model.encoder.linear.": "posterior.",
    "vae_model.encoder.": "bert.",
    "vae_model.decoder.transformer.": "decoder.",
    "vae_model.decoder.": "decoder.",
    "vae_model.Disc.": "discriminator.",
}
"""Its names → ours, the longer ones first."""
MAP = "latent_map."
IGNORED = "encoder.embeddings.position_ids"
WAVES = "vae_model.decoder.transformer.position_embeddings.inv_freq"
ENCODER = ("bert.", "posterior.")
BERT = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "layer_norm_eps",
)  # fmt: skip
"""What of the encoder's config a BERT is made of."""
SIZES = {
    "encoder.vocab_size": ("bert.embeddings.word_embeddings.weight", 0),
    "encoder.hidden_size": ("bert.embeddings.word_embeddings.weight", 1),
    "encoder.max_position_embeddings": ("bert.embeddings.position_embeddings.weight", 0),
    "encoder.type_vocab_size": ("bert.embeddings.token_type_embeddings.weight", 0),
    "encoder.intermediate_size": ("bert.encoder.layer.0.intermediate.dense.weight", 0),
    "decoder.vocab_size": ("decoder.word_embeddings.weight", 0),
    "decoder.hidden_size": ("decoder.word_embeddings.weight", 1),
    "decoder.num_attention_heads": ("decoder.r_w_bias", 0),
    "latent_size": ("decoder.linear_emb.weight", 1),
}
"""Field of config.json → the tensor and axis that must have this size."""
LAYERS = {"encoder.num_hidden_layers": "bert.encoder.layer.", "decoder.num_layers": "decoder.layers."}
FOREIGN = {"top_k": 50, "top_p": 1.0}
"""What the original takes where its config.json is silent, if not what Settings does: transformers' own defaults."""


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    return architecture(folder) == ARCHITECTURE


def load(folder: str | Path, device: torch.device, dtype: torch.dtype | None = None) -> DAVAEModel:
    """Read a folder for inference, in float32 unless `dtype` says otherwise. Raises CheckpointError."""
    checkpoint = Checkpoint(Path(folder))
    model = checkpoint.model(device, dtype or torch.float32)
    model.digest = digest([checkpoint.folder])
    return model


class Checkpoint:
    """One folder. Its files are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> dict[str, Any]:
        config = read_config(self.folder)
        for part in ("encoder", "decoder"):
            if not isinstance(config.get(part), dict):
                raise CheckpointError(f"{self.folder}/config.json says nothing of the {part}: copy the model again")
        return config

    @cached_property
    def stored(self) -> Weights:
        """In the names of the file."""
        return read_tensors(self.folder)

    @cached_property
    def tensors(self) -> Weights:
        """In our names: the network's, and those of `latent_map`."""
        names = {}
        for old in self.stored:
            if not old.endswith(IGNORED) and old != WAVES:
                start = next((start for start in PREFIXES if old.startswith(start)), "")
                names[PREFIXES.get(start, "") + old.removeprefix(start)] = old
        return self.stored.renamed(names)

    def _size(self, name: str, axis: int) -> int:
        if name not in self.tensors.entries:
            raise CheckpointError(
                f"{self.folder} lacks the tensor {theirs(name)}: the model folder is incomplete; copy it again"
            )
        return self.tensors.entries[name].shape[axis]

    @cached_property
    def sizes(self) -> DAVAEConfig:
        """Of the network. Raises CheckpointError where config.json and the tensors contradict each other."""
        config = self.config
        found = {field: self._size(*place) for field, place in SIZES.items()}
        for field, start in LAYERS.items():
            numbers = {name.removeprefix(start).split(".")[0] for name in self.tensors if name.startswith(start)}
            found[field] = len(numbers)
        for field, size in found.items():
            part, _, key = field.rpartition(".")
            said = (config[part] if part else config).get(key, size)
            if said != size:
                where = theirs(SIZES[field][0]) if field in SIZES else f"{theirs(LAYERS[field])}*"
                raise CheckpointError(
                    f"{self.folder}: config.json says that {field} is {said}, and the tensor {where} says {size}: copy "
                    "both files from one place"
                )
        bert, decoder = dict(config["encoder"]), dict(config["decoder"])
        bert |= {field.removeprefix("encoder."): size for field, size in found.items() if field.startswith("encoder.")}
        decoder |= {field.removeprefix("decoder."): s for field, s in found.items() if field.startswith("decoder.")}
        if bert["hidden_size"] % int(bert.get("num_attention_heads", 12)):
            raise CheckpointError(f"{self.folder}/config.json: the encoder's heads do not divide its hidden_size")
        return DAVAEConfig(
            {key: bert[key] for key in BERT if key in bert},
            DecoderConfig(**{key: decoder[key] for key in DecoderConfig.__dataclass_fields__ if key in decoder}),
            found["latent_size"],
        )

    @property
    def settings(self) -> Settings:
        given = FOREIGN | {key: value for key, value in self.config.items() if key in Settings.__dataclass_fields__}
        try:
            return Settings(**given)
        except (InputError, TypeError) as error:
            raise CheckpointError(f"{self.folder}/config.json cannot be used ({error}): mend it") from error

    @property
    def quirks(self) -> Quirks:
        try:
            return Quirks(**self.config.get("quirks", {}))
        except TypeError as error:
            raise CheckpointError(f"{self.folder}/config.json names unknown quirks ({error}): mend it") from error

    @property
    def spec(self) -> EmbedderSpec:
        """The embedder that is inverted: the one of the map, or without a map the model's own encoder."""
        said = self.config.get("embedder_spec")
        if f"{MAP}1.weight" in self.tensors.entries:
            if said is None:
                raise CheckpointError(f"{self.folder} holds a map, and config.json no embedder_spec: copy it again")
            return EmbedderSpec.from_dict(said)
        return self.own_spec

    @property
    def own_spec(self) -> EmbedderSpec:
        """Of the latents' means as vectors (`embedders.davae`)."""
        longest = self.sizes.encoder["max_position_embeddings"]
        return EmbedderSpec(
            f"checkpoint:{self.folder}", self.sizes.latent_size, pooling="cls", normalized=False, max_tokens=longest
        )

    def reader(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer."""
        from transformers import BertTokenizer

        if not (self.folder / "vocab.txt").is_file():
            raise CheckpointError(f"{self.folder}/vocab.txt is missing: the encoder cannot read without; copy it again")
        return BertTokenizer.from_pretrained(self.folder)

    def pieces(self) -> PieceTokenizer:
        pieces = PieceTokenizer(self.folder / "spiece.model")
        if pieces.size > self.sizes.decoder.vocab_size:
            raise CheckpointError(
                f"{pieces.path} has {pieces.eos_id} pieces and needs 3 ids more, and the decoder knows "
                f"{self.sizes.decoder.vocab_size}: it belongs to another model"
            )
        return pieces

    def network(
        self, device: torch.device, dtype: torch.dtype = torch.float32, parts: tuple[str, ...] = ("",)
    ) -> DAVAENetwork:
        """For inference. Of its tensors, those whose name begins with one of `parts`; the rest is left out."""
        sizes = self.sizes
        with torch.device("meta"):
            net = DAVAENetwork(sizes)
        own = Weights({n: e for n, e in self.tensors.entries.items() if not n.startswith(MAP)}, self.tensors.reader)
        fill(net, own, self.folder, {}, lambda name: device if name.startswith(parts) else None, dtype)
        # Buffers are in no file, but for the frequencies.
        waves = self.stored[WAVES] if WAVES in self.stored.entries else frequencies(sizes.decoder.hidden_size)
        net.decoder.frequencies = waves.to(device)
        positions = torch.arange(sizes.encoder["max_position_embeddings"], device=device)[None]
        net.bert.embeddings.position_ids = positions
        net.bert.embeddings.token_type_ids = torch.zeros_like(positions)
        return net.eval()

    def vae(self, device: torch.device, dtype: torch.dtype = torch.float32) -> TextVAE:
        return TextVAE(self.network(device, dtype), self.reader(), self.pieces(), self.settings, self.quirks)

    def latent_map(self, device: torch.device) -> LatentMap | None:
        """In float32: it is small."""
        tensors = self.tensors.part(MAP)
        if not tensors.entries:
            return None
        hidden, dim = self._size(f"{MAP}1.weight", 0), self._size(f"{MAP}1.weight", 1)
        latent_map = LatentMap(dim, hidden, self.sizes.latent_size)
        fill(latent_map, tensors, self.folder, {}, lambda name: device, torch.float32)
        return latent_map.eval()

    def model(self, device: torch.device, dtype: torch.dtype = torch.float32) -> DAVAEModel:
        return DAVAEModel(self.vae(device, dtype), self.latent_map(device), self.spec)


def theirs(name: str) -> str:
    """A tensor's name in the file."""
    if name.startswith(MAP):
        return name
    if name.startswith("decoder.") and not name.startswith("decoder.word_embeddings."):
        return "vae_model.decoder.transformer." + name.removeprefix("decoder.")
    old, new = next((old, new) for old, new in PREFIXES.items() if name.startswith(new) and "transformer" not in old)
    return old + name.removeprefix(new)


def save(
    net: DAVAENetwork,
    folder: str | Path,
    *,
    reader: PreTrainedTokenizerBase,
    pieces: PieceTokenizer,
    settings: Settings,
    quirks: Quirks,
    latent_map: LatentMap | None = None,
    spec: EmbedderSpec | None = None,
    training: Mapping[str, Any] | None = None,
    weights: Mapping[str, Tensor] | None = None,
    card: str = "",
    shard_size: str | int = SHARD_SIZE,
) -> None:
    """Write a model folder in the precision that the network has; an older model there is replaced as a whole.

    Args:
        net: all of it in memory.
        folder: to be made.
        reader, pieces: the tokenizers.
        settings, quirks: how it writes.
        latent_map, spec: the map and the embedder that it is of; both or none.
        training: further fields of config.json (`dim_target_kl`, `length_weighted_loss`).
        weights: in place of those in net and latent_map, by the same names, where they are spread over processes.
        card: README.md.
        shard_size: largest file of weights.

    Raises:
        StorageError: a full disk; what was there before is still there.
    """
    from huggingface_hub import save_torch_state_dict

    own = net.state_dict() | ({MAP + name: t for name, t in latent_map.state_dict().items()} if latent_map else {})
    tensors = {theirs(name): tensor.detach().cpu() for name, tensor in (weights or own).items()}
    tensors[WAVES] = net.decoder.frequencies.cpu()
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURE],
        "encoder": {"model_type": "bert", **net.config.encoder},
        "decoder": {"relative_encoding": True, "max_memory_length": 0, **asdict(net.config.decoder)},
        "latent_size": net.config.latent_size,
        "torch_dtype": str(net.posterior.weight.dtype).removeprefix("torch."),
        **asdict(settings),
        **(training or {}),
        "quirks": asdict(quirks),
    }
    if spec is not None:
        config["embedder_spec"] = spec.to_dict()
    with replacing(Path(folder), recognise, ARCHITECTURE) as made:
        save_torch_state_dict(tensors, made, max_shard_size=shard_size, metadata={"format": "pt"})
        (made / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        words = sorted(reader.get_vocab().items(), key=lambda pair: pair[1])
        (made / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
        pieces.save(made / "spiece.model")
        if card:
            (made / "README.md").write_text(card, encoding="utf-8")


def facts(folder: Path) -> dict[str, str]:
    """What `unembed models info` shows of a folder, but for its embedder and the size of its files."""
    checkpoint = Checkpoint(folder)
    sizes, count = checkpoint.sizes, sum(math.prod(entry.shape) for entry in checkpoint.tensors.entries.values())
    decoder = sizes.decoder
    return {
        "format": "DAVAE",
        "model": "auto-encoder"
        + (" with a map from vectors" if f"{MAP}1.weight" in checkpoint.tensors.entries else ""),
        "parameters": f"{count / 1e6:.1f}M",
        "encoder": f"{sizes.encoder['hidden_size']} wide, {sizes.encoder['num_hidden_layers']} layers",
        "decoder": f"{decoder.hidden_size} wide, {decoder.num_layers} layers",
        "latent": f"{sizes.latent_size} numbers",
        "longest text": f"{checkpoint.settings.max_out_length - 1} tokens",
    }
