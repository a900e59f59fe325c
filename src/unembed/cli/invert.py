"""`unembed invert`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unembed.errors import InputError, require
from unembed.results import ResultFile
from unembed.search.types import SearchConfig

if TYPE_CHECKING:
    import numpy as np

    from unembed.inverter import Inverter
    from unembed.search.types import Inversion
    from unembed.stores import VectorSource

logger = logging.getLogger(__name__)


def invert(
    text: str | None = None,
    vectors: str | None = None,
    output: str | None = None,
    model: str = "all-MiniLM-L6-v2",
    embedder: str | None = None,
    steps: int = 20,
    consensus: int = 0,
    sequence_beam_width: int = 4,
    budget: int | None = None,
    thorough: bool = False,
    prior_weight: float = SearchConfig.prior_weight,
    seed: int = 0,
    normalize: bool = False,
    limit: int | None = None,
    ids_field: str | None = None,
    vector_field: str | None = None,
    targets_at_once: int = 32,
    candidates: bool = False,
    trace: bool = False,
    plot: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    model_dtype: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Turn vectors back into text.

    Args:
        text: a text to embed and invert.
        vectors: a file of vectors (.npy, .npz, .parquet, .jsonl, .safetensors, .faiss), - for JSON lines on standard
            input, or a store such as qdrant://HOST:PORT/COLLECTION.
        output: JSONL file for the results; a run that was stopped goes on where it was. Without it: a table.
        model: name of a shipped model, a folder, or a hub id.
        embedder: the embedder that made the vectors; by default the one that the model was trained on.
        steps: rounds of correction; 0 is the hypothesizer alone.
        consensus: with steps 0, samples that the answer is made from, by what most of them have; 0: greedy.
        sequence_beam_width: hypotheses kept from round to round.
        budget: embedder queries allowed for each vector.
        thorough: search for longer, and within words: 80 steps where the default would be taken.
        prior_weight: λ of score = cosine + λ · log p(text), falling as 8 / words from 9 words on; 0: cosine alone.
        seed: same seed, same vectors, same results.
        normalize: scale the vectors to unit length.
        limit: invert only the first so many vectors.
        ids_field: field of the vectors' ids.
        vector_field: field, column or array that holds the vectors.
        targets_at_once: vectors searched together; lower it to save memory.
        candidates: write the other candidates of each result too.
        trace: write (or, without output, print) how each search went too.
        plot: draw cosine against queries of each search into this image file (.png, .svg).
        device: cpu, cuda, mps, npu…; by default the best there is.
        dtype: precision of the embedder: float32, bfloat16 or float16.
        model_dtype: precision of the model: float32, bfloat16, float16, or int8 for a T5 on a CPU (faster, a quarter of
            the memory; its texts may change); by default its family's own.
        overwrite: replace an output that holds another run.
        dry_run: say what would be done, and the cost, and stop.
        quiet: no progress bar.
    """
    if (text is None) == (vectors is None):
        raise InputError("give either --text (a text to embed and invert) or --vectors (a file of vectors)")
    from unembed.cli.console import console, progress
    from unembed.inverter import Inverter, load
    from unembed.stores.address import without_password

    fields = {"ids_field": ids_field, "vector_field": vector_field}
    source = _Source(None if text is None else [text], vectors, fields, limit)
    config = Inverter.search_config(
        steps=steps, consensus=consensus, sequence_beam_width=sequence_beam_width, budget=budget,
        prior_weight=prior_weight, seed=seed, targets_at_once=targets_at_once, thorough=thorough,
    )  # fmt: skip
    if dry_run:
        console().print(_plan(source, config, model), markup=False)
        return 0
    if plot:
        require("matplotlib", "plot")
    inverter = load(model, embedder, device=device, dtype=dtype, model_dtype=model_dtype).behind(source.code)
    config = inverter.suited(config)
    kept, rows, done, passed = [], [], set(), 0
    file = None
    if output is not None:
        settings = {
            "model": model, "weights": inverter.model.digest, "embedder": inverter.embedder.spec.to_dict(),
            "steps": steps, "consensus": consensus, "sequence_beam_width": sequence_beam_width, "budget": budget,
            "seed": seed,
            "prior_weight": prior_weight, "targets_at_once": targets_at_once, "normalize": normalize,
            "candidates": candidates, "trace": trace,
            "source": without_password(vectors) if vectors else source.texts,
            **({"model_dtype": model_dtype} if model_dtype else {}),
            **({"thorough": True} if thorough else {}),
            **{key: name for key, name in fields.items() if name is not None},
        }  # fmt: skip
        file = ResultFile(output, settings, kind="invert", overwrite=overwrite)
        done = file.done()
    left_out = {"trace": not trace, "candidates": not candidates}
    with file or nullcontext(), progress(limit, "invert", quiet) as bar:
        for ids, batch, first, count in source.chunks(inverter, targets_at_once):
            bar.total = count
            hashes = source.hashes(ids, batch) if file else {}
            if file:
                _refuse_others(file, ids, hashes, first)
            # Chunks are cut by position and searched whole, so that a run that was stopped finds the same texts as one
            # that was not.
            if not set(ids) <= done:
                began = time.perf_counter()
                found = list(inverter.stream(batch, config, normalize=normalize, first=first))
                seconds = round((time.perf_counter() - began) / len(ids), 4)
                chunk = []
                for name, inversion in zip(ids, found, strict=True):
                    made_of = {"vector_hash": hashes[name]} if hashes else {}
                    row = {"id": name, **made_of, **inversion.to_dict(), "seconds": seconds}
                    chunk.append({key: value for key, value in row.items() if not left_out.get(key)})
                kept += found if plot or (trace and not file) else []
                if file:
                    file.append(chunk)
                else:
                    rows += chunk
            else:
                passed += len(ids)
            bar.update(len(ids))
    if not file:
        _show(rows, kept if trace else [])
    if plot:
        _draw(kept, passed, plot)
    return 0


