"""unembed turns text embeddings back into text.

    import unembed
    inverter = unembed.load("all-MiniLM-L6-v2")
    vectors = inverter.embedder.encode(["Jack Morris is a PhD student at Cornell Tech in New York City"])
    [result] = inverter.invert(vectors, steps=20, sequence_beam_width=4)
    result.text, result.cosine, result.exact, result.queries

Importing this module is cheap: torch and the embedders are imported when something is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Inversion", "Inverter", "__version__", "embedder", "load"]

if TYPE_CHECKING:
    from unembed.embedders import embedder
    from unembed.inverter import Inverter, load
    from unembed.search.types import Inversion

_HOMES = {
    "Inverter": "unembed.inverter",
    "load": "unembed.inverter",
    "Inversion": "unembed.search.types",
    "embedder": "unembed.embedders",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562: whatever the name stands for)
    if name not in _HOMES:
        raise AttributeError(f"module 'unembed' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
