"""What is audited: a seeded sample of a store, looked at before anything is inverted.

Shapes: n sampled vectors of d numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unembed.embedders import validate_vectors
from unembed.errors import InputError, SpecMismatch, StorageError
from unembed.inverter import Inverter
from unembed.privacy.audit.plausibility import Plausibility, by_shape, by_texts
from unembed.privacy.records import read_records
from unembed.stores import open_vectors
from unembed.stores.address import without_password

PROBED = 64
"""Texts beside the vectors that are embedded again, to see whether the vectors are theirs."""


@dataclass(frozen=True)
class Target:
    """A sample of a store: what can be inverted, and what was found out about it."""

    ids: list[str]
    vectors: np.ndarray
    """[n, d] in the store's own type: only rows that have a direction."""
    texts: list[str | None]
    """The true text of each, None where it is not known."""
    domains: list[str | None]
    facts: dict[str, Any]
    """`target` of the report, plain JSON values."""
    content: str
    """A hash of the ids and vectors sampled: another one means that the store has changed."""
    code: Callable[[np.ndarray], np.ndarray] | None = None
    """What the store puts vectors through, where it says so."""


def sample(
    address: str, n: int, seed: int = 0, *, truth: str | None = None, ids_field: str | None = None,
    vector_field: str | None = None, text_field: str | None = None, domain_field: str | None = None,
) -> Target:  # fmt: skip
    """Draw n vectors of a store, with their texts and domains.

    Args:
        truth: a file of true texts: JSON lines with `id` and `text`, or one text a line for the vectors in their order.
        domain_field: a field beside the vectors whose values part the records.

    Raises:
        InputError: an address that leads nowhere, an empty store, no usable vector, texts of other vectors.
        StorageError: a store or file that cannot be read.
    """
    shown, fields = without_password(address), {"ids_field": ids_field, "vector_field": vector_field}
    with open_vectors(address, text_field=text_field, **fields) as source:
        drawn, code = source.sample(n, seed), source.code
        count, dtype, beside = source.count, source.dtype, [str(name) for name in source.fields]
    if not drawn.ids:
        raise InputError(f"{shown}: holds no vectors; give a store with at least one")
    texts: list[str | None] = [None] * len(drawn.ids)
    if drawn.texts is not None:
        texts = [text.strip() or None for text in drawn.texts]
        beside = [text_field or "text", *beside]
    if truth is not None:
        known = read_truth(Path(truth))
        texts = [known.get(name) or None for name in drawn.ids]
        if not any(texts):
            raise InputError(f"{truth}: none of the ids sampled, such as {drawn.ids[0]!r}, is in it; check its ids")
    domains: list[str | None] = [None] * len(drawn.ids)
    if domain_field is not None:
        with open_vectors(address, text_field=domain_field, **fields) as source:
            values = source.sample(n, seed)
        by_id = dict(zip(values.ids, values.texts or [], strict=False))
        domains = [by_id.get(name) for name in drawn.ids]
    digest = hashlib.sha256(json.dumps(drawn.ids).encode())
    digest.update(np.ascontiguousarray(drawn.vectors).tobytes())
    numbers: np.ndarray = drawn.vectors.astype(np.float64)
    finite: np.ndarray = np.isfinite(numbers).all(axis=1)
    norms = np.linalg.norm(np.where(finite[:, None], numbers, 0), axis=1)
    usable = np.flatnonzero(norms > 1e-12).tolist()
    refused = {"NaN or infinity": int((~finite).sum()), "zero": int((finite & (norms <= 1e-12)).sum())}
    if not usable:
        raise InputError(
            f"{shown}: none of the {len(drawn.ids)} vectors sampled has a direction (all are zero or hold NaN); "
            "embed their texts again"
        )
    lengths = norms[usable]
    facts = {
        "source": shown, "count": count, "sampled": len(drawn.ids), "usable": len(usable),
        "dimension": int(drawn.vectors.shape[1]), "dtype": str(dtype), "coded": code is not None,
        "norms": {"least": float(lengths.min()), "mean": float(lengths.mean()), "greatest": float(lengths.max())},
        "fields": [{"name": name, "kind": "text" if i == 0 and drawn.texts else ""} for i, name in enumerate(beside)],
        "refused": {reason: number for reason, number in refused.items() if number},
    }  # fmt: skip
    return Target(
        [drawn.ids[i] for i in usable], drawn.vectors[usable], [texts[i] for i in usable],
        [domains[i] for i in usable], facts, digest.hexdigest()[:16], code,
    )  # fmt: skip


def checked(target: Target, inverter: Inverter, public: list[str], *, normalize: bool = False, seed: int = 0) -> Target:
    """The target, with what was found about its embedder among its facts.

    Raises InputError for vectors that are no embedder's of this kind (dimension, length), SpecMismatch where nothing
    in them shows that this embedder made them.
    """
    spec = inverter.embedder.spec
    vectors = validate_vectors(target.vectors, spec, normalize=normalize)
    found = _plausibility(target, vectors, inverter, public, seed)
    if found is not None and not found.plausible:
        raise SpecMismatch(
            f"{target.facts['source']}: these are not vectors of {spec.id}, or changed beyond recognition, so nothing "
            f"is inverted: {found.why}; use a model of the embedder that made them"
        )
    why = "nothing to compare with: give --public" if found is None else found.why
    embedder = {"name": spec.id, "plausible": None if found is None else found.plausible, "why": why}
    return replace(target, facts={**target.facts, "embedder": embedder})


def _plausibility(
    target: Target, vectors: np.ndarray, inverter: Inverter, public: list[str], seed: int
) -> Plausibility | None:
    known = [i for i, text in enumerate(target.texts) if text is not None][:PROBED]
    if known:
        return by_texts(vectors[known], inverter.embedder.probe([target.texts[i] or "" for i in known]))
    if public:
        return by_shape(vectors, inverter.embedder.probe(public[: 4 * PROBED]), seed)
    return None


def read_truth(path: Path) -> dict[str, str]:
    """Id → text. JSON lines with `id` and `text`; of other files line i is the text of vector i, from 0."""
    if path.suffix != ".jsonl":
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert it first") from error
        return {str(i): line.strip() for i, line in enumerate(lines) if line.strip()}
    known: dict[str, str] = {}
    for number, row in enumerate(read_records(path), 1):
        if not isinstance(row.get("text"), str) or "id" not in row:
            raise InputError(f'{path}, record {number}: give {{"id": …, "text": "…"}} in each line')
        known[str(row["id"])] = row["text"].strip()
    return known
