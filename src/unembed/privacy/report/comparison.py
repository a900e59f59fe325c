"""The part of a report that shows what `unembed defend` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unembed.privacy.report.blocks import Block, Items, Point, Scatter, Table
from unembed.privacy.report.defences import COLUMNS, cells
from unembed.privacy.report.numbers import percent, span

NONE = "none"
LEFT_OUT = "allowed loss", "BLEU"
"""Columns that the page of `unembed defend` has room for."""


def defences(report: Mapping[str, Any]) -> list[Block]:
    """The worst attacker at each setting, as a plot and a table."""
    settings, worst = report["settings"], once(report["worst"])
    points = [_point(leak) for leak in worst if leak["defence"] != NONE]
    without = next((leak for leak in worst if leak["defence"] == NONE), None)
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
        blocks.append(Items([_named(leak) for leak in front], numbered=True))
    shown = [column for column in COLUMNS if column not in LEFT_OUT]
    rows = [[cell for name, cell in zip(COLUMNS, cells(leak), strict=True) if name in shown] for leak in worst]
    words = frozenset({shown.index("attacker")})
    blocks.append(Table("The worst attacker at each setting, with 95 % intervals", shown, rows, words))
    mild = [entry for entry in report.get("matched") or [] if entry["strength"] is None]
    if mild:
        named = ", ".join(f"{entry['defence']} at {percent(entry['allowed'])}" for entry in mild)
        blocks.append(f"Even the mildest setting costs more than allowed: {named}.")
    blocks += ["What the attackers know:", Items([f"{name}: {knows}" for name, knows in report["attackers"].items()])]
    return blocks


def once(worst: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A setting that is the strongest within several allowed losses, once."""
    return list({(leak["defence"], leak["strength"]): leak for leak in reversed(worst)}.values())[::-1]


def pareto(worst: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The settings that leak less than every cheaper one and than no defence, cheapest first."""
    least = min((_f1(leak) for leak in worst if leak["defence"] == NONE), default=float("inf"))
    front = []
    for leak in sorted(worst, key=lambda leak: (leak["loss"], _f1(leak))):
        if leak["defence"] != NONE and _f1(leak) < least:
            least = _f1(leak)
            front.append(leak)
    return front


def _f1(leak: Mapping[str, Any]) -> float:
    return leak["scores"]["token_f1"]["value"]


def _point(leak: Mapping[str, Any]) -> Point:
    return Point(_named(leak), 100 * leak["loss"], span(leak["scores"]["token_f1"]))


def _named(leak: Mapping[str, Any]) -> str:
    return (
        f"{leak['defence']} {leak['strength']:.4g}: token F1 {_f1(leak):.2f} for {percent(leak['loss'])} of nDCG@10 "
        f"({leak['attacker']})"
    )
