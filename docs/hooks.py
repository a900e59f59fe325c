"""Puts what is made elsewhere into the pages, so that it is never out of date: the help text of a command where a page
says `<!-- help: COMMAND -->`, a file of the repository where it says `<!-- file: PATH -->`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HELP = re.compile(r"^<!-- help: ([a-z0-9 -]*)-->$", re.M)
FILE = re.compile(r"^<!-- file: (\S+) -->$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the source of each page; returns the source to render."""
    markdown = HELP.sub(lambda found: f"```text\n{_help(found[1].split())}\n```", markdown)
    return FILE.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8").strip(), markdown)


def _help(words: list[str]) -> str:
    command = [sys.executable, "-m", "unembed.cli.main", *words, "--help"]
    # A fixed width and no colours: the page must not depend on the terminal it was built in.
    env = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"'unembed {' '.join(words)} --help' failed: {done.stderr.strip()}")
    return done.stdout.strip()
