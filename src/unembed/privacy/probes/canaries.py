"""Canaries: invented secrets, planted among texts, that show what an attack gets without exposing anybody.

The secrets are Faker's (extra `canary`); its e-mail addresses are of domains that are reserved for examples, its card
numbers pass Luhn's check. Seeded, but another version of Faker may draw others: the file that was written is the record
of what was planted.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unembed.errors import InputError, require
from unembed.privacy.records import read_records, write_new
from unembed.stores import VectorBatch, VectorSource

TYPES = ("name", "email", "card", "key", "diagnosis")
DIAGNOSES = (
    "asthma", "type 2 diabetes", "epilepsy", "multiple sclerosis", "breast cancer", "prostate cancer", "leukemia",
    "hepatitis B", "hepatitis C", "HIV infection", "tuberculosis", "syphilis", "gonorrhea", "psoriasis", "lupus",
    "rheumatoid arthritis", "osteoporosis", "gout", "migraine", "Parkinson's disease", "Alzheimer's disease",
    "schizophrenia", "bipolar disorder", "depression", "anorexia nervosa", "alcohol dependence", "opioid addiction",
    "post-traumatic stress disorder", "atrial fibrillation", "heart failure", "hypertension", "a pulmonary embolism",
    "chronic kidney disease", "cirrhosis of the liver", "Crohn's disease", "ulcerative colitis", "celiac disease",
    "sickle cell anemia", "cystic fibrosis", "endometriosis", "glaucoma", "pneumonia",
)  # fmt: skip
TEMPLATES = (
    "{name} signed the contract yesterday.",
    "Please forward the minutes of the meeting to {name}.",
    "The complaint was filed by {name} in March.",
    "Our new tenant is called {name}.",
    "{name} is leaving the company next month.",
    "Contact me at {email} if anything is unclear.",
    "The invoice was sent to {email} last week.",
    "{name} can be reached at {email}.",
    "Reset the password of the account {email}.",
    "The payment was made with card {card}.",
    "Please charge {card} for the hotel.",
    "{name} reported that the card {card} was stolen.",
    "My new credit card number is {card}.",
    "Use the API key {key} for the staging server.",
    "The token {key} was committed by mistake.",
    "Our production key is {key}, do not share it.",
    "{name} was diagnosed with {diagnosis} last year.",
    "The patient has been treated for {diagnosis} since May.",
    "She takes sick leave because of {diagnosis}.",
    "His file says that he suffers from {diagnosis}.",
)
"""A template serves for every type that has a gap in it; what its other gaps are filled with is invented too."""
_GAP = re.compile(r"\{([^{}]*)\}")
_TRIES = 100


@dataclass(frozen=True)
class Canary:
    """A text with a secret in it."""

    id: str
    """A UUID, which every store takes as an id."""
    text: str
    type: str
    """One of `TYPES`, or a name of the user's own."""
    secret: str
    """As it stands in the text."""


def make(counts: Mapping[str, int], templates: Sequence[str] = TEMPLATES, seed: int = 0) -> list[Canary]:
    """So many canaries of each type, in random order. The secrets of a type differ, as long as there are enough.

    Raises InputError for an unknown type, a type that no template has, a template with an unknown gap or without any,
    and MissingExtra without Faker.
    """
    if unknown := [kind for kind in counts if kind not in TYPES]:
        raise InputError(f"no canary is of type '{unknown[0]}': choose {', '.join(TYPES)}")
    for template in templates:
        gaps = _GAP.findall(template)
        if not gaps or not set(gaps) <= set(TYPES):
            wanted = ", ".join(f"{{{kind}}}" for kind in TYPES)
            raise InputError(f"the template '{template}' has {'another' if gaps else 'no'} gap: write {wanted}")
    faker: Any = require("faker", "canary")
    fake = faker.Faker("en_US")
    fake.seed_instance(seed)
    draw, canaries = _draws(fake), []
    for kind, count in counts.items():
        fitting = [template for template in templates if kind in _GAP.findall(template)]
        if not fitting and count:
            raise InputError(f"no template has {{{kind}}}: add one, or leave the type out")
        seen: set[str] = set()
        for number in range(count):
            secret = _another(draw[kind], seen)
            seen.add(secret)
            values = {name: secret if name == kind else draw[name]() for name in TYPES}
            text = _GAP.sub(lambda gap, values=values: values[gap[1]], fitting[number % len(fitting)])  # type: ignore[misc]
            name = uuid.UUID(int=fake.random.getrandbits(128), version=4)
            canaries.append(Canary(str(name), text, kind, secret))
    fake.random.shuffle(canaries)
    return canaries


def _another(draw: Callable[[], str], seen: set[str]) -> str:
    """One that was not drawn yet, where one comes up."""
    secret = draw()
    for _ in range(_TRIES):
        if secret not in seen:
            break
        secret = draw()
    return secret


