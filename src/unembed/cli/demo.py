"""`unembed demo`."""

from __future__ import annotations

import time

from unembed.errors import InputError


def demo(
    file: str | None = None,
    text: str | None = None,
    model: str = "all-MiniLM-L6-v2",
    steps: int = 20,
    sequence_beam_width: int = 4,
    thorough: bool = False,
    seed: int = 0,
) -> int:
    """Embed sentences, throw the text away, invert the vectors, and show what came back.

    Args:
        file: a text file with one sentence a line.
        text: your own sentence instead.
        model: name of a shipped model, a folder, or a hub id.
        steps: rounds of correction.
        sequence_beam_width: hypotheses kept from round to round.
        thorough: search for longer, as `unembed invert --thorough` does.
        seed: same seed, same results.
    """
    from unembed.cli.console import chance, console, differences, progress, table
    from unembed.inverter import load
    from unembed.metrics import token_f1
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    if text:
        sentences = [text]
    elif file:
        sentences = list(read_texts(SourceConfig(file)))
    else:
        raise InputError("give --file (one sentence a line) or --text")
    out = console()
    began = time.perf_counter()
    inverter = load(model)
    vectors = inverter.embedder.encode(sentences)
    out.print(
        f"{len(sentences)} sentences → {vectors.shape[1]} numbers each ({inverter.embedder.spec.id}); the inverter "
        f"sees only the numbers. Ready after {time.perf_counter() - began:.1f} s.\n",
        markup=False,
    )
    columns = [("original", "left"), ("recovered («wrong», ‹…› missing)", "left"), ("F1", "right"), ("exact", "right")]
    rows = []
    with progress(len(sentences), "sentences", False) as bar:
        for i, sentence in enumerate(sentences):
            began = time.perf_counter()
            [found] = inverter.invert(
                vectors[i], steps=steps, sequence_beam_width=sequence_beam_width, thorough=thorough, seed=seed
            )
            rows.append((
                sentence, differences(sentence, found.text), f"{token_f1(sentence, found.text):.2f}",
                "yes" if found.exact else "no", f"{found.cosine:.3f}", found.steps, found.queries,
                f"{time.perf_counter() - began:.1f}", chance(found.confidence),
            ))  # fmt: skip
            bar.update(1)
    columns += [(name, "right") for name in ("cosine", "steps", "queries", "seconds", "P(F1≥.8)")]
    out.print(table(columns, rows))
    return 0
