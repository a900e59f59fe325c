"""Long row-by-row work: several processes share it, and after a kill as many as there then are go on with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from unembed.errors import require


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`; `wait` returns when all of them have called it."""

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


ALONE = Processes()


def started(cpu: bool = False) -> Processes:
    """The processes that torchrun or `accelerate launch` started; one where neither did. Each gets its own device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    PartialState = require("accelerate", "train").PartialState
    state = PartialState(cpu=cpu)
    return Processes(state.process_index, state.num_processes, state.wait_for_everyone)


def share(done: np.ndarray, chunk: int, processes: Processes = ALONE) -> list[slice]:
    """The ranges of at most `chunk` rows that are left for this process, where `done` is a bool for each row [n]. All
    processes ask before any goes on, so that all see the same rows left."""
    processes.wait()
    left = np.flatnonzero(~done)
    runs = np.split(left, np.flatnonzero(np.diff(left) > 1) + 1)
    parts = [run[i : i + chunk] for run in runs for i in range(0, len(run), chunk)]
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts[processes.rank :: processes.count]]
