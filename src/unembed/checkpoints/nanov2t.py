"""nanoV2T's format: `T5Generator` folders, stage 1 (hypothesizer) and stage 2 (corrector), read without nanoV2T.

Its embedder is Sentence-Transformers' GTR with Dense and Normalize, not the raw one of vec2text's checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unembed.checkpoints.t5 import T5Pair, network, tokenizer
from unembed.checkpoints.tensors import architecture, read_config, read_tensors
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import CheckpointError
from unembed.models.encoder_decoder import EncoderDecoderNetwork

ARCHITECTURE = "T5Generator"
LENGTH = 32
"""Content tokens that its models are trained on; texts are written with two more places, hypotheses read with one."""
PROJECTORS = {
    "target_projector.projector.": "target.",
    "draft_projector.projector.": "hypothesis.",
    "diff_projector.projector.": "difference.",
    "proj_ln.": "norm.",
}
"""Its names of the projectors → ours."""


def recognise(folder: Path) -> bool:
    """Whether `folder` looks like this format."""
    return architecture(folder) == ARCHITECTURE


def is_corrector(folder: Path) -> bool:
    return bool(read_config(folder).get("project_draft_embedding"))


def load_pair(hypothesizer: Path, corrector: Path | None, device: torch.device, dtype: torch.dtype | None) -> T5Pair:
    """The networks of one or two folders, with tokenizer and the spec of their embedder. Raises CheckpointError."""
    config = read_config(hypothesizer)
    first = _network(hypothesizer)
    second = None if corrector is None else _network(corrector)
    place: dict[str, Any] = {"device": device, "dtype": dtype or torch.float32}
    name = config.get("embedder_name_or_path")
    if not name:
        raise CheckpointError(f"{hypothesizer}/config.json names no embedder (embedder_name_or_path): copy it again")
    return T5Pair(
        first.to(**place),
        second.to(**place) if second else None,
        tokenizer(hypothesizer, "google-t5/t5-base"),
        EmbedderSpec(str(name), first.config.embedding_dim, cased=True),
        max_tokens=LENGTH + 2,
        hypothesis_tokens=LENGTH + 1,
    )


def _network(folder: Path) -> EncoderDecoderNetwork:
    t5, projectors = {}, {}
    for name, tensor in read_tensors(folder).items():
        name = name.removeprefix("_orig_mod.")  # of a compiled module, in mid-training files
        start = next((start for start in PROJECTORS if name.startswith(start)), None)
        if start is None:
            t5[name] = tensor
        else:
            projectors[PROJECTORS[start] + name.removeprefix(start)] = tensor
    return network(t5, projectors, folder, layer_norm="norm.weight" in projectors, masked_start=False)
