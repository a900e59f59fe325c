"""nanoV2T's inference, step by step, on its stage 1 and 2 or on any other pair.

All hypotheses of a target are corrected by a token beam search; of all that is written, the texts nearest to the target
are corrected in the next round. Only these are remembered: the round before them is forgotten, so that a text may get
worse, which `Inverter.invert` does not let happen. A target leaves once a text reproduces it, and when all have left,
the loop ends (there, it goes on with empty batches).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unembed.embedders import validate_vectors
from unembed.errors import InputError
from unembed.inverter import Inverter
from unembed.metrics import cosine
from unembed.models.base import GREEDY, Sampling

DONE = 1e-5
"""So near 1 the cosine of a text counts as 1."""


def invert_embeddings(
    embeddings: Any,  # noqa: ANN401  (anything that validate_vectors reads)
    inverter: Inverter,
    num_iters: int = 50,
    num_beams: int = 8,
    drafts: Sequence[str] | None = None,
) -> list[list[str]]:
    """The best texts of embeddings [n, d] after each round, the drafts first: at most num_iters + 1 lists of n texts.

    Args:
        embeddings: of the inverter's embedder.
        inverter: from `unembed.load`.
        num_iters: rounds at most.
        num_beams: hypotheses of a target, and width of the token beam search; num_beams² texts are embedded a round.
        drafts: stage 1's texts, one a row; by default they are written here.

    Raises:
        InputError: vectors of another embedder, or not as many drafts as vectors.
    """
    targets = validate_vectors(embeddings, inverter.embedder.spec)
    model = inverter.model
    first = [row[0].text for row in model.hypothesize(targets, 1, GREEDY)] if drafts is None else list(drafts)
    if len(first) != len(targets):
        raise InputError(f"{len(first)} drafts for {len(targets)} vectors: give one for each")
    rounds = [first]
    kept = {i: [text if text.strip() else "."] for i, text in enumerate(first)}
    vectors = dict(enumerate(inverter.embedder.encode([text for [text] in kept.values()])[:, None]))
    sampling = Sampling(beams=num_beams) if num_beams > 1 else GREEDY
    for _ in range(num_iters):
        if not kept:
            break
        owners = [i for i, texts in kept.items() for _ in texts]
        written = model.correct(
            targets[owners],
            [text for texts in kept.values() for text in texts],
            np.concatenate([vectors[i] for i in kept]),
            num_beams,
            sampling,
        )
        made: dict[int, dict[str, None]] = {i: {} for i in kept}  # distinct, in order
        for i, row in zip(owners, written, strict=True):
            made[i].update(dict.fromkeys(hypothesis.text for hypothesis in row if hypothesis.text.strip()))
        texts = list(dict.fromkeys(text for found in made.values() for text in found))
        embedded = dict(zip(texts, inverter.embedder.encode(texts), strict=True))
        best = list(rounds[-1])
        for i, found in made.items():
            if not found:  # nothing but empty texts, or no corrector: nothing will come any more
                del kept[i]
                continue
            near = np.stack([embedded[text] for text in found])
            cosines = cosine(near, np.broadcast_to(targets[i], near.shape))
            order = np.argsort(-cosines, kind="stable")[:num_beams]
            kept[i], vectors[i] = [list(found)[j] for j in order], near[order]
            best[i] = kept[i][0]
            if abs(cosines[order[0]] - 1) < DONE:
                del kept[i]
        rounds.append(best)
    return rounds
