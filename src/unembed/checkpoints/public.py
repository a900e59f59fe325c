"""The public checkpoints that unembed can read, by short name. What is said of them here is what their names and pages
say; what counts is their config.json, which is read when they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

UNSTATED = "not stated"
RAW_GTR = "gtr-t5-base, raw: no Dense, no Normalize"
ST_GTR = "gtr-t5-base of Sentence-Transformers"


@dataclass(frozen=True)
class Public:
    """A checkpoint, or a pair of hypothesizer and corrector."""

    name: str
    ids: tuple[str, ...]
    """On the hub."""
    what: str
    embedder: str
    licence: str = UNSTATED


def _noise(name: str, embedder: str) -> Public:
    length, _, level = name.partition("-")[2].partition("-noise-")
    owner = "jxm" if length == "32" else "vec2text"
    return Public(
        name, (f"{owner}/{name}",), f"hypothesizer of {length.split('-')[-1]} tokens, noise {level}", embedder
    )


PUBLIC = (
    Public("gtr-base", ("jxm/gtr__nq__32", "jxm/gtr__nq__32__correct"), "pair, 32 tokens, NQ", RAW_GTR),
    Public(
        "gtr-base-st",
        ("ielabgroup/vec2text_gtr-base-st_inversion", "ielabgroup/vec2text_gtr-base-st_corrector"),
        "pair",
        ST_GTR,
        "Apache-2.0",
    ),
    Public(
        "text-embedding-ada-002",
        (
            "jxm/vec2text__openai_ada002__msmarco__msl128__hypothesizer",
            "jxm/vec2text__openai_ada002__msmarco__msl128__corrector",
        ),
        "pair, 128 tokens, MS MARCO",
        "OpenAI text-embedding-ada-002",
    ),
    Public(
        "gtr-nq-32-5epoch",
        ("hallisky/gtr-nq-32-base-5epoch", "hallisky/gtr-nq-32-corrector-5epoch"),
        "pair, 32 tokens, NQ",
        "gtr-base",
    ),
    Public(
        "ada-msmarco-128-5epoch",
        ("hallisky/ada-msmarco-128-base-5epoch",),
        "hypothesizer, 128 tokens, MS MARCO",
        "OpenAI text-embedding-ada-002",
    ),
    Public(
        "minilm-msmarco-128",
        ("jxm/sentence-transformers_all-MiniLM-L6-v2__msmarco__128",),
        "hypothesizer, 128 tokens, MS MARCO",
        "all-MiniLM-L6-v2",
    ),
    Public(
        "gtr_t5_nq_32_stage2",
        ("Hannibal046/gtr_t5_nq_32_stage2",),
        "corrector of nanoV2T, 32 tokens, NQ; needs a stage 1",
        ST_GTR,
    ),
    Public(
        "randeng-davae",
        ("IDEA-CCNL/Randeng-DAVAE-1.2B-General-Chinese",),
        "auto-encoder of Chinese texts, WuDao",
        "its own latents",
    ),
    *(_noise(f"{model}-32-noise-{level}", f"{model}-base") for model in ("gtr", "gte") for level in
      ("0.1", "0.01", "0.001", "0.0001")),
    *(_noise(f"{model}-512-noise-0.00001", f"{model}-base") for model in ("gtr", "gte")),
    _noise("nomic-512-noise-0.00001", "nomic-embed-text-v1"),
    _noise("sbert-L6-128-noise-0.00001", "all-MiniLM-L6-v2"),
    _noise("sbert-L12-128-noise-0.00001", "all-MiniLM-L12-v2"),
)  # fmt: skip
PAIRS = {known.name: (known.ids[0], known.ids[1]) for known in PUBLIC if len(known.ids) == 2}
"""Short name → public hypothesizer and corrector."""
SINGLES = {known.name: known.ids[0] for known in PUBLIC if len(known.ids) == 1}
"""Short name → public hypothesizer or corrector that stands alone."""
