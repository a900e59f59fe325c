"""`unembed invert`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.search.types import Inversion


def invert(
    text: list[str] | str | None = None,
    vectors: str | None = None,
    output: str | None = None,
    model: str = "all-MiniLM-L6-v2",
    embedder: str | None = None,
    steps: int = 20,
    sequence_beam_width: int = 4,
    budget: int | None = None,
    seed: int = 0,
    normalize: bool = False,
    limit: int | None = None,
    ids_field: str | None = None,
    vector_field: str | None = None,
    targets_at_once: int = 32,
    candidates: bool = False,
    trace: bool = False,
    device: str | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Turn vectors back into text.

    Args:
        text: a text, or a list of texts, to embed and invert.
        vectors: a .npy, .npz, .parquet, .jsonl or .safetensors file of vectors, or - for JSON lines on standard input.
        output: JSONL file for the results; a run that was stopped goes on where it was. Without it: a table.
        model: name of a shipped model, a folder, or a hub id.
        embedder: the embedder that made the vectors; by default the one that the model was trained on.
        steps: rounds of correction; 0 is the hypothesizer alone.
        sequence_beam_width: hypotheses kept from round to round.
        budget: embedder queries allowed for each vector.
        seed: same seed, same vectors, same results.
        normalize: scale the vectors to unit length.
        limit: invert only the first so many vectors.
        ids_field: field of the vectors' ids.
        vector_field: field, column or array that holds the vectors.
        targets_at_once: vectors searched together; lower it to save memory.
        candidates: write the other candidates of each result too.
        trace: write how each search went too.
        device: cpu, cuda, mps, npu…; by default the best there is.
        dtype: precision of the embedder: float32, bfloat16 or float16.
        overwrite: replace an output that holds another run.
        dry_run: say what would be done, and the cost, and stop.
        quiet: no progress bar.
    """
    if (text is None) == (vectors is None):
        raise InputError("give either --text (a text to embed and invert) or --vectors (a file of vectors)")
    from unembed.cli.console import console
    from unembed.inverter import Inverter

    texts = [text] if isinstance(text, str) else text
    config = Inverter.search_config(
        steps=steps, sequence_beam_width=sequence_beam_width, budget=budget, seed=seed, targets_at_once=targets_at_once
    )
    if dry_run:
        console().print(_plan(texts, vectors, limit, config, model), markup=False)
        return 0
    from unembed.inverter import load

    inverter = load(model, embedder, device=device, dtype=dtype)
    settings = {
        "model": model, "embedder": inverter.embedder.spec.to_dict(), "steps": steps, "budget": budget, "seed": seed,
        "sequence_beam_width": sequence_beam_width, "normalize": normalize, "targets_at_once": targets_at_once,
        "candidates": candidates, "trace": trace, "source": vectors or texts,
    }  # fmt: skip
    parts = {"candidates": candidates, "trace": trace}
    if output is None:
        rows = list(
            _rows(inverter, config, texts, vectors, normalize, limit, ids_field, vector_field, set(), parts, quiet)
        )
        console().print(_table([row for chunk in rows for row in chunk]))
        return 0
    from unembed.results import ResultFile

    with ResultFile(output, settings, kind="invert", overwrite=overwrite) as file:
        for chunk in _rows(
            inverter, config, texts, vectors, normalize, limit, ids_field, vector_field, file.done(), parts, quiet
        ):
            file.append(chunk)
    return 0


def _rows(
    inverter: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    texts: list[str] | None,
    vectors: str | None,
    normalize: bool,
    limit: int | None,
    ids_field: str | None,
    vector_field: str | None,
    done: set[str],
    parts: dict[str, bool],
    quiet: bool,
) -> Any:  # noqa: ANN401
    """Yield result rows in chunks of `targets_at_once`. Chunks are cut by position and searched whole, so that a run
    that was stopped finds the same texts as one that was not."""
    from unembed.cli.console import progress

    size, at = config.targets_at_once, 0
    with progress(limit, "invert", quiet) as bar:
        for ids, batch, count in _chunks(inverter, texts, vectors, size, ids_field, vector_field):
            bar.total = min(count, limit) if count is not None and limit is not None else count or limit
            if limit is not None and at + len(ids) > limit:
                ids, batch = ids[: limit - at], batch[: limit - at]
            if not ids:
                return
            if not set(ids) <= done:
                began = time.perf_counter()
                found = list(inverter.stream(batch, config, normalize=normalize, first=at))
                seconds = (time.perf_counter() - began) / len(ids)
                yield [_row(name, inversion, seconds, parts) for name, inversion in zip(ids, found, strict=True)]
            at += len(ids)
            bar.update(len(ids))


def _chunks(
    inverter: Any,  # noqa: ANN401
    texts: list[str] | None,
    vectors: str | None,
    size: int,
    ids_field: str | None,
    vector_field: str | None,
) -> Any:  # noqa: ANN401
    """(ids, vectors, total count or None), `size` at a time."""
    if texts is not None:
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            yield [str(start + i) for i in range(len(part))], inverter.embedder.encode(part), len(texts)
        return
    from unembed.stores import open_vectors

    with open_vectors(str(vectors), ids_field=ids_field, vector_field=vector_field) as source:
        for batch in source.batches(size):
            yield batch.ids, batch.vectors, source.count


def _row(name: str, inversion: Inversion, seconds: float, parts: dict[str, bool]) -> dict[str, Any]:
    row = {"id": name, **inversion.to_dict(), "seconds": round(seconds, 4)}
    for part, wanted in parts.items():
        if not wanted:
            del row[part]
    return row


def _table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    from unembed.cli.console import table

    columns = [("id", "left"), ("recovered", "left"), ("exact", "right"), ("cosine", "right"), ("steps", "right")]
    headings = [*columns, ("queries", "right"), ("seconds", "right")]
    return table(headings, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    exact = "yes" if row["exact"] else "no"
    cosine, seconds = f"{row['cosine']:.4f}", f"{row['seconds']:.2f}"
    return row["id"], row["text"], exact, cosine, row["steps"], row["queries"], seconds


def _plan(texts: list[str] | None, vectors: str | None, limit: int | None, config: Any, model: str) -> str:  # noqa: ANN401
    if texts is not None:
        count: int | None = len(texts)
    else:
        from unembed.stores import open_vectors

        with open_vectors(vectors or "-") as source:
            count = source.count
    if limit is not None:
        count = min(count, limit) if count is not None else limit
    per_round = config.sequence_beam_width * (config.corrections + config.regrown) + config.edits
    most = 1 + (config.hypotheses + config.steps * per_round if config.steps else config.sequence_beam_width - 1)
    most = min(most, config.budget or most)
    total = "unknown" if count is None else f"at most {count * most}"
    return (
        f"invert {count if count is not None else 'an unknown number of'} vectors with {model}: steps {config.steps}, "
        f"sequence beam {config.sequence_beam_width}; at most {most} embedder queries a vector, {total} in all"
    )
