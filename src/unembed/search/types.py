"""What a search takes and gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unembed.errors import InputError

THOROUGH: dict[str, Any] = {"steps": 80, "patience": 16, "continued": 16}
"""A search that goes on for longer, and looks within words: two to four times the time (docs/lab.md)."""


@dataclass(frozen=True)
class SearchConfig:
    """How hard to look. The defaults are what `unembed invert` does, but for what a model's family asks for where
    nothing else was said (`InversionModel.search_fields`)."""

    steps: int = 20
    """Rounds of correct → re-embed → keep the best. 0: the hypothesizer alone."""
    consensus: int = 0
    """Without rounds: samples (32, say). At least two queries decide between the one that agrees best with the others
    and a text that is put together from all. 0 or 1: the greedy text."""
    sequence_beam_width: int = 4
    """Distinct hypotheses kept from round to round; memory grows with it, linearly."""
    budget: int | None = None
    """Embedder queries (distinct texts embedded) allowed for each target; None leaves it to `steps`."""
    hypotheses: int = 16
    """Texts the hypothesizer samples for each target, beside the greedy one, before the first round, when there are
    rounds."""
    corrections: int = 4
    """Corrections written of each kept hypothesis in a round."""
    sample_corrections: bool = True
    """Draw the corrections. False: the likeliest by a beam search, and of each hypothesis once, as a second time would
    bring the same; without other moves a target is given up when all that it keeps are corrected."""
    variations: int = 4
    """One-token changes of each kept hypothesis in a round, drawn from one forward pass of the network along it."""
    screened: int = 64
    """Texts of a round chosen among thousands by what is known of the target's neighbourhood, without the network
    (`search.screening`)."""
    screened_from: int = 30
    """The texts, the nearest ones, that are varied for screening. 0: the beam, the best of it half of the time. Many
    keep a search from ending where one text ends."""
    forecast: int = 3000
    """Variations of a round that are looked at for screening; more cost no query."""
    continued: int = 0
    """Of the screened texts, those with another piece in one word, where the embedder shows its tokens: rare names are
    of several. With any, what each token does is measured once for each embedder, some thousand texts."""
    polished: int = 64
    """Texts tried in rounds after one without progress that are the best hypothesis with one change, of all there are
    the most promising."""
    renumbered: int = 16
    """Texts tried in rounds after one without progress that are the best hypothesis with another digit."""
    temperature: float = 0.8
    top_k: int = 64
    top_p: float = 0.95
    prior_weight: float = 0.0007
    """λ: score = cosine + λ · log p(text), the model's unconditional prior in nats; where the hypothesizer writes more
    than 8 words, λ falls as 8 / words."""
    patience: int = 8
    """Rounds without a better score after which a target is given up."""
    seed: int = 0
    targets_at_once: int = 32
    """Targets searched together; more is faster and takes more memory."""

    def __post_init__(self) -> None:
        least = {
            "steps": 0, "consensus": 0, "sequence_beam_width": 1, "hypotheses": 0, "corrections": 0, "variations": 0,
            "screened": 0, "screened_from": 0, "forecast": 0, "continued": 0, "polished": 0, "renumbered": 0,
            "top_k": 0, "patience": 1, "seed": 0, "targets_at_once": 1,
        }  # fmt: skip
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InputError(f"{name} is {getattr(self, name)}: it must be {lowest} or more")
        if self.budget is not None and self.budget < 1:
            raise InputError(
                f"budget is {self.budget}: at least 1 embedder query a target is needed to know the cosine"
            )
        if not self.prior_weight >= 0:
            raise InputError(f"prior_weight is {self.prior_weight}: it must be 0 or more")
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise InputError("temperature must be above 0 and top_p above 0 and at most 1")

    def filled(self, fields: Mapping[str, Any]) -> SearchConfig:
        """The same, and `fields` where it is silent, which is where it has the default."""
        silent = SearchConfig()
        return replace(self, **{k: v for k, v in fields.items() if getattr(self, k) == getattr(silent, k)})

    def most_queries(self) -> int:
        """Embedder queries that a target may cost at most; searches that end early need far fewer."""
        per_round = self.sequence_beam_width * (self.corrections + self.variations) + self.screened
        per_round += self.polished + self.renumbered
        without = max(2 if self.consensus > 1 else 1, self.sequence_beam_width)
        most = 1 + self.hypotheses + self.steps * per_round if self.steps else without
        return min(most, self.budget or most)


@dataclass(frozen=True)
class Candidate:
    """A text that was proposed and re-embedded."""

    text: str
    cosine: float
    """Of its embedding to the target."""
    score: float
    """cosine + λ · log p."""
    exact: bool
    """Its embedding is the target within the embedder's own numerical noise."""
    origin: str
    """Which move made it: hypothesis, correction, variation, screening, polishing or renumbering."""
    step: int
    """Round in which it was found; 0 is the hypothesizer."""


@dataclass(frozen=True)
class TracePoint:
    """Where a search stood after a round."""

    step: int
    queries: int
    cosine: float
    score: float
    text: str
    origin: str


@dataclass(frozen=True)
class Inversion:
    """What was found for one target."""

    text: str
    cosine: float
    exact: bool
    """Verified: re-embedding `text` reproduces the target within the embedder's measured noise."""
    steps: int
    """Rounds used."""
    queries: int
    """Distinct texts embedded for this target."""
    stopped: str
    """Why the search ended: exact, steps, budget or stalled."""
    candidates: list[Candidate] = field(default_factory=list)
    """The best distinct candidates, best first; the first is the result."""
    trace: list[TracePoint] = field(default_factory=list)
    agreement: float = 0.0
    """Mean token F1 of the text with what the hypothesizer wrote in its samples: how sure the model is."""
    confidence: float | None = None
    """P(token F1 ≥ 0.8), calibrated on held-out texts (`unembed.confidence`); None where a model has no calibration."""
    confidence_exact: float | None = None
    """P(the text itself, up to case), likewise."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
