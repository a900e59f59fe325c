"""`unembed defend`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unembed.errors import InputError

if TYPE_CHECKING:
    from unembed.privacy.comparison.leaks import Leak


def defend(
    corpus: str,
    output: str = "runs/defend",
    model: str = "all-MiniLM-L6-v2",
    embedder: str | None = None,
    defences: list[str] | None = None,
    utility_drop: list[float] | float = [0, 1, 3, 10],  # noqa: B006  (never changed; jsonargparse shows it)
    pairs: list[int] | int = [100, 1000],  # noqa: B006
    public: list[str] | str = [],  # noqa: B006
    public_spans: int = 20_000,
    n: int = 100,
    tokens: int = 16,
    steps: int = 0,
    consensus: int = 8,
    seed: int = 0,
    device: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> int:
    """Compare defences that cost retrieval equally much, against every attacker.

    Matched utility: what every attacker still reads where a search loses so and so much.

    Args:
        corpus: a folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), or one of MTEB's retrieval sets
            on the hub, by name, such as scifact, or as hf:OWNER/NAME: utility is nDCG@10 on it, and the attacked texts
            are cut out of its documents.
        output: folder for leaks.jsonl (the state: the same command goes on), report.json, report.md and pareto.png.
        model: the inverter that the attackers have.
        embedder: by default the one that the model was trained on.
        defences: some of gaussian, uniform, laplace, purkayastha, rounding, quantisation, product-quantisation,
            truncation, pca, masking, rotation, scale-and-perturb; by default all.
        utility_drop: losses of nDCG@10 that are allowed, in percent.
        pairs: how many known texts the aligning attackers have.
        public: files or folders of texts (text, jsonl, parquet) that are not in the store: on them an inverter is
            trained for each setting, with the defence simulated, and is one more attacker. It takes some minutes each.
        public_spans: how many runs of words of them it is trained on.
        n: texts that are attacked.
        tokens: their length, in the embedder's tokens.
        steps: rounds of correction that the inverter makes, in which case there is no consensus.
        consensus: samples of the inverter that its answer is made from, by what most of them have; 32 take four
            times as long and find a little more, of every attack.
        seed: same seed, same results.
        device: by default the best there is.
        dry_run: say what would be done, and do nothing.
        overwrite: start afresh where the output holds a run already.
        quiet: no progress.
    """
    from unembed.checkpoints import resolve
    from unembed.cli.console import console, progress, table
    from unembed.devices import keep_freed_memory
    from unembed.evaluation import hardware
    from unembed.inverter import load
    from unembed.privacy.comparison.attackers import attackers
    from unembed.privacy.comparison.aware import Aware
    from unembed.privacy.comparison.leaks import Leak, leaks, matched, prepare, worst
    from unembed.privacy.comparison.retrieval import read_retrieval
    from unembed.privacy.defences import DEFENCES
    from unembed.privacy.report.defences import as_markdown
    from unembed.results import ResultFile, read_results, write_report

    names = defences or list(DEFENCES)
    if unknown := [name for name in names if name not in DEFENCES]:
        raise InputError(f"no defence is called '{unknown[0]}': choose {', '.join(DEFENCES)}")
    drops = [utility_drop] if isinstance(utility_drop, int | float) else utility_drop
    known = [pairs] if isinstance(pairs, int) else pairs
    if not drops or min(drops) < 0 or max(drops) >= 100:
        raise InputError(f"utility_drop is {drops}: give percentages from 0 to below 100")
    judged = read_retrieval(corpus)
    sources = [public] if isinstance(public, str) else public
    crew = attackers(known, aware=bool(sources))
    inversions = n * (1 + len(names) * len(drops) * len(crew))
    if dry_run:
        console().print(
            f"{len(judged.documents)} documents and {len(judged.queries)} queries to embed; {len(names)} defences, at "
            f"{len(drops)} losses of nDCG@10, {len(crew)} attackers: at most {inversions} inversions"
            + f", and {1 + len(names) * len(drops)} trainings on {public_spans} spans"
            * bool(sources),
            markup=False,
        )
        return 0
    folder = Path(output)
    inverter = load(model, embedder, device=device)
    settings = {
        "model": model, "weights": inverter.model.digest, "embedder": embedder, "corpus": judged.name, "n": n,
        "tokens": tokens, "steps": steps, "consensus": 0 if steps else consensus, "pairs": known, "seed": seed,
        **({"public": sources, "public_spans": public_spans} if sources else {}),
    }  # fmt: skip
    search = {"steps": steps, "consensus": settings["consensus"]}
    with ResultFile(folder / "leaks.jsonl", settings, kind="defend", overwrite=overwrite) as file:
        sizes = {"n": n, "tokens": tokens, "pairs": max(known, default=0)}
        ground = prepare(inverter, judged, folder, **sizes, seed=seed)
        with progress(len(names), "settings", quiet) as bar:
            found = []
            for name in names:
                found += matched(ground, name, [drop / 100 for drop in drops])
                bar.update()
        aware = None
        if sources:
            keep_freed_memory()
            aware = Aware(
                inverter, resolve(model), folder / "aware", sources, spans=public_spans, longest=tokens,
                corrects=steps > 0, seed=seed,
            )  # fmt: skip
        done = [Leak(**row) for row in read_results(file.path)[1]]
        most = n * (1 + sum(setting.strength is not None for setting in found) * len(crew))
        with progress(most, "attacks, at most", quiet) as bar:
            for leak in leaks(inverter, ground, found, crew, aware=aware, done=done, seed=seed, **search):
                file.append([leak.to_dict()])
                bar.update(n)
    rows = [Leak(**row) for row in read_results(folder / "leaks.jsonl")[1]]
    known_by = {attacker.name: attacker.knows for attacker in crew}
    report = {
        "settings": {**settings, **hardware()}, "matched": [asdict(setting) for setting in found],
        "attackers": {name: knows for name, knows in known_by.items() if any(row.attacker == name for row in rows)},
        "worst": [leak.to_dict() for leak in worst(rows)], "leaks": [leak.to_dict() for leak in rows],
    }  # fmt: skip
    write_report(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False))
    write_report(folder / "report.md", as_markdown(report))
    _draw(rows, folder / "pareto.png")
    columns = [("defence", "left"), ("setting", "right"), ("loss %", "right"), ("worst attacker", "left")]
    columns += [("token F1", "right"), ("exact %", "right"), ("looked up %", "right")]
    console().print(table(columns, [_cells(leak) for leak in worst(rows)]))
    console().print(f"the report is in {folder}/report.md", markup=False)
    return 0


def _cells(leak: Leak) -> tuple[Any, ...]:
    return (
        leak.defence, f"{leak.strength:.4g}", f"{100 * leak.loss:.1f}", leak.attacker,
        f"{leak.scores['token_f1']['value']:.3f}", f"{100 * leak.scores['exact_uncased']['value']:.0f}",
        f"{100 * leak.found['value']:.0f}",
    )  # fmt: skip


def _draw(rows: list[Leak], path: Path) -> None:
    """The plot, where matplotlib is installed."""
    from unembed.errors import MissingExtra
    from unembed.plots import plot_defences

    try:
        plot_defences(rows, path)
    except MissingExtra:
        path.unlink(missing_ok=True)
