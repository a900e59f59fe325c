"""A comparison of defences as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unembed.privacy.report.numbers import NONE, Span, percent

COLUMNS = (
    "defence", "setting", "allowed loss", "loss", "attacker", "token F1", "exact", "BLEU", "rare strings", "looked up",
)  # fmt: skip


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report of `unembed defend`: what was measured, the worst attacker at each setting, then all attackers."""
    settings = report["settings"]
    how = f"{settings['steps']} steps" if settings["steps"] else f"consensus of {settings['consensus']} samples"
    lines = [
        f"# What defences buy: {settings['corpus']}",
        "",
        f"{settings['n']} texts of {settings['tokens']} tokens, cut out of the documents; inverter "
        f"{settings['model']}, {how}. Utility is nDCG@10; each defence at the strongest setting within the allowed "
        f"loss. Intervals are 95 % bootstraps over texts. {settings['processor'] or settings['machine']}, "
        f"{settings['cores']} cores, torch {settings['torch']}.",
        "",
        "## The worst attacker at each setting",
        "",
        *_table(report["worst"]),
        "",
    ]
    if without := [entry for entry in report["matched"] if entry["strength"] is None]:
        named = ", ".join(f"{entry['defence']} at {percent(entry['allowed'])}" for entry in without)
        lines += [f"Even the mildest setting costs more than allowed: {named}.", ""]
    lines += ["## All attackers", ""]
    lines += [f"- *{name}* knows {knows}." for name, knows in report["attackers"].items()]
    lines += ["", *_table(report["leaks"]), ""]
    lines += [
        "*Looked up*: share of the texts that are found among all texts that the attacker may hold, by the nearest "
        "restored vector. *Rare strings*: share of the names, numbers, dates and identifiers that stand in the "
        "inverter's text.",
        "",
    ]
    return "\n".join(lines)


def _table(leaks: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = (f"| {' | '.join(cells(leak))} |" for leak in leaks)
    return [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", *rows]


def cells(leak: Mapping[str, Any]) -> list[str]:
    """What stands in the `COLUMNS` of one attacker at one setting."""
    scores = leak["scores"]
    row = [leak["defence"], f"{leak['strength']:.4g}", percent(leak["allowed"]), percent(leak["loss"])]
    row += [leak["attacker"], _estimate(scores["token_f1"], 1, 3), _estimate(scores["exact_uncased"], 100, 0)]
    row += [_estimate(scores["bleu"], 1, 1), _estimate(leak["rare"], 100, 0), _estimate(leak["found"], 100, 0)]
    return row


def _estimate(estimate: Mapping[str, Any], scale: float, digits: int) -> str:
    if not estimate:
        return NONE
    low, high = (None if end is None else scale * end for end in (estimate["low"], estimate["high"]))
    return Span(scale * estimate["value"], low, high).format(digits, " %" if scale == 100 else "")
