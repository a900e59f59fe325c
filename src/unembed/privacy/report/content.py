"""What stands in the report of an audit, in the order in which it is read: the verdict, what was attacked by whom, what
came out, what helps, how it was measured. A part without figures is left out.

`Report` is the dict that `unembed audit` writes as report.json, its texts `cleaned`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unembed.privacy.report.blocks import Bar, Bars, Block, Card, Facts, Failed, Items, Page, Part, Quoted, Table
from unembed.privacy.report.comparison import defences
from unembed.privacy.report.numbers import LABELS, NONE, count, duration, of_100, percent, score, share

Report = Mapping[str, Any]

WORST = 20
"""Records that are shown."""
DRAWN = "pii_recall", "exact_uncased", "token_f1", "bleu"
GROUPED = "exact_uncased", "token_f1", "pii_recall"
"""The measures of the first plot, and those by length, language and domain."""
INVERTER = "inverter"
UNVERIFIED = (
    "Nothing here is verified: the true texts were not known. Every figure is the inverter's own calibrated estimate "
    "of how likely it is to be right."
)


def page(report: Report) -> Page:
    """The page about a report."""
    build = (
        _threat_model, _target, _scores, _pii, _groups, _canaries, _records, _defences, _remediation, _checks, _limits,
        _run,
    )  # fmt: skip
    parts = [Part(title, blocks) for title, blocks in (make(report) for make in build) if blocks]
    headline = report["headline"]
    return Page(
        report["target"]["source"], report["created"], report["unembed"], report["verdict"]["severity"],
        _sentence(report), score(headline["measure"], headline["estimate"]).split(" (")[0], headline["label"],
        _notes(report), "" if report["truth"] else UNVERIFIED, parts, report.get("tags") or [],
    )  # fmt: skip


def _sentence(report: Report) -> str:
    """The verdict, for somebody who reads nothing else."""
    measure, estimate = report["headline"]["measure"], report["headline"]["estimate"]
    got, n = score(measure, estimate).split(" (")[0], f"{report['target']['usable']:,}"
    if not report["truth"]:
        sentence = (
            f"For about {got} of {n} sampled vectors, an attacker gets a text that is probably right in substance"
        )
    elif measure == "pii_recall":
        sentence = f"{got} of the personal data in {n} sampled texts was read back out of their vectors"
    elif measure == "exact_uncased":
        sentence = f"{got} of {n} sampled texts were read back word for word out of their vectors"
    else:
        sentence = f"{report['headline']['label']}: {got} over {n} sampled texts"
    if best := _best_control(report):
        sentence += f"; what can be said without inverting them ({best[0]}) gets {best[1].split(' (')[0]}"
    return sentence + "."


def _notes(report: Report) -> list[str]:
    estimate = report["headline"]["estimate"]
    _, _, interval = score(report["headline"]["measure"], estimate).partition(" (")
    notes = [f"95 % interval {interval.rstrip(')')}" if interval else "no interval", f"n = {estimate['n']:,}"]
    if best := _best_control(report):
        notes.append(f"best control, {best[0]}: {best[1]}")
    return notes


def _best_control(report: Report) -> tuple[str, str] | None:
    """The control that comes nearest to the headline, and its score."""
    measure = report["headline"]["measure"]
    estimates = {name: _measures(control).get(measure) for name, control in _controls(report).items()}
    found = {name: estimate for name, estimate in estimates.items() if estimate}
    if not found:
        return None
    best = max(found, key=lambda name: found[name]["value"])
    return best, score(measure, found[best])


def _controls(report: Report) -> Mapping[str, Any]:
    return report.get("controls") or {}


def _measures(scored: Mapping[str, Any]) -> dict[str, Any]:
    """All that was measured on a group of texts, by the names of `LABELS` and in their order."""
    found = {**(scored.get("scores") or {}), "pii_recall": scored.get("pii_recall")}
    return {name: found[name] for name in LABELS if found.get(name)}


def _all(report: Report) -> dict[str, Any]:
    return _measures(
        {"scores": report.get("scores"), "pii_recall": ((report.get("pii") or {}).get("any") or {}).get("recall")}
    )


def _threat_model(report: Report) -> tuple[str, list[Block]]:
    model = report["threat_model"]
    rows = [("Access", model["access"]), ("Inverter", Quoted(model["model"]))]
    rows += [("Its weights", f"SHA-256 {model['model_digest']}")] if model.get("model_digest") else []
    how = f"{model['steps']} steps of correction" if model["steps"] else "none: the first hypothesis"
    if model.get("consensus") and not model["steps"]:
        how = f"consensus of {model['consensus']} samples"
    rows += [
        ("Search", how),
        ("Embedder queries", f"{count(model['queries'])}, {model['queries_mean']:.1f} a vector"),
        ("Tokens embedded", count(model["tokens"])),
    ]
    rows += [("Cost", f"{model['cost']:.2f}")] if model.get("cost") is not None else []
    return "Threat model", [Facts(rows)]


def _target(report: Report) -> tuple[str, list[Block]]:
    target = report["target"]
    embedder, norms = target["embedder"], target["norms"]
    fits = {True: "the vectors look like its own", False: "the vectors do not look like its own"}
    claimed = f"{embedder['name']}: {fits.get(embedder.get('plausible'), 'could not be told')} ({embedder['why']})"
    rows = [
        ("Store", Quoted(target["source"])),
        (
            "Vectors",
            f"{count(target['sampled'])} sampled of {count(target.get('count'))}, {count(target['usable'])} usable",
        ),
        ("Shape", f"{target['dimension']} numbers of {target['dtype']}"),
        ("Norms", f"{norms['least']:.3f} to {norms['greatest']:.3f}, mean {norms['mean']:.3f}"),
        ("Embedder", Quoted(claimed)),
    ]
    rows += [("Left out", f"{count(n)}: {reason}") for reason, n in (target.get("refused") or {}).items()]
    blocks: list[Block] = [Facts(rows)]
    if fields := target.get("fields"):
        shown = [[Quoted(field["name"]), field.get("kind") or NONE] for field in fields]
        blocks += [
            "What lies beside the vectors can be read without any inversion.",
            Table("Fields beside the vectors", ["field", "kind"], shown, words=frozenset({1})),
        ]
    return "Target", blocks


def _scores(report: Report) -> tuple[str, list[Block]]:
    systems = {INVERTER: _all(report), **{name: _measures(control) for name, control in _controls(report).items()}}
    measures = [name for name in LABELS if any(name in found for found in systems.values())]
    blocks: list[Block] = []
    if drawn := [name for name in DRAWN if name in systems[INVERTER]]:
        groups = [(LABELS[measure], _bars(measure, systems)) for measure in drawn]
        blocks = [
            "Controls say what could be guessed: the same measures on the same rows, of texts that did not come out of "
            "inverting these vectors.",
            Bars("The inverter beside its controls", "0 to 100; the thin lines are 95 % intervals.", groups, ""),
        ]
    if measures:
        rows = [[LABELS[name], *(score(name, found.get(name)) for found in systems.values())] for name in measures]
        blocks.append(Table("Scores, with 95 % intervals", ["measure", *map(str, systems)], rows))
    if confidence := report.get("confidence"):
        meaning = {"good": "token F1 of 0.8 or more", "exact": "exact"}
        said = [(f"Probably {meaning[name]}", share(confidence[name])) for name in meaning if confidence.get(name)]
        blocks += ["What the inverter believes of its own texts, by calibrated probability:", Facts(said)]
    return "Scores", blocks


def _bars(measure: str, systems: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    return [
        Bar(name, of_100(measure, found[measure]), control=name != INVERTER)
        for name, found in systems.items()
        if measure in found
    ]


def _pii(report: Report) -> tuple[str, list[Block]]:
    kinds = {kind: found for kind, found in (report.get("pii") or {}).items() if found.get("recall")}
    if not kinds:
        return "", []
    named = {kind: found for kind, found in kinds.items() if kind != "any"}
    bars = [(kind, [Bar("", of_100("pii_recall", found["recall"]))]) for kind, found in named.items()]
    rows = [[Quoted(kind), count(found["found"]), share(found["recall"])] for kind, found in named.items()]
    rows += [["any", count(kinds["any"]["found"]), share(kinds["any"]["recall"])]] if "any" in kinds else []
    blocks: list[Block] = [Bars("Recovered, by type", "Percent of the strings of each type.", bars)] if bars else []
    caption = "Personal data in the true texts, and how much of it stands in the reconstructions"
    return "Personal data", [*blocks, Table(caption, ["type", "strings", "recovered"], rows)]


def _groups(report: Report) -> tuple[str, list[Block]]:
    blocks: list[Block] = []
    for key, buckets in (report.get("by") or {}).items():
        measured = {name: _measures(group) for name, group in buckets.items()}
        columns = [measure for measure in GROUPED if any(measure in found for found in measured.values())]
        if columns:
            rows = [
                [Quoted(name), count(buckets[name]["n"]), *(score(measure, found.get(measure)) for measure in columns)]
                for name, found in measured.items()
            ]
            blocks.append(Table(f"By {key}", [key, "n", *(LABELS[measure] for measure in columns)], rows))
    return "By length, language and domain", blocks


def _canaries(report: Report) -> tuple[str, list[Block]]:
    canaries = report.get("canaries") or {}
    ranks = sorted({k for found in canaries.values() for k in found["recall"]}, key=int)
    rows = [
        [Quoted(kind), count(found["planted"]), *(share(found["recall"].get(k)) for k in ranks)]
        for kind, found in canaries.items()
    ]
    table = Table(
        "Planted secrets found among the best k texts", ["type", "planted", *(f"k = {k}" for k in ranks)], rows
    )
    return "Canaries", [table] if rows else []


def _records(report: Report) -> tuple[str, list[Block]]:
    records = report.get("records") or []
    shown = records[:WORST]
    if not shown:
        return "", []
    lead = (
        f"The {len(shown)} of {count(len(records))} records that give most away, worst first; report.json has them all."
    )
    return "Worst records", [lead, *(_card(record, report["truth"]) for record in shown)]


def _card(record: Mapping[str, Any], truth: bool) -> Card:
    label, found = ("Leaked", "leaked") if truth else ("Looks like personal data", "pii")
    strings = {kind: listed for kind, listed in (record.get(found) or {}).items() if listed}
    rows: list[tuple[str, str]] = []
    if record.get("true_text") is not None:
        rows.append(("True text", Quoted(record["true_text"])))
    if record.get("recovered"):
        rows.append(("Recovered", Failed("word for word")))
    rows += [(f"{label}: {kind}", Quoted(" · ".join(listed))) for kind, listed in strings.items()]
    figures = [("cosine", record.get("cosine"), "{:.4f}"), ("token F1", record.get("token_f1"), "{:.2f}")]
    said = [f"{name} {form.format(value)}" for name, value, form in figures if value is not None]
    chances = [("good", record.get("good")), ("exact", record.get("exact"))]
    said += [f"{name} with probability {percent(value)}" for name, value in chances if value is not None]
    said += [f"{record['words']} words"] + ([record["language"]] if record.get("language") else [])
    rows.append(("Figures", ", ".join(said)))
    pieces = _marked(record["text"], [string for listed in strings.values() for string in listed])
    return Card(record["id"], pieces, Facts(rows))


def _marked(text: str, strings: Sequence[str]) -> list[tuple[str, bool]]:
    """`text` in pieces, with True for those that are one of `strings`, whatever their case."""
    longest_first = sorted(filter(None, strings), key=len, reverse=True)
    if not longest_first:
        return [(text, False)]
    pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text, flags=re.IGNORECASE)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]


def _defences(report: Report) -> tuple[str, list[Block]]:
    return "What a defence buys", defences(report["defences"]) if report.get("defences") else []


def _remediation(report: Report) -> tuple[str, list[Block]]:
    rows = [[advice["what"], advice["effect"]] for advice in report.get("remediation") or []]
    table = Table("What to do, and its measured effect", ["measure", "effect"], rows, words=frozenset({1}))
    return "Remediation", [table] if rows else []


def _checks(report: Report) -> tuple[str, list[Block]]:
    verdict = report["verdict"]
    blocks: list[Block] = [f"Severity is {verdict['severity']}: {verdict['rule']}"]
    rows = [
        [check["rule"], f"{check['value']:.4g}", Failed("failed") if check["failed"] else "passed"]
        for check in verdict.get("checks") or []
    ]
    if rows:
        blocks.append(
            Table("A check fails where its rule is true", ["rule", "measured", "result"], rows, words=frozenset({2}))
        )
    return "Checks", blocks


def _limits(report: Report) -> tuple[str, list[Block]]:
    return "Limits", [Items(report["limits"])] if report.get("limits") else []


def _run(report: Report) -> tuple[str, list[Block]]:
    run = report["run"]
    rows = [
        ("Authorised by", Quoted(run["authorised_by"]) if run.get("authorised_by") else "nobody was named"),
        ("Made by", f"unembed {report['unembed']}, {report['created']}"),
        ("Took", duration(run["seconds"])),
        ("Seed", str(run["seed"])),
        ("Machine", f"{run.get('processor') or run['machine']}, {run['cores']} cores, torch {run['torch']}"),
        ("Settings", f"hash {report['config_hash']}"),
    ]
    settings = [[name, Quoted(_plain(value))] for name, value in (report.get("config") or {}).items()]
    table = Table("Settings", ["setting", "value"], settings, words=frozenset({1}))
    return "Run", [Facts(rows), *([table] if settings else [])]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
