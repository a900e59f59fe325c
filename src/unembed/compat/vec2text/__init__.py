"""vec2text's interface: `from unembed.compat import vec2text`, and the snippets of its README run.

By default unembed's own search inverts, with the same steps and sequence beam: it keeps the best text it has seen,
embeds each distinct text once, and stops once a text is exact. With `faithful=True` a corrector repeats vec2text's
algorithm step by step (Morris et al., EMNLP 2023, §3) and gives its texts. Where that one is at fault, neither follows:

- `num_steps=0` is no correction, where vec2text makes one.
- `invert_embeddings_and_return_hypotheses` gives as many texts a step as there are embeddings, also for several.
- Fewer distinct children than the beam is wide are no error.
- Vectors of another embedder, or no vectors at all, are refused in one line.
"""

from unembed.compat.vec2text import analyze_utils
from unembed.compat.vec2text.api import (
    Checkpoint,
    Corrector,
    invert_embeddings,
    invert_embeddings_and_return_hypotheses,
    invert_strings,
    load_corrector,
    load_pretrained_corrector,
    models,
)

__all__ = [
    "Checkpoint",
    "Corrector",
    "analyze_utils",
    "invert_embeddings",
    "invert_embeddings_and_return_hypotheses",
    "invert_strings",
    "load_corrector",
    "load_pretrained_corrector",
    "models",
]
