"""How vec2text and nanoV2T name a network's tensors, and what unembed calls them: t5.*, target.{0,3}.*, and for a
corrector hypothesis.*, difference.* and norm.*. Nothing of a framework is needed here."""

from __future__ import annotations

from collections.abc import Iterable

VEC2TEXT = {
    "encoder_decoder.": "t5.",
    "embedding_transform_1.": "target.",
    "embedding_transform_2.": "difference.",
    "embedding_transform_3.": "hypothesis.",
    "embedding_transform.": "target.",
    "layernorm.": "norm.",
}
"""How its names begin → how ours do."""
NANOV2T = {
    "target_projector.projector.": "target.",
    "draft_projector.projector.": "hypothesis.",
    "diff_projector.projector.": "difference.",
    "proj_ln.": "norm.",
}
"""Its names of the projectors → ours; all else is the T5's."""


def from_vec2text(names: Iterable[str], corrects: bool) -> dict[str, str]:
    """Our names → those of a vec2text file, its embedder's left out."""
    out = {}
    for name, old in _modern(names, corrects).items():
        start = next((start for start in VEC2TEXT if name.startswith(start)), "")
        out[VEC2TEXT.get(start, "") + name.removeprefix(start)] = old
    return out


def from_nanov2t(names: Iterable[str]) -> dict[str, str]:
    """Our names → those of a nanoV2T file."""
    out = {}
    for old in names:
        name = old.removeprefix("_orig_mod.")  # of a compiled module, in mid-training files
        start = next((start for start in NANOV2T if name.startswith(start)), None)
        out[f"t5.{name}" if start is None else NANOV2T[start] + name.removeprefix(start)] = old
    return out


def to_vec2text(corrects: bool) -> dict[str, str]:
    """How our names begin → how those of a vec2text file do."""
    if not corrects:
        return {"target.": "embedding_transform.", "t5.": "encoder_decoder."}
    return {start: name for name, start in VEC2TEXT.items()} | {"target.": "embedding_transform_1."}


def to_nanov2t() -> dict[str, str]:
    """How our names begin → how those of a nanoV2T file do."""
    return {start: name for name, start in NANOV2T.items()} | {"t5.": ""}


def _modern(names: Iterable[str], corrects: bool) -> dict[str, str]:
    """Today's names → those of a file, without the embedder's. Three older ways of naming are brought to today's: the
    second linear layer as number 2 (before there was a dropout between), one projector for all three vectors of a
    corrector, and no layer norm."""
    out = {}
    for old in names:
        if old.startswith("embedder."):
            continue
        base, _, rest = old.partition(".")
        number, _, kind = rest.partition(".")
        name = f"{base}.3.{kind}" if base.startswith("embedding_transform") and number == "2" else old
        if corrects and base == "embedding_transform":
            for vector in (1, 2, 3):
                out[f"embedding_transform_{vector}.{name.partition('.')[2]}"] = old
        else:
            out[name] = old
    return out
