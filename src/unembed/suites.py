"""Sets of evaluations that belong together, and the Markdown that their reports become.

A suite names held-out files by their stem; the folder that holds them is the user's (docs/guide.md says where ours are
from). The tables of the README and of the model card are made here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unembed.errors import InputError
from unembed.evaluation import SYSTEMS
from unembed.lengths import LENGTHS, WHOLE


@dataclass(frozen=True)
class Part:
    """One evaluation of a suite."""

    name: str
    data: str
    """Stem of the held-out file."""
    lengths: tuple[int, ...]
    n: int
    """Texts of each length."""
    steps: int = 0
    sequence_beam_width: int = 1
    consensus: int = 32


SQUAD, SCIFACT, PII = "en_squad_dev", "en_scifact_abstracts", "en_synthetic_pii"
RUSSIAN, RUSSIAN_PROSE, RUSSIAN_PII = "ru_nerel_news", "ru_literature", "ru_synthetic_pii"
CHINESE, CHINESE_PII = "zh_cmrc2018", "zh_synthetic_pii"
SHORT = (8, 16, 32)

SUITES: dict[str, tuple[Part, ...]] = {
    # The figures of the README and the model card. Two cores need more than an hour, most of it for the searches.
    "headline": (
        Part("squad-greedy", SQUAD, LENGTHS, 300, consensus=1),
        Part("squad-zero", SQUAD, LENGTHS, 300),
        Part("scifact-zero", SCIFACT, (16, 32, 64), 150),
        Part("pii-zero", PII, (8, 16, 24, WHOLE), 300),
        Part("pii-audit", PII, (WHOLE,), 300, sequence_beam_width=4),  # as unembed audit inverts
        Part("russian-zero", RUSSIAN, (16,), 100),
        Part("chinese-zero", CHINESE, (16,), 100),
        Part("squad-search", SQUAD, (4, 8, 16, 32), 30, steps=20, sequence_beam_width=4),
    ),
    # The same in about three minutes on two cores: wider intervals, and searches of short texts alone.
    "quick": (
        Part("squad-greedy", SQUAD, LENGTHS, 60, consensus=1),
        Part("squad-zero", SQUAD, LENGTHS, 60),
        Part("scifact-zero", SCIFACT, LENGTHS, 60),
        Part("pii-zero", PII, (4, 8, 16, 24), 60),
        Part("squad-search", SQUAD, (4, 8), 8, steps=20, sequence_beam_width=4),
    ),
    # For inverters of the language (docs/languages.md).
    "russian": (
        Part("news-greedy", RUSSIAN, SHORT, 100, consensus=1),
        Part("news-zero", RUSSIAN, SHORT, 100),
        Part("literature-zero", RUSSIAN_PROSE, SHORT, 100),
        Part("pii-zero", RUSSIAN_PII, SHORT, 100),
        Part("news-search", RUSSIAN, SHORT, 20, steps=20, sequence_beam_width=4),
        Part("literature-search", RUSSIAN_PROSE, SHORT, 20, steps=20, sequence_beam_width=4),
        Part("pii-search", RUSSIAN_PII, SHORT, 20, steps=20, sequence_beam_width=4),
    ),
    "chinese": (
        Part("wikipedia-greedy", CHINESE, SHORT, 100, consensus=1),
        Part("wikipedia-zero", CHINESE, SHORT, 100),
        Part("pii-zero", CHINESE_PII, SHORT, 100),
        Part("wikipedia-search", CHINESE, SHORT, 20, steps=20, sequence_beam_width=4),
        Part("pii-search", CHINESE_PII, SHORT, 20, steps=20, sequence_beam_width=4),
    ),
}

COLUMNS = (
    ("exact_uncased", 100, 1),
    ("token_f1", 1, 3),
    ("bleu", 1, 1),
    ("rouge_l", 1, 3),
    ("chrf", 1, 1),
    ("cosine", 1, 3),
)
"""Metric, factor and digits of each column of `figures`."""
OVERVIEW = (
    ("exact_uncased", 100, 0),
    ("token_f1", 1, 2),
    ("character_f1", 1, 2),
    ("chrf", 1, 1),
    ("bleu", 1, 1),
    ("cosine", 1, 2),
)
"""The same for `overview`."""
CONTROLS = ("token_f1", "character_f1")
"""What `overview` says of the controls."""


def suite(name: str) -> tuple[Part, ...]:
    """The parts of a suite; InputError when there is none of that name."""
    if name not in SUITES:
        raise InputError(f"there is no suite '{name}': choose from {', '.join(SUITES)}")
    return SUITES[name]


def locate(folder: str | Path, part: Part) -> Path:
    """The held-out file of a part in `folder`, whatever its ending; InputError when it is not there."""
    found = sorted(path for path in Path(folder).glob(f"{part.data}.*") if path.is_file())
    if not found:
        raise InputError(f"{folder} holds no {part.data}.txt (nor .txt.xz, .jsonl, …): --data is the held-out folder")
    return found[0]


def figures(report: dict[str, Any]) -> str:
    """One report as a Markdown table: every length, every system."""
    settings = report["settings"]
    data = ", ".join(Path(path).name.split(".")[0] for path in settings["data"])
    search = settings["search"]
    lines = [
        f"**{data}**, {how(search)}:",
        "",
        "| tokens | n | system | exact (uncased) % | token F1 | BLEU | ROUGE-L | chrF | cosine | queries |",
        "|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for length, result in report["lengths"].items():
        for system, scores in result["systems"].items():
            cells = [cell(scores["summary"][name], factor, digits) for name, factor, digits in COLUMNS]
            queries = f"{result['queries_mean']:.0f}" if system == "inverter" else ""
            lines.append(f"| {length} | {result['n']} | {system} | " + " | ".join(cells) + f" | {queries} |")
    return "\n".join(lines)


def how(search: dict[str, Any]) -> str:
    """A SearchConfig in the words of the tables."""
    width = search["sequence_beam_width"]
    if search["steps"]:
        return f"steps {search['steps']}, sequence beam {width}"
    beam = f", sequence beam {width}" if width > 1 else ""
    return "steps 0, " + (f"consensus of {search['consensus']}" if search["consensus"] > 1 else "greedy") + beam


def rare_figures(report: dict[str, Any]) -> str:
    """The strings of one report that seldom repeat: recall in % by kind and length, with the control's."""
    lines = ["| tokens | kind | strings | recovered % | in a training text % |", "|--:|---|--:|--:|--:|"]
    for length, result in report["lengths"].items():
        control = result["rare"].get("training text", {})
        for kind, estimate in result["rare"]["inverter"].items():
            other = cell(control[kind], 100, 1) if kind in control else ""
            lines.append(f"| {length} | {kind} | {estimate['n']} | {cell(estimate, 100, 1)} | {other} |")
    return "\n".join(lines)


