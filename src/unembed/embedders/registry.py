"""From a name to an embedder. A new provider is one line in `PROVIDERS`, a new short name one line in `ALIASES`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unembed.embedders.base import Embedder
from unembed.embedders.default import DEFAULT_ID, default_folder, is_default
from unembed.embedders.loading import looks_like_path
from unembed.errors import CheckpointError, InputError

KNOWN = (
    DEFAULT_ID,
    "sentence-transformers/all-MiniLM-L12-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "sentence-transformers/all-distilroberta-v1",
    "sentence-transformers/multi-qa-MiniLM-L6-cos-v1",
    "sentence-transformers/multi-qa-mpnet-base-dot-v1",
    "sentence-transformers/paraphrase-MiniLM-L6-v2",
    "sentence-transformers/paraphrase-distilroberta-base-v1",
    "sentence-transformers/paraphrase-distilroberta-base-v2",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
    "sentence-transformers/gtr-t5-base",
    "sentence-transformers/gtr-t5-large",
    "sentence-transformers/sentence-t5-base",
    "sentence-transformers/LaBSE",
    "BAAI/bge-small-en-v1.5",
    "BAAI/bge-base-en-v1.5",
    "BAAI/bge-large-en-v1.5",
    "BAAI/bge-m3",
    "thenlper/gte-small",
    "thenlper/gte-base",
    "thenlper/gte-large",
    "intfloat/e5-small-v2",
    "intfloat/e5-base-v2",
    "intfloat/e5-large-v2",
    "intfloat/multilingual-e5-small",
    "intfloat/multilingual-e5-base",
    "intfloat/multilingual-e5-large",
    "mixedbread-ai/mxbai-embed-large-v1",
    "nomic-ai/nomic-embed-text-v1.5",
    "Qwen/Qwen3-Embedding-0.6B",
    "facebook/contriever",
)
"""Models that go by the last part of their id as well, in any case."""

ALIASES = {
    "minilm": DEFAULT_ID,
    "mpnet": "sentence-transformers/all-mpnet-base-v2",
    "labse": "sentence-transformers/LaBSE",
    "gtr-base": "sentence-transformers/gtr-t5-base",
    "gtr-large": "sentence-transformers/gtr-t5-large",
    "gtr-base-raw": "sentence-transformers/gtr-t5-base#raw",
    "paraphrase-distilroberta": "sentence-transformers/paraphrase-distilroberta-base-v1",
}
"""Short names. `#raw` stops after the pooling: the GTR that vec2text's public checkpoints were trained on is such a
one."""

PREFIXES = {hub_id: "passage: " for hub_id in KNOWN if hub_id.startswith(("intfloat/e5-", "intfloat/multilingual-e5-"))}
"""What stands before a text where neither the user nor the model's own files say so: E5 wants one, and what a vector
store holds are passages. Queries are embedded with prefix="query: "."""


def _openai(model: str, **options: Any) -> Embedder:
    from unembed.embedders.api import OpenAICompatibleEmbedder

    for here in ("device", "dtype"):  # a server computes where and how it will
        options.pop(here, None)
    return _call(OpenAICompatibleEmbedder, model, **options)


def _mistral(model: str, **options: Any) -> Embedder:
    defaults = {"base_url": "https://api.mistral.ai/v1", "api_key_env": "MISTRAL_API_KEY", "batch_size": 64}
    return _openai(model, **{**defaults, **options})


def _ollama(model: str, **options: Any) -> Embedder:
    return _openai(model, **{"base_url": "http://localhost:11434/v1", "truncation": True, **options})


def _api(rest: str, **options: Any) -> Embedder:
    url, _, model = rest.rpartition("#")
    if not url or not model:
        raise InputError(
            f"'api:{rest}' lacks the address or the model; "
            "write api:URL#MODEL, such as api:http://localhost:8000/v1#bge-m3"
        )
    return _openai(model, base_url=url, **options)


def _checkpoint(folder: str, **options: Any) -> Embedder:
    from unembed.checkpoints.davae import recognise
    from unembed.embedders.checkpoint import CheckpointEmbedder
    from unembed.embedders.davae import DAVAEEmbedder

    if recognise(Path(folder)):
        return _call(DAVAEEmbedder, folder, **options)
    return _call(CheckpointEmbedder, folder, **options)


PROVIDERS: dict[str, Callable[..., Embedder]] = {
    "openai": _openai,
    "mistral": _mistral,
    "ollama": _ollama,
    "api": _api,
    "checkpoint": _checkpoint,
}
"""What may stand before the colon of a name: `openai:text-embedding-3-small`."""


def embedder(name_or_path: str | Path | Embedder, **options: Any) -> Embedder:
    """Find an embedder by name.

    Args:
        name_or_path: a known name in any case (`all-MiniLM-L6-v2`, `minilm`, `gtr-base`, ...), a folder, an id on the
            hub (`organisation/name`, with `#raw` to stop after the pooling), `openai:MODEL`, `mistral:MODEL`,
            `ollama:MODEL` or `api:URL#MODEL`. The id of any `EmbedderSpec` is such a name. An embedder is returned as
            it is.
        **options: of `SentenceTransformerEmbedder` (device, dtype, batch_size, prefix, ...) or
            `OpenAICompatibleEmbedder` (dimensions, api_key_env, ...; device and dtype do not concern it). For the
            default embedder also `folder`, where its files are kept.

    Raises:
        InputError: unknown name (the nearest known one is proposed) or option.
        CheckpointError: the model cannot be found or is not the genuine one.
    """
    if isinstance(name_or_path, Embedder):
        if options:
            raise InputError(
                f"options {', '.join(options)} cannot be changed on an embedder that exists; build it with them"
            )
        return name_or_path
    name = str(name_or_path).strip()
    if not name:
        raise InputError("the name of the embedder is empty; give one, such as all-MiniLM-L6-v2")
    provider, colon, rest = name.partition(":")
    if colon and provider.lower() in PROVIDERS:
        return PROVIDERS[provider.lower()](rest, **options)
    if colon and provider.lower() == "st":
        name = rest

    hub_id = _hub_id(name)
    folder = Path(name.removesuffix("#raw")).expanduser()
    # A folder that happens to be called like a known embedder is meant only if it holds one.
    if folder.is_dir() and ("/" in name or hub_id is None or (folder / "modules.json").is_file()):
        # The genuine default in any folder keeps its name, so that what is trained with it is found again elsewhere.
        identity = {"id": DEFAULT_ID} if is_default(folder) else {}
        return _local(name, **{**identity, **options})
    if looks_like_path(name):
        raise CheckpointError(
            f"there is no folder {name}; give the folder of an embedder, or its id on the hub (organisation/name)"
        )
    if hub_id is None:
        raise InputError(f"unknown embedder '{name}'; {_suggestion(name)}")
    if hub_id.removesuffix("#raw") == DEFAULT_ID and options.get("revision") is None:
        path = default_folder(
            options.pop("folder", None), local_files_only=bool(options.get("local_files_only", False))
        )
        return _local(f"{path}{'#raw' if hub_id.endswith('#raw') else ''}", **{"id": DEFAULT_ID, **options})
    prefix = PREFIXES.get(hub_id.removesuffix("#raw"))
    if prefix is not None and options.get("prefix") is None and options.get("prompt") is None:
        options["prefix"] = prefix
    return _local(hub_id, **options)


def known_embedders() -> list[str]:
    """Every name that `embedder` knows without asking the hub, for help texts and suggestions."""
    return sorted({*ALIASES, *(hub_id.rpartition("/")[2] for hub_id in KNOWN)}, key=str.lower)


def _hub_id(name: str) -> str | None:
    """The id on the hub of a known name, any `organisation/name` as it is, or None."""
    base, _, raw = name.partition("#")
    if raw not in ("", "raw"):
        return None
    table = {hub_id.lower(): hub_id for hub_id in KNOWN}
    table.update({hub_id.rpartition("/")[2].lower(): hub_id for hub_id in KNOWN})
    table.update(ALIASES)
    found = table.get(base.lower(), base if "/" in base else None)
    return found if found is None or not raw or found.endswith("#raw") else f"{found}#raw"


def _suggestion(name: str) -> str:
    """The nearest known name, and what else a name may be."""
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in known_embedders()], n=1, cutoff=0.5)
    proper = next((known for known in known_embedders() if near and known.lower() == near[0]), None)
    meant = f"did you mean {proper}? otherwise " if proper else ""
    return f"{meant}give a folder, organisation/name on the hub, openai:MODEL or api:URL#MODEL"


def _local(name: str, **options: Any) -> Embedder:
    from unembed.embedders.local import SentenceTransformerEmbedder

    if name.endswith("#raw"):
        options["raw"] = True
    return _call(SentenceTransformerEmbedder, name.removesuffix("#raw"), **options)


def _call(kind: Callable[..., Embedder], *args: Any, **options: Any) -> Embedder:
    """Build an embedder; an option it does not have becomes an InputError that names the nearest one."""
    allowed = list(inspect.signature(kind).parameters)[1:]
    for option in options:
        if option not in allowed:
            near = difflib.get_close_matches(option, allowed, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(allowed)}"
            raise InputError(f"{getattr(kind, '__name__', kind)} has no option '{option}'; {hint}")
    return kind(*args, **options)
