"""One writer per folder, whatever becomes of the writer; pins hold checkpoints."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lichen.config.errors import LichenError
from lichen.core import locks
from lichen.core.locks import LOCK, FolderLock, pin, pins, unpin

HOLD = "import sys, time; from lichen.core.locks import FolderLock; FolderLock(sys.argv[1], 'training').acquire(); "


def hold(folder: Path, then: str = "print('held', flush=True); time.sleep(60)") -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", HOLD + then, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline().startswith("held")
    return child


def test_the_second_is_told_who_holds_it_and_a_killed_holder_frees_it(tmp_path: Path):
    child = hold(tmp_path)
    with pytest.raises(LichenError, match=rf"in use by process {child.pid} on .*\(training since"):
        FolderLock(tmp_path, "pruning").acquire()
    child.kill()
    child.communicate()
    with FolderLock(tmp_path, "pruning"):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_forked_worker_that_outlives_a_killed_holder_does_not_keep_it(tmp_path: Path):
    fork = "import os\nif not os.fork(): os.write(1, b'%d\\n' % os.getpid())\ntime.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.strip("; ") + "\n" + fork, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    worker = int(child.stdout.readline())
    try:
        child.kill()
        child.wait()
        with FolderLock(tmp_path, "training"):
            os.kill(worker, 0)  # it does live
    finally:
        os.kill(worker, signal.SIGKILL)
        child.stdout.close()


def test_released_and_taken_again(tmp_path: Path):
    for _ in range(2):
        with FolderLock(tmp_path / "new", "a"), pytest.raises(LichenError):
            FolderLock(tmp_path / "new", "b").acquire()
    assert (tmp_path / "new" / LOCK).read_text() == ""


def test_without_kernel_locks_a_recycled_process_number_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = FolderLock(tmp_path, "training")
    lock.acquire()
    with pytest.raises(LichenError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path, "training").acquire()
    words = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps({**words, "started": "1"}))  # the number now belongs to another process
    FolderLock(tmp_path, "training").acquire()
    (tmp_path / LOCK).write_text(json.dumps({**words, "host": "elsewhere"}))  # can not be seen from here
    with pytest.raises(LichenError, match="on elsewhere"):
        FolderLock(tmp_path, "training").acquire()


def test_a_change_of_the_clock_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = locks._start_of(os.getpid())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert before == locks._start_of(os.getpid()) is not None
    assert locks._start_of(2**22 + 1) is None


def test_pins_hold_until_all_owners_let_go(tmp_path: Path):
    checkpoint = tmp_path / "x_step_0000001"
    checkpoint.mkdir()
    pin(checkpoint, "evaluation 1/2")
    pin(checkpoint, "a person")
    assert pins(checkpoint) == ["a-person", "evaluation-1-2"]
    unpin(checkpoint, "evaluation 1/2")
    unpin(checkpoint, "a person")
    unpin(checkpoint, "a person")
    assert pins(checkpoint) == []
    with pytest.raises(LichenError, match="pruned already"):
        pin(tmp_path / "x_step_0000002", "me")
