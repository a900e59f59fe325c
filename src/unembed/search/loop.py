"""The inversion loop: hypothesise → re-embed → score → correct, for many targets at once, each with its own budget.

Notable:
- It takes any model and any embedder through their interfaces and knows none by name.
- Each distinct text is embedded once for a target; what the embedder cannot distinguish counts as one text.
- Targets that are verified exact, have spent their budget or have stopped improving leave the batch at once.
- All that was asked is learned from: see `unembed.search.screening`.
- The result is spelled as the prior likes it: see `unembed.search.spelling`.

Differences from vec2text (EMNLP 2023, §3): the early stop works, the best candidate ever seen is kept, memory grows
with the beam and not with its square, and exactness is verified instead of assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from unembed.embedders import Embedder
from unembed.embedders.vectors import unit
from unembed.models.base import GREEDY, InversionModel, Sampling
from unembed.scripts import pieces
from unembed.search.consensus import agreement, by_consensus
from unembed.search.continuations import continuations
from unembed.search.edits import renumbered
from unembed.search.screening import Neighbourhood
from unembed.search.spelling import spelled
from unembed.search.types import Candidate, Inversion, SearchConfig, TracePoint

KNOWN = 1000
"""Candidates remembered with their embeddings, the nearest ones, where the next are screened."""
EXPECTED = 6
"""Words that a correction is told to be lacking by all that was asked; others the model finds itself."""
PRIOR_WORDS = 8
"""Up to so many words the prior counts as the sum over them, beyond in proportion less: the cosine does not grow with
the length, a sum of log-probabilities does (docs/lab.md)."""
LIKELIER = 10.0
"""Nats by which a text may be likelier than all before it; it is read by the prior if that would bring it into the
beam."""


@dataclass
class Proposal:
    """A text to be embedded, and the move that made it."""

    text: str
    origin: str


@dataclass
class Target:
    """The state of one search. Only the beam and, where texts are screened or polished, the `KNOWN` nearest
    keep embeddings."""

    index: int
    vector: np.ndarray
    samples: list[str] = field(default_factory=list)
    """What the hypothesizer wrote."""
    words: float = 1.0
    """How many those have on average."""
    likeliest: float = -np.inf
    """The log p of the likeliest text that the prior has read, in nats."""
    seen: set[str] = field(default_factory=set)
    corrected: set[str] = field(default_factory=set)
    """Texts whose likeliest corrections were written."""
    reserve: list[tuple[Candidate, np.ndarray]] = field(default_factory=list)
    """The best that fell out of the beam before that, as many as the beam is wide, with their embeddings."""
    known: list[tuple[Candidate, np.ndarray]] = field(default_factory=list)
    """The nearest candidates with their embeddings, of length 1, where the next are screened."""
    beam: list[Candidate] = field(default_factory=list)
    beam_vectors: list[np.ndarray] = field(default_factory=list)
    queries: int = 0
    step: int = 0
    since_better: int = 0
    stopped: str = ""
    trace: list[TracePoint] = field(default_factory=list)


class Search:
    """One model, one embedder, one config; `run` inverts any number of targets."""

    def __init__(self, model: InversionModel, embedder: Embedder, config: SearchConfig, tolerance: float) -> None:
        self.model, self.embedder, self.config, self.tolerance = model, embedder, config, tolerance
        self.sampling = Sampling(config.temperature, config.top_k, config.top_p)

    def run(self, targets: np.ndarray, first: int = 0) -> Iterator[Inversion]:
        """Yield an Inversion for each row of targets float32 [n, d], in order. `first` numbers the rows for seeding."""
        for start in range(0, len(targets), self.config.targets_at_once):
            rows = targets[start : start + self.config.targets_at_once]
            states = [Target(first + start + i, row) for i, row in enumerate(rows)]
            self._search(states)
            yield from (self._result(state) for state in states)

    def _search(self, states: list[Target]) -> None:
        self._judge(states, self._hypothesise(states))
        while active := [state for state in states if not state.stopped]:
            for state in active:
                state.step += 1
            self._judge(active, self._improve(active))

    # Proposing

    def _hypothesise(self, states: list[Target]) -> list[list[Proposal]]:
        """The greedy hypothesis of each target and, where there will be something to choose from, samples. A consensus
        is made without the embedder: only what agrees best with all is asked about."""
        config = self.config
        consensus = config.consensus > 1 and not config.steps
        targets = np.stack([state.vector for state in states])
        if consensus:
            more = max(config.consensus, config.sequence_beam_width) - 1
        else:
            more = config.hypotheses if config.steps else config.sequence_beam_width - 1
            more = min(more, (config.budget or more + 1) - 1)
        rows = self.model.hypothesize(targets, 1, GREEDY)
        if more:
            sampled = self.model.hypothesize(targets, more, self.sampling, self._seed(states, 0))
            rows = [[*greedy, *row] for greedy, row in zip(rows, sampled, strict=True)]
        for state, row in zip(states, rows, strict=True):
            state.samples = [hypothesis.text for hypothesis in row]
            state.words = float(np.mean([len(pieces(text)) for text in state.samples] or [1]))
        most = max(2, config.sequence_beam_width)  # what is put together may read worse: the embedder has the last word
        asked = [by_consensus(state.samples)[:most] if consensus else state.samples for state in states]
        return [[Proposal(text, "hypothesis") for text in row] for row in asked]

    def _improve(self, states: list[Target]) -> list[list[Proposal]]:
        """Proposals of one round: corrections and variations of every beam member, and what needs no network."""
        config, step = self.config, states[0].step
        seed = self._seed(states, step)
        out = self._sample_again(states, seed)
        members = [(i, member) for i, state in enumerate(states) for member in range(len(state.beam))]
        drafts = [self._to_correct(state) if config.corrections else [] for state in states]
        around = [self._look_around(*pair) for pair in zip(states, drafts, strict=True)]
        chosen = [(i, *pair) for i, row in enumerate(drafts) for pair in row]
        if chosen:
            sampling = self.sampling if config.sample_corrections else replace(GREEDY, beams=config.corrections)
            kept = _columns([(states[i].vector, candidate.text, vector) for i, candidate, vector in chosen])
            hints: dict[str, Any] = {}
            if self.model.takes_words:
                hints["words"] = [words for _, row in around for words in row]
            corrected = self.model.correct(*kept, config.corrections, sampling, seed, **hints)
            for (i, _, _), row in zip(chosen, corrected, strict=True):
                out[i] += [Proposal(hypothesis.text, "correction") for hypothesis in row]
        if members and config.variations:
            kept = _columns([(states[i].vector, states[i].beam[m].text, states[i].beam_vectors[m]) for i, m in members])
            varied = self.model.vary(*kept, config.variations, seed)
            for (i, _), texts in zip(members, varied, strict=True):
                out[i] += [Proposal(text, "variation") for text in texts]
        return [[*proposals, *without] for proposals, (without, _) in zip(out, around, strict=True)]

    def _look_around(
        self, state: Target, drafts: Sequence[tuple[Candidate, np.ndarray]]
    ) -> tuple[list[Proposal], list[list[str]]]:
        """What is proposed without the network, and for a model that takes them the words that each draft lacks. A
        neighbourhood takes megabytes and serves both, so there is one at a time."""
        around = self._neighbourhood(state)
        told = around if self.model.takes_words else None
        words = [told.estimate.lacking(draft.text, EXPECTED) if told else [] for draft, _ in drafts]
        return self._without_network(state, around), words

    def _without_network(self, state: Target, around: Neighbourhood | None) -> list[Proposal]:
        """What all that was asked of a target speaks for; after a round without progress also what is one change away
        from the best text, and other digits."""
        if not state.beam:
            return []
        config, lexicon = self.config, self.model.lexicon
        out: list[Proposal] = []
        rng = np.random.default_rng([config.seed, state.index, state.step])

        untried = partial(self._untried, state)
        best, stuck = state.beam[0].text, state.since_better > 0
        if around is not None:
            missed = around.target - unit(state.beam_vectors[0][None])[0]
            if config.screened:
                within = continuations(self.embedder) if config.continued else None
                beam = [found.text for found in state.beam]
                new = around.screened(beam, missed, lexicon, within, config, rng, untried)
                out += [Proposal(text, "screening") for text in new]
            if config.polished and stuck:
                near = filter(untried, around.polished(best, missed, lexicon, rng))
                out += [Proposal(text, "polishing") for text in islice(near, config.polished)]
        if stuck:
            others = filter(untried, renumbered(best, rng))
            out += [Proposal(text, "renumbering") for text in islice(others, config.renumbered)]
        return out

    def _neighbourhood(self, state: Target) -> Neighbourhood | None:
        """What is known around a target, where that is made use of."""
        if not state.known:
            return None
        texts, vectors = zip(*((found.text, vector) for found, vector in state.known), strict=True)
        return Neighbourhood(texts, np.stack(vectors), unit(state.vector[None])[0])

    def _untried(self, state: Target, text: str) -> bool:
        return self.embedder.key(text) not in state.seen

    def _sample_again(self, states: list[Target], seed: int) -> list[list[Proposal]]:
        """Samples for the targets for which nothing but empty texts was written so far."""
        lost = [i for i, state in enumerate(states) if not state.beam]
        out: list[list[Proposal]] = [[] for _ in states]
        if lost:
            vectors = np.stack([states[i].vector for i in lost])
            written = self.model.hypothesize(vectors, self.config.sequence_beam_width, self.sampling, seed)
            for i, row in zip(lost, written, strict=True):
                out[i] = [Proposal(hypothesis.text, "hypothesis") for hypothesis in row]
        return out

    def _to_correct(self, state: Target) -> list[tuple[Candidate, np.ndarray]]:
        """What of a target is corrected in this round, with embeddings: the beam, or where corrections are not drawn,
        what is new in it, or else the best in reserve."""
        beam = list(zip(state.beam, state.beam_vectors, strict=True))
        if self.config.sample_corrections:
            return beam
        new = [pair for pair in beam if pair[0].text not in state.corrected] or state.reserve[:1]
        state.corrected.update(candidate.text for candidate, _ in new)
        return new

    def _seed(self, states: Sequence[Target], step: int) -> int:
        return int(np.random.SeedSequence([self.config.seed, states[0].index, step]).generate_state(1)[0])

    # Judging

    def _judge(self, states: list[Target], proposals: list[list[Proposal]]) -> None:
        """Embed what is new, each text once, and update every target: candidates, beam, trace, and whether to go on."""
        fresh = [self._fresh(state, row) for state, row in zip(states, proposals, strict=True)]
        texts = list(dict.fromkeys(proposal.text for row in fresh for proposal in row))
        vectors = dict(zip(texts, self.embedder.encode(texts), strict=True))
        judged = [
            [self._candidate(state, proposal, vectors[proposal.text]) for proposal in row]
            for state, row in zip(states, fresh, strict=True)
        ]
        if self.config.prior_weight and self.model.has_prior:
            judged = self._weigh(states, judged)
        for state, proposed, row, found in zip(states, proposals, fresh, judged, strict=True):
            before = state.beam[0].score if state.beam else -np.inf
            self._keep(state, found, [vectors[proposal.text] for proposal in row])
            state.queries += len(row)
            if state.beam:
                best = state.beam[0]
                state.since_better = 0 if best.score > before else state.since_better + 1
                state.trace.append(
                    TracePoint(state.step, state.queries, best.cosine, best.score, best.text, best.origin)
                )
            else:
                state.since_better += 1
            state.stopped = self._why_stop(state, proposed=bool(proposed))

    def _fresh(self, state: Target, row: list[Proposal]) -> list[Proposal]:
        """Proposals not seen before for this target, within its budget, and marked as seen."""
        room = len(row) if self.config.budget is None else self.config.budget - state.queries
        out: list[Proposal] = []
        for proposal in row:
            key = self.embedder.key(proposal.text)
            # What has no token is no text, nor is white space, though some tokenizers have one for it.
            if len(out) < room and key and proposal.text.strip() and key not in state.seen:
                state.seen.add(key)
                out.append(proposal)
        return out

    def _weigh(self, states: list[Target], judged: list[list[Candidate]]) -> list[list[Candidate]]:
        """Add λ · log p to the scores that it can decide: a text that would not reach the beam though it were likelier
        than all before it (see LIKELIER) needs no prior."""
        width = self.config.sequence_beam_width
        floors = [state.beam[-1].score if len(state.beam) == width else -np.inf for state in states]

        def decides(state: Target, floor: float, one: Candidate) -> bool:
            if one.exact or floor == -np.inf:
                return True
            return one.cosine + self._weight(state, one.text) * min(0.0, state.likeliest + LIKELIER) > floor

        read = [
            [one.text for one in found if decides(state, floor, one)]
            for state, floor, found in zip(states, floors, judged, strict=True)
        ]
        texts = list(dict.fromkeys(text for row in read for text in row))
        prior = dict(zip(texts, self.model.score(texts).tolist(), strict=True))
        for state, row in zip(states, read, strict=True):
            state.likeliest = max([state.likeliest, *(prior[text] for text in row)])

        def weighed(state: Target, one: Candidate) -> Candidate:
            return replace(one, score=one.cosine + self._weight(state, one.text) * prior.get(one.text, -np.inf))

        return [[weighed(state, one) for one in found] for state, found in zip(states, judged, strict=True)]

    def _weight(self, state: Target, text: str) -> float:
        """λ falls with the length, see PRIOR_WORDS: with that of what the hypothesizer writes, one number for all texts
        of a search, so that no word too many is free. Between hypotheses alone, whose lengths nothing drives, with each
        one's own."""
        words = state.words if self.config.steps else len(pieces(text))
        return self.config.prior_weight * min(1.0, PRIOR_WORDS / max(1.0, words))

    def _candidate(self, state: Target, proposal: Proposal, vector: np.ndarray) -> Candidate:
        a, b = state.vector.astype(np.float64), vector.astype(np.float64)
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        exact = bool(np.linalg.norm(a - b) <= self.tolerance)
        return Candidate(proposal.text, cosine, cosine, exact, proposal.origin, state.step)

    def _keep(self, state: Target, found: list[Candidate], vectors: list[np.ndarray]) -> None:
        """The best `sequence_beam_width` of the beam and what was found; an exact candidate goes before all others."""
        both = list(zip([*state.beam, *found], [*state.beam_vectors, *vectors], strict=True))
        both.sort(key=lambda pair: (pair[0].exact, pair[0].score), reverse=True)
        width = self.config.sequence_beam_width
        if not self.config.sample_corrections:
            fallen = [*both[width:], *state.reserve]
            fallen.sort(key=lambda pair: pair[0].score, reverse=True)
            state.reserve = [pair for pair in fallen if pair[0].text not in state.corrected][:width]
        del both[width:]
        state.beam, state.beam_vectors = [pair[0] for pair in both], [pair[1] for pair in both]
        if (self.config.screened or self.config.polished) and found:
            nearest = sorted(
                [*state.known, *zip(found, unit(np.stack(vectors)), strict=True)],
                key=lambda pair: pair[0].cosine,
                reverse=True,
            )
            state.known = nearest[:KNOWN]

    def _why_stop(self, state: Target, proposed: bool) -> str:
        config = self.config
        if state.beam and state.beam[0].exact:
            return "exact"
        if config.budget is not None and state.queries >= config.budget:
            return "budget"
        if state.step >= config.steps:
            return "steps"
        # Other digits wait for a round without progress, so one round without any proposal is not the end yet.
        done = not proposed and state.since_better > 1
        return "stalled" if done or state.since_better >= config.patience else ""

    def _result(self, state: Target) -> Inversion:
        if not state.beam:  # the model wrote nothing but empty texts
            return Inversion("", 0.0, False, state.step, state.queries, state.stopped)
        best, *others = state.beam
        if self.config.steps and self.config.prior_weight and self.model.has_prior:
            best = replace(best, text=spelled(best.text, self.model, self.embedder))
        [agreed] = agreement([best.text], state.samples).tolist()
        how = state.step, state.queries, state.stopped, [best, *others], state.trace
        return Inversion(best.text, best.cosine, best.exact, *how, agreed)


def _columns(rows: Sequence[tuple[np.ndarray, str, np.ndarray]]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Rows of (target, text, embedding) → targets [m, d], m texts, embeddings [m, d]."""
    targets, texts, vectors = zip(*rows, strict=True)
    return np.stack(targets), list(texts), np.stack(vectors)


def search(
    model: InversionModel,
    embedder: Embedder,
    targets: np.ndarray,
    config: SearchConfig,
    tolerance: float,
    progress: Callable[[Inversion], None] | None = None,
) -> list[Inversion]:
    """Invert targets float32 [n, d]; `progress` is called with each result as it is there."""
    out = []
    for inversion in Search(model, embedder, config, tolerance).run(targets):
        out.append(inversion)
        if progress:
            progress(inversion)
    return out
