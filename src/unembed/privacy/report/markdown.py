"""The report of an audit as GitHub's Markdown, without its plots: their figures stand in the tables.

A text that comes from outside is written as code, in which nothing is a link, an image, a mention or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unembed.privacy.report.blocks import Block, Card, Facts, Failed, Items, Page, Quoted, Table

_ACTING = re.compile(r"([\\`*_\[\]<>|~#!$])")
_LINKS = re.compile(r"://|\bwww(?=\.)", re.IGNORECASE)
"""What GitHub makes a link of by itself; with its last character as a number it does not."""


def as_markdown(page: Page) -> str:
    lines = [
        f"# What the vectors of {_cell(Quoted(page.target))} give away",
        "",
        f"**{_cell(page.severity.capitalize())}.** {_cell(page.sentence)}",
        "",
    ]
    lines += [
        f"- {_cell(page.figure_label)}: {_cell(page.figure_notes[0])}",
        *(f"- {_cell(note)}" for note in page.figure_notes[1:]),
        "",
    ]
    lines += [f"> **{_cell(page.warning)}**", ""] if page.warning else []
    lines += [", ".join(_cell(tag) for tag in page.tags), ""] if page.tags else []
    for part in page.parts:
        lines += [f"## {part.title}", ""]
        for block in part.blocks:
            lines += _block(block)
    return "\n".join(lines)


def _block(block: Block) -> list[str]:
    if isinstance(block, str):
        return [_cell(block), ""]
    if isinstance(block, Facts):
        return [*(f"- {_cell(name)}: {_cell(value)}" for name, value in block.rows), ""]
    if isinstance(block, Items):
        return [
            *(f"{f'{number}.' if block.numbered else '-'} {_cell(row)}" for number, row in enumerate(block.rows, 1)),
            "",
        ]
    if isinstance(block, Table):
        rule = "|".join("---" if number in {0, *block.words} else "---:" for number in range(len(block.columns)))
        rows = [_row(block.columns), f"|{rule}|", *(_row(row) for row in block.rows)]
        return [f"{_cell(block.caption)}:", "", *rows, ""]
    if isinstance(block, Card):
        return [f"### {_cell(Quoted(block.title))}", "", _cell(Quoted(block.whole)), "", *_block(block.facts)]
    return []


def _row(cells: Sequence[str]) -> str:
    # A table takes "|" for its own even inside code, unless it is escaped; elsewhere code would show the backslash.
    return f"| {' | '.join(_cell(cell, table=True) for cell in cells)} |"


def _cell(text: str, table: bool = False) -> str:
    if isinstance(text, Quoted) and text.strip():
        code = _code(text)
        return code.replace("|", "\\|") if table else code
    escaped = _ACTING.sub(r"\\\1", text.replace("&", "&amp;"))
    escaped = _LINKS.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", escaped)
    return f"**{escaped}**" if isinstance(text, Failed) else escaped


def _code(text: str) -> str:
    """A code span whose marks are longer than any run of backticks in it (CommonMark 0.31, section 6.1)."""
    marks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    edge = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{marks}{edge}{text}{edge}{marks}"