def tables(report: dict[str, Any]) -> str:
    """Both tables of one report."""
    return f"{figures(report)}\n\n{rare_figures(report)}"


HEADLINE = ("squad-greedy", "squad-zero", "squad-search")
"""The reports of the README's table."""


def headline(reports: dict[str, dict[str, Any]]) -> str:
    """The README's table: three ways of asking the same model, side by side on the same set, with both controls. A
    length that one of the HEADLINE reports lacks is left out."""
    lines = [
        "| tokens | token F1, greedy | token F1, consensus | token F1, search | exact %, search | BLEU, search "
        "| queries | token F1, a training text | token F1, prior sample |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    greedy, zero, search = (reports[name]["lengths"] for name in HEADLINE)
    for length in [length for length in zero if length in greedy and length in search]:
        first = {system: scores["summary"] for system, scores in zero[length]["systems"].items()}
        best = search[length]["systems"]["inverter"]["summary"]
        cells = [
            cell(greedy[length]["systems"]["inverter"]["summary"]["token_f1"], 1, 2),
            cell(first["inverter"]["token_f1"], 1, 2), cell(best["token_f1"], 1, 2),
            cell(best["exact_uncased"], 100, 0), cell(best["bleu"], 1, 1), f"{search[length]['queries_mean']:.0f}",
            *(cell(first[name]["token_f1"], 1, 2) if name in first else "" for name in SYSTEMS[1:]),
        ]  # fmt: skip
        lines.append(f"| {length} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def overview(reports: dict[str, dict[str, Any]]) -> str:
    """One table of all reports, with measures that fit every script, and beside them the token and character F1 of the
    controls."""
    lines = [
        "| part | tokens | n | exact (uncased) % | token F1 | character F1 | chrF | BLEU | cosine | queries "
        "| a training text | prior sample |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, report in reports.items():
        for length, result in report["lengths"].items():
            systems = {system: scores["summary"] for system, scores in result["systems"].items()}
            cells = [cell(systems["inverter"][metric], *rest) for metric, *rest in OVERVIEW]
            cells.append(f"{result['queries_mean']:.0f}")
            for control in ("training text", "prior sample"):
                both = [systems[control][metric]["value"] for metric in CONTROLS] if control in systems else []
                cells.append(" / ".join(f"{value:.2f}" for value in both))
            lines.append(f"| {name} | {length} | {result['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(reports: dict[str, dict[str, Any]]) -> str:
    """All reports of a suite, by the names of their parts, as one Markdown page."""
    parts = [headline(reports) if reports.keys() >= set(HEADLINE) else overview(reports)]
    for name, report in reports.items():
        parts += [f"## {name}", tables(report)]
    return "\n\n".join(parts) + "\n"


def cell(estimate: dict[str, Any], factor: float, digits: int) -> str:
    """value [low–high]; the value alone where the interval says no more."""
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if low is None or low == high:
        return f"{factor * value:.{digits}f}"
    return f"{factor * value:.{digits}f} [{factor * low:.{digits}f}–{factor * high:.{digits}f}]"
