"""Saving beside the training: what is on disk is what was, and a full disk neither ends a training nor harms the past."""

import errno
import json
import logging
import os
import resource
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

from lichen.config.errors import LichenError
from lichen.core.folders import partial_of, stale_siblings, verify
from lichen.core.runs import Best, Run
from lichen.trainer import saving
from lichen.trainer.checkpoints import Contents, latest_checkpoint, write_checkpoint
from lichen.trainer.saving import HostBuffers, Saver, SavingFailed
from lichen.trainer.state import State


def contents(step: int, weight: torch.Tensor | None = None, **state: object) -> Contents:
    return Contents(
        state=State(step=step, **state),  # pyright: ignore[reportArgumentType]
        weights={"w": torch.full((1000,), float(step)) if weight is None else weight},
        optimizer={"exp_avg/w": torch.full((1000,), -float(step))},
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "x")


def steps(run: Run) -> list[int]:
    return [int(p.name[-7:]) for p in run.checkpoint_folders()]


def test_what_is_saved_is_the_moment_of_the_call_not_of_the_writing(run: Run, monkeypatch: pytest.MonkeyPatch):
    gate = threading.Event()

    def slow(folder: Path, data: Contents) -> None:
        assert gate.wait(30)
        write_checkpoint(folder, data)

    monkeypatch.setattr(saving, "write_checkpoint", slow)
    weight, state = torch.zeros(1000), State(step=1, moving_means={"loss": [1.0]})
    with Saver(run) as saver:
        saver.save(Contents(state=state, weights={"w": weight}))
        weight.add_(1)  # training goes on
        state.step = 2
        state.moving_means["loss"].append(2.0)
        gate.set()
    checkpoint = latest_checkpoint(run)
    assert checkpoint.state.step == 1 and checkpoint.state.moving_means == {"loss": [1.0]}
    assert torch.equal(checkpoint.weights()["w"], torch.zeros(1000))


def test_host_memory_is_reused_and_follows_shapes():
    buffers = HostBuffers()
    first = buffers.copy({"w": torch.ones(3)}, "weights")
    second = buffers.copy({"w": torch.zeros(3)}, "weights")
    other = buffers.copy({"w": torch.zeros(4)}, "weights")
    averages = buffers.copy({"w": torch.ones(4)}, "averages")
    assert first and second and other and averages and first["w"] is second["w"]
    assert other["w"].shape == (4,) and other["w"] is not averages["w"]
    assert buffers.copy(None, "averages") is None


@pytest.mark.parametrize("asynchronous", [True, False])
def test_all_saves_arrive_in_order_and_old_ones_go(run: Run, asynchronous: bool):
    with Saver(run, keep_last=2, asynchronous=asynchronous) as saver:
        for step in range(1, 8):
            best = max(s for s in (2, 5) if s <= step) if step >= 2 else 1
            saver.save(contents(step, best_step=best, best_metric="loss", best_score=1 / best))
    assert steps(run) == [5, 6, 7] and run.best().name.endswith("5")
    assert run.read_best() == Best("lichen_step_0000005", 5, "loss", 0.2)
    assert not stale_siblings(run.checkpoints)
    assert saver.last_saved == run.latest()


def test_both_ways_write_the_same_bytes(tmp_path: Path):
    files = []
    for asynchronous in (True, False):
        made = Run.create(tmp_path, str(asynchronous))
        with Saver(made, asynchronous=asynchronous) as saver:
            saver.save(contents(3))
        files.append({p.name: p.read_bytes() for p in made.latest().rglob("*") if p.is_file()})
    assert files[0] == files[1]


def test_the_final_save_waits(run: Run):
    saver = Saver(run)
    saver.save(contents(1))
    saver.save(contents(2, reason="interrupted"), final=True)
    assert latest_checkpoint(run).state.reason == "interrupted"


@pytest.mark.parametrize("killed_after", ["checkpoint", "best"])
def test_an_interrupted_save_is_finished_at_the_next_start(run: Run, killed_after: str):
    for step in (1, 2, 3):
        write_checkpoint(run.checkpoint_folder(step), contents(step, best_step=3, best_score=0.5, best_metric="loss"))
    run.write_best(Best("lichen_step_0000001", 1, "loss", 1.0))
    if killed_after == "best":
        run.write_best(Best("lichen_step_0000003", 3, "loss", 0.5))
    partial_of(run.checkpoint_folder(4)).mkdir()
    checkpoint = latest_checkpoint(run)
    Saver(run, keep_last=2).settle(checkpoint.folder, checkpoint.state)
    assert steps(run) == [2, 3] and run.best().name.endswith("3") and not stale_siblings(run.checkpoints)


def test_an_unreadable_best_is_said_and_nothing_is_pruned(run: Run, caplog: pytest.LogCaptureFixture):
    with Saver(run, keep_last=1) as saver:
        run.best_json.write_text("{")
        saver.save(contents(1))
        saver.save(contents(2))
    assert steps(run) == [1, 2] and "nothing is pruned" in caplog.text


# --- The disk fills up ---


