"""What a defence buys: what can still be read out of the vectors at the setting that costs a search so and so much.

For each defence and each loss of nDCG@10 that is allowed, the strongest setting within it; there, every attacker. The
headline is always the attacker who gets most.

Shapes: N documents, q queries, n attacked texts, d numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from unembed.errors import InputError
from unembed.inverter import Inverter
from unembed.metrics import Estimate, bootstrap, paired_difference, score_pairs, share_estimate
from unembed.privacy.comparison.attackers import TIMES, Attacker, View, look_up
from unembed.privacy.comparison.aware import Aware
from unembed.privacy.comparison.retrieval import RetrievalSet, ndcg
from unembed.privacy.defences import CLEAN, defence
from unembed.privacy.defences.base import Defence, defence_class
from unembed.rare import count_in, rare_strings
from unembed.training.vectors import VectorFolder, write_vectors

ROUNDING = 0.0005
"""A loss is rounded to a tenth of a percent before it is compared with what is allowed."""
HALVINGS = 5
"""Of the distance between two settings of a ladder, where settings between them make sense."""


@dataclass(frozen=True)
class Ground:
    """All that defences are compared on. Vectors are clean, float32 [·, d]."""

    judged: RetrievalSet
    documents: np.ndarray
    queries: np.ndarray
    texts: list[str]
    """The attacked texts."""
    vectors: np.ndarray
    known: np.ndarray
    """Of texts whose stored vectors an attacker may know."""
    public: np.ndarray
    """Of texts that are not in the store."""


@dataclass(frozen=True)
class Setting:
    """A defence at the strongest setting within an allowed loss."""

    defence: str
    allowed: float
    """Loss of nDCG@10, as a share."""
    strength: float | None
    """None where even the mildest setting costs more, or the documents are too few for the defence to learn from."""
    loss: float = 0.0
    """As measured, as a share."""
    difference: Estimate | None = None
    """Of nDCG@10 to that of clean vectors, paired by query."""


@dataclass(frozen=True)
class Leak:
    """What one attacker gets out of one setting."""

    id: str
    defence: str
    allowed: float
    strength: float | None
    loss: float
    attacker: str
    cosine: dict[str, Any]
    """Of the restored to the clean vectors."""
    found: dict[str, Any]
    """Share of the texts that a look-up among known texts finds."""
    scores: dict[str, Any]
    """Of the inverter's texts: exact_uncased, token_f1, bleu."""
    rare: dict[str, Any] = field(default_factory=dict)
    """Share of the names, numbers, dates, … that stand in them."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def prepare(
    inverter: Inverter, judged: RetrievalSet, folder: Path, *, n: int = 100, tokens: int = 16, pairs: int = 1000,
    public: int = 2000, seed: int = 0,
) -> Ground:  # fmt: skip
    """Embed a retrieval set, and cut texts of `tokens` tokens out of its documents: `n` to attack, up to `pairs` that
    an attacker knows, and up to `public` that are not in the store. No document gives two of them. The vectors of
    documents and queries are kept in `folder`.

    Raises InputError where it has too few documents for that.
    """
    order = np.random.default_rng(seed).permutation(len(judged.documents))
    cuts = (inverter.embedder.cut(judged.documents[row], tokens) for row in order)
    texts = [text for text in dict.fromkeys(cuts) if text]
    if len(texts) < n + 100:
        raise InputError(
            f"{judged.name} has {len(texts)} documents of {tokens} tokens or more, which is too few for {n} attacked "
            "texts and 100 others: give a larger set, or lower n or tokens"
        )
    known = min(pairs, (len(texts) - n) // 2)
    parts = texts[:n], texts[n : n + known], texts[n + known : n + known + public]
    vectors, known_vectors, public_vectors = (inverter.embedder.encode(part) for part in parts)
    return Ground(
        judged, _kept(inverter, judged.documents, folder / "documents"),
        _kept(inverter, judged.queries, folder / "queries"), parts[0], vectors, known_vectors, public_vectors,
    )  # fmt: skip


def _kept(inverter: Inverter, texts: list[str], folder: Path) -> np.ndarray:
    write_vectors(texts, inverter.embedder, folder)
    return np.asarray(VectorFolder(folder).vectors)


def made(ground: Ground, name: str, strength: float) -> Defence:
    """A defence, fitted to the documents as the store's owner would."""
    return defence(name, strength).fit(ground.documents)


def matched(ground: Ground, name: str, allowed: Sequence[float]) -> list[Setting]:
    """For each allowed loss the strongest setting of a defence within it; none where the documents are too few for it
    to learn from."""
    if len(ground.documents) < defence_class(name).fewest:
        return [Setting(name, limit, None) for limit in allowed]
    clean = ndcg(ground.documents, ground.queries, ground.judged.judged)

    @cache
    def scores(strength: float) -> np.ndarray:
        guard = made(ground, name, strength)
        return ndcg(guard.apply(ground.documents), guard.queries(ground.queries), ground.judged.judged)

    def loss(strength: float) -> float:
        return float(1 - scores(strength).mean() / clean.mean())

    found = []
    for limit in allowed:
        strength = strongest(defence_class(name), loss, limit + ROUNDING, ground.documents.shape[1])
        if strength is None:
            found.append(Setting(name, limit, None))
        else:
            difference = paired_difference(scores(strength), clean)
            found.append(Setting(name, limit, strength, loss(strength), difference))
    return found


