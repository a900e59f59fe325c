"""`unembed evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unembed.errors import InputError, require
from unembed.search.types import SearchConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from unembed.evaluation import Evaluation, Row
    from unembed.inverter import Inverter
    from unembed.processes import Processes

COLUMNS = ("exact_uncased", "exact", "token_f1", "bleu", "rouge_l", "chrf", "cosine")


def evaluate(
    data: list[str] | str,
    output: str | None = None,
    suite: str | None = None,
    model: str = "all-MiniLM-L6-v2",
    embedder: str | None = None,
    lengths: list[int] | None = None,
    n: int = 100,
    steps: int = 20,
    consensus: int = 0,
    sequence_beam_width: int = 4,
    budget: int | None = None,
    thorough: bool = False,
    prior_weight: float = SearchConfig.prior_weight,
    field: str = "text",
    controls: str | None = None,
    seed: int = 0,
    targets_at_once: int = 32,
    device: str | None = None,
    dtype: str = "float32",
    model_dtype: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> int:
    """Measure an inverter on texts it has not seen, beside two controls.

    Started by torchrun or accelerate launch, the processes share the work.

    Args:
        data: text, jsonl or parquet files of held-out texts (also .gz, .xz), or folders of them; with suite, the folder
            of its held-out files.
        output: a .json file for the report; the rows stand beside it in .rows.jsonl, from which a stopped run goes on.
            With suite, a folder for all reports and their summary.md.
        suite: headline (the README's figures), quick (the same in some minutes), russian or chinese. It brings
            its own lengths, n, steps, consensus and sequence_beam_width.
        model: name of a shipped model, a folder, or a hub id.
        embedder: the embedder; by default the one that the model was trained on.
        lengths: cut the texts to these numbers of the embedder's tokens (default 4, 8, 16, 32, 64); 0 takes them whole.
        n: texts of each length.
        steps: rounds of correction; 0 is the hypothesizer alone.
        consensus: with steps 0, samples that the answer is made from, by what most of them have; 0: greedy.
        sequence_beam_width: hypotheses kept from round to round.
        budget: embedder queries allowed for each vector.
        thorough: search for longer, and within words: 80 steps where the default would be taken.
        prior_weight: λ of score = cosine + λ · log p(text), falling as 8 / words from 9 words on; 0: cosine alone.
        field: the field that holds the text in jsonl and parquet files.
        controls: a file of training texts for the first control; by default those in the model's folder.
        seed: same seed, same figures.
        targets_at_once: vectors searched together.
        device: cpu, cuda, mps, npu…; by default the best there is.
        dtype: precision of the embedder.
        model_dtype: precision of the model: float32, bfloat16, float16, or int8 for a T5 on a CPU (faster, a quarter of
            the memory; its texts may change); by default its family's own.
        overwrite: replace an output that holds another run.
        quiet: no progress bar.
    """
    for package in ("sacrebleu", "rouge_score"):
        require(package, "evaluate")
    if n < 1:
        raise InputError(f"n is {n}: at least 1 text of each length is needed")
    from unembed import suites
    from unembed.cli.console import console, progress
    from unembed.evaluation import Read, hardware, summarise
    from unembed.inverter import Inverter, load
    from unembed.lengths import LENGTHS
    from unembed.processes import processes
    from unembed.results import write_report
    from unembed.training.config import SourceConfig
    from unembed.training.corpora import read_texts

    inputs = [data] if isinstance(data, str) else data

    def search(steps: int, sequence_beam_width: int, consensus: int) -> SearchConfig:
        return Inverter.search_config(
            steps=steps, sequence_beam_width=sequence_beam_width, consensus=consensus, budget=budget,
            prior_weight=prior_weight, seed=seed, targets_at_once=targets_at_once, thorough=thorough,
        )  # fmt: skip

    if suite is None:
        jobs = [Job("", inputs, search(steps, sequence_beam_width, consensus), list(lengths or LENGTHS), n, output)]
    else:
        jobs = [
            Job(
                part.name, [str(suites.locate(inputs[0], part))],
                search(part.steps, part.sequence_beam_width, part.consensus), list(part.lengths), part.n,
                f"{output}/{part.name}.json" if output else None,
            )
            for part in suites.suite(suite)
        ]  # fmt: skip
    texts = {path: Read(read_texts(SourceConfig(path, field=field))) for job in jobs for path in job.data}
    for held in texts.values():
        next(iter(held), None)  # what cannot be opened is said before anything is loaded
    with processes() as team:
        inverter = load(model, embedder, device=team.device(device), dtype=dtype, model_dtype=model_dtype)
        control_texts = list(read_texts(SourceConfig(controls))) if controls else inverter.model.controls
        reports = {}
        for job in [replace(job, search=inverter.suited(job.search)) for job in jobs]:
            settings = {
                "model": model, "weights": inverter.model.digest,
                "embedder": inverter.embedder.spec.to_dict(), "data": job.data, "lengths": job.lengths, "n": job.n,
                "search": asdict(job.search), "controls": controls,
                **({"model_dtype": model_dtype} if model_dtype else {}),
            }  # fmt: skip
            held_out = chain.from_iterable(texts[path] for path in job.data)
            total = -(-len(job.lengths) * job.n // team.count)
            with progress(total, job.name or "evaluate", quiet or not team.first) as bar:
                rows = _measure(inverter, held_out, job, settings, control_texts, team, overwrite, bar)
            if not team.first:
                continue
            evaluation = summarise(rows, {**settings, "processes": team.count, **hardware()})
            if job.output is not None:
                reports[job.name] = evaluation.to_dict()
                write_report(Path(job.output), json.dumps(reports[job.name], indent=1, ensure_ascii=False))
            if job.name:
                console().print(f"{job.name}: {', '.join(job.data)}, {suites.how(asdict(job.search))}", markup=False)
            console().print(_table(evaluation))
        if suite is not None and output and team.first:
            write_report(Path(output) / "summary.md", suites.summary(reports))
    return 0


@dataclass(frozen=True)
class Job:
    """One evaluation: of a suite, or the only one."""

    name: str
    data: list[str]
    search: SearchConfig
    lengths: list[int]
    n: int
    output: str | None


def _measure(
    inverter: Inverter, texts: Iterable[str], job: Job, settings: dict[str, Any], controls: Sequence[str],
    team: Processes, overwrite: bool, bar: Any,  # noqa: ANN401  (tqdm is untyped)
) -> list[Row]:  # fmt: skip
    """The rows of a job, of which this process makes its share; all of them in the first process. With an output they
    are in its .rows.jsonl, and what is there already is not made again. Raises InputError where that is of other
    texts."""
    from unembed.evaluation import Read, Row, evaluate_rows
    from unembed.processes import shared_file
    from unembed.results import read_results

    texts = Read(texts)
    batches: dict[str, Any] = {"lengths": job.lengths, "n": job.n, "controls": controls}
    batches["share"] = team.rank, team.count
    if job.output is None:
        rows: list[Row] = []
        for part in evaluate_rows(inverter, texts, job.search, **batches):
            rows += part
            bar.update(len(part))
        return [row for share in team.gather(rows) for row in share]
    path = Path(job.output).with_suffix(".rows.jsonl")
    with shared_file(path, settings, team, kind="evaluate", overwrite=overwrite) as (file, done):
        if done:
            _refuse_others(path, inverter, texts, job)
        bar.update(len(done) // team.count)
        for part in evaluate_rows(inverter, texts, job.search, **batches, done=done):
            file.append([row.to_dict() for row in part])
            bar.update(len(part))
    return [Row(**row) for row in read_results(path)[1]]


def _refuse_others(path: Path, inverter: Inverter, texts: Iterable[str], job: Job) -> None:
    """InputError where rows in the file are of other texts than these. The rows themselves tell, so that what was
    begun before anybody looked goes on too."""
    from unembed.evaluation import cut_texts
    from unembed.results import read_results

    now = {name: text for name, _, text in cut_texts(inverter, texts, job.lengths, job.n)}
    for row in read_results(path)[1]:
        if now.get(row["id"]) != row["reference"]:
            raise InputError(
                f"{path}: its row {row['id']} is of another text than {', '.join(job.data)} has there now, or than "
                "--field names; give another -o, or --overwrite to start afresh"
            )


def _table(evaluation: Evaluation) -> Any:  # noqa: ANN401
    from unembed.cli.console import table
    from unembed.lengths import label

    rows = []
    for length, systems in evaluation.scores.items():
        part = [row for row in evaluation.rows if row.length == length]
        for system, scores in systems.items():
            cells = [_estimate(scores.summary[name]) for name in COLUMNS]
            rows.append((label(length), len(part), system, *cells))
    headings = [("exact (uncased)", "right"), ("exact (cased)", "right"), ("token F1", "right"), ("BLEU", "right")]
    headings += [("ROUGE-L", "right"), ("chrF", "right"), ("cosine", "right")]
    return table([("tokens", "right"), ("n", "right"), ("system", "left"), *headings], rows)


def _estimate(estimate: Any) -> str:  # noqa: ANN401
    digits = 1 if abs(estimate.value) > 1.5 or (estimate.high or 0) > 1.5 else 3
    if estimate.low is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f}\n[{estimate.low:.{digits}f}–{estimate.high:.{digits}f}]"
