"""Models on the Hugging Face hub: fetching, publishing, and saying in one line what went wrong on the way.

Which hub is `huggingface_hub`'s affair: HF_ENDPOINT names another one, HF_TOKEN or `hf auth login` says who asks.
"""

from __future__ import annotations

import re
from pathlib import Path

from unembed.errors import InputError, StorageError, first_line

FILES = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "projector.safetensors", "guide.safetensors", "lexicon.safetensors", "corrector.safetensors", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "spiece.model", "vocab.txt", "controls.jsonl",
    "confidence.json", "figures.json", "README.md",
)  # fmt: skip
"""What a model consists of: nothing else is ever published."""
FOREIGN = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
"""What other programs' models consist of beside these: fetched, never published."""
SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")
TOKEN_FIELD = re.compile(r'"\w*(?:hub_token|access_token|auth_token|api_key|password|secret)"\s*:\s*"[^"<\[]{8,}"')
LOCAL_PATH = re.compile(r'"((?:/(?:home|root|Users|mnt|data|workspace|tmp|scratch|work)/|[A-Z]:\\\\|~/)[^"]*)"')


def download(name: str, folder: Path | None = None) -> Path:
    """The folder of a model of the hub: in its cache, or `folder`. What is there already is not fetched again, and a
    download that was interrupted goes on. Raises InputError, StorageError."""
    from huggingface_hub import snapshot_download

    if folder is not None and folder.exists():
        started = (folder / ".cache" / "huggingface").is_dir()
        if not folder.is_dir() or (any(folder.iterdir()) and not started):
            raise InputError(f"{folder} exists and does not come from the hub: choose another folder")
    try:
        return Path(snapshot_download(name, local_dir=folder, allow_patterns=[*FILES, *FOREIGN]))
    except Exception as error:  # offline, absent, gated, full disk: the library has a class for each
        raise hub_error(f"model '{name}' is no folder here and cannot be fetched from the hub", name, error) from error


def cached(name: str) -> Path | None:
    """Where a model of the hub lies on this machine, if it does."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=[*FILES, *FOREIGN]))
    except Exception:  # it does not
        return None


def parts(folder: Path) -> tuple[list[Path], list[str]]:
    """(files that are published, names of what stays here) of a model's folder."""
    found = sorted(folder.iterdir())
    kept = [path for path in found if path.is_file() and any(path.match(pattern) for pattern in FILES)]
    return kept, [path.name for path in found if path not in kept and path.name != ".cache"]


def concerns(files: list[Path]) -> list[str]:
    """What the public would read in these files and perhaps should not. Raises InputError for a secret."""
    out = []
    for path in files:
        if path.suffix not in (".json", ".jsonl", ".md") or path.name in ("tokenizer.json", "figures.json"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        secret = SECRET.search(text) or TOKEN_FIELD.search(text)
        if secret:
            line = text[: secret.start()].count("\n") + 1
            raise InputError(f"{path}, line {line}, seems to hold a token or password: remove it, and revoke it")
        if found := LOCAL_PATH.search(text):
            out.append(f"{path.name} names a place on this machine: {found[1]}")
        if path.name == "controls.jsonl":
            out.append(f"{path.name} holds {len(text.splitlines())} texts of the training data, word for word")
    return out


def upload(folder: Path, name: str, *, private: bool, card: str) -> str:
    """Publish a model's folder in one commit, with `card` as README.md where the folder has none; gives the address.

    Raises InputError: no token, one that may not write there, a hub that is not reachable, a private model wanted where
    there is a public one.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not get_token():
        raise InputError("publishing needs a token of the hub that may write: hf auth login (or set HF_TOKEN)")
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        if private and not api.repo_info(name).private:
            raise InputError(f"{name} is on the hub already and public: make it private there, or choose another name")
        files = parts(folder)[0]
        operations = [CommitOperationAdd(path.name, path) for path in files]
        if not any(path.name == "README.md" for path in files):
            operations.append(CommitOperationAdd("README.md", card.encode()))
        api.create_commit(name, operations, commit_message="Upload with unembed")
        return str(address)
    except InputError:
        raise
    except Exception as error:  # the library has a class for each thing that may go wrong
        raise hub_error(f"{folder} cannot be published as '{name}'", name, error) from error


def hub_error(what: str, name: str, error: BaseException) -> InputError | StorageError:
    """One line for whatever huggingface_hub raised: what failed, why, what to do."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    responses = [getattr(link, "response", None) for link in chain]
    status = next((response.status_code for response in responses if response is not None), None)
    if "GatedRepoError" in kinds:
        return InputError(f"{what}: its author asks for agreement first; give it on its page, and: hf auth login")
    if "RepositoryNotFoundError" in kinds:
        return InputError(f"{what}: there is none of that name, or it is private; check the name, or: hf auth login")
    if status in (401, 403):
        return InputError(f"{what}: the hub does not let this token do that ({status}); hf auth login with another one")
    if "HFValidationError" in kinds:
        return InputError(f"{what}: a name on the hub is OWNER/NAME ({first_line(error)})")
    if any(isinstance(link, OSError) and link.errno == 28 for link in chain):
        return StorageError(f"{what}: the disk is full; free space, and the same command goes on")
    if kinds & {"RemoteProtocolError", "ReadError", "ReadTimeout"}:
        return InputError(f"{what}: the connection was lost; give the same command again, and it goes on")
    offline = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ConnectionError", "TransportError",
               "TimeoutException"}  # fmt: skip
    if kinds & offline:
        return InputError(
            f"{what}: the hub cannot be reached; try again with a network (without HF_HUB_OFFLINE), name a mirror with "
            "HF_ENDPOINT, or copy the folder from elsewhere and give its path"
        )
    return InputError(f"{what} ({first_line(error)}): try again")
