"""What a family shows of itself to be exported: how it writes, as functions of tensors, and its vocabulary.

To add a family: one file with `parts(model) -> Parts`, and one line in `FAMILIES`. Its writers need nothing of ONNX.
What they are given and give back is named and begins with the axis of rows, so that a runtime can drop rows and repeat
them; any other axis may have another length from call to call, which is found out by trying.

What a writer does is traced: its shape must come from tensor operations. `x.view(-1, k, D)` keeps the number of rows
open; `x.view(len(x), k, D)` and `torch.zeros(x.shape)` make it a constant, which the export then refuses, and so does
`x.unflatten(1, (k, D))` for the operations that ask its result for its size.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from unembed.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from unembed.models.base import InversionModel

FAMILIES = {
    "native": "unembed.export.native",
    "encoder-decoder": "unembed.export.encoder_decoder",
    "prefix-decoder": "unembed.export.prefix_decoder",
    "davae": "unembed.export.davae",
}

State = dict[str, Tensor]
"""What a writer remembers of each text, by name: keys and values, what is added at each step, positions."""


class Writer(Protocol):
    """How a network writes, in two functions that become a graph each."""

    @property
    def net(self) -> nn.Module:
        """Holds all the weights that the functions use."""

    def read(
        self, targets: Tensor, hypothesis_ids: Tensor | None = None, hypothesis_vectors: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """targets [B, E], and to correct hypothesis_ids [B, S] and hypothesis_vectors [B, E] → logits [B, V] of the
        first token, and the state."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """The tokens [B] that were chosen, and the state → logits [B, V] of the next, and what has changed of the
        state."""


@dataclass(frozen=True)
class Hypotheses:
    """How a corrector's hypotheses become ids [B, S]: the text's tokens, cut to `longest`, between `before` and
    `after`; short ones padded on the right. A network that has to have them on the left turns them itself."""

    longest: int
    pad: int = 0
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    tokenizer: Tokenizer | None = field(default=None)
    """Where it is not the one that the model writes with."""


@dataclass(frozen=True)
class Parts:
    """A model in parts."""

    hypothesizer: Writer
    corrector: Writer | None
    """May be the hypothesizer itself, whose steps are then exported once."""
    tokenizer: Tokenizer
    """Without truncation and padding."""
    dim: int
    """Length of a vector."""
    end: int
    """The token that ends a text."""
    max_tokens: int
    """Longest text, in tokens, the end not counted."""
    hypotheses: Hypotheses | None = field(default=None)
    closes: bool = False
    """Of a text of `max_tokens`, log p holds the end as well, which is then all that may follow."""
    literal: bool = False
    """Special tokens in a text are read as the characters that they are."""
    told: bool = False
    """Behind a hypothesis stand words that it may lack (`unembed.models.wording`)."""
    varies: bool = False
    """Texts that differ in one token are drawn from what the corrector would have written along a hypothesis."""
    search: dict[str, Any] = field(default_factory=dict)
    """`InversionModel.search_fields`, as far as they hold of the export."""


def parts(model: InversionModel) -> Parts:
    """The parts of a model of any family. Raises InputError for a family that cannot be exported."""
    family = getattr(model, "family", type(model).__name__)
    if family not in FAMILIES:
        raise InputError(f"models of the family '{family}' cannot be exported: only {', '.join(FAMILIES)} can")
    return importlib.import_module(FAMILIES[family]).parts(model)
