"""The result file: whatever stops a run, each id is there exactly once after the next; nothing foreign is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from unembed import results
from unembed.errors import InputError, StorageError
from unembed.results import ResultFile, config_hash, read_results

CONFIG = {"model": "all-MiniLM-L6-v2", "steps": 20, "search": {"width": 4, "budget": None}}
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def rows(*ids):
    return [{"id": str(i), "text": f"text {i}, Привет 你好\n\u2028", "cosine": 0.5} for i in ids]


def ids_in(path):
    return [row["id"] for row in read_results(path)[1]]


# --- the plain course of things ---


def test_write_and_read(tmp_path):
    path = tmp_path / "new folder" / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        assert file.done() == set()
        assert file.append(rows(1, 2)) == 2
        assert file.append([]) == 0
        assert file.done() == {"1", "2"}
        assert ids_in(path) == ["1", "2"]  # readable while it is being written
    header, read = read_results(path)
    assert read == rows(1, 2)
    assert header["kind"] == "invert"
    assert header["config"] == CONFIG
    assert header["config_hash"] == config_hash(CONFIG)
    assert list(header) == ["unembed", "kind", "config_hash", "config"]
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 4 and lines[-1] == b""
    assert "你好" in path.read_text(encoding="utf-8")


def test_resume(tmp_path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1, 2))
    before = path.read_bytes()
    with ResultFile(path, CONFIG) as file:
        assert file.done() == {"1", "2"}
        assert path.read_bytes() == before
        assert file.append(rows(2, 3, 3)) == 1
        assert file.append(rows(1, 2, 3)) == 0
    assert ids_in(path) == ["1", "2", "3"]


def test_the_first_row_of_an_id_stays(tmp_path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        assert file.append([{"id": "a", "n": 1}, {"id": "a", "n": 2}]) == 1
        assert file.append([{"id": "a", "n": 3}]) == 0
    assert read_results(path)[1] == [{"id": "a", "n": 1}]


def test_done_is_a_copy(tmp_path):
    with ResultFile(tmp_path / "out.jsonl", CONFIG) as file:
        file.done().add("1")
        assert file.append(rows(1)) == 1


def test_a_batch_is_one_write(tmp_path, monkeypatch):
    calls = []
    write, fsync = os.write, os.fsync
    with ResultFile(tmp_path / "out.jsonl", CONFIG) as file:
        monkeypatch.setattr(os, "write", lambda fd, data: calls.append("write") or write(fd, data))
        monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
        file.append(rows(*range(50)))
    assert calls == ["write", "fsync"]


def test_values_of_numpy_and_torch(tmp_path):
    import torch

    path = tmp_path / "out.jsonl"
    row = {
        "id": "a",
        "numbers": (np.float32(0.5), np.int64(3), np.bool_(True), float("nan"), np.inf, np.float64("nan")),
        "array": np.array([[1.0, np.nan]]),
        "tensor": torch.tensor([1, 2]),
        "path": tmp_path,
        3: None,
        "half": "\ud83d",
    }
    with ResultFile(path, {**CONFIG, "folder": tmp_path, "widths": (1, 2)}) as file:
        file.append([row])
    ResultFile(path, {**CONFIG, "folder": str(tmp_path), "widths": [1, 2]}).close()  # the same settings
    [read] = read_results(path)[1]
    assert read["numbers"] == [0.5, 3, True, None, None, None]
    assert read["array"] == [[1.0, None]]
    assert read["tensor"] == [1, 2]
    assert read["3"] is None
    assert read["half"] == "\ud83d"
    for line in path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"text": "x"}, "row 1 has no text under 'id' but None"), ({"id": 3}, "but 3"), ({"id": "x", "y": {1}}, "set")],
)
def test_a_bad_row_stops_the_batch_before_it_is_written(tmp_path, bad, message):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        with pytest.raises(InputError, match=message):
            file.append([*rows(1), bad])
        assert file.done() == set()
        assert ids_in(path) == []
        assert file.append(rows(1)) == 1


def test_closed(tmp_path):
    file = ResultFile(tmp_path / "out.jsonl", CONFIG)
    file.close()
    file.close()
    with pytest.raises(StorageError, match="already closed"):
        file.append(rows(1))


# --- other settings ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({**CONFIG, "steps": 50}, "steps: 20 there, 50 now"),
        ({**CONFIG, "search": {"width": 8, "budget": None}}, "search.width: 4 there, 8 now"),
        ({**CONFIG, "seed": 1}, "seed: not set there, 1 now"),
        ({"model": CONFIG["model"], "steps": 20}, "search.budget: null there, not set now; search.width: 4 there"),
        ({**CONFIG, "steps": "20"}, 'steps: 20 there, "20" now'),
        ({**CONFIG, "model": "x\n" * 100}, '"x\\nx\\n'),
        ({**CONFIG, **{f"k{i}": i for i in range(9)}}, "and 4 more"),
    ],
)
def test_other_settings_are_refused(tmp_path, changed, message):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        ResultFile(path, changed)
    text = str(caught.value)
    assert message in text and "give another -o, or --overwrite" in text and "\n" not in text
    assert path.read_bytes() == before
    with ResultFile(path, CONFIG) as file:  # the refusal has let go of the lock
        assert file.done() == {"1"}
    with ResultFile(path, changed, overwrite=True) as file:
        assert file.done() == set()
        file.append(rows(7))
    assert ids_in(path) == ["7"]
    assert read_results(path)[0]["config"] == changed


def test_the_order_of_settings_does_not_matter(tmp_path):
    ResultFile(tmp_path / "out.jsonl", CONFIG).close()
    ResultFile(tmp_path / "out.jsonl", dict(reversed(CONFIG.items()))).close()


def test_other_kind_is_refused(tmp_path):
    ResultFile(tmp_path / "out.jsonl", CONFIG, kind="audit").close()
    with pytest.raises(InputError, match="holds results of 'audit', not of 'invert'"):
        ResultFile(tmp_path / "out.jsonl", CONFIG)


def test_settings_that_are_no_json(tmp_path):
    with pytest.raises(InputError, match="object cannot be written as JSON"):
        ResultFile(tmp_path / "out.jsonl", {"model": object()})
    assert not (tmp_path / "out.jsonl").exists()


# --- foreign and damaged files ---


@pytest.mark.parametrize(
    "content",
    [
        b"my precious notes\n",
        b'{"id": "1", "vector": [1, 2]}\n',
        b'{"unembed": "0.1"}\n',
        b'{"unembed": "0.1", "kind": "invert", "config_hash": "x", "config": 3}\n',
        b"[1, 2]\n",
        b"\x00\x01\x02",
        b"\n",
        b"{",
        b"[" * 100_000 + b"\n",
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_never_touched(tmp_path, content, overwrite):
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a result file of unembed"):
        ResultFile(path, CONFIG, overwrite=overwrite)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="not a result file of unembed"):
        read_results(path)


def test_an_empty_file_is_free_to_use(tmp_path):
    path = tmp_path / "out.jsonl"
    path.touch()
    with pytest.raises(InputError, match="no results yet"):
        read_results(path)
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
    assert ids_in(path) == ["1"]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="not a regular file"):
        ResultFile(tmp_path, CONFIG)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be opened"):
        ResultFile(tmp_path / "file" / "out.jsonl", CONFIG)
    if os.path.exists("/dev/full"):
        with pytest.raises(InputError, match="not a regular file"):
            ResultFile("/dev/full", CONFIG)
    with pytest.raises(InputError, match="no such file"):
        read_results(tmp_path / "nothing.jsonl")
    with pytest.raises(StorageError, match="cannot be read"):
        read_results(tmp_path)


@pytest.mark.parametrize("line", [b"garbage\n", b"[1]\n", b'{"text": "x"}\n', b'{"id": 3}\n', b"\n", b"\x00\x00\n"])
def test_damage_in_the_middle_names_the_line(tmp_path, line):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
    with open(path, "ab") as raw:
        raw.write(line + json.dumps({"id": "2"}).encode() + b"\n")
    before = path.read_bytes()
    with pytest.raises(StorageError, match="line 3: damaged"):
        ResultFile(path, CONFIG)
    with pytest.raises(StorageError, match="line 3: damaged"):
        read_results(path)
    assert path.read_bytes() == before


def test_a_repeated_id_is_damage(tmp_path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(StorageError, match="line 3: repeats the id '1'"):
        ResultFile(path, CONFIG)


# --- torn writes ---


def test_torn_at_every_byte(tmp_path):
    """Cut the file anywhere, as a kill in mid-write does: what is whole stays, the rest can be written again."""
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1, 2))
        file.append(rows(3))
    whole = path.read_bytes()
    header_end = whole.index(b"\n") + 1
    for size in range(len(results._MARK), len(whole)):
        path.write_bytes(whole[:size])
        kept = [str(i) for i in range(1, 1 + max(0, whole[:size].count(b"\n") - 1))]
        if size >= header_end:
            assert ids_in(path) == kept
        with ResultFile(path, CONFIG) as file:
            assert file.done() == set(kept)
            file.append(rows(1, 2, 3))
        assert path.read_bytes() == whole


def test_a_torn_line_of_zeros_is_cut(tmp_path):
    """What a power cut leaves on some file systems."""
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\x00" * 4096)
    ResultFile(path, CONFIG).close()
    assert path.read_bytes() == whole


WRITER = """
    import sys
    from unembed.results import ResultFile
    with ResultFile(sys.argv[1], {"steps": 1}) as file:
        todo = [str(i) for i in range(200) if str(i) not in file.done()]
        print(len(todo), flush=True)
        for start in range(0, len(todo), 5):
            file.append([{"id": i, "text": "x" * 5000} for i in todo[start : start + 5]])
            print("batch", flush=True)
