"""Jobs as processes: order, records, failures, what was begun, stopping. The children here are lines of Python."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lichen.experiments import processes
from lichen.experiments.processes import Interrupted, Job, Pace, Runner, last_line

WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('made')"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def runner(tmp_path: Path, said: list[str]) -> Runner:
    return new_runner(tmp_path, said)


def new_runner(folder: Path, said: list[str], at_once: int = 1) -> Runner:
    return Runner(folder, at_once, said.append, program=(sys.executable, "-S", "-c"))


def job(folder: Path, name: str, code: str = WRITE, **more: Any) -> Job:
    output = more.pop("output", folder / name)
    return Job(f"{name}-id", name, "writing", (code, str(output)), output, **more)


def test_jobs_wait_for_what_they_need_and_are_done_once(runner: Runner, tmp_path: Path, said: list[str]) -> None:
    copy = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(pathlib.Path(sys.argv[1]).with_name('a').read_text() + '!')"
    jobs = [job(tmp_path, "b", copy, after=("a-id",)), job(tmp_path, "a")]
    runner.run(jobs, later=[job(tmp_path, "c")])
    assert (tmp_path / "b").read_text() == "made!" and not runner.failures
    assert said[0].startswith("[1/3]  a: ") and "about 0:00:0" in said[1] and said[1].startswith("[2/3]  b: ")
    again: list[str] = []
    new_runner(tmp_path, again).run(jobs)
    assert again == []
    (tmp_path / "b").unlink()
    new_runner(tmp_path, again).run(jobs)
    assert [line.split(":")[0] for line in again] == ["[1/1]  b"]


def test_a_failure_is_listed_and_only_what_needs_it_is_left_out(
    runner: Runner, tmp_path: Path, said: list[str]
) -> None:
    fail = "import sys; print('error: no such moss; plant some'); print('bye'); sys.exit(3)"
    jobs = [
        job(tmp_path, "bad", fail),
        job(tmp_path, "child", after=("bad-id",)),
        job(tmp_path, "grandchild", after=("child-id",)),
        job(tmp_path, "silent", "pass"),
        job(tmp_path, "other"),
    ]
    runner.run(jobs)
    assert (tmp_path / "other").read_text() == "made" and not (tmp_path / "child").exists()
    assert [failure.job.name for failure in runner.failures] == ["bad", "silent"]
    assert [lost.name for lost in runner.left_out] == ["child", "grandchild"]
    text = "\n".join(runner.summary())
    assert "bad: ended with status 3: error: no such moss; plant some" in text
    assert str(tmp_path / "logs" / "bad-bad-id.log") in text and "it made no" in text
    assert any("FAILED, see" in line for line in said)
    runner.run([job(tmp_path, "late", after=("bad-id",)), jobs[0]])  # a later stage of the same sitting
    assert len(runner.failures) == 2 and runner.left_out[-1].name == "late"


def test_several_run_at_once(tmp_path: Path, said: list[str]) -> None:
    meet = (
        "import pathlib, sys, time\n"
        "mine = pathlib.Path(sys.argv[1]); mine.write_text('x')\n"
        "other = mine.with_name({'a': 'b', 'b': 'a'}[mine.name])\n"
        "until = time.time() + 30\n"
        "while not other.exists() and time.time() < until: time.sleep(0.01)\n"
        "sys.exit(not other.exists())"
    )
    runner = new_runner(tmp_path, said, at_once=2)
    runner.run([job(tmp_path, "a", meet), job(tmp_path, "b", meet)])
    assert not runner.failures


def test_children_share_the_cores_and_get_no_settings_of_ours(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICHEN__JOBS", "7")
    monkeypatch.setattr(processes, "cores", lambda: 6)
    code = "import json, os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))"
    new_runner(tmp_path, said, at_once=2).run([job(tmp_path, "a", code)])
    found = json.loads((tmp_path / "a").read_text())
    assert (found["OMP_NUM_THREADS"], found["OMP_WAIT_POLICY"]) == ("3", "PASSIVE")
    assert "LICHEN__JOBS" not in found and found["PATH"] == os.environ["PATH"]


def test_what_was_begun_is_removed_kept_or_continued(runner: Runner, tmp_path: Path) -> None:
    note = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); (p / 'n').touch()"
    for name in ("removed", "kept", "fresh", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    (tmp_path / "run" / "checkpoints" / "lichen_step_0000005").mkdir(parents=True)
    runner.run(
        [
            job(tmp_path, "removed", note),
            job(tmp_path, "kept", note, begun="kept"),
            job(tmp_path, "fresh", note, begun="continued"),
            Job("run-id", "run", "writing", (note, "a recipe"), tmp_path / "run", begun="continued"),
        ]
    )
    assert not runner.failures  # the last was called with its run: a folder called "a recipe" would be somewhere else
    there = {name: (tmp_path / name / "old").exists() for name in ("removed", "kept", "fresh", "run")}
    assert there == {"removed": False, "kept": True, "fresh": False, "run": True}
    assert (tmp_path / "run" / "n").exists()


@pytest.fixture
def a_signal() -> Iterator[Any]:
    """Sends this process a signal as soon as a file is there."""
    threads = []

    def send(number: int, when: Path) -> None:
        def wait() -> None:
            while not when.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_children_in_order(
    runner: Runner, tmp_path: Path, said: list[str], a_signal: Any, number: signal.Signals
) -> None:
    wait = (
        "import pathlib, signal, sys, time\n"
        "p = pathlib.Path(sys.argv[1])\n"
        "def end(*_): p.with_name('stopped').touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, end); p.with_name('ready').touch(); time.sleep(60)"
    )
    a_signal(number, tmp_path / "ready")
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as error:
        runner.run([job(tmp_path, "a", wait), job(tmp_path, "b")])
    assert error.value.exit_status == 128 + number and "goes on" in str(error.value)
    assert (tmp_path / "stopped").exists() and not (tmp_path / "b").exists()
    assert not list((tmp_path / "records").glob("*")) and "stopping a" in said[-1]
    assert signal.getsignal(number) is before


def test_a_child_that_does_not_stop_is_ended(
    runner: Runner, tmp_path: Path, a_signal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    deaf = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "p = pathlib.Path(sys.argv[1]).with_name('ready'); p.with_suffix('.new').write_text(str(os.getpid()))\n"
        "p.with_suffix('.new').rename(p); time.sleep(60)"
    )
    a_signal(signal.SIGINT, tmp_path / "ready")
    with pytest.raises(Interrupted):
        runner.run([job(tmp_path, "a", deaf)])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "ready").read_text()), 0)


def test_time_left_goes_by_kind_and_weight(tmp_path: Path) -> None:
    def one(kind: str, weight: float = 1.0) -> Job:
        return Job(f"{kind}{weight}", kind, kind, (), tmp_path, weight=weight)

    pace = Pace()
    assert pace.left([one("training/dense")]) == (0.0, False)
    pace.add(one("training/dense", 100), 10.0)
    pace.add(one("training/knowledge", 100), 30.0)
    assert pace.left([one("training/dense", 200)]) == (20.0, True)
    assert pace.left([one("training/moe", 100)]) == (20.0, True)  # of an arm not seen yet: as trainings so far
    assert pace.left([], {one("training/knowledge", 100): 25.0}) == (5.0, True)


def test_the_error_of_the_last_attempt_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("$ lichen train x\nerror: the old one\n$ lichen train x\nstep 1\nerror: the new one\n  and more\n")
    assert last_line(log) == "error: the new one"
    log.write_text("$ lichen train x\nerror: the old one\n$ lichen train x\nKilled\n")
    assert last_line(log) == "Killed"
