"""What can be said of a model's folder without loading it: for `unembed models info`, and as a model card."""

from __future__ import annotations

import json
import math
from pathlib import Path

from unembed.checkpoints import davae, nanov2t, native, onnx, prefix, vec2text
from unembed.checkpoints.tensors import Weights, read_config, read_tensors, shape
from unembed.embedders.spec import UNKNOWN, EmbedderSpec
from unembed.errors import CheckpointError
from unembed.models.onnx_runtime import OnnxModel

OWN = "unembed's own"
BYTES = ".safetensors", ".bin"
_BESIDE = {"guide": native.GUIDE, "lexicon": native.LEXICON}


def describe(folder: Path) -> dict[str, str]:
    """Family, sizes and embedder of a model. Raises CheckpointError for a folder of no known format."""
    if native.recognise(folder):
        try:
            config = read_config(folder)
            longest, spec = config["network"]["max_tokens"], EmbedderSpec.from_dict(config["embedder"])
            beside = {name: "yes" if file in config["sha256"] else "none" for name, file in _BESIDE.items()}
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{folder}/config.json is damaged ({error}): copy the model again") from error
        tensors = read_tensors(folder)
        count = sum(math.prod(entry.shape) for name, entry in tensors.entries.items() if not name.endswith(".scale"))
        sizes = {
            "format": OWN,
            "model": "hypothesizer and corrector in one network",
            "parameters": f"{count / 1e6:.1f}M",
            **beside,
            "longest text": f"{longest} tokens",
        }
        return sizes | _embedder(spec) | _bytes(folder)
    if prefix.recognise(folder):
        return _prefix(folder) | _bytes(folder)
    if davae.recognise(folder):
        return davae.facts(folder) | _embedder(davae.Checkpoint(folder).spec) | _bytes(folder)
    if onnx.recognise(folder):
        exported = OnnxModel.load(folder)
        corrects = "hypothesizer and corrector" if "correct" in exported.files else "hypothesizer"
        sizes = {"format": "ONNX", "model": corrects, "longest text": f"{exported.max_tokens} tokens"}
        return sizes | _embedder(exported.spec) | _bytes(folder)
    modules = {"vec2text": vec2text, "nanoV2T": nanov2t}
    name, module = next(((n, m) for n, m in modules.items() if m.recognise(folder)), (None, None))
    if module is None:
        raise CheckpointError(f"{folder} holds no model of a known format")
    checkpoint = module.Checkpoint(folder)
    return _t5(folder, str(name), checkpoint, module.is_corrector(folder)) | _bytes(folder)


def _prefix(folder: Path) -> dict[str, str]:
    config, wiring, longest, spec = prefix.describe(folder)
    count = sum(math.prod(entry.shape) for entry in read_tensors(folder).entries.values())
    return {
        "format": "causal language model",
        "model": "hypothesizer and corrector in one network" if wiring.corrector else "hypothesizer",
        "parameters": f"{count / 1e6:.1f}M",
        "language model": str(config.get("model_type")),
        "vector": f"{wiring.tokens} projected positions" if wiring.tokens else "one position, padded with zeros",
        "longest text": f"{longest} tokens",
    } | _embedder(spec)


def _t5(
    folder: Path, name: str, checkpoint: vec2text.Checkpoint | nanov2t.Checkpoint, corrects: bool
) -> dict[str, str]:
    start = "encoder_decoder." if name == "vec2text" else "t5."
    tensors: Weights = checkpoint.tensors
    bundled = tensors.part("embedder.").entries
    copies = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    counted = [
        math.prod(entry.shape)
        for key, entry in tensors.entries.items()
        if not key.startswith("embedder.") and key.removeprefix(start) not in copies
    ]
    width = shape(tensors, f"{start}shared.weight", folder)[1]
    layers = len(
        {key.split(".block.")[1].split(".")[0] for key in tensors.part(f"{start}encoder").entries if ".block." in key}
    )
    return {
        "format": name,
        "model": "corrector: needs a hypothesizer" if corrects else "hypothesizer",
        "parameters": f"{sum(counted) / 1e6:.1f}M"
        + (f", and {sum(math.prod(e.shape) for e in bundled.values()) / 1e6:.1f}M of the embedder" if bundled else ""),
        "T5": f"{width} wide, {layers} layers",
        "longest text": f"{checkpoint.length} tokens",
    } | _embedder(checkpoint.spec)


def _embedder(spec: EmbedderSpec) -> dict[str, str]:
    how = ["pooling unknown" if spec.pooling == UNKNOWN else f"{spec.pooling} pooling"]
    how.append("normalised" if spec.normalized else "not normalised")
    if spec.prefix:
        how.append(f"prefix {spec.prefix!r}")
    return {"embedder": f"{spec.id} ({', '.join(how)})", "dimensions": str(spec.dim)}


def _bytes(folder: Path) -> dict[str, str]:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in BYTES)
    return {"weights": f"{size / 1e6:.1f} MB"}


def card(folder: Path, name: str) -> str:
    """A model card: what the model is, how it is used, its figures where `figures.json` lies beside it. It says nothing
    of a licence or of the training data, which only the author knows."""
    facts = describe(folder)
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    embedder = facts["embedder"].split(" (")[0]
    text = f"""---
library_name: unembed
tags: [embedding-inversion, unembed]
---
# {name.rpartition("/")[2]}

Turns vectors of `{embedder}` back into text.

| | |
|---|---|
{rows}

## Use

    unembed models info {name}
    unembed invert --text "any sentence" --model {name}

It recovers what people wrote from vectors that may have been thought unreadable. Use it on data that is yours, or that
you were asked to test.
"""
    return text + _figures(folder / "figures.json")


def _figures(path: Path) -> str:
    """A table of the reports of `unembed evaluate` in a file; empty where there is none."""
    if not path.is_file():
        return ""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            f"| {', '.join(report['settings']['data'])} | {length} | {report['settings']['search']['steps']} | "
            f"{part['n']} | {summary['token_f1']['value']:.2f} | {100 * summary['exact_uncased']['value']:.0f} |"
            for report in (found if isinstance(found, list) else [found])
            for length, part in report["lengths"].items()
            for summary in [part["systems"]["inverter"]["summary"]]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no report of unembed evaluate ({error}): remove it or make it again"
        ) from error
    head = (
        "\n## Figures\n\n| texts | tokens | steps | n | token F1 | exact up to case, % |\n|---|--:|--:|--:|--:|--:|\n"
    )
    return head + "\n".join(rows) + "\n"
