"""`unembed audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unembed.errors import InputError, StorageError, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from unembed.inverter import Inverter


def audit(
    store: str,
    output: str,
    sample: int = 500,
    model: str = "all-MiniLM-L6-v2",
    embedder: str | None = None,
    truth: str | None = None,
    text_field: str | None = None,
    vector_field: str | None = None,
    ids_field: str | None = None,
    domain_field: str | None = None,
    public: str | None = None,
    canaries: str | None = None,
    defences: str | None = None,
    fail_on: list[str] | str = [],  # noqa: B006  (never changed; jsonargparse shows it)
    reveal: bool = False,
    authorised_by: str | None = None,
    steps: int = 20,
    consensus: int = 0,
    sequence_beam_width: int = 4,
    budget: int | None = None,
    thorough: bool = False,
    price: float | None = None,
    normalize: bool = False,
    seed: int = 0,
    targets_at_once: int = 8,
    device: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> int:
    """Say what the vectors of a store give away.

    A sample is inverted, compared with the true texts where they are known, searched for personal data, and reported.
    The exit code is 1 where a rule of --fail-on is true.

    Args:
        store: the vectors: a file, or a store such as qdrant://HOST:PORT/COLLECTION (also --vectors).
        output: folder for attempts.jsonl (the state: the same command goes on; it holds recovered text) and the report.
        sample: vectors drawn, by seed; all where there are fewer.
        model: name of a shipped model, a folder, or a hub id.
        embedder: the embedder that made the vectors; by default the one that the model was trained on.
        truth: a file of the true texts: JSON lines with id and text, or one text a line for the vectors in their order.
            By default the texts that the store keeps beside its vectors.
        text_field: field of the true texts; "" ignores them.
        vector_field: field, column or array that holds the vectors.
        ids_field: field of the vectors' ids.
        domain_field: a field of texts beside the vectors, such as a team, by whose values the figures are parted.
        public: a file of texts that are not in the store, for the controls; by default texts of the model's training.
        canaries: what unembed canary score wrote with --output, whose figures the report then holds.
        defences: report.json of unembed defend, the same.
        fail_on: rules such as pii_recall>0.05, exact_uncased>=0.01 or confidence_good>0.2; where one is true the exit
            code is 1. Give the flag once for each rule.
        reveal: write the recovered texts into the report; by default they are masked.
        authorised_by: who has allowed this, for the report.
        steps: rounds of correction; 0 is the hypothesizer alone.
        consensus: with steps 0, samples that the answer is made from, by what most of them have; 0: greedy.
        sequence_beam_width: hypotheses kept from round to round.
        budget: embedder queries allowed for each vector.
        thorough: search for longer, and within words: 80 steps where the default would be taken.
        price: of a million tokens of the embedder, for the cost.
        normalize: scale the vectors to unit length.
        seed: same seed, same sample, same results.
        targets_at_once: vectors searched together and written down together; with steps fewer are no slower on a CPU.
        device: cpu, cuda, mps, npu…; by default the best there is.
        overwrite: start afresh where the output holds another run.
        dry_run: say what would be done, and the cost, and stop.
        quiet: no progress bar.
    """
    from unembed.cli.console import console, progress
    from unembed.inverter import Inverter, load
    from unembed.privacy.audit.redaction import redacted
    from unembed.privacy.audit.run import Audit, refuse_changed
    from unembed.privacy.audit.target import checked
    from unembed.privacy.audit.target import sample as draw
    from unembed.privacy.audit.verdict import Check
    from unembed.privacy.report import write
    from unembed.results import ResultFile, read_results, write_report

    for package in ("presidio_analyzer", "sacrebleu", "rouge_score"):
        require(package, "audit")
    checks = [Check.parse(rule) for rule in ([fail_on] if isinstance(fail_on, str) else fail_on)]
    search = Inverter.search_config(
        steps=steps, consensus=consensus, sequence_beam_width=sequence_beam_width, budget=budget, seed=seed,
        targets_at_once=targets_at_once, thorough=thorough,
    )  # fmt: skip
    tables: dict[str, Any] = {
        "canaries": canaries
        and _json(canaries, "unembed canary score", lambda table: "planted" in table.get("all", {})),
        "defences": defences and _json(defences, "unembed defend", lambda table: {"worst", "leaks"} <= table.keys()),
    }
    target = draw(
        store, sample, seed, truth=truth, ids_field=ids_field, vector_field=vector_field, text_field=text_field,
        domain_field=domain_field,
    )  # fmt: skip
    if (rule := next((check.rule for check in checks if check.needs_truth), None)) and not any(target.texts):
        raise InputError(
            f"the rule '{rule}' needs the true texts: give --truth or --text-field, or use confidence_good"
        )
    inverter = load(model, embedder, device=device)
    if (rule := next((check.rule for check in checks if check.needs_calibration), None)) and (
        inverter.model.calibration is None
    ):
        raise InputError(f"the rule '{rule}' cannot be judged: the model has no calibration (unembed calibrate)")
    inverter = inverter.behind(target.code)
    texts = _public(public, inverter)
    target = checked(target, inverter, texts, normalize=normalize, seed=seed)
    audit = Audit(inverter, target, inverter.suited(search), model, texts, normalize, price)
    if dry_run:
        console().print(_plan(audit.plan()), markup=False)
        return 0
    folder, settings = _folder(Path(output)), audit.settings()
    state = folder / "attempts.jsonl"
    if not overwrite:
        refuse_changed(state, settings)
    with (
        ResultFile(state, settings, kind="audit", overwrite=overwrite) as file,
        progress(len(target.ids), "audit", quiet) as bar,
    ):
        for count in audit.attack(file):
            bar.update(count)
    more = {"seed": seed, "truth": truth, "public": public, "domain_field": domain_field, "reveal": reveal}
    rows = read_results(state)[1]
    report = audit.report(rows, checks, **tables, authorised_by=authorised_by, more=more)
    shown = report if reveal else redacted(report)
    write_report(folder / "report.json", json.dumps(shown, indent=1, ensure_ascii=False))
    written = [folder / "report.json", *write(shown, folder)]
    _summarise(report, written)
    return int(any(check["failed"] for check in report["verdict"]["checks"]))


def _public(path: str | None, inverter: Inverter) -> list[str]:
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    if path is None:
        return list(inverter.model.controls)
    texts = list(read_texts(SourceConfig(path)))
    if not texts:
        raise InputError(f"{path} holds no text: give a file with one text a line")
    return texts


def _json(path: str, command: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The figures that another command wrote."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON; give the figures that {command} wrote") from error
    if not isinstance(table, dict) or not fits(table):
        raise InputError(f"{path}: holds no figures of {command}; give the JSON that it wrote")
    return table


def _folder(path: Path) -> Path:
    """The output's folder; a new one is its owner's alone, since recovered text will lie in it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made ({error.strerror}); give another -o") from error
    return path


