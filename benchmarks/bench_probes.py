"""What three probes find without reading a whole text, on the held-out corpora:

    python benchmarks/bench_probes.py --data heldout/ [--quick]

Membership inference: sentences of SQuAD paragraphs, clean and with the store's vectors changed. Template slot filling:
the prescriptions among the made-up records, with lists that hold the truth and as many others. Written to
benchmarks/results/probes.json and probes.md.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import unembed
from unembed.embedders import Embedder
from unembed.embedders.vectors import unit
from unembed.evaluation import hardware
from unembed.metrics import bootstrap
from unembed.privacy.defences import defence
from unembed.privacy.probes.membership import membership
from unembed.privacy.probes.significance import auc, benjamini_hochberg, estimate, p_values, tpr
from unembed.privacy.probes.slots import Filler, parse
from unembed.rare import stands_in
from unembed.stores import VectorBatch, VectorSource
from unembed.training.config import SourceConfig
from unembed.training.corpora import read_texts

RESULTS = Path(__file__).parent / "results" / "probes.json"
STORED = (
    "clean", "quantisation 8", "quantisation 4", "quantisation 1", "gaussian 0.01", "gaussian 0.05", "gaussian 0.1",
)  # fmt: skip
PRESCRIPTION = re.compile(r"(?P<person>.+) was prescribed (?P<drug>.+) for (?P<condition>.+); follow-up with Dr\. .+")
TEMPLATE = "{person} was prescribed {drug} for {condition}."
DRUGS = (
    "gabapentin", "simvastatin", "levothyroxine", "amlodipine", "tramadol", "citalopram", "insulin", "codeine",
    "naproxen", "diazepam",
)  # fmt: skip
CONDITIONS = (
    "gout", "psoriasis", "a sprained ankle", "lung cancer", "insomnia", "glaucoma", "schizophrenia", "arthritis",
    "shingles", "anxiety", "lupus", "cirrhosis", "tuberculosis", "leukemia", "a concussion",
)  # fmt: skip
LEVEL = 0.05


class Array(VectorSource):
    """Vectors in memory as a store."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.source, self.vectors = "an array", vectors
        self.count, self.dim, self.dtype = len(vectors), vectors.shape[1], vectors.dtype

    def _read(self, size: int) -> Any:
        for start in range(0, len(self.vectors), size):
            part = self.vectors[start : start + size]
            yield VectorBatch([str(start + i) for i in range(len(part))], part, None)


def changed(vectors: np.ndarray, how: str) -> np.ndarray:
    if how == "clean":
        return vectors
    name, strength = how.split()
    return defence(name, float(strength)).fit(vectors).apply(vectors)


def read(folder: Path, name: str) -> list[str]:
    return list(read_texts(SourceConfig(str(folder / f"{name}.txt.xz"))))


def sentences(folder: Path, name: str, rng: random.Random) -> list[str]:
    """Sentences of 8 to 30 words, mixed."""
    found = [part for text in read(folder, name) for part in re.split(r"(?<=[.!?])\s+", text)]
    found = [text for text in dict.fromkeys(found) if 8 <= len(text.split()) <= 30]
    rng.shuffle(found)
    return found


