"""Several processes that share one work, started by `torchrun` or `accelerate launch`, and the result file they share.

Each process writes a file of its own, so that a killed run loses no more than one process would; the rows end up in one
file, and a run may go on with another number of processes than it began with.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from unembed.devices import device_of_process
from unembed.errors import InputError, UnembedError
from unembed.results import ResultFile, read_results

PATIENCE = timedelta(days=7)
"""How long a process waits for the others: their shares may take hours longer than its own."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share the work."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.rank == 0

    def device(self, name: str | None) -> str | None:
        """An accelerator of its own for each process where one was asked for without a number, or none was named."""
        return name if self.count == 1 else device_of_process(name, int(os.environ.get("LOCAL_RANK", self.rank)))

    def wait(self) -> None:
        """Until all processes are here. Raises UnembedError when one of them has ended before."""
        self.gather(None)

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """The values of all processes, by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        out: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(out, value)
        except RuntimeError as error:
            raise UnembedError("another process of this run has ended: see its message") from error
        return out


@contextmanager
def processes() -> Iterator[Processes]:
    """This process among the `WORLD_SIZE` that the launcher has started; the only one where there is no launcher."""
    try:
        found = Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    except ValueError as error:
        raise InputError("RANK and WORLD_SIZE must be numbers: they are set by torchrun; unset them") from error
    if found.count == 1:
        yield Processes()
        return
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"the {found.count} processes cannot meet ({first}): start them with torchrun") from error
    try:
        yield found
    finally:
        dist.destroy_process_group()


@contextmanager
def shared_file(
    path: Path, config: Mapping[str, Any], team: Processes, *, kind: str, overwrite: bool = False
) -> Iterator[tuple[ResultFile, set[str]]]:
    """The file into which this process writes its rows, and the ids that are done already, by whichever process.

    The first process writes to `path` itself, the others to files beside it. Once all have left the context in peace,
    `path` holds all rows and the other files are gone.
    """
    part = path if team.first else path.with_suffix(f".{team.rank}{path.suffix}")
    main = None
    if team.first:
        main = ResultFile(path, config, kind=kind, overwrite=overwrite)
    try:
        if main is not None:
            _collect(main, config, kind, overwrite)
        team.wait()
        done = main.done() if main is not None else {row["id"] for row in read_results(path)[1]}
        file = main if main is not None else ResultFile(part, config, kind=kind)
        try:
            yield file, done
        finally:
            if main is None:
                file.close()
        team.wait()
        if main is not None:
            _collect(main, config, kind, overwrite=False)
        team.wait()
    finally:
        if main is not None:
            main.close()


def _collect(main: ResultFile, config: Mapping[str, Any], kind: str, overwrite: bool) -> None:
    """Move the rows of the files beside `main` into it; with `overwrite`, drop them. A file of other settings is an
    InputError."""
    path = main.path
    for part in sorted(path.parent.glob(f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}")):
        if not part.suffixes[-2][1:].isdecimal():
            continue
        with ResultFile(part, config, kind=kind, overwrite=overwrite):
            main.append(read_results(part)[1])
        part.unlink()
