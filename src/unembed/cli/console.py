"""What the commands share in writing to a terminal: tables, progress, and differences between texts."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """Standard output; as wide as the terminal, or 160 columns where there is none, so that a pipe loses nothing."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)


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
        out.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=justify == "right")
    for row in rows:
        out.add_row(*[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row])
    return out


def differences(original: str, recovered: str) -> Text:
    """`recovered` with the words that are not in `original` at that place in «marks» (and red on a terminal), and a
    gap ‹…› where words of the original are missing. Case is not looked at: most embedders do not see it."""
    a, b = original.lower().split(), recovered.lower().split()
    shown = recovered.split()
    out = Text()
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        if tag == "equal":
            words, style = " ".join(shown[j1:j2]), ""
        elif tag == "delete":
            words, style = "‹…›" if i2 > i1 else "", "dim"
        else:
            words, style = "«" + " ".join(shown[j1:j2]) + "»", "red"
        if words:
            out.append(" " if out.plain else "").append(words, style=style)
    return out


def chance(probability: float | None) -> str:
    """In %, – where there is none (a model without a calibration)."""
    return "–" if probability is None else f"{100 * probability:.0f} %"


def progress(total: int | None, description: str, quiet: bool = False) -> Any:  # noqa: ANN401  (tqdm is untyped)
    """A progress bar with ETA on standard error; silent with `quiet` or where standard error is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=description, unit=" vec", file=sys.stderr, disable=quiet or not sys.stderr.isatty())
