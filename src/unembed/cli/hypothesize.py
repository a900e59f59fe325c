"""`unembed hypothesize`."""

from __future__ import annotations


def hypothesize(
    vectors: str,
    output: str,
    model: str,
    embedder: str | None = None,
    max_tokens: int | None = None,
    store: str = "float32",
    device: str | None = None,
    dtype: str = "float32",
    quiet: bool = False,
) -> int:
    """Write a first hypothesis for each text of a vector folder.

    That is what a corrector is trained on. Several processes (torchrun) share the work.

    Args:
        vectors: a folder that `unembed embed` or a training run wrote.
        output: a folder (drafts.jsonl, vectors.npy, meta.json). A run that was stopped goes on where it was.
        model: the hypothesizer: a folder or a hub id.
        embedder: by another name than the model knows it.
        max_tokens: of a hypothesis, in the model's own tokens; by default what the model was trained on.
        store: float32 or float16, for the hypotheses' vectors.
        device: cpu, cuda, mps, npu…; by default the best there is.
        dtype: precision of model and embedder.
        quiet: no progress bar.
    """
    from unembed.cli.console import console, progress
    from unembed.inverter import load
    from unembed.models.encoder_decoder import EncoderDecoderModel
    from unembed.processes import processes
    from unembed.training.hypotheses import write_hypotheses

    with processes() as team, progress(None, "hypothesize", quiet or not team.first) as bar:
        inverter = load(model, embedder, device=team.device(device), dtype=dtype)
        if max_tokens is None and isinstance(inverter.model, EncoderDecoderModel):
            max_tokens = inverter.model.hypothesis_tokens
        if max_tokens is not None:  # start token, text, </s>
            inverter.model.max_tokens = max_tokens + 1

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fresh = write_hypotheses(
            inverter.model, inverter.embedder, vectors, output, dtype=store, progress=show, processes=team
        )
    if team.first:
        console().print(f"hypotheses are in {output} ({fresh} written now)", markup=False)
    return 0