def members(embedder: Embedder, folder: Path, n: int) -> dict[str, Any]:
    """n sentences that are in a store of 4n, n that are not, and 2n references; also asked with the last two words cut
    off, and with references from elsewhere."""
    rng = random.Random(0)
    texts = sentences(folder, "en_squad_dev", rng)
    inside, outside, references, others = (texts[a * n : b * n] for a, b in ((0, 1), (1, 2), (2, 4), (4, 7)))
    foreign = sentences(folder, "en_scifact_abstracts", rng)[: 2 * n]
    cut = [" ".join(text.split()[:-2]) for text in (*inside, *outside)]
    whole, shortened = embedder.encode([*inside, *outside]), embedder.encode(cut)
    null, foreign_null = embedder.encode(references), embedder.encode(foreign)
    store = embedder.encode([*inside, *others])
    rows = [(how, "the texts", how, whole, null) for how in STORED]
    rows += [("cut", "the texts without their last two words", "clean", shortened, null)]
    rows += [("foreign", "the texts, with references from scientific abstracts", "clean", whole, foreign_null)]
    out = {}
    for name, asked, how, vectors, null_vectors in rows:
        found = membership(vectors, null_vectors, Array(changed(store, how)))
        named, inner, outer = found.corrected <= LEVEL, found.cosines[:n], found.cosines[n:]
        out[name] = {
            "asked": asked, "store": how, "n": n, "stored": found.stored, "references": len(null_vectors),
            "auc": estimate(auc, inner, outer).to_dict(), "tpr": estimate(tpr, inner, outer).to_dict(),
            "named": bootstrap(named[:n].astype(float)).to_dict(),
            "named_wrong": bootstrap(named[n:].astype(float)).to_dict(),
            "wrong_at_5_percent": bootstrap((found.p[n:] <= LEVEL).astype(float)).to_dict(),
        }  # fmt: skip
    return out


