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
from unembed.privacy.report.numbers import (
    LABELS,
    NONE,
    count,
    duration,
    machine,
    of_100,
    percent,
    score,
    share,
    span,
    value,
)
from unembed.scripts import UNSPACED

Report = Mapping[str, Any]

WORST = 10
"""Records that are shown."""
MASK = "█"
LETTER = rf"[^\W{UNSPACED}]"
"""What stands beside a word makes it another one, save in scripts without spaces."""
RECALL = "pii_recall"
DRAWN = RECALL, "exact_uncased", "token_f1", "bleu"
GROUPED = "exact_uncased", "token_f1", RECALL
"""The measures of the first plot, and those by length, language and domain."""
INVERTER = "inverter"
BELIEFS = {
    "good": "Believed good (token F1 of 0.8 or more)",
    "exact": "Believed exact",
    "verified": "Embed to the very same vector",
}
"""The calibrated probabilities of the inverter, and what a re-embedding shows."""
UNVERIFIED = (
    "Nothing here is verified against the true texts, which were not known. How good the reconstructions are is the "
    "inverter's own calibrated estimate."
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
        report["target"]["source"], _moment(report["created"]), report["unembed"], report["verdict"]["severity"],
        _sentence(report), value(headline["measure"], headline["estimate"]), headline["label"],
        _notes(report), "" if report["truth"] else UNVERIFIED, parts, report.get("tags") or [],
    )  # fmt: skip


def _sentence(report: Report) -> str:
    """The verdict, for somebody who reads nothing else."""
    measure, estimate = report["headline"]["measure"], report["headline"]["estimate"]
    got, n = value(measure, estimate), f"{report['target']['usable']:,}"
    if measure == "confidence_good":
        sentence = f"By its own estimate, the inverter read about {got} of {n} sampled vectors nearly word for word"
    elif measure == "verified":
        sentence = f"{got} of {n} sampled vectors gave a text that embeds to the very same vector"
    elif measure == RECALL:
        sentence = f"{got} of the personal data in {n} sampled texts was read back out of their vectors"
    else:
        sentence = f"The texts read out of {n} sampled vectors have a token F1 of {got} with the true ones"
    if best := _best_control(report, measure):
        sentence += f"; the best guess without inverting them ({best[0]}) gets {value(measure, best[1])}"
    return sentence + "."


def _notes(report: Report) -> list[str]:
    """The headline with its interval and its control; and the other of recall of personal data and token F1, which may
    say more than few strings do."""
    measure, estimate = report["headline"]["measure"], report["headline"]["estimate"]
    interval = "" if span(estimate).low is None else ", 95 % interval"
    notes = [f"{score(measure, estimate)}{interval}, n = {estimate['n']:,}{_control(report, measure)}"]
    for name in ("token_f1", RECALL):
        if name != measure and (other := _all(report).get(name)):
            notes.append(f"{LABELS[name]} {score(name, other)}{_control(report, name)}")
    return notes


def _control(report: Report, measure: str) -> str:
    best = _best_control(report, measure)
    return f"; best control, {best[0]}: {score(measure, best[1])}" if best else ""


def _best_control(report: Report, measure: str) -> tuple[str, Mapping[str, Any]] | None:
    """The control that scores most, and its score."""
    estimates = {name: _measures(control).get(measure) for name, control in _controls(report).items()}
    found = {name: estimate for name, estimate in estimates.items() if estimate}
    if not found:
        return None
    best = max(found, key=lambda name: found[name]["value"])
    return best, found[best]


def _controls(report: Report) -> Mapping[str, Any]:
    return report.get("controls") or {}


def _measures(scored: Mapping[str, Any]) -> dict[str, Any]:
    """All that was measured on a group of texts, by the names of `LABELS` and in their order."""
    found = {**(scored.get("scores") or {}), RECALL: scored.get("pii_recall")}
    return {name: found[name] for name in LABELS if found.get(name)}


def _all(report: Report) -> dict[str, Any]:
    return _measures(
        {"scores": report.get("scores"), RECALL: ((report.get("pii") or {}).get("any") or {}).get("recall")}
    )


