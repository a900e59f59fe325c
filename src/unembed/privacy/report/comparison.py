"""The part of a report that shows what `unembed defend` measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unembed.privacy.defences import CLEAN
from unembed.privacy.report.blocks import Block, Items, Point, Scatter, Table
from unembed.privacy.report.defences import COLUMNS, cells, named, once, pareto
from unembed.privacy.report.numbers import percent, span

LEFT_OUT = "allowed loss", "BLEU"
"""Columns that the page of `unembed defend` has room for."""


def defences(report: Mapping[str, Any]) -> list[Block]:
    """The worst attacker at each setting, as a plot and a table."""
    settings, worst = report["settings"], once(report["worst"])
    points = [_point(leak) for leak in worst if leak["defence"] != CLEAN]
    without = next((leak for leak in worst if leak["defence"] == CLEAN), None)
    front = pareto(worst)
    blocks: list[Block] = [
        f"Measured on {settings['n']} texts of {settings['tokens']} tokens out of {settings['corpus']}, not on this "
        "store: each defence at the strongest setting that costs a search no more than allowed, against the attacker "
        "who then gets most."
    ]
    if points:
        blocks.append(
            Scatter(
                "Leakage against cost",
                "Each point is a defence at one setting. Those with a number are the least leakage for their cost.",
                "loss of nDCG@10, %",
                "token F1 of the worst attacker",
                points,
                [_point(leak) for leak in front],
                None if without is None else without["scores"]["token_f1"]["value"],
            )
        )
    if front:
        blocks.append(Items([named(leak) for leak in front], numbered=True))
    shown = [column for column in COLUMNS if column not in LEFT_OUT]
    rows = [[cell for name, cell in zip(COLUMNS, cells(leak), strict=True) if name in shown] for leak in worst]
    words = frozenset({shown.index("attacker")})
    blocks.append(Table("The worst attacker at each setting, with 95 % intervals", shown, rows, words))
    mild = [entry for entry in report.get("matched") or [] if entry["strength"] is None]
    if mild:
        costly = ", ".join(f"{entry['defence']} at {percent(entry['allowed'])}" for entry in mild)
        blocks.append(f"Even the mildest setting costs more than allowed: {costly}.")
    blocks += ["What the attackers know:", Items([f"{name}: {knows}" for name, knows in report["attackers"].items()])]
    return blocks


def _point(leak: Mapping[str, Any]) -> Point:
    return Point(named(leak), 100 * leak["loss"], span(leak["scores"]["token_f1"]))
