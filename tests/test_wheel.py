"""The package as a user gets it: what the archives hold, and that the wheel works alone in a bare environment."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_S = 1800  # an install over a slow line, at the most


@dataclass(frozen=True)
class Archives:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """The sdist made from the tree, and the wheel made from that sdist, as an index would have them."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)])
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return Archives(sdist, wheel)


@pytest.fixture(scope="module")
def wheel_names(archives: Archives) -> set[str]:
    with zipfile.ZipFile(archives.wheel) as archive:
        return set(archive.namelist())


def run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run to the end and return what it wrote to standard output; its whole output is the failure message."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
    )
    if done.returncode:
        pytest.fail(f"{shlex.join(command)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


def files_of_package() -> set[str]:
    """Every file under src/ that is not a by-product, as a path inside the wheel."""
    source = ROOT / "src"
    paths = (path.relative_to(source) for path in (source / "unembed").rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts and path.suffix != ".pyc"}


def test_wheel_holds_the_package_and_nothing_else(wheel_names: set[str]) -> None:
    package = {name for name in wheel_names if not name.split("/")[0].endswith(".dist-info")}
    assert package == files_of_package()
    assert "unembed/py.typed" in package


def test_wheel_holds_the_shipped_weights(wheel_names: set[str]) -> None:
    weights = {PurePosixPath(name) for name in wheel_names if name.startswith("unembed/weights/")}
    assert any(path.suffix == ".safetensors" for path in weights)
    assert any(path.name == "config.json" for path in weights)


def test_wheel_metadata(archives: Archives, wheel_names: set[str]) -> None:
    [metadata] = [name for name in wheel_names if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(archives.wheel) as archive:
        fields = Parser().parsestr(archive.read(metadata).decode())
    info = metadata.removesuffix("METADATA")
    assert {info + "licenses/LICENSE", info + "licenses/NOTICE", info + "entry_points.txt"} <= wheel_names
    assert fields["Name"] == "unembed"
    assert fields["License-Expression"] == "Apache-2.0"
    assert fields["Version"] == source_version()
    # Without a ceiling, the next major release of a dependency breaks every install at once.
    for requirement in fields.get_all("Requires-Dist"):
        assert requirement.startswith("unembed[") or ("<" in requirement and ">=" in requirement), requirement


def test_sdist_holds_the_sources_and_no_leftovers(archives: Archives) -> None:
    with tarfile.open(archives.sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(member.name).parts[1:]) for member in archive.getmembers()}
    present = {path.parts[0] for path in names if path.parts}
    expected = {"src", "tests", "docs", "examples", "recipes", "LICENSE", "NOTICE", "README.md", "constraints.txt"}
    assert expected <= present
    leftovers = {"build", "dist", "site", ".venv", ".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
    assert not [path for path in names if leftovers & set(path.parts)]


def test_version_is_the_same_everywhere() -> None:
    version = source_version()
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def source_version() -> str:
    text = (ROOT / "src/unembed/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.M)
    assert found, "src/unembed/__init__.py sets no __version__"
    return found[1]


# What is installed under another name than the one it is imported by.
DISTRIBUTIONS = {"yaml": "pyyaml", "sklearn": "scikit-learn"}
# What cannot be installed beside the rest (its numpy is older), and has an environment and pins of its own.
APART = {"mindspore": "constraints-mindspore.txt"}


def test_every_imported_package_is_declared() -> None:
    """A package that only another dependency happens to bring would go missing with that dependency's next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}
    missing = {
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for module in imported_modules(path)
        if module not in sys.stdlib_module_names
        and module != "unembed"
        and not (module in path.parts and module in APART)
        and DISTRIBUTIONS.get(module, module.replace("_", "-")) not in declared
    }
    assert not missing
    for module, pins in APART.items():
        assert re.search(rf"^{module}==", (ROOT / pins).read_text(encoding="utf-8"), re.M), f"{pins} pins no {module}"


def imported_modules(path: Path) -> set[str]:
    """Top-level names of all absolute imports of the file, at any depth of it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            modules.add(node.module)
    return {name.split(".")[0] for name in modules}


@pytest.mark.slow
def test_wheel_inverts_in_a_bare_environment(archives: Archives, tmp_path: Path) -> None:
    """Only the wheel and what it declares are installed: a missing dependency or data file shows here."""
    bare = tmp_path / "bare"
    bin_dir = bare / ("Scripts" if os.name == "nt" else "bin")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    # An empty home for caches: nothing may lean on what an earlier run left there. pip's own cache may.
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    run([sys.executable, "-m", "venv", str(bare)], env=env)
    pip = [str(bin_dir / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    run([*pip, *shlex.split(env.get("PIP_ARGS", "")), str(archives.wheel)], cwd=tmp_path, env=env)

    out = tmp_path / "out.jsonl"
    command = [str(bin_dir / "unembed"), "invert", "--text", "The cat sat on the mat.", "--steps", "2", "-o", str(out)]
    run(command, cwd=tmp_path, env=env)

    _, row = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())  # a header, and one result
    assert row["text"].strip()
    assert 0.5 < row["cosine"] <= 1.0 + 1e-5