def _threat_model(report: Report) -> tuple[str, list[Block]]:
    model = report["threat_model"]
    rows = [("Access", model["access"]), ("Inverter", Quoted(model["model"]))]
    rows += [("Its weights", f"SHA-256 {model['model_digest']}")] if model.get("model_digest") else []
    how = (
        f"{model['steps']} steps of correction"
        if model["steps"]
        else "the best of the first hypotheses, without correction"
    )
    if model.get("consensus") and not model["steps"]:
        how = f"consensus of {model['consensus']} samples"
    rows += [
        ("Search", how),
        ("Embedder queries", f"{count(model['queries'])}, {model['queries_mean']:.1f} a vector"),
        ("Tokens embedded", count(model["tokens"])),
    ]
    rows += [("Cost", f"{model['cost']:.2f} at the price given")] if model.get("cost") is not None else []
    return "Threat model", [Facts(rows)]


def _target(report: Report) -> tuple[str, list[Block]]:
    target = report["target"]
    embedder, norms = target["embedder"], target["norms"]
    whole = "an unknown number" if target.get("count") is None else count(target["count"])
    codes = ", decoded from codes, which the attack puts its candidates through as well" if target.get("coded") else ""
    fits = {True: "the vectors look like its own", False: "the vectors do not look like its own"}
    rows = [
        ("Store", Quoted(target["source"])),
        (
            "Vectors",
            f"{count(target['sampled'])} sampled of {whole}, {count(target['usable'])} usable",
        ),
        ("Shape", f"{target['dimension']} numbers of {target['dtype']}{codes}"),
        ("Norms", f"{norms['least']:.3f} to {norms['greatest']:.3f}, mean {norms['mean']:.3f}"),
        ("Embedder", Quoted(embedder["name"])),
        ("Does it fit?", f"{fits.get(embedder.get('plausible'), 'could not be told')}: {embedder['why']}"),
    ]
    rows += [("Left out", f"{count(n)} ({reason})") for reason, n in (target.get("refused") or {}).items()]
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
            Bars(
                "The inverter beside its controls",
                "All on a scale of 0 to 100; the thin lines are 95 % intervals.",
                groups,
            ),
        ]
    if measures:
        rows = [[LABELS[name], *(score(name, found.get(name)) for found in systems.values())] for name in measures]
        blocks.append(Table("Scores, with 95 % intervals", ["measure", *map(str, systems)], rows))
    if confidence := report.get("confidence"):
        said = [(BELIEFS[name], share(confidence[name])) for name in BELIEFS if confidence.get(name)]
        blocks += ["What can be said without the true texts:", Facts(said)]
    return "Scores", blocks


