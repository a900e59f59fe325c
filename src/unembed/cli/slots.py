"""`unembed slots`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.privacy.probes.slots import Filler, Template
    from unembed.results import ResultFile

SHOWN = 20
KEPT_AT_ONCE = 16
"""Records between two writings of the state."""
LEVEL = 0.05
RANKED = "p is the rank among these records; --reference makes it a chance"


def slots(
    template: str,
    candidates: str,
    vectors: str,
    reference: str | None = None,
    output: str | None = None,
    embedder: str = "all-MiniLM-L6-v2",
    at_most: int = 20_000,
    shortlist: int = 1000,
    ids_field: str | None = None,
    vector_field: str | None = None,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Find what a record says where its wording is known: candidates for the slots of a template, ranked by cosine.

    Args:
        template: a text with named slots, such as "{person} was prescribed {drug}".
        candidates: a YAML file: for each slot a list, or the name of a text file beside it with one candidate a line.
        vectors: the records: a file of vectors, or a store.
        reference: vectors of records that were not written with these candidates, against which p-values are taken. By
            default the other records, which is too cautious where many of them were.
        output: folder for fillings.jsonl (the state: the same command goes on) and report.json.
        embedder: the one that made the vectors: name, folder or hub id.
        at_most: combinations of candidates of which all are embedded.
        shortlist: where there are more, combinations of the most promising ones embedded for each record.
        ids_field: field of the vectors' ids.
        vector_field: field, column or array that holds the vectors.
        seed: same seed, same results.
        device: by default the best there is.
        overwrite: start afresh where the output holds another run.
        dry_run: say what would be done, and do nothing.
        quiet: no progress.
    """
    from unembed.cli.console import console
    from unembed.embedders import embedder as open_embedder
    from unembed.privacy.probes.slots import Filler, parse, read_candidates
    from unembed.results import ResultFile, write_report
    from unembed.stores import open_vectors
    from unembed.stores.address import without_password

    lists = read_candidates(candidates)
    made = open_embedder(embedder, device=device)
    parsed = parse(template, lists, made)
    fields = {"ids_field": ids_field, "vector_field": vector_field}
    if dry_run:
        with open_vectors(vectors, **fields) as source:
            console().print(_plan(parsed, at_most, shortlist, source.count), markup=False)
        return 0
    settings = {
        "template": template, "candidates": parsed.slots, "vectors": without_password(vectors),
        "reference": reference and without_password(reference), "seed": seed,
        "embedder": made.spec.to_dict(), "at_most": at_most, "shortlist": shortlist, **fields,
    }  # fmt: skip
    kept = ResultFile(Path(output) / "fillings.jsonl", settings, kind="slots", overwrite=overwrite) if output else None
    with kept or nullcontext():
        filler = Filler(parsed, made, at_most, shortlist, seed)
        rows = _filled(filler, vectors, "record", fields, kept, quiet)
        nothing = _filled(filler, reference, "reference", {}, kept, quiet) if reference else []
    for address, found in ((vectors, rows), (reference, nothing)):
        if address and not found:
            raise InputError(f"{without_password(address)}: holds no usable vector (all are zero, NaN or infinite)")
    summary = _judge(rows, nothing)
    rows.sort(key=lambda row: (row["p"], -row["gap"]))
    _show(rows, summary)
    if output is not None:
        report = {"settings": settings, "references": len(nothing), "slots": summary, "records": rows}
        write_report(Path(output) / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    return 0


def _filled(
    filler: Filler, address: str, kind: str, fields: dict[str, Any], kept: ResultFile | None, quiet: bool
) -> list[dict[str, Any]]:
    """The best filling of each usable vector, as rows; those that are in the file already are not made again. Raises
    InputError where such a row was made of another vector."""
    from unembed.cli.console import progress
    from unembed.privacy.probes.stored import directions
    from unembed.rare import stands_in
    from unembed.results import read_results
    from unembed.stores import open_vectors, vector_hash

    done = {row["id"]: row for row in read_results(kept.path)[1]} if kept else {}
    rows = []
    with open_vectors(address, **fields) as source, progress(source.count, kind, quiet) as bar:
        for batch, left_out in directions(source, filler.embedder.spec.dim):
            names = [f"{kind}/{name}" for name in batch.ids]
            hashes = dict(zip(names, map(vector_hash, batch.vectors), strict=True)) if kept else {}
            if kept:
                kept.check_vectors(hashes)
            new = [i for i, name in enumerate(names) if name not in done]
            for start in range(0, len(new), KEPT_AT_ONCE):
                part = new[start : start + KEPT_AT_ONCE]
                made = []
                for i, filling in zip(part, filler.fill(batch.vectors[part]), strict=True):
                    row = {"id": names[i], "record": batch.ids[i], **asdict(filling), "gap": filling.gap}
                    if kept:
                        row["vector_hash"] = hashes[names[i]]
                    if batch.texts and batch.texts[i]:
                        row["right"] = {name: stands_in(one, batch.texts[i]) for name, one in filling.values.items()}
                    made.append(row)
                if kept:
                    kept.append(made)
                done.update((row["id"], row) for row in made)
                bar.update(len(part))
            rows += [done[name] for name in names]
            bar.update(len(names) - len(new) + left_out)
    return rows


def _judge(rows: list[dict[str, Any]], nothing: list[dict[str, Any]]) -> dict[str, Any]:
    """Give each row its p-values; what they come to for each slot, and for the whole text."""
    from unembed.metrics import bootstrap
    from unembed.privacy.probes.significance import p_among, p_values

    def chances(of: Callable[[dict[str, Any]], float]) -> list[float]:
        scores = np.array([of(row) for row in rows])
        return (p_values(scores, np.array([of(row) for row in nothing])) if nothing else p_among(scores)).tolist()

    names = list(rows[0]["gaps"])
    for row, p in zip(rows, chances(lambda row: row["gap"]), strict=True):
        row.update(p=p, chances={})
    summary: dict[str, Any] = {}
    for name in names:
        for row, p in zip(rows, chances(lambda row, name=name: row["gaps"][name]), strict=True):  # type: ignore[misc]
            row["chances"][name] = p
        summary[name] = {"records": len(rows)}
        parts = [("right", rows)]
        if nothing:  # among themselves, one record in twenty is below LEVEL whatever they hold
            believed = [row for row in rows if row["chances"][name] <= LEVEL]
            summary[name]["believed"] = len(believed)
            parts.append(("right_of_believed", believed))
        for key, some in parts:
            known = [float(row["right"][name]) for row in some if "right" in row]
            if known:
                summary[name][key] = bootstrap(known).to_dict()
    return summary


def _show(rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    from unembed.cli.console import console, table
    from unembed.metrics import Estimate

    columns = [("record", "left"), ("best text", "left"), ("cosine", "right"), ("p", "right")]
    cells = [
        (
            row["record"], row["text"], f"{row['cosine']:.4f}", f"{row['p']:.3g}",
            *[f"{row['values'][name]} ({row['chances'][name]:.2g})" for name in summary],
        )
        for row in rows[:SHOWN]
    ]  # fmt: skip
    out = console()
    out.print(table([*columns, *[(f"{name} (p)", "left") for name in summary]], cells))
    for name, one in summary.items():
        right = "".join(
            f"; right in {Estimate(**one[key])} of {what}"
            for key, what in (("right", "all"), ("right_of_believed", "these"))
            if key in one
        )
        count = f"p <= {LEVEL} in {one['believed']} of {one['records']} records" if "believed" in one else RANKED
        out.print(f"{name}: {count}{right}", markup=False)


def _plan(template: Template, at_most: int, shortlist: int, count: int | None) -> str:
    from unembed.privacy.probes.slots import CONTEXTS

    what = f"{template.combinations} combinations"
    if template.combinations <= at_most:
        return f"{what}, all embedded once: {template.combinations} texts"
    first = CONTEXTS * sum(map(len, template.slots.values()))
    total = "unknown" if count is None else f"{first + count * shortlist}"
    return f"{what}: {first} texts embedded for all, at most {shortlist} for each record, {total} in all"