def strongest(kind: type[Defence], loss: Callable[[float], float], limit: float, d: int) -> float | None:
    """The last setting of the ladder, from its mildest on, before one costs more than `limit`; between the two, where
    settings between them make sense, the strongest that does not. None if the mildest costs more."""
    kept: float | None = None
    for rung in kind.settings(d):
        if loss(rung) <= limit:
            kept = rung
            continue
        if kind.continuous and kept is not None:
            low, high = kept, rung
            for _ in range(HALVINGS):
                middle = float(np.sqrt(low * high))
                low, high = (middle, high) if loss(middle) <= limit else (low, middle)
            kept = low
        return kept
    return kept


def leaks(
    inverter: Inverter, ground: Ground, settings: Sequence[Setting], attackers: Sequence[Attacker], *,
    aware: Aware | None = None, done: Iterable[Leak] = (), seed: int = 0,
    **search: Any,  # noqa: ANN401
) -> Iterator[Leak]:  # fmt: skip
    """What each attacker gets at each setting that there is, those in `done` left out; first of all without any
    defence. Two allowed losses that lead to one strength are attacked once. `aware` trains the inverters of attackers
    that train. `search`: as for `Inverter.invert`."""
    before = list(done)
    ids = {leak.id for leak in before}
    known = {(leak.defence, leak.strength, leak.attacker): leak for leak in before}
    for attacker in attackers:
        name = f"{CLEAN}/0/{attacker.name}"
        if name not in ids and (attacker.name == "static" or attacker.trains):
            reads = aware(name, lambda clean: clean) if aware and attacker.trains else inverter
            yield _leak(reads, ground, name, Setting(CLEAN, 0.0, 0.0), attacker, ground.vectors, seed, search)
    for setting in settings:
        names = {f"{setting.defence}/{setting.allowed:g}/{attacker.name}": attacker for attacker in attackers}
        if setting.strength is None or names.keys() <= ids:
            continue
        seen = _view(ground, made(ground, setting.defence, setting.strength), seed)
        for name, attacker in names.items():
            key = setting.defence, setting.strength, attacker.name
            if name in ids:
                continue
            if key not in known:
                if (restored := attacker.restore(seen)) is None:
                    continue
                reads = aware(name, seen.round_trip) if aware and attacker.trains else inverter
                if attacker.simulates and not seen.defence.random:
                    reads = reads.behind(seen.round_trip)
                known[key] = _leak(reads, ground, name, setting, attacker, restored, seed, search)
            yield replace(known[key], id=name, allowed=setting.allowed)


def _view(ground: Ground, guard: Defence, seed: int) -> View:
    stored = [guard.apply(ground.vectors, seed=seed + i) for i in range(TIMES if guard.random else 1)]
    return View(guard, stored, ground.public, (ground.known, guard.apply(ground.known, seed=seed + 1)), seed)


def _leak(
    inverter: Inverter, ground: Ground, name: str, setting: Setting, attacker: Attacker, restored: np.ndarray,
    seed: int, search: dict[str, Any],
) -> Leak:  # fmt: skip
    lengths = np.linalg.norm(restored, axis=1, keepdims=True)
    usable = np.where(
        lengths > 0, restored / np.maximum(lengths, 1e-30), ground.public[:1]
    )  # a zero vector says nothing
    texts = [inversion.text for inversion in inverter.invert(usable, seed=seed, normalize=True, **search)]
    scores = score_pairs(ground.texts, texts).summary
    cosines = (usable * ground.vectors).sum(axis=1) / np.linalg.norm(ground.vectors, axis=1)
    candidates = np.concatenate([ground.vectors, ground.known, ground.public])
    found = look_up(usable, candidates) == np.arange(len(ground.texts))
    strings = [[string for kind in rare_strings(text).values() for string in kind] for text in ground.texts]
    rare = [count_in(known, text) for known, text in zip(strings, texts, strict=True)], list(map(len, strings))
    return Leak(
        name, setting.defence, setting.allowed, setting.strength, setting.loss, attacker.name,
        bootstrap(cosines).to_dict(), bootstrap(found.astype(float)).to_dict(),
        {key: scores[key].to_dict() for key in ("exact_uncased", "token_f1", "bleu")},
        share_estimate(*rare).to_dict() if any(rare[1]) else {},
    )  # fmt: skip


def worst(rows: Sequence[Leak], measure: str = "token_f1") -> list[Leak]:
    """For each defence and allowed loss the attacker who gets most, in the order of the rows."""
    best: dict[tuple[str, float], Leak] = {}
    for row in rows:
        key = row.defence, row.allowed
        if key not in best or row.scores[measure]["value"] > best[key].scores[measure]["value"]:
            best[key] = row
    return list(best.values())