def slots(embedder: Embedder, folder: Path, names: int, references: int) -> dict[str, Any]:
    """Who was prescribed what for what: every combination of drug and condition, and then with the patients' names too,
    among those of people in other records. References are made-up records of other kinds that name none of them."""
    records = read(folder, "en_synthetic_pii")
    told = [(text, match.groupdict()) for text in records if (match := PRESCRIPTION.match(text))]
    others = [text for text in records if not PRESCRIPTION.match(text)]
    random.Random(0).shuffle(others)
    people = [m[1] for text in others if (m := re.match(r"([A-Z][a-z]+ [A-Z][a-z]+)(?:,| works| lives)", text))]
    lists = {
        "person": sorted({truth["person"] for _, truth in told}) + list(dict.fromkeys(people))[:names],
        "drug": sorted({truth["drug"] for _, truth in told}) + list(DRUGS),
        "condition": sorted({truth["condition"] for _, truth in told}) + list(CONDITIONS),
    }
    listed = [value for values in lists.values() for value in values]
    others = [text for text in others if not any(stands_in(value, text) for value in listed)]
    vectors, null = (embedder.encode(some) for some in ([text for text, _ in told], others[:references]))
    out = {}
    for how in ("clean", "quantisation 4", "quantisation 1", "gaussian 0.05"):
        stored = changed(np.concatenate([vectors, null]), how)
        part = {name: lists[name] for name in ("drug", "condition")}
        out[f"{how}, drug and condition"] = filled(
            embedder, "A patient was prescribed {drug} for {condition}.", part, stored, [t for _, t in told], how
        )
    stored = np.concatenate([vectors, null[: len(null) // 5]])
    out["clean, all three"] = filled(embedder, TEMPLATE, lists, stored, [truth for _, truth in told], "clean")
    return out


def filled(
    embedder: Embedder, text: str, lists: dict[str, list[str]], stored: np.ndarray, truth: list[dict[str, str]],
    how: str,
) -> dict[str, Any]:  # fmt: skip
    """Share of right values, and of those that are believed; and the same p where the truth is not on the list."""
    before = embedder.queries
    template = parse(text, lists, embedder)
    found = list(Filler(template, embedder, shortlist=64).fill(unit(stored)))
    n, entry = len(truth), {}
    for slot, values in template.slots.items():
        gaps = np.array([one.gaps[slot] for one in found])
        p = p_values(gaps[:n], gaps[n:])
        right = np.array([one.values[slot] == said[slot] for one, said in zip(found, truth, strict=False)])
        believed = p <= LEVEL
        entry[slot] = {
            "candidates": len(values), "right": bootstrap(right.astype(float)).to_dict(),
            "believed": bootstrap(believed.astype(float)).to_dict(),
            "wrong_of_believed": f"{int((believed & ~right).sum())} of {int(believed.sum())}",
            "believed_corrected": bootstrap((benjamini_hochberg(p) <= LEVEL).astype(float)).to_dict(),
        }  # fmt: skip
        if template.combinations <= 20_000:
            gone = absent(embedder, text, lists, slot, stored, truth)
            entry[slot]["believed_where_absent"] = bootstrap(gone).to_dict()
    queries = embedder.queries - before
    return {"records": n, "references": len(found) - n, "queries": queries, "store": how, "slots": entry}


def absent(
    embedder: Embedder, text: str, lists: dict[str, list[str]], slot: str, stored: np.ndarray,
    truth: list[dict[str, str]],
) -> list[float]:  # fmt: skip
    """Which records are believed although the true value of a slot was taken off its list."""
    believed = [0.0] * len(truth)
    for value in lists[slot]:
        rows = [i for i, said in enumerate(truth) if said[slot] == value]
        if not rows:
            continue
        rest = {**lists, slot: [other for other in lists[slot] if other != value]}
        filler = Filler(parse(text, rest, embedder), embedder)
        gaps = np.array([one.gaps[slot] for one in filler.fill(unit(stored[[*rows, *range(len(truth), len(stored))]]))])
        for i, p in zip(rows, p_values(gaps[: len(rows)], gaps[len(rows) :]), strict=True):
            believed[i] = float(p <= LEVEL)
    return believed


class Remembered:
    """An embedder that embeds no text twice."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder, self.key, self.known = embedder, embedder.key, {}

    @property
    def queries(self) -> int:
        return len(self.known)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if new := list(dict.fromkeys(text for text in texts if text not in self.known)):
            self.known.update(zip(new, self.embedder.encode(new), strict=True))
        return np.stack([self.known[text] for text in texts])


def tables(results: dict[str, Any]) -> str:
    """The figures in Markdown."""
    machine, first = results["hardware"], results["membership"]["clean"]
    records = next(iter(results["slots"].values()))
    lines = [
        f"{results['embedder']}; {machine['processor']}, torch {machine['torch']}. In %, but the AUC; brackets: 95 % "
        "bootstrap intervals.",
        "",
        f"Membership: {first['n']} texts that are in a store of {first['stored']}, {first['n']} that are not, "
        f"{first['references']} references; sentences of SQuAD. *Named*: corrected p at most .05.",
        "",
        "| asked | store | AUC | TPR at 1 % FPR | members named | others named | others at p ≤ .05 |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in results["membership"].values():
        cells = [shown(one["auc"], 1, 3), *(shown(one[key]) for key in ("tpr", "named", "named_wrong"))]
        lines.append(f"| {' | '.join([one['asked'], one['store'], *cells, shown(one['wrong_at_5_percent'])])} |")
    lines += [
        "",
        f"Slots: {records['records']} records, {records['references']} references of other kinds without a candidate "
        f"({results['slots']['clean, all three']['references']} for all three slots).",
        "",
        "| store | slot | candidates | right | at p ≤ .05 | wrong of these | at p ≤ .05 with the truth off the list |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in results["slots"].items():
        for slot, one in run["slots"].items():
            gone = shown(one["believed_where_absent"]) if "believed_where_absent" in one else "–"
            cells = [shown(one["right"]), shown(one["believed"]), one["wrong_of_believed"], gone]
            lines.append(f"| {' | '.join([name, slot, str(one['candidates']), *cells])} |")
    return "\n".join([*lines, ""])


def shown(one: dict[str, Any], scale: int = 100, digits: int = 1) -> str:
    return f"{scale * one['value']:.{digits}f} ({scale * one['low']:.{digits}f}–{scale * one['high']:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the held-out corpora")
    parser.add_argument("--quick", action="store_true", help="few texts, to see that it runs; nothing is written")
    options = parser.parse_args()
    embedder: Any = Remembered(unembed.embedder("all-MiniLM-L6-v2"))
    results = {
        "embedder": "all-MiniLM-L6-v2", "hardware": hardware(),
        "membership": members(embedder, options.data, 40 if options.quick else 500),
        "slots": slots(embedder, options.data, *((20, 30) if options.quick else (200, 300))),
    }  # fmt: skip
    print(tables(results))
    if not options.quick:
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        RESULTS.with_suffix(".md").write_text(tables(results), encoding="utf-8")


if __name__ == "__main__":
    main()
