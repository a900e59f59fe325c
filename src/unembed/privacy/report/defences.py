"""A comparison of defences as a page of Markdown, and what other pages show of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unembed.privacy.defences import CLEAN
from unembed.privacy.report.numbers import NONE, Span, machine, percent, span

COLUMNS = (
    "defence", "setting", "allowed loss", "loss", "attacker", "token F1", "exact", "BLEU", "rare strings", "looked up",
)  # fmt: skip


def as_markdown(report: Mapping[str, Any]) -> str:
    """The report of `unembed defend`: what was measured, what each allowed loss buys, the worst attacker at each
    setting, then all attackers."""
    settings = report["settings"]
    how = f"{settings['steps']} steps" if settings["steps"] else f"consensus of {settings['consensus']} samples"
    lines = [
        f"# What defences buy: {settings['corpus']}",
        "",
        f"{settings['n']} texts of {settings['tokens']} tokens, cut out of the documents; inverter "
        f"{settings['model']}, {how}. Utility is nDCG@10; each defence at the strongest setting within the allowed "
        f"loss. Intervals are 95 % bootstraps over texts. {machine(settings)}.",
        "",
        "## What each loss of nDCG@10 buys",
        "",
        "The setting, the token F1 of the worst attacker there, and who that is; a dash where even the mildest setting "
        "costs more, or the documents are too few for the defence to learn from.",
        "",
        *_overview(report),
        "",
        "## The least leakage for its cost",
        "",
        *[f"{number}. {named(leak)}" for number, leak in enumerate(pareto(once(report["worst"])), 1)],
        "",
        "## The worst attacker at each setting",
        "",
        *_table(report["worst"]),
        "",
    ]
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


def _overview(report: Mapping[str, Any]) -> list[str]:
    """A row a defence, a column an allowed loss."""
    worst = {(leak["defence"], leak["allowed"]): leak for leak in report["worst"]}
    losses = sorted({entry["allowed"] for entry in report["matched"]})
    rows = [f"| defence | {' | '.join(f'{100 * loss:g} %' for loss in losses)} |", f"|---|{'---|' * len(losses)}"]
    if (clean := worst.get((CLEAN, 0.0))) is not None:
        rows.append(f"| {CLEAN} | {' | '.join([_answer(clean)] * len(losses))} |")
    for defence in dict.fromkeys(entry["defence"] for entry in report["matched"]):
        answers = [_answer(worst.get((defence, loss))) for loss in losses]
        rows.append(f"| {defence} | {' | '.join(answers)} |")
    return rows


def _answer(leak: Mapping[str, Any] | None) -> str:
    if leak is None:
        return NONE
    return f"{leak['strength']:.4g}: {span(leak['scores']['token_f1']).format(2)} {leak['attacker']}"


def once(worst: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A setting that is the strongest within several allowed losses, once."""
    return list({(leak["defence"], leak["strength"]): leak for leak in reversed(worst)}.values())[::-1]


def pareto(worst: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The settings that leak less than every cheaper one and than no defence, cheapest first."""
    least = min((f1(leak) for leak in worst if leak["defence"] == CLEAN), default=float("inf"))
    front = []
    for leak in sorted(worst, key=lambda leak: (leak["loss"], f1(leak))):
        if leak["defence"] != CLEAN and f1(leak) < least:
            least = f1(leak)
            front.append(leak)
    return front


def f1(leak: Mapping[str, Any]) -> float:
    return leak["scores"]["token_f1"]["value"]


def named(leak: Mapping[str, Any]) -> str:
    """A setting in one line: what it is, what it leaks to whom, what it costs."""
    return (
        f"{leak['defence']} {leak['strength']:.4g}: token F1 {f1(leak):.2f} for {percent(leak['loss'])} of nDCG@10 "
        f"({leak['attacker']})"
    )


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
