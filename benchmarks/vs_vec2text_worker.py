"""One side of vs_vec2text.py: a process that opens a pair with one system and inverts as it is told.

    python vs_vec2text_worker.py SYSTEM VECTORS.npy THREADS

in a folder that holds the pair (jxm/gtr__nq__32, jxm/gtr__nq__32__correct). For each line {"steps", "beam", "n"} of
standard input it inverts the first n vectors and prints {"seconds", "cpu_seconds", "texts", "peak_mb"}. It runs in two
environments, that of vec2text and that of unembed, and imports what it needs there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAIR = ("jxm/gtr__nq__32", "jxm/gtr__nq__32__correct")
Invert = Callable[[Any, int, int], list[str]]


def theirs() -> Invert:
    """vec2text, by its public functions."""
    import torch
    import vec2text

    hypothesizer = vec2text.models.InversionModel.from_pretrained(PAIR[0])
    corrector = vec2text.models.CorrectorEncoderModel.from_pretrained(PAIR[1])
    both = vec2text.load_corrector(hypothesizer, corrector)

    def invert(vectors: Any, steps: int, beam: int) -> list[str]:
        # Its own name for "no correction" is None, and for "no sequence beam" 0.
        wide = beam if beam > 1 else 0
        with torch.no_grad():
            return vec2text.invert_embeddings(
                torch.from_numpy(vectors), both, num_steps=steps or None, sequence_beam_width=wide
            )

    return invert


def ours(**options: Any) -> Invert:
    from unembed.compat import vec2text

    both = vec2text.load_corrector(*PAIR, device="cpu", **options)
    return lambda vectors, steps, beam: vec2text.invert_embeddings(
        vectors, both, steps or None, beam if beam > 1 else 0
    )


def nanov2t() -> Invert:
    """nanoV2T's loop from its description, writing by transformers' `generate` as it does."""
    import torch

    import unembed
    from unembed.compat import nanov2t
    from unembed.models.encoder_decoder import EncoderDecoderNetwork

    def plain(net: Any, *condition: Any, n: int = 1, sampling: Any = None, max_length: int, seed: int = 0) -> Any:
        x, mask = net.inputs(*condition)
        with torch.no_grad():
            ids = net.t5.generate(
                inputs_embeds=x, attention_mask=mask, num_return_sequences=n, max_length=max_length, do_sample=False,
                num_beams=max(n, sampling.beams), early_stopping=False,
            )  # fmt: skip
        return ids, torch.zeros(len(ids))

    EncoderDecoderNetwork.generate = plain  # type: ignore[method-assign]
    inverter = unembed.load("+".join(PAIR), device="cpu")
    return lambda vectors, steps, beam: nanov2t.invert_embeddings(vectors, inverter, steps, beam)[-1]


SYSTEMS: dict[str, Callable[[], Invert]] = {
    "vec2text": theirs,
    "unembed": ours,
    "unembed, bfloat16": lambda: ours(dtype="bfloat16"),
    "unembed, int8": lambda: ours(dtype="int8"),
    "unembed, faithful": lambda: ours(faithful=True),
    "nanoV2T's loop": nanov2t,
}


def peak_mb() -> float:
    """Peak resident memory of this process so far (Linux)."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    import numpy as np
    import torch

    system, vectors, threads = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(threads)
    began = time.perf_counter()
    invert = SYSTEMS[system]()
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        began, used = time.perf_counter(), time.process_time()
        texts = invert(vectors[: asked["n"]], asked["steps"], asked["beam"])
        answer = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
        answer |= {"texts": texts, "peak_mb": peak_mb()}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
