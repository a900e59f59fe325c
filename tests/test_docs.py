"""The documentation is run, not trusted: commands and snippets work, the options it names exist, links lead somewhere.

A fence that cannot be run here is preceded by a line `<!-- no-test: reason -->`. Its syntax and its options are checked
all the same.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIMIT_S = 900  # a fence that waits for something must not hold up the whole run
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_NAMES = ("README.md", "index.md", "guide.md", "probes.md", "troubleshooting.md", "vec2text.md", "export.md")
RUN = [page for page in PAGES if page.name in RUN_NAMES]
NO_TEST = re.compile(r"<!-- no-test: \S.* -->")


@dataclass(frozen=True)
class Fence:
    """A fenced block of code."""

    page: Path
    line: int
    """Number of its first line of code."""
    language: str
    code: str
    runs: bool

    @property
    def place(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def fences(page: Path) -> list[Fence]:
    """All fences of a page, in order."""
    found: list[Fence] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, str, bool] | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            marked = number > 0 and NO_TEST.fullmatch(lines[number - 1].strip()) is not None
            opened = (number + 1, line.removeprefix("```").strip(), not marked)
        else:
            start, language, runs = opened
            found.append(Fence(page, start + 1, language, "\n".join(lines[start:number]) + "\n", runs))
            opened = None
    assert opened is None, f"{name_of(page)}: the fence opened before line {opened[0]} is never closed"
    return found


def fences_in(language: str) -> list[Fence]:
    return [fence for page in PAGES for fence in fences(page) if fence.language == language]


@pytest.fixture(scope="module")
def shell_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose `unembed` is this source tree under this interpreter, installed or not."""
    bin_dir = tmp_path_factory.mktemp("bin")
    command = bin_dir / "unembed"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m unembed.cli.main "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    path = [str(bin_dir), str(Path(sys.executable).parent), os.environ["PATH"]]
    python_path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PATH": os.pathsep.join(path), "PYTHONPATH": os.pathsep.join(python_path), "COLUMNS": "200"}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_page_runs(
    page: Path, shell_env: dict[str, str], two_threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the fences of a page in their order, as a reader in the root of a clone would; Python names carry over."""
    for folder in ("examples", "recipes"):
        if (ROOT / folder).is_dir():
            (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for fence in fences(page):
        if not fence.runs:
            continue
        if fence.language == "python":
            run_python(fence, names)
        elif fence.language == "bash":
            run_bash(fence, shell_env)


def run_python(fence: Fence, names: dict[str, object]) -> None:
    # Empty lines in front, so that the traceback shows the line of the page.
    code = compile("\n" * (fence.line - 1) + fence.code, str(fence.page), "exec")
    try:
        exec(code, names)
    except Exception:
        pytest.fail(f"{fence.place} fails\n{traceback.format_exc()}", pytrace=False)


def run_bash(fence: Fence, env: dict[str, str]) -> None:
    script = "set -euo pipefail\n" + fence.code
    done = subprocess.run(
        ["bash", "-c", script], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S
    )
    if done.returncode:
        pytest.fail(f"{fence.place} exits with {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    assert "Traceback (most recent call last)" not in done.stderr, f"{fence.place}\n{done.stderr}"


@pytest.mark.parametrize("fence", fences_in("bash"), ids=lambda fence: fence.place)
def test_bash_syntax(fence: Fence) -> None:
    done = subprocess.run(["bash", "-n", "-c", fence.code], capture_output=True, text=True)
    assert done.returncode == 0, f"{fence.place}: {done.stderr}"


@pytest.mark.parametrize("fence", fences_in("python"), ids=lambda fence: fence.place)
def test_python_syntax(fence: Fence) -> None:
    compile(fence.code, fence.place, "exec")


def test_commands_are_understood(shell_env: dict[str, str]) -> None:
    """Every `unembed` command of every page is taken by the command line, also where it cannot be run here."""
    places = {tuple(words): fence.place for fence in fences_in("bash") for words in commands(fence.code)}
    assert places, "no page shows a command"
    wrong = []
    for words, place in places.items():
        # Parses and checks everything, prints what it understood, and does nothing.
        command = [*words, "--print_config"]
        done = subprocess.run(command, cwd=ROOT, env=shell_env, capture_output=True, text=True, timeout=LIMIT_S)
        if done.returncode:
            wrong.append(f"{place}: {shlex.join(words)}: {done.stderr.strip()}")
    assert not wrong, "\n".join(wrong)


def commands(code: str) -> list[list[str]]:
    """The `unembed` commands of a script, as words, without comments and without what they are piped into."""
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    cut = [list(takewhile(lambda word: word not in ("|", ">", ">>", "<", "&&", ";"), words)) for words in lines]
    return [words for words in cut if len(words) > 1 and words[0] == "unembed"]


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+)$", text, re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert not broken


def test_demo_sentences_are_short_and_distinct() -> None:
    sentences = (ROOT / "examples" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 12
    assert all(3 <= len(sentence.split()) <= 20 for sentence in sentences)