def _bars(measure: str, systems: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    return [
        Bar(name, of_100(measure, found[measure]), value(measure, found[measure]), control=name != INVERTER)
        for name, found in systems.items()
        if measure in found
    ]


def _pii(report: Report) -> tuple[str, list[Block]]:
    kinds = {kind: found for kind, found in (report.get("pii") or {}).items() if found.get("recall")}
    if not kinds:
        return "", []
    named = sorted((kind for kind in kinds if kind != "any"), key=lambda kind: -kinds[kind]["recall"]["value"])
    recalls = {kind: kinds[kind]["recall"] for kind in named}
    bars = [(kind, [Bar("", of_100(RECALL, recall), value(RECALL, recall))]) for kind, recall in recalls.items()]
    rows = [[Quoted(kind), count(kinds[kind]["found"]), share(recall)] for kind, recall in recalls.items()]
    rows += [["any", count(kinds["any"]["found"]), share(kinds["any"]["recall"])]] if "any" in kinds else []
    blocks: list[Block] = (
        [Bars("Recovered, by type", "Percent of the strings of each type; the thin lines are 95 % intervals.", bars)]
        if bars
        else []
    )
    caption = "Personal data in the true texts, and how much of it stands in the reconstructions"
    return "Personal data", [*blocks, Table(caption, ["type", "strings", "recovered"], rows)]


def _groups(report: Report) -> tuple[str, list[Block]]:
    blocks: list[Block] = []
    for key, buckets in (report.get("by") or {}).items():
        measured = {name: _measures(group) for name, group in buckets.items()}
        columns = [measure for measure in GROUPED if any(measure in found for found in measured.values())]
        if columns:
            rows = [
                [
                    Quoted(name) if key == "domain" else name,
                    count(buckets[name]["n"]),
                    *(score(measure, found.get(measure)) for measure in columns),
                ]
                for name, found in measured.items()
            ]
            blocks.append(Table(f"By {key}", [key, "n", *(LABELS[measure] for measure in columns)], rows))
    return "By length, language and domain", blocks


def _canaries(report: Report) -> tuple[str, list[Block]]:
    canaries = report.get("canaries") or {}
    ranks = sorted({k for found in canaries.values() for k in found["recall"]}, key=int)
    measures = {"recall": "found", "exact": "letter by letter", "control": "by chance"}
    columns = {
        f"{label}, k = {k}": (name, k)
        for k in ranks
        for name, label in measures.items()
        if any(k in (found.get(name) or {}) for found in canaries.values())
    }
    rows = [
        [
            Quoted(kind),
            count(found["planted"]),
            *(share((found.get(name) or {}).get(k)) for name, k in columns.values()),
        ]
        for kind, found in canaries.items()
    ]
    table = Table("Planted secrets found among the best k texts", ["type", "planted", *columns], rows)
    return "Canaries", [table] if rows else []


def _records(report: Report) -> tuple[str, list[Block]]:
    records = report.get("records") or []
    shown = records[:WORST]
    if not shown:
        return "", []
    which = "All" if len(shown) == len(records) else f"The {len(shown)} worst of"
    lead = f"{which} {count(len(records))} records, those that give most away first. report.json has all of them."
    return "Worst records", [lead, *(_card(record, report["truth"]) for record in shown)]


def _card(record: Mapping[str, Any], truth: bool) -> Card:
    label, found = ("Leaked", "leaked") if truth else ("Looks like personal data", "pii")
    strings = {kind: listed for kind, listed in (record.get(found) or {}).items() if listed}
    rows: list[tuple[str, str]] = []
    if record.get("true_text") is not None:
        rows.append(("True text", Quoted(record["true_text"])))
    if record.get("recovered"):
        rows.append(("Recovered", Failed("word for word")))
    if strings:
        rows.append((label, Quoted("; ".join(f"{kind}: {', '.join(listed)}" for kind, listed in strings.items()))))
    said = [f"cosine {record['cosine']:.4f}"]
    said += [f"token F1 {record['token_f1']:.2f}"] if record.get("token_f1") is not None else []
    said += [f"{name}: {percent(record[name])} likely" for name in ("good", "exact") if record.get(name) is not None]
    said += ["embeds to the very same vector"] if record.get("verified") else []
    said += [f"{record['words']} words"] + ([record["language"]] if record.get("language") else [])
    rows.append(("Figures", ", ".join(said)))
    pieces = _marked(record["text"], [string for listed in strings.values() for string in listed])
    return Card(record["id"], pieces, Facts(rows))


def _marked(text: str, strings: Sequence[str]) -> list[tuple[str, bool]]:
    """`text` in pieces, with True for those that are one of `strings` as whole words, whatever their case. Masked
    strings are not looked for: other words have the same mask."""
    longest_first = sorted((string for string in strings if string and MASK not in string), key=len, reverse=True)
    if not longest_first:
        return [(text, False)]
    words = "|".join(map(re.escape, longest_first))
    pieces = re.split(f"(?<!{LETTER})({words})(?!{LETTER})", text, flags=re.IGNORECASE)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces) if piece]


def _defences(report: Report) -> tuple[str, list[Block]]:
    return "What a defence buys", defences(report["defences"]) if report.get("defences") else []


def _remediation(report: Report) -> tuple[str, list[Block]]:
    rows = [[advice["what"], advice["effect"]] for advice in report.get("remediation") or []]
    table = Table("What to do, and its measured effect", ["measure", "effect"], rows, words=frozenset({1}))
    return "Remediation", [table] if rows else []


def _checks(report: Report) -> tuple[str, list[Block]]:
    verdict = report["verdict"]
    blocks: list[Block] = [f"Severity is {verdict['severity']}, by this rule: {verdict['rule']}."]
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
        ("Made by", f"unembed {report['unembed']}, {_moment(report['created'])}"),
        ("Took", duration(run["seconds"])),
        ("Seed", str(run["seed"])),
        ("Machine", machine(run)),
        ("Settings", f"hash {report['config_hash']}"),
    ]
    settings = [[name, Quoted(_plain(value))] for name, value in (report.get("config") or {}).items()]
    table = Table("Settings", ["setting", "value"], settings, words=frozenset({1}))
    return "Run", [Facts(rows), *([table] if settings else [])]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _moment(created: str) -> str:
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(Z|\+00:00)$", r"\1 \2 UTC", created)
