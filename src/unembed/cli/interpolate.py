"""`unembed interpolate`."""

from __future__ import annotations

from unembed.errors import InputError


def interpolate(
    texts: list[str] | None = None,
    vectors: str | None = None,
    n: int = 9,
    model: str = "all-MiniLM-L6-v2",
    steps: int = 20,
    sequence_beam_width: int = 4,
    seed: int = 0,
    normalize: bool = False,
    device: str | None = None,
) -> int:
    """Write the texts on the way between two vectors.

    Args:
        texts: two texts, as --texts '["one", "other"]'; the way goes between their vectors.
        vectors: a file of vectors whose first two are the ends.
        n: points on the way, both ends included.
        model: name of a shipped model, a folder, or a hub id.
        steps: rounds of correction.
        sequence_beam_width: hypotheses kept from round to round.
        seed: same seed, same results.
        normalize: scale the vectors to unit length.
        device: cpu, cuda, mps, npu…; by default the best there is.
    """
    if (texts is None) == (vectors is None):
        raise InputError("give either --texts (two texts) or --vectors (a file whose first two vectors are the ends)")
    if texts is not None and len(texts) != 2:
        raise InputError(f"--texts has {len(texts)} texts: an interpolation goes between two")
    from unembed.cli.console import console, table
    from unembed.inverter import load
    from unembed.stores import read_vectors

    inverter = load(model, device=device)
    ends = inverter.embedder.encode(texts) if texts else read_vectors(str(vectors), limit=2).vectors
    if len(ends) < 2:
        raise InputError(f"{vectors} holds one vector: an interpolation goes between two")
    found = inverter.interpolate(
        ends[0], ends[1], n, steps=steps, sequence_beam_width=sequence_beam_width, seed=seed, normalize=normalize
    )
    rows = [(f"{i / (n - 1):.2f}", inversion.text, f"{inversion.cosine:.4f}") for i, inversion in enumerate(found)]
    console().print(table([("way", "right"), ("text", "left"), ("cosine", "right")], rows))
    return 0
