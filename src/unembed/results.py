"""The result file of a run: JSON Lines, append-only, and at the same time the state from which the run resumes.

Line 1 is a header, `{"unembed": version, "kind": ..., "config_hash": ..., "config": {...}}`; every further line is a
row with a unique text `id`. What is promised:

- A row that `append` has returned from is on the disk: one write, then fsync.
- A kill, a full disk or a power cut loses at most the batch in flight. A torn last line is cut off on opening, a failed
  write is taken back to the last whole row.
- No id is ever written twice, and two processes cannot write to one file: it is locked.
- A file that is not ours, or that comes from other settings, is refused and left as it is; `overwrite` replaces
  results, never foreign files. Rows with a `vector_hash` are refused, too, once another vector has their id.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import logging
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import IO, Any, Self

from unembed.errors import InputError, StorageError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

# How each header starts, byte for byte: tells a header that was torn while being written from a foreign file.
_MARK = b'{"unembed": "'
_HEADER_LIMIT = 1 << 24  # a first line longer than this is no header of ours, so do not read it to its end


def _plain(value: Any) -> Any:
    """`value` in plain JSON types: numpy scalars and arrays as numbers and lists, NaN and infinities as null."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy, torch
        return _plain(value.tolist())
    raise InputError(f"{type(value).__name__} cannot be written as JSON; give texts, numbers, lists or dicts")