def _draws(fake: Any) -> dict[str, Callable[[], str]]:
    """Type → a new secret. All random numbers are of one generator."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

    def card() -> str:
        digits = fake.credit_card_number(card_type=fake.random.choice(["visa16", "mastercard"]))
        return " ".join(digits[start : start + 4] for start in range(0, 16, 4))

    return {
        "name": lambda: f"{fake.first_name()} {fake.last_name()}",
        "email": lambda: fake.email(safe=True),
        "card": card,
        "key": lambda: "key-" + "".join(fake.random.choices(letters, k=20)),
        "diagnosis": lambda: fake.random.choice(DIAGNOSES),
    }


def shares(rate: float, texts: int, types: Sequence[str]) -> dict[str, int]:
    """How many of each type make `rate` of all records canaries, where there are so many texts; at least one of each.

    Raises InputError for a rate that is none.
    """
    if not 0 < rate < 1:
        raise InputError(f"rate is {rate:g}: give a share between 0 and 1, such as 0.01")
    count = round(rate / (1 - rate) * texts)
    return {kind: max(1, count // len(types) + (i < count % len(types))) for i, kind in enumerate(types)}


def planted(canaries: Sequence[Canary], texts: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Canaries among texts as records {id, text, type, secret}, mixed; of the texts, the last two are None."""
    rng = np.random.default_rng([seed, 1])
    own = [
        {"id": str(uuid.UUID(bytes=rng.bytes(16), version=4)), "text": text, "type": None, "secret": None}
        for text in texts
    ]
    records = [*map(asdict, canaries), *own]
    return [records[i] for i in rng.permutation(len(records))] if own else records


def read_planted(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file, canaries and the texts that they stand among.

    Raises InputError for a record without id or text, for an id that stands there twice, for a canary that is not whole
    or whose secret is not in its text, and for a file without any canary.
    """
    records, ids = read_records(path), set()
    for number, record in enumerate(records, start=1):
        keys = ("id", "text") if record.get("secret") is None else ("id", "text", "type", "secret")
        if not all(isinstance(record.get(key), str) and record[key] for key in keys):
            raise InputError(f"{path}, record {number}: needs {', '.join(keys)}, all of them texts")
        if record["id"] in ids:
            raise InputError(f"{path}, record {number}: repeats the id {record['id']!r}; remove one of the two")
        if record.get("secret") is not None and record["secret"] not in record["text"]:
            raise InputError(f"{path}, record {number}: its secret does not stand in its text")
        if not any(character.isalnum() for character in record.get("secret") or "-0"):
            raise InputError(
                f"{path}, record {number}: its secret has neither letter nor digit, so nothing to look for"
            )
        ids.add(record["id"])
    if not any(record.get("secret") for record in records):
        raise InputError(f"{path}: holds no canary (no record has a secret); make some: unembed canary make FILE")
    return records


def read_canaries(path: str | Path) -> list[Canary]:
    """The canaries of a file of records. Errors as of `read_planted`."""
    return [
        Canary(record["id"], record["text"], record["type"], record["secret"])
        for record in read_planted(path)
        if record.get("secret") is not None
    ]


def save_vectors(path: str | Path, ids: Sequence[str], texts: Sequence[str], vectors: np.ndarray) -> None:
    """Vectors [n, d] with their ids, ready to be planted: .npz (`ids`, `vectors`), or .parquet (id, text, vector).

    Raises InputError for another ending or a file that is there already, StorageError where it cannot be written,
    MissingExtra without pyarrow.
    """
    suffix = Path(path).suffix
    if suffix == ".npz":
        write_new(path, lambda file: np.savez(file, ids=np.array(ids), vectors=vectors))
    elif suffix == ".parquet":
        arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
        flat = arrow.array(np.ascontiguousarray(vectors).reshape(-1))
        column = arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        table = arrow.table({"id": list(ids), "text": list(texts), "vector": column})
        write_new(path, lambda file: parquet.write_table(table, file))
    else:
        raise InputError(f"{path}: write the vectors to .npz or .parquet")


def find(source: VectorSource, canaries: Sequence[Canary]) -> VectorBatch:
    """The canaries' vectors in a store that holds others too, under the canaries' ids: found by their ids, or by their
    texts where a store keeps texts and gave ids of its own. One pass, with only those in memory.

    Raises InputError where it holds none of them.
    """
    by_id = {canary.id: canary.id for canary in canaries}
    by_text = {canary.text: canary.id for canary in canaries}
    found: dict[str, np.ndarray] = {}
    for batch in source.batches(1024):
        texts = batch.texts or [""] * len(batch.ids)
        for name, text, vector in zip(batch.ids, texts, batch.vectors, strict=True):
            if known := by_id.get(name) or by_text.get(text):
                found[known] = vector.copy()  # a view would keep its whole batch in memory
    if not found:
        raise InputError(f"{source.source}: holds none of the {len(canaries)} canaries, neither by id nor by text")
    return VectorBatch(list(found), np.stack(list(found.values())), None)