class SmallDisk:
    """Lets so many bytes pass `os.write`, then the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int):
        self.number, self.left = number, 1 << 60
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.left <= 0:
            raise OSError(self.number, os.strerror(self.number))
        self.left -= len(data)
        return self._write(descriptor, data)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("room", [0, 5000])
def test_training_goes_on_and_the_next_save_tries_again(
    run: Run, number: int, room: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    disk = SmallDisk(monkeypatch, number)
    with Saver(run, keep_last=1, max_failures=3) as saver:
        saver.save(contents(1))
        saver.wait()
        disk.left = room
        saver.save(contents(2))
        saver.wait()
        saver.check()  # the training's own look: not yet
        assert saver.failures == 1 and "SAVING FAILED (1 of 3 in a row)" in caplog.text
        assert steps(run) == [1] and verify(run.latest()) == [] and not stale_siblings(run.checkpoints)
        disk.left = 1 << 60
        saver.save(contents(3))
        saver.wait()
        assert saver.failures == 0 and steps(run) == [3]


def test_too_many_in_a_row_stop_the_training(run: Run, monkeypatch: pytest.MonkeyPatch):
    disk = SmallDisk(monkeypatch, errno.ENOSPC)
    saver = Saver(run, max_failures=3)
    saver.save(contents(1), final=True)
    disk.left = 0
    for step in (2, 3, 4):
        saver.save(contents(step))
    saver.wait()
    with pytest.raises(SavingFailed, match=r"3 saves in a row have failed: .*no space left .*bytes needed"):
        saver.check()
    with pytest.raises(SavingFailed):
        saver.save(contents(5))
    assert steps(run) == [1]


def test_a_final_save_that_fails_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch):
    saver = Saver(run, max_failures=3)
    SmallDisk(monkeypatch, errno.ENOSPC).left = 0
    with pytest.raises(SavingFailed, match="no space left"):
        saver.save(contents(1), final=True)


def test_a_defect_in_the_thread_reaches_the_training(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saving, "write_checkpoint", lambda *_: 1 / 0)
    saver = Saver(run)
    saver.save(contents(1))
    with pytest.raises(ZeroDivisionError):
        saver.close()
    with pytest.raises(ZeroDivisionError), Saver(run) as saver:
        saver.save(contents(1))


def test_an_unwritable_folder_is_refused_before_anything_is_trained(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LichenError, match="file"):
        Saver(Run(tmp_path / "file" / "x"))


def test_a_file_size_limit(run: Run, caplog: pytest.LogCaptureFixture):
    saver = Saver(run)
    saver.save(contents(1), final=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        saver.save(contents(2, torch.zeros(100_000)))
        saver.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "file-size limit" in caplog.text and steps(run) == [1]
    saver.save(contents(3, torch.zeros(100_000)), final=True)
    assert steps(run) == [1, 3]


ON_A_SMALL_DISK = """
    import json, logging, sys
    from pathlib import Path
    import torch
    from lichen.core.folders import stale_siblings, verify
    from lichen.core.runs import Run
    from lichen.trainer.saving import Saver, SavingFailed
    from lichen.trainer.checkpoints import Contents
    from lichen.trainer.state import State

    logging.basicConfig(stream=sys.stderr)
    run, report = Run(sys.argv[1]), {}
    saver = Saver(run, keep_last=1, max_failures=2)

    def save(step):
        saver.save(Contents(state=State(step=step), weights={"w": torch.full((75_000,), float(step))}))
        saver.wait()

    save(1)
    (run.folder / "ballast").write_bytes(bytes(600_000))
    save(2)
    report["after"] = [p.name for p in run.checkpoint_folders()], verify(run.latest()), saver.failures
    report["left"] = len(stale_siblings(run.checkpoints))
    (run.folder / "ballast").unlink()
    save(3)
    report["freed"] = [p.name for p in run.checkpoint_folders()], verify(run.latest()), saver.failures
    (run.folder / "ballast").write_bytes(bytes(600_000))
    save(4), save(5)
    try:
        save(6)
    except SavingFailed as error:
        report["stopped"] = str(error)
    print(json.dumps(report))
"""


def test_a_disk_of_one_megabyte(tmp_path: Path):
    """A real full disk, in a namespace of its own where the system permits one (else the simulated ones above hold)."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        return
    code = tmp_path / "code.py"
    code.write_text(textwrap.dedent(ON_A_SMALL_DISK))
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" "$3" "$1"/run'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path / "disk"), sys.executable, str(code)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report["after"] == [["lichen_step_0000001"], [], 1] and report["left"] == 0
    assert report["freed"] == [["lichen_step_0000003"], [], 0]
    assert "2 saves in a row have failed" in report["stopped"] and "bytes free" in report["stopped"]
    assert "SAVING FAILED (1 of 2 in a row)" in ended.stderr


def test_failures_are_loud(caplog: pytest.LogCaptureFixture, run: Run, monkeypatch: pytest.MonkeyPatch):
    SmallDisk(monkeypatch, errno.ENOSPC).left = 0
    saver = Saver(run)
    saver.save(contents(1))
    saver.wait()
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
