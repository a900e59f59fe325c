"""What the commands share in writing to a terminal: tables, progress, and differences between texts."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unembed.scripts import units

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def console() -> Console:
    """Standard output; as wide as the terminal, or 160 columns where there is none, so that a pipe loses nothing. A
    text's ":100:" stays what it is."""
    width = None if sys.stdout.isatty() else 160
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False, emoji=False)


def typed(arguments: Sequence[str], flag: str) -> list[str]:
    """What was typed after each occurrence of a flag, in order. Parsed values are read as YAML, which makes nothing of
    the texts "null", "~" and "#5"."""
    out = []
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            out.append(arguments[i + 1])
        elif argument.startswith(f"{flag}="):
            out.append(argument.removeprefix(f"{flag}="))
    return out


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A table of `columns` (heading, "left" or "right")."""
    out = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for heading, justify in columns:
        right = justify == "right"
        # Folded, not cut off: a text without spaces is one long word.
        out.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        out.add_row(*[cell if isinstance(cell, Text) else Text(visible(str(cell))) for cell in row])
    return out


def visible(text: str) -> str:
    """`text` without what acts on a terminal instead of being shown there: control characters, and those that turn the
    direction of what follows, are written as their numbers."""
    return _ACTING.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def differences(original: str, recovered: str) -> Text:
    """`recovered` with the words that are not in `original` at that place in «marks» (and red on a terminal), and a
    gap ‹…› where words of the original are missing; in a script without spaces a word is a character. Case is not
    looked at: most embedders do not see it."""
    a, shown = (units(visible(text)) for text in (original, recovered))
    keys = [[word.strip().lower() for word in words] for words in (a, shown)]
    out = Text()
    for tag, i1, _, j1, j2 in difflib.SequenceMatcher(a=keys[0], b=keys[1], autojunk=False).get_opcodes():
        words = "".join(shown[j1:j2]).lstrip()
        if out.plain and any(unit[0].isspace() for unit in (*a[i1 : i1 + 1], *shown[j1 : j1 + 1])):
            out.append(" ")
        if tag == "equal":
            out.append(words)
        elif tag == "delete":
            out.append("‹…›", style="dim")
        else:
            out.append(f"«{words}»", style="red")
    return out


def chance(probability: float | None) -> str:
    """In %, – where there is none (a model without a calibration)."""
    return "–" if probability is None else f"{100 * probability:.0f} %"


def progress(total: int | None, description: str, quiet: bool = False) -> Any:  # noqa: ANN401  (tqdm is untyped)
    """A progress bar with ETA on standard error; silent with `quiet` or where standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=" vec", file=sys.stderr, disable=quiet or not sys.stderr.isatty())
