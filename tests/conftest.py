"""Fixtures that the tests share. Nothing heavy is imported here, so that collecting tests stays instant.

The embedder and the inverter are the real ones that ship; what cannot ship is found by two variables:
UNEMBED_DATA_DIR, a folder of corpora, and UNEMBED_PARITY_DIR, a folder of reference checkpoints.
"""

from __future__ import annotations

import os
import signal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unembed import Inverter
    from unembed.embedders import Embedder

# Set before anything reads them, and inherited by the programs that tests start: no test needs the hub, and two
# threads are what a small machine has.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A shell starts what runs in the background deaf to Ctrl-C, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def two_threads() -> None:
    """Hold torch to two threads, so that timings and the order of sums do not depend on the machine."""
    import torch

    torch.set_num_threads(2)


@pytest.fixture(scope="module")
def one_thread(two_threads: None) -> Iterator[None]:
    """For networks of some thousand weights, which lose by a second one."""
    import torch

    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def minilm(two_threads: None) -> Embedder:
    """The default embedder, with its real weights."""
    import unembed

    return unembed.embedder("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def inverter(two_threads: None) -> Inverter:
    """The inverter that ships, with its embedder."""
    import unembed

    return unembed.load("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """200 letters about invented people."""
    with open(Path(__file__).parent.parent / "examples" / "letters.txt", encoding="utf-8") as file:
        return [line.strip() for line in islice(file, 200)]


@pytest.fixture
def command(inverter, minilm, monkeypatch, capfd):
    """Run a command in this process, as `python -m unembed.cli.main` would, with the models that are loaded already.

    Gives (exit code, standard output, standard error).
    """
    import logging

    import unembed.embedders
    import unembed.inverter
    from unembed.cli.main import main

    monkeypatch.setattr(inverter.model, "max_tokens", 24)
    load, open_embedder = unembed.inverter.load, unembed.embedders.embedder

    def quick_load(model="all-MiniLM-L6-v2", embedder=None, **options):
        asked = {name: value for name, value in options.items() if value not in (None, "float32")}
        plain = model == "all-MiniLM-L6-v2" and embedder is None and not asked
        return inverter if plain else load(model, embedder, **options)

    monkeypatch.setattr("unembed.inverter.load", quick_load)
    monkeypatch.setattr(
        "unembed.embedders.embedder",
        lambda name, **options: minilm if name == "all-MiniLM-L6-v2" else open_embedder(name, **options),
    )
    handlers, level, on_term = logging.root.handlers[:], logging.root.level, signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    yield run
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    signal.signal(signal.SIGTERM, on_term)


@pytest.fixture
def refused(command):
    """Run a command that must be refused: exit code 2, nothing on standard output, one line; gives that line."""

    def run(*arguments):
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), err
        assert err.startswith("unembed: error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        return err

    return run


@pytest.fixture
def checked():
    """A file of a model that is damaged, and then missing, is refused by name."""
    import torch

    from unembed.checkpoints import load_model
    from unembed.errors import CheckpointError

    def run(file: Path):
        file.write_bytes(b"nothing")
        with pytest.raises(CheckpointError, match="SHA-256 differs"):
            load_model(file.parent, torch.device("cpu"))
        file.unlink()
        with pytest.raises(CheckpointError, match=f"{file.name} is missing"):
            load_model(file.parent, torch.device("cpu"))

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of corpora named by UNEMBED_DATA_DIR."""
    return _folder("UNEMBED_DATA_DIR", "corpora")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder of reference checkpoints named by UNEMBED_PARITY_DIR."""
    return _folder("UNEMBED_PARITY_DIR", "reference checkpoints")


def _folder(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"needs {what}: set {variable} to their folder")
    folder = Path(value)
    if not folder.is_dir():
        # Set but wrong is a mistake, not a reason to skip.
        pytest.fail(f"{variable} names no folder: {value}")
    return folder