def _plan(planned: dict[str, Any]) -> str:
    seconds, cost = planned["seconds"], planned["cost"]
    parts = [
        f"{planned['vectors']} vectors", f"at most {planned['queries']} embedder queries",
        f"about {planned['tokens']} tokens",
        "time unknown" if seconds is None else f"about {max(1, round(seconds / 60))} min, at the speed of a few texts",
        *([] if cost is None else [f"cost at most {cost:.2f}"]),
    ]  # fmt: skip
    return "; ".join(parts)


def _summarise(report: dict[str, Any], written: list[Path]) -> None:
    from unembed.cli.console import console, table

    out = console()
    figure = report["headline"]["estimate"]
    within = "" if figure["low"] is None else f" ({figure['low']:.3f} to {figure['high']:.3f})"
    out.print(
        f"{report['verdict']['severity']}: {figure['value']:.3f}{within} {report['headline']['label']}", markup=False
    )
    if report["truth"]:
        ours = {"scores": report["scores"], "pii_recall": report["pii"].get("any", {}).get("recall")}
        names = [*report["scores"], "pii_recall"]
        rows = [
            (system, *(_cell({**part["scores"], "pii_recall": part["pii_recall"]}[name], name) for name in names))
            for system, part in {"inverter": ours, **report["controls"]}.items()
        ]
        columns = [("", "left"), *((name, "right") for name in names)]
        out.print(table(columns, rows))
    for check in report["verdict"]["checks"]:
        out.print(f"{'failed' if check['failed'] else 'passed'}: {check['rule']} ({check['value']:.3f})", markup=False)
    out.print(f"written: {', '.join(map(str, written))}", markup=False)


def _cell(estimate: dict[str, Any] | None, name: str) -> str:
    if estimate is None:
        return "–"
    return f"{estimate['value']:.{1 if name in ('bleu', 'chrf') else 3}f}"