def _line(value: Mapping[str, Any]) -> bytes:
    """`value` as one line of JSON in UTF-8."""
    plain = _plain(value)
    try:
        return (json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold
        return (json.dumps(plain, allow_nan=False) + "\n").encode()


def config_hash(config: Mapping[str, Any]) -> str:
    """A short stable name of the settings: 16 hex digits of the SHA-256 of their sorted JSON."""
    canonical = json.dumps(_plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) for every leaf of nested dicts."""
    if isinstance(value, dict) and (value or not prefix):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _differences(there: dict[str, Any], now: dict[str, Any]) -> str:
    """The keys whose values differ, each with both values, in one line."""
    old, new = dict(_flat(there)), dict(_flat(now))
    keys = [key for key in sorted({*old, *new}) if key not in old or key not in new or old[key] != new[key]]

    def shown(values: dict[str, Any], key: str) -> str:
        text = json.dumps(values[key], ensure_ascii=True) if key in values else "not set"
        return text if len(text) <= 40 else text[:37] + "..."

    listed = [f"{key}: {shown(old, key)} there, {shown(new, key)} now" for key in keys[:5]]
    return "; ".join(listed) + (f"; and {len(keys) - 5} more" if len(keys) > 5 else "")


def _header(path: Path, file: IO[bytes]) -> dict[str, Any] | None:
    """The header of `file`, from its start; None where the header was torn while being written.

    InputError for a file that is not ours. An empty file counts as torn: there is nothing to lose.
    """
    first = file.readline(_HEADER_LIMIT)
    if not first or (first.startswith(_MARK) and not first.endswith(b"\n") and len(first) < _HEADER_LIMIT):
        return None
    try:
        header = json.loads(first)
    except (ValueError, RecursionError):
        header = None
    kinds = {"unembed": str, "kind": str, "config_hash": str, "config": dict}
    if not isinstance(header, dict) or not all(isinstance(header.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"{path}: not a result file of unembed, so it is left alone; give another -o")
    return header


def _rows(path: Path, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset of the row's end, row) for each whole line after the header; a torn last line is left out.

    StorageError, naming the line, where a whole line is no row.
    """
    end = file.tell()
    seen: set[str] = set()
    for number, line in enumerate(file, start=2):
        if not line.endswith(b"\n"):
            return
        end += len(line)
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise StorageError(f"{path}, line {number}: damaged, no row with an id; remove that line and run again")
        if row["id"] in seen:
            raise StorageError(f"{path}, line {number}: repeats the id {row['id']!r}; remove one of the two lines")
        seen.add(row["id"])
        yield end, row


def read_results(path: str | os.PathLike[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(header, rows) of a result file, also while a run is writing to it: a torn last line is left out.

    Raises InputError when there is no such file, it is not a result file or has no header yet, StorageError when it
    cannot be read or is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            header = _header(path, file)
            if header is None:
                raise InputError(f"{path}: holds no results yet; run the command that writes it first")
            return header, [row for _, row in _rows(path, file)]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


class ResultFile:
    """A result file open for writing; use it as a context manager, or call `close`.

    path: where it is, or will be made, together with its folder.
    config: all settings that change the results, JSON-like; the file can be resumed only with the same ones.
    kind: what sort of rows it holds ("invert", "audit", ...).
    overwrite: start afresh where the file holds earlier results, whatever their settings.

    Raises InputError when the file is foreign or comes from other settings (the message names what differs),
    StorageError when it cannot be opened, is damaged, or another process is writing to it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        kind: str = "invert",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.header: dict[str, Any] = {
            "unembed": str(getattr(importlib.import_module("unembed"), "__version__", "unknown")),
            "kind": kind,
            "config_hash": config_hash(config),
            "config": _plain(config),
        }
        self._done: dict[str, str | None] = {}  # id -> vector_hash
        self._end = 0  # size of the file up to and with the last whole row
        self._lock_file: Path | None = None
        self._fd: int | None = self._open()
        try:
            self._lock()
            self._load(overwrite)
        except BaseException:
            self.close()
            raise

    # --- opening ---

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not self.path.is_file():
                raise InputError(f"{self.path}: not a regular file; give another -o, such as results.jsonl")
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
            fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            reason = error.strerror
            raise StorageError(f"{self.path}: cannot be opened for writing ({reason}); give another -o") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # it changed between the two looks
            os.close(fd)
            raise InputError(f"{self.path}: not a regular file; give another -o, such as results.jsonl")
        return fd

    def _lock(self) -> None:
        """Keep other processes out until `close`, or until this process ends in whatever way."""
        assert self._fd is not None
        if fcntl is not None:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    message = f"{self.path}: another run is writing to it; wait for that run, or give another -o"
                    raise StorageError(message) from error
                # Some network file systems have no such locks: fall through to the lock file.
        lock_file = self.path.with_name(self.path.name + ".lock")
        try:
            fd = os.open(lock_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError as error:
            fix = f"wait for it, give another -o, or, if that run is dead, delete {lock_file}"
            raise StorageError(f"{self.path}: another run is writing to it; {fix}") from error
        except OSError as error:
            raise StorageError(f"{lock_file}: cannot be made ({error.strerror}); give another -o") from error
        os.close(fd)
        self._lock_file = lock_file

    def _load(self, overwrite: bool) -> None:
        """Read what is there, cut off a torn last line, and write the header where there is none."""
        assert self._fd is not None
        with open(self.path, "rb") as file:
            there = _header(self.path, file)  # also with overwrite: foreign files are never replaced
            if there is not None and not overwrite:
                self._check_same(there)
                self.header = there
                self._end = file.tell()
                for end, row in _rows(self.path, file):
                    self._end = end
                    self._done[row["id"]] = row.get("vector_hash")
        torn = os.fstat(self._fd).st_size - self._end
        if torn:
            if self._end:
                logger.info("%s: cut off %d bytes of a row that was not written to its end", self.path, torn)
            self._cut(self._end)
        if not self._end:
            self._write(_line(self.header))
            self._sync_folder()

    def _sync_folder(self) -> None:
        """Have the name of a new file on the disk, too, where the system lets one."""
        if os.name != "posix":
            return
        try:
            folder = os.open(self.path.parent, os.O_RDONLY)
        except OSError:  # a folder that may be written to, but not read
            return
        try:
            os.fsync(folder)
        except OSError as error:
            logger.debug("%s: the folder could not be synced (%s)", self.path, error.strerror)
        finally:
            os.close(folder)

    def _check_same(self, there: dict[str, Any]) -> None:
        if there["kind"] != self.header["kind"]:
            what = f"it holds results of {there['kind']!r}, not of {self.header['kind']!r}"
        elif there["config_hash"] != self.header["config_hash"]:
            differing = _differences(there["config"], self.header["config"]) or "its header was changed"
            what = f"it was made with other settings ({differing})"
        else:
            return
        raise InputError(f"{self.path}: {what}; give another -o, or --overwrite to start afresh")

    # --- writing ---

    def done(self) -> set[str]:
        """The ids that are in the file (a copy)."""
        return set(self._done)

    def check_vectors(self, hashes: Mapping[str, str]) -> None:
        """Raise InputError where a row in the file was made of another vector than the one that has its id now.

        hashes: id -> `unembed.stores.vector_hash`. Rows that say nothing of their vector pass.
        """
        for name, now in hashes.items():
            if self._done.get(name, now) not in (now, None):
                raise InputError(
                    f"{self.path}: its row {name!r} was made of another vector than the one with this id now; give "
                    "another -o, or --overwrite to start afresh"
                )

    def append(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Write rows, each with a text under "id", and return how many were new.

        A row whose id is already in the file, or came earlier in `rows`, is left out. numpy values are written as
        numbers and lists, NaN and infinities as null. When this returns, the rows are on the disk. Raises InputError,
        before anything is written, for a row without an id or that is no JSON; StorageError when the disk is full or
        fails: the file then ends with its last whole row, and the same call may be made again.
        """
        new: dict[str, bytes] = {}
        hashes: dict[str, str | None] = {}
        for index, row in enumerate(rows):
            name = row.get("id")
            if not isinstance(name, str):
                raise InputError(f"row {index} has no text under 'id' but {name!r}; give each row its vector's id")
            if name not in self._done and name not in new:
                new[name], hashes[name] = _line(row), row.get("vector_hash")
        if not new:
            return 0
        start = self._end
        try:
            self._write(b"".join(new.values()))
            self._done.update((name, hashes[name]) for name in new)
        except StorageError:
            # The rows that reached the disk whole are in the file, and stay done.
            for name, line in new.items():
                start += len(line)
                if start <= self._end:
                    self._done[name] = hashes[name]
            raise
        except BaseException:
            # Ctrl-C at any point above: only reading the file again can tell what is in it.
            self.close()
            raise
        return len(new)

    def _write(self, data: bytes) -> None:
        """Append `data`, whole lines, and have it on the disk; move `_end` past the lines that made it."""
        if self._fd is None:
            raise StorageError(f"{self.path}: already closed; open it again")
        start, written = self._end, 0
        try:
            size = os.fstat(self._fd).st_size
            if size != start:
                message = f"{self.path}: changed by somebody else ({size} bytes, not {start}); run again to resume"
                raise StorageError(message)
            while written < len(data):  # one write, unless the system takes only a part
                written += os.write(self._fd, data[written:])
            whole = written
            os.fsync(self._fd)
        except OSError as error:
            # A failed fsync leaves it open what is on the disk: trust none of it.
            whole = 0 if written == len(data) else data.rfind(b"\n", 0, written) + 1
            self._end = start + whole
            self._cut(self._end)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "the disk is full" if full else f"cannot be written ({error.strerror})"
            fix = f"all whole rows are kept; {'free some space' if full else 'mend that'} and run again to resume"
            raise StorageError(f"{self.path}: {what}; {fix}") from error
        self._end = start + whole

    def _cut(self, size: int) -> None:
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, size)
            os.fsync(self._fd)
        except OSError as error:
            # Not fatal for what is in the file: the next opening cuts a torn line again.
            logger.warning("%s: could not be cut to its last whole row (%s)", self.path, error.strerror)

    # --- closing ---

    def close(self) -> None:
        """Let go of the file and its lock. Safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)  # frees the lock, too
            self._fd = None
        if self._lock_file is not None:
            self._lock_file.unlink(missing_ok=True)
            self._lock_file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def ready_for(path: Path) -> None:
    """Make a report's folder and try to write there, before any work is done. Raises StorageError."""
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            trial.touch()
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); give another -o") from error


def write_report(path: Path, text: str) -> None:
    """Write a report, as a whole or not at all, in the place of an older one; half of a surrogate pair, which JSON can
    hold and UTF-8 cannot, as a question mark. Raises StorageError."""
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            writing.write_text(text, encoding="utf-8", errors="replace")
            writing.replace(path)
        finally:
            writing.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror}): rows that were written are kept; free space or choose another "
            "output, and run the same command"
        ) from error