def _refuse_others(file: ResultFile, ids: list[str], hashes: dict[str, str], first: int) -> None:
    """InputError where the file holds results of other vectors than these, of which the first is number `first`."""
    file.check_vectors(hashes)
    done = file.done() if first == 0 else set()
    if done and done.isdisjoint(ids):  # a run begins at the beginning
        raise InputError(
            f"{file.path}: holds results of other vectors, none of them with the id {ids[0]!r} or one of those that "
            "follow; give another -o, or --overwrite to start afresh"
        )


@dataclass
class _Source:
    """Where the vectors come from: texts to embed, or a file."""

    texts: list[str] | None
    vectors: str | None
    fields: dict[str, str | None]
    """Names of the fields with ids and vectors, as `open_vectors` takes them."""
    limit: int | None
    code: Callable[[np.ndarray], np.ndarray] | None = None
    """What the store puts vectors through, where it says so."""

    def __post_init__(self) -> None:
        """Look at what was asked for before any model is loaded."""
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}: it must be 1 or more")
        if self.vectors not in (None, "-"):
            with self._open() as opened:
                self.code = opened.code

    def count(self) -> int | None:
        if self.texts is not None:
            count: int | None = len(self.texts)
        else:
            with self._open() as source:
                count = source.count
        return count if self.limit is None else min(count, self.limit) if count is not None else self.limit

    def _open(self) -> VectorSource:
        from unembed.stores import open_vectors

        return open_vectors(str(self.vectors), text_field="", **self.fields)

    def hashes(self, ids: list[str], batch: Any) -> dict[str, str]:  # noqa: ANN401
        """Id → hash of its vector; nothing of texts, which stand among the settings themselves."""
        from unembed.stores import vector_hash

        return {} if self.texts is not None else dict(zip(ids, map(vector_hash, batch), strict=True))

    def chunks(self, inverter: Inverter, size: int) -> Iterator[tuple[list[str], Any, int, int | None]]:
        """(ids, vectors, number of the first, total or None), `size` at a time."""
        at = 0
        for ids, batch, count in self._all(inverter, size):
            if self.limit is not None:
                ids, batch = ids[: self.limit - at], batch[: self.limit - at]
                count = min(count, self.limit) if count is not None else self.limit
            if not ids:
                return
            yield ids, batch, at, count
            at += len(ids)

    def _all(self, inverter: Inverter, size: int) -> Iterator[tuple[list[str], Any, int | None]]:
        if self.texts is not None:
            for start in range(0, len(self.texts), size):
                part = self.texts[start : start + size]
                yield [str(start + i) for i in range(len(part))], inverter.embedder.encode(part), len(self.texts)
            return
        with self._open() as source:
            for batch in source.batches(size):
                yield batch.ids, batch.vectors, source.count


def _draw(found: list[Inversion], passed: int, path: str) -> None:
    """The plot of what was searched now; what is in the results already has left no trace of its search."""
    from unembed.plots import plot_traces

    if not found:
        logger.info("%s: not drawn, since all %d results were there already", path, passed)
        return
    plot_traces(found, path)
    if passed:
        logger.info("%s: shows %d searches, without those of %d results that were there", path, len(found), passed)


def _table(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    from unembed.cli.console import table

    columns = [("id", "left"), ("recovered", "left"), ("exact", "right"), ("cosine", "right"), ("steps", "right")]
    headings = [*columns, ("queries", "right"), ("seconds", "right"), ("P(F1≥.8)", "right")]
    return table(headings, [_cells(row) for row in rows])


def _show(rows: list[dict[str, Any]], traced: list[Inversion]) -> None:
    from unembed.cli.console import console, visible
    from unembed.search.trace import trace_lines

    out = console()
    out.print(_table(rows))
    for row, inversion in zip(rows, traced, strict=False):
        out.print(f"\nvector {row['id']}, stopped: {inversion.stopped}", markup=False)
        for line in trace_lines(inversion):
            out.print(visible(line), markup=False)


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    from unembed.cli.console import chance

    exact = "yes" if row["exact"] else "no"
    cosine, seconds = f"{row['cosine']:.4f}", f"{row['seconds']:.2f}"
    return row["id"], row["text"], exact, cosine, row["steps"], row["queries"], seconds, chance(row["confidence"])


def _plan(source: _Source, config: SearchConfig, model: str) -> str:
    count = source.count() if source.vectors != "-" else source.limit
    most = config.most_queries()
    total = "unknown" if count is None else f"at most {count * most}"
    return (
        f"invert {count if count is not None else 'an unknown number of'} vectors with {model}: steps {config.steps}, "
        f"sequence beam {config.sequence_beam_width}; at most {most} embedder queries a vector, {total} in all"
    )
