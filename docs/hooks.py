"""Puts the real help text of a command where a page says `<!-- help: COMMAND -->`, so that it is never out of date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

MARKER = re.compile(r"^<!-- help: ([a-z ]*)-->$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the source of each page; returns the source to render."""
    return MARKER.sub(lambda found: f"```text\n{_help(found[1].split())}\n```", markdown)


def _help(words: list[str]) -> str:
    command = [sys.executable, "-m", "unembed.cli.main", *words, "--help"]
    # A fixed width and no colours: the page must not depend on the terminal it was built in.
    env = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"'unembed {' '.join(words)} --help' failed: {done.stderr.strip()}")
    return done.stdout.strip()
