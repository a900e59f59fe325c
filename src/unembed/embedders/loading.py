"""Loading a model without noise, and turning what the libraries raise into one line with a fix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unembed.errors import CheckpointError, InputError, UnembedError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

HUB_ORGANISATION = "sentence-transformers"
"""Owner on the hub of models that are named without one."""


def load_sentence_transformer(
    name: str,
    device: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    local_files_only: bool = False,
) -> SentenceTransformer:
    """Load a model in float32: from a folder, else from the hub's cache on this machine, else from the hub.

    A cached copy is used as it is, so that the same command gives the same vectors with and without a network; name a
    `revision` to be sure of another one. Whether the hub can be reached is asked once, in a second: left alone, the
    library retries every file for more than a minute before it gives up.

    Raises:
        CheckpointError: no such folder, a damaged one, or the hub cannot be reached.
        InputError: no such model or revision, or one that needs a login, a package or trust.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    folder = Path(name).expanduser()
    if not folder.is_dir() and looks_like_path(name):
        raise CheckpointError(
            f"there is no folder {name}; give the folder of an embedder, or its id on the hub (organisation/name)"
        )

    def load(source: str, offline: bool) -> SentenceTransformer:
        # The precision is always explicit: by default it is whatever the checkpoint happens to be stored in.
        return SentenceTransformer(
            source, device=device, revision=revision, trust_remote_code=trust_remote_code, local_files_only=offline,
            model_kwargs={"dtype": torch.float32},
        )  # fmt: skip

    try:
        with no_loading_bar():
            if folder.is_dir():
                return load(str(folder), local_files_only)
            name = name if "/" in name else f"{HUB_ORGANISATION}/{name}"
            if is_cached(name, revision):
                try:
                    return load(name, True)
                except Exception:  # an interrupted download; the hub has the rest
                    if local_files_only:
                        raise
            if not local_files_only:
                from huggingface_hub import HfApi

                HfApi().model_info(name, revision=revision, timeout=20)
            return load(name, local_files_only)
    except Exception as error:  # whatever the libraries raise, the user gets one line; --debug shows the cause
        raise load_error(name, error) from error


def is_cached(name: str, revision: str | None = None) -> bool:
    """Whether the hub's cache on this machine holds the configuration of a model."""
    from huggingface_hub import try_to_load_from_cache

    files = (try_to_load_from_cache(name, file, revision=revision) for file in ("modules.json", "config.json"))
    return any(isinstance(file, str) for file in files)


def looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a folder: hub ids have one slash at most, and none at the start."""
    return name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1


@contextlib.contextmanager
def no_loading_bar() -> Iterator[None]:
    """Hide the "Loading weights" bar of transformers for the duration; bars of downloads stay."""
    from transformers.utils import logging

    if not hasattr(logging, "set_tqdm_hook"):
        yield
        return

    def quiet(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if str(kwargs.get("desc", "")).startswith("Loading weights"):
            kwargs = {**kwargs, "disable": True}
        return previous(factory, args, kwargs) if previous is not None else factory(*args, **kwargs)

    previous = logging.set_tqdm_hook(quiet)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)


def load_error(name: str, error: BaseException) -> UnembedError:
    """The one-line error for an embedder that could not be loaded.

    Args:
        name: folder or hub id.
        error: what was raised; its causes are searched as well, because the libraries wrap one another.
    """
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    text = " ".join(str(link) for link in chain)
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if Path(name).expanduser().is_dir():
        return CheckpointError(
            f"cannot load an embedder from folder {name}: {reason}; save it anew with sentence-transformers"
        )
    if "GatedRepoError" in names or "401 Client Error" in text and "gated" in text.lower():
        return InputError(f"embedder {name} is gated on the hub; accept its terms there and log in with: hf auth login")
    if "RevisionNotFoundError" in names:
        return InputError(f"embedder {name} has no such revision on the hub; use a branch, tag or commit that exists")
    if names & {"RepositoryNotFoundError", "HFValidationError"}:
        return InputError(
            f"no embedder '{name}' on the hub (or it is private); check the name, or log in with: hf auth login"
        )
    offline = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError",
               "NetworkError", "TimeoutException", "TimeoutError"}  # fmt: skip
    if names & offline or "offline" in text.lower() or "couldn't connect" in text.lower():
        return CheckpointError(
            f"embedder {name} is not on this machine and the hub cannot be reached; "
            "connect to the network (unset HF_HUB_OFFLINE) "
            "or give the path of a folder that holds the model"
        )
    if isinstance(error, (ImportError, ModuleNotFoundError)):
        return InputError(f"embedder {name} needs a package that is not installed: {reason}; install it with pip")
    if "trust_remote_code" in text:
        return InputError(
            f"embedder {name} brings its own code; read it, and pass trust_remote_code=True if you trust it"
        )
    return CheckpointError(
        f"cannot load embedder {name}: {reason}; check the name, or give the path of a folder with the model"
    )
