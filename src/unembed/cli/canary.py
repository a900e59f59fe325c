"""`unembed canary`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unembed.errors import InputError, require

ACTIONS = ("make", "embed", "find", "score")
EACH = 20


def canary(
    action: str,
    file: str,
    output: str | None = None,
    types: list[str] | None = None,
    each: int | None = None,
    input: str | None = None,
    rate: float | None = None,
    templates: str | None = None,
    field: str = "text",
    embedder: str = "all-MiniLM-L6-v2",
    vectors: str | None = None,
    results: str | None = None,
    k: list[int] | int | None = None,
    seed: int = 0,
    device: str | None = None,
    quiet: bool = False,
) -> int:
    """Plant invented secrets among vectors, and count how many an inverter reads.

    Args:
        action: make (write canaries), embed (their vectors, to be planted), find (pick them out of a store, to be
            inverted) or score (count what was read of them).
        file: the canaries, JSON Lines with id, text, type and secret.
        output: for embed and find: the vectors, .npz or .parquet. For score: the figures as JSON.
        types: for make: some of name, email, card, key, diagnosis; by default all.
        each: for make: how many of each type; by default 20.
        input: for make: a file of texts of your own among which they are planted.
        rate: for make: their share of all records, in place of each.
        templates: for make: a text file with sentences of your own, such as "Dear {name}, your key is {key}".
        field: for make: the field of the input that holds the text.
        embedder: for embed: name, folder or hub id.
        vectors: for find: the file or store that they were planted in.
        results: for score: what unembed invert wrote; --candidates keeps more than one text a vector there.
        k: for score: a canary was read where its secret stands in one of the first k texts; by default 1 and all kept.
        seed: for make: same seed, same canaries.
        device: by default the best there is.
        quiet: no progress.
    """
    if action == "make":
        return _make(Path(file), types, each, input, rate, templates, field, seed)
    if action == "embed":
        return _embed(file, output, embedder, device, quiet)
    if action == "find":
        return _find(file, output, vectors)
    if action == "score":
        return _score(file, output, results, k)
    raise InputError(f"unknown action '{action}': choose {', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}")


def _make(
    path: Path, types: list[str] | None, each: int | None, input: str | None, rate: float | None,
    templates: str | None, field: str, seed: int,
) -> int:  # fmt: skip
    from unembed.privacy.probes.canaries import TEMPLATES, TYPES, make, planted, shares
    from unembed.privacy.records import write_records
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    if rate is not None and (each is not None or input is None):
        raise InputError("--rate is a share of the texts of --input: give both, and no --each")
    if each is not None and each < 1:
        raise InputError(f"each is {each}: it must be 1 or more")
    kinds = list(dict.fromkeys(types or TYPES))
    texts = list(read_texts(SourceConfig(input, field=field))) if input else []
    if input and not texts:
        raise InputError(f"{input} holds no text: give a file with one text a line")
    counts = dict.fromkeys(kinds, each or EACH) if rate is None else shares(rate, len(texts), kinds)
    own = tuple(read_texts(SourceConfig(templates))) if templates else TEMPLATES
    canaries = make(counts, own, seed)
    write_records(path, planted(canaries, texts, seed))
    among = f" among {len(texts)} texts ({len(canaries) / (len(canaries) + len(texts)):.2%})" if texts else ""
    _say(f"{len(canaries)} canaries in {path}{among}")
    return 0


def _embed(file: str, output: str | None, embedder: str, device: str | None, quiet: bool) -> int:
    from unembed.cli.console import progress
    from unembed.embedders import embedder as open_embedder
    from unembed.privacy.probes.canaries import read_planted, save_vectors
    from unembed.training.vectors import VectorFolder, write_vectors

    path = _new(output, "embed")
    records = read_planted(file)
    texts, ids = [record["text"] for record in records], [record["id"] for record in records]
    folder = Path(path + ".partial")  # where a run that was stopped goes on
    with progress(len(texts), "embed", quiet) as bar:
        write_vectors(
            texts, open_embedder(embedder, device=device), folder, progress=lambda done, _: bar.update(done - bar.n)
        )
    save_vectors(path, ids, texts, VectorFolder(folder).vectors)
    shutil.rmtree(folder)
    _say(f"{len(texts)} vectors in {path}")
    return 0


def _find(file: str, output: str | None, vectors: str | None) -> int:
    from unembed.privacy.probes.canaries import find, read_canaries, save_vectors
    from unembed.stores import open_vectors

    path = _new(output, "find")
    if vectors is None:
        raise InputError("give --vectors, a file or a store that the canaries were planted in")
    canaries = read_canaries(file)
    with open_vectors(vectors) as source:
        found = find(source, canaries)
    texts = {one.id: one.text for one in canaries}
    save_vectors(path, found.ids, [texts[name] for name in found.ids], found.vectors)
    _say(f"{len(found.ids)} of {len(canaries)} canaries found: {path}")
    return 0


def _score(file: str, output: str | None, results: str | None, k: list[int] | int | None) -> int:
    from unembed.privacy.probes.canaries import read_canaries
    from unembed.privacy.probes.canary_recall import n_best, recall
    from unembed.results import read_results, write_report

    if results is None:
        raise InputError("give --results, what unembed invert --candidates wrote of the canaries' vectors")
    canaries = read_canaries(file)
    found = n_best(read_results(results)[1])
    kept = max((len(found[one.id]) for one in canaries if one.id in found), default=1)
    ks = [k] if isinstance(k, int) else k or sorted({1, kept})
    figures = recall(canaries, found, ks)
    _show(figures, ks)
    if missing := len(canaries) - figures["all"]["planted"]:
        _say(f"{missing} of the {len(canaries)} canaries are not among the results and are not counted")
    if output is not None:
        write_report(Path(output), json.dumps(figures, indent=1))
    return 0


def _new(output: str | None, action: str) -> str:
    """The file for vectors that is asked for, looked at before any work is done."""
    if output is None or Path(output).suffix not in (".npz", ".parquet"):
        raise InputError(f"{action} writes vectors: give --output, a file that ends in .npz or .parquet")
    if Path(output).exists():
        raise InputError(f"{output} exists already: delete it or choose another output")
    if output.endswith(".parquet"):
        require("pyarrow", "parquet")
    return output


def _show(figures: Mapping[str, Any], ks: Sequence[int]) -> None:
    from unembed.cli.console import console, table

    def cell(kind: str, what: str, k: int) -> str:
        one = figures[kind].get(what, {}).get(str(k))
        if one is None:
            return "–"
        interval = "" if one["low"] is None else f" ({100 * one['low']:.0f}–{100 * one['high']:.0f})"
        return f"{100 * one['value']:.1f} %{interval}"

    columns = [("type", "left"), ("planted", "right")]
    columns += [(f"{what} in {k}", "right") for k in ks for what in ("read", "exactly", "control")]
    rows = [
        (kind, one["planted"], *[cell(kind, what, k) for k in ks for what in ("recall", "exact", "control")])
        for kind, one in figures.items()
    ]
    console().print(table(columns, rows))


def _say(line: str) -> None:
    from unembed.cli.console import console

    console().print(line, markup=False, soft_wrap=True)