"""


def start_writer(path, code=WRITER):
    source = os.path.dirname(os.path.dirname(results.__file__))
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


@posix
def test_killed_and_resumed(tmp_path):
    path = tmp_path / "out.jsonl"
    remaining = []
    for batches in (1, 7, 3):
        with start_writer(path) as process:
            remaining.append(int(process.stdout.readline()))
            for _ in range(batches):
                assert process.stdout.readline() == "batch\n"
            process.send_signal(signal.SIGKILL)  # while the next batch is being written
            assert process.wait(60) == -signal.SIGKILL
    out, err = start_writer(path).communicate(timeout=60)
    remaining.append(int(out.split()[0]))
    assert not err
    # each run went on where the last one was killed, and no batch that was reported as written is lost
    assert remaining[0] == 200
    for before, after, batches in zip(remaining[:3], remaining[1:], (1, 7, 3), strict=True):
        assert after <= before - 5 * batches
    assert sorted(map(int, ids_in(path))) == list(range(200))


def test_interrupted_in_mid_write(tmp_path, monkeypatch):
    """Ctrl-C: the file object cannot know what reached the disk, so it closes, and the next opening finds out."""
    path = tmp_path / "out.jsonl"
    write = os.write

    def interrupted(fd, data):
        write(fd, data[: len(data) * 2 // 3])
        raise KeyboardInterrupt

    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.append(rows(2, 3))
        monkeypatch.undo()
        with pytest.raises(StorageError, match="already closed"):
            file.append(rows(2, 3))
    with ResultFile(path, CONFIG) as file:
        assert file.done() == {"1", "2"}
        assert file.append(rows(2, 3)) == 1
    assert ids_in(path) == ["1", "2", "3"]


# --- full disk ---


def disk_of(monkeypatch, room, code=errno.ENOSPC):
    """os.write takes `room` more bytes in all, as many as fit, and then fails: just as a full disk does."""
    write = os.write
    left = [room]

    def limited(fd, data):
        if not left[0]:
            raise OSError(code, os.strerror(code))
        written = write(fd, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", limited)


def test_full_disk_at_every_byte(tmp_path):
    length = [len(results._line(row)) for row in rows(1, 2, 3)]
    for room in range(sum(length)):
        path = tmp_path / f"{room}.jsonl"
        with ResultFile(path, CONFIG) as file:
            file.append(rows(0))
            with pytest.MonkeyPatch.context() as patch:
                disk_of(patch, room)
                with pytest.raises(StorageError, match="the disk is full; all whole rows are kept") as caught:
                    file.append(rows(1, 2, 3))
            assert "\n" not in str(caught.value)
            fitted = sum(sum(length[: i + 1]) <= room for i in range(3))
            assert path.read_bytes().endswith(b"\n")
            assert ids_in(path) == ["0", "1", "2", "3"][: 1 + fitted]
            assert file.done() == {"0", "1", "2", "3"} - set("123"[fitted:])
            assert file.append(rows(1, 2, 3)) == 3 - fitted  # room again: the same call goes through
        assert ids_in(path) == ["0", "1", "2", "3"]


def test_full_disk_at_the_header(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"
    disk_of(monkeypatch, 20)
    with pytest.raises(StorageError, match="the disk is full"):
        ResultFile(path, CONFIG)
    assert path.read_bytes() == b""
    monkeypatch.undo()
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
    assert ids_in(path) == ["1"]


def test_fsync_that_fails(tmp_path, monkeypatch):
    """After it nobody knows what is on the disk, so the batch is taken back."""
    path = tmp_path / "out.jsonl"
    fsync = os.fsync
    fail = [True]

    def failing(fd):
        if fail.pop() if fail else False:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    with ResultFile(path, CONFIG) as file:
        file.append(rows(0))
        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(StorageError, match=r"cannot be written \(.*\); all whole rows are kept"):
            file.append(rows(1, 2))
        assert ids_in(path) == ["0"]
        assert file.append(rows(1, 2)) == 2
    assert ids_in(path) == ["0", "1", "2"]


def test_full_disk_that_cannot_even_be_cut(tmp_path, monkeypatch):
    path = tmp_path / "out.jsonl"

    def no_cut(fd, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with ResultFile(path, CONFIG) as file:
        file.append(rows(0))
        with pytest.MonkeyPatch.context() as patch:
            disk_of(patch, 100)
            patch.setattr(os, "ftruncate", no_cut)
            with pytest.raises(StorageError, match="the disk is full"):
                file.append(rows(1, 2))
        with pytest.raises(StorageError, match="changed by somebody else"):
            file.append(rows(1, 2))
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1, 2))
    assert ids_in(path) == ["0", "1", "2"]


@posix
def test_a_limit_of_the_system(tmp_path):
    """The kernel itself takes a part of a write and refuses the rest."""
    code = """
        import resource, signal, sys
        from unembed.errors import StorageError
        from unembed.results import ResultFile
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        batch = [{"id": str(i), "text": "x" * 1000} for i in range(10)]
        with ResultFile(sys.argv[1], {"steps": 1}) as file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            try:
                file.append(batch)
            except StorageError as error:
                print(error)
            print(len(file.done()))
    """
    path = tmp_path / "out.jsonl"
    process = start_writer(path, code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "all whole rows are kept" in out and out.splitlines()[-1] == "4"
    assert ids_in(path) == ["0", "1", "2", "3"]


# --- two at once ---


@pytest.fixture(params=["fcntl", "lock file"])
def either_lock(request, monkeypatch):
    if request.param == "lock file":
        monkeypatch.setattr(results, "fcntl", None)
    elif results.fcntl is None:
        pytest.skip("no fcntl here")
    return request.param


def test_locked(tmp_path, either_lock):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
        for overwrite in (False, True):
            with pytest.raises(StorageError, match="another run is writing to it"):
                ResultFile(path, CONFIG, overwrite=overwrite)
        file.append(rows(2))
    with ResultFile(path, CONFIG) as file:  # the lock goes when the file is closed
        assert file.done() == {"1", "2"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]


def test_file_system_without_locks(tmp_path, monkeypatch):
    if results.fcntl is None:
        pytest.skip("no fcntl here")

    def no_locks(fd, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(results.fcntl, "flock", no_locks)
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG):
        assert (tmp_path / "out.jsonl.lock").exists()
        with pytest.raises(StorageError, match=r"delete .*out\.jsonl\.lock"):
            ResultFile(path, CONFIG)
    assert not (tmp_path / "out.jsonl.lock").exists()


@posix
def test_locked_against_another_process(tmp_path):
    path = tmp_path / "out.jsonl"
    code = """
        import sys, time
        from unembed.results import ResultFile
        with ResultFile(sys.argv[1], {"steps": 1}) as file:
            print("open", flush=True)
            time.sleep(60)
    """
    with start_writer(path, code) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StorageError, match="another run is writing to it"):
            ResultFile(path, {"steps": 1})
        process.kill()
    ResultFile(path, {"steps": 1}).close()  # a killed process leaves no lock behind


def test_a_file_changed_by_another_hand(tmp_path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, CONFIG) as file:
        file.append(rows(1))
        with open(path, "ab") as other:
            other.write(json.dumps(rows(2)[0]).encode() + b"\n")
        with pytest.raises(StorageError, match="changed by somebody else"):
            file.append(rows(2, 3))
    with ResultFile(path, CONFIG) as file:
        assert file.append(rows(2, 3)) == 1
    assert ids_in(path) == ["1", "2", "3"]


def test_a_report_holds_what_utf8_cannot(tmp_path):
    results.write_report(tmp_path / "r.json", '"half \ud83e pair"')
    assert (tmp_path / "r.json").read_text(encoding="utf-8") == '"half ? pair"'
