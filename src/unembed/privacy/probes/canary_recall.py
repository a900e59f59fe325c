"""How many canaries an attack has read, by type, beside a control: how many it would have got right by guessing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from unembed.errors import InputError
from unembed.metrics import bootstrap, words
from unembed.privacy.probes.canaries import Canary
from unembed.rare import stands_in

OTHERS = 20
"""Secrets of other canaries that each text is searched for as a control, at most."""
_STRINGS = ("card", "key")
_LETTERS = re.compile(r"[\W_]+")


def stands_exactly(canary: Canary, text: str) -> bool:
    """Whether the secret stands in a text as it was planted, letter by letter, and in one piece."""
    return canary.secret in text and stands_in(canary.secret, text)


def normalised(kind: str, text: str) -> str:
    """What a reader would take as the same: letters and digits alone for numbers and keys, whole words for the rest;
    in any case. A secret was read where its form is a part of the text's."""
    return _LETTERS.sub("", text.casefold()) if kind in _STRINGS else f" {' '.join(words(text))} "


def n_best(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Id → the texts that were found for it, best first, of the rows of a result file: all candidates that were
    kept."""
    return {row["id"]: [entry["text"] for entry in row.get("candidates") or [row]] for row in rows}


def recall(canaries: Sequence[Canary], found: Mapping[str, Sequence[str]], ks: Sequence[int]) -> dict[str, Any]:
    """For each type, and for "all": {"planted": n, "recall": {k: estimate}, "exact": {k: estimate}, "control": {k:
    estimate}}, over the canaries that stand in `found` (id → texts, best first).

    recall: share whose secret stands in one of the first k texts, in its `normalised` form; exact: as it was planted;
    control: share of the secrets of other canaries of the type that stand in them, which nobody could have read there
    (missing where a type has no second secret). Where a search kept fewer than k texts of a canary, those count.

    Raises InputError where none was found, and for a k that is below 1 or above all that was kept.
    """
    scored = [canary for canary in canaries if canary.id in found]
    if not scored:
        raise InputError(f"none of the {len(canaries)} canaries is among the results: their ids are others")
    kept = max(len(found[canary.id]) for canary in scored)
    if not ks or min(ks) < 1 or max(ks) > kept:
        flag = "--sequence-beam-width" if kept > 1 else "--candidates"
        raise InputError(f"k is {list(ks)}, but at most {kept} texts of a vector were kept: unembed invert {flag}")
    rows: dict[str, list[tuple[list[bool], list[bool], list[float]]]] = {}
    for kind in dict.fromkeys(canary.type for canary in scored):
        same = [canary for canary in scored if canary.type == kind]
        forms = [normalised(kind, canary.secret) for canary in same]
        rows[kind] = [_row(canary, found[canary.id], _others(i, forms), ks) for i, canary in enumerate(same)]
    table = {**rows, "all": [row for kind in rows for row in rows[kind]]}
    return {kind: _summary(entries, ks) for kind, entries in table.items()}


def _row(
    canary: Canary, texts: Sequence[str], others: Sequence[str], ks: Sequence[int]
) -> tuple[list[bool], list[bool], list[float]]:
    """At each k: whether the secret was read, whether exactly, and which share of the others' secrets."""
    forms = [normalised(canary.type, text) for text in texts[: max(ks)]]
    own = normalised(canary.type, canary.secret)
    read = [any(own in form for form in forms[:k]) for k in ks]
    exact = [any(stands_exactly(canary, text) for text in texts[:k]) for k in ks]
    guessed = [float(np.mean([any(other in form for form in forms[:k]) for other in others])) for k in ks if others]
    return read, exact, guessed


def _others(i: int, forms: Sequence[str]) -> list[str]:
    """Up to `OTHERS` secrets that are not the i-th, those that follow it in turn."""
    following = [*forms[i + 1 :], *forms[:i]]
    return [form for form in dict.fromkeys(following) if form != forms[i]][:OTHERS]


def _summary(entries: Sequence[tuple[list[bool], list[bool], list[float]]], ks: Sequence[int]) -> dict[str, Any]:
    read, exact, guessed = (list(column) for column in zip(*entries, strict=True))
    columns = {"recall": read, "exact": exact, "control": [row for row in guessed if row]}
    return {
        "planted": len(entries),
        **{
            name: {str(k): bootstrap([float(row[at]) for row in rows]).to_dict() for at, k in enumerate(ks)}
            for name, rows in columns.items()
            if rows
        },
    }
