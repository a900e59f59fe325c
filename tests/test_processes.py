"""Work shared by several processes: the same results, and nothing lost or done twice when they are stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unembed.errors import InputError, UnembedError
from unembed.processes import Processes, processes, shared_file
from unembed.results import ResultFile, read_results

EXAMPLES = Path(__file__).parent.parent / "examples" / "sentences.txt"
CONFIG = {"steps": 3}


def plain(report):
    """A report without what differs from run to run."""
    for row in report["rows"]:
        row.pop("seconds")
    for length in report["lengths"].values():
        length.pop("seconds_mean")
    return report["rows"], report["lengths"]


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does_and_go_on_where_one_was_stopped(command, tmp_path):
    """Rows that one process left behind are not made again; the launcher is torch's, as a user's would be."""
    flags = ["--data", EXAMPLES, "--lengths", "[2, 4]", "--n", "3", "--steps", "0", "--sequence-beam-width", "1"]
    flags += ["--targets-at-once", "1", "-q"]
    assert command("evaluate", *flags, "-o", tmp_path / "one.json")[0] == 0
    whole = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    header, rows = read_results(tmp_path / "one.rows.jsonl")
    with ResultFile(tmp_path / "two.rows.jsonl", header["config"], kind="evaluate") as file:
        file.append([{**row, "queries": 1000} for row in rows[:2]])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "unembed", "--"]
    launch += ["evaluate", *map(str, flags), "-o", str(tmp_path / "two.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("token F1") == 1, "one of them speaks for all"
    both = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))
    assert both["settings"]["processes"] == 2
    kept = [row for row in both["rows"] if row.pop("queries") == 1000]
    assert [row["id"] for row in kept] == [row["id"] for row in rows[:2]]
    for row in whole["rows"]:
        row.pop("queries")
    for length in (*whole["lengths"].values(), *both["lengths"].values()):
        length.pop("queries_mean")
    assert plain(both) == plain(whole)
    assert sorted(path.name for path in tmp_path.glob("two*")) == ["two.json", "two.rows.jsonl"]


def rows(*names):
    return [{"id": name, "value": 1} for name in names]


def test_what_other_processes_left_is_collected(tmp_path):
    path = tmp_path / "a.rows.jsonl"
    with ResultFile(path, CONFIG, kind="evaluate") as file:
        file.append(rows("1"))
    with ResultFile(tmp_path / "a.rows.1.jsonl", CONFIG, kind="evaluate") as file:
        file.append(rows("1", "2"))
    bystander = tmp_path / "a.rows.old.jsonl"
    bystander.write_text("mine\n")
    with shared_file(path, CONFIG, Processes(), kind="evaluate") as (file, done):
        assert done == {"1", "2"} and not (tmp_path / "a.rows.1.jsonl").exists()
        file.append(rows("3"))
    assert [row["id"] for row in read_results(path)[1]] == ["1", "2", "3"]
    assert bystander.read_text() == "mine\n"


def test_what_is_left_of_another_run_is_refused_or_with_overwrite_dropped(tmp_path):
    path = tmp_path / "a.rows.jsonl"
    part = tmp_path / "a.rows.1.jsonl"
    with ResultFile(part, {"steps": 4}, kind="evaluate") as file:
        file.append(rows("1"))
    with (
        pytest.raises(InputError, match="steps: 4 there, 3 now"),
        shared_file(path, CONFIG, Processes(), kind="evaluate"),
    ):
        pass
    assert part.exists()
    with shared_file(path, CONFIG, Processes(), kind="evaluate", overwrite=True) as (_, done):
        assert not done and not part.exists()


def test_one_process_needs_no_launcher_and_two_need_a_good_one(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as found:
        assert found == Processes(0, 1) and found.first and found.gather("a") == ["a"]
        assert found.device("cuda") == "cuda", "whether there is one is not asked here"
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="torchrun"), processes():
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="cannot meet"), processes():
        pass


def test_a_process_that_ended_is_no_traceback_in_the_others(monkeypatch):
    def broken(out, value):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr("torch.distributed.all_gather_object", broken)
    with pytest.raises(UnembedError, match="another process"):
        Processes(1, 2).wait()


def test_each_process_gets_an_accelerator_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Processes(3, 4).device(None) == "cuda:1" and Processes(3, 4).device("cpu") == "cpu"
    assert Processes(0, 1).device(None) is None
