"""Long row-by-row work: several processes share it, and after a kill as many as there then are go on with it."""

from __future__ import annotations

import numpy as np

from unembed.processes import Processes

ALONE = Processes()


def share(done: np.ndarray, chunk: int, processes: Processes = ALONE) -> list[slice]:
    """The ranges of at most `chunk` rows that are left for this process, where `done` is a bool for each row [n]. All
    processes ask before any goes on, so that all see the same rows left."""
    processes.wait()
    left = np.flatnonzero(~done)
    runs = np.split(left, np.flatnonzero(np.diff(left) > 1) + 1)
    parts = [run[i : i + chunk] for run in runs for i in range(0, len(run), chunk)]
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts[processes.rank :: processes.count]]
