"""Every place where a process can be killed, tried one after another.

A scenario is run once in a forked child that records which lines of ours ran how often, and which calls changed the disk.
Then, for each distinct line its first and its last time, and for each call before it, after it and (a write) halfway, a
fresh child runs the scenario and kills itself there. What lies on the disk must keep the scenario's promise at once, and a
second child, not disturbed, must finish with the same bytes as the undisturbed run. Random kills almost never hit the
microseconds in which it matters; these do.

The parent has imported torch but never computes with it: a fork of a process whose thread pool runs would hang.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SOURCE = str(Path(__file__).parents[2] / "src" / "lichen") + os.sep
CALLS = ("write", "fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "truncate", "ftruncate", "pwrite")
LONGEST_S = 120


@dataclass(frozen=True)
class Scenario:
    """Something that must survive being killed anywhere."""

    name: str
    prepare: Callable[[Path], None]
    """Makes the beginning, in a child."""
    act: Callable[[Path], None]
    """Does the work, or what is left of it; called again after a kill."""
    promise: Callable[[Path], list[str]]
    """What is wrong right after a kill; runs in the parent, so without torch operations."""
    outcome: Callable[[Path], dict[str, str]]
    """What must be equal in the end."""
    traced: tuple[str, ...]
    """Source files (below src/lichen) whose lines are crash points."""


@dataclass(frozen=True)
class Point:
    """One place to be killed at: the ``count``-th time a line or a call is reached, at this ``moment`` of it."""

    where: str
    count: int
    moment: str

    def __str__(self) -> str:
        return f"{self.where} #{self.count} {self.moment}"


class Watch:
    """Counts lines and calls of this process; kills it at ``point`` if there is one."""

    def __init__(self, traced: tuple[str, ...], point: Point | None = None):
        if point is not None:  # tracing slows down: look at no more than what is waited for
            traced = (point.where.split(":")[0],) if point.moment == "line" else ()
        self.traced = tuple(SOURCE + name for name in traced)
        self.point = point
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def start(self) -> None:
        """From now on, in this thread and in those it starts."""
        for name in CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))
        if self.traced:
            threading.settrace(self._on_call)
            sys.settrace(self._on_call)

    def stop(self) -> None:
        """Lines are no longer counted."""
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _reach(self, where: str) -> int:
        with self._lock:
            self.counts[where] += 1
            return self.counts[where]

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._on_line if frame.f_code.co_filename.startswith(self.traced) else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            where = f"{frame.f_code.co_filename.removeprefix(SOURCE)}:{frame.f_lineno}"
            self._die_if(where, self._reach(where), "line")
        return self._on_line

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            count = self._reach(name)
            self._die_if(name, count, "before")
            if name == "write" and self.point == Point(name, count, "halfway"):
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                die()
            result = call(*arguments, **options)
            self._die_if(name, count, "after")
            return result

        return watched

    def _die_if(self, where: str, count: int, moment: str) -> None:
        if self.point is not None and self.point == Point(where, count, moment):
            die()


def die() -> None:
    """At once, as ``kill -9`` would."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # a signal to oneself may take a moment


# --- Children ---


def in_child(work: Callable[[], None], log: Path, seconds: int = LONGEST_S) -> int:
    """Run ``work`` in a fork; its exit status, negative for a signal. What it prints goes to ``log``."""
    child = start_child(work, log, seconds)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start_child(work: Callable[[], None], log: Path, seconds: int = LONGEST_S) -> int:
    """Fork; the child runs ``work``, exits 0, or 1 after an exception. Its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(seconds)  # a child that hangs is killed, and the case has failed
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        work()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


# --- Trying them all ---


def record(scenario: Scenario, folder: Path, begin: Path, log: Path) -> tuple[dict[str, int], dict[str, str]]:
    """How often each line and call is reached in an undisturbed run, and its outcome."""
    shutil.copytree(begin, folder, symlinks=True)
    counts = folder.with_name("counts.json")

    def work() -> None:
        watch = Watch(scenario.traced)
        watch.start()
        scenario.act(folder)
        watch.stop()
        counts.write_text(json.dumps([watch.counts, sorted(sys.modules)]))

    if in_child(work, log) != 0:
        raise RuntimeError(f"the undisturbed run of {scenario.name} failed:\n{log.read_text()[-3000:]}")
    if problems := scenario.promise(folder):
        raise RuntimeError(f"the undisturbed run of {scenario.name} breaks its promise: {problems}")
    reached, modules = json.loads(counts.read_text())
    for name in modules:  # imported here once, instead of in every child
        if name.split(".")[0] not in ("__main__", "__mp_main__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return reached, scenario.outcome(folder)


def points_of(counts: dict[str, int]) -> list[Point]:
    """The crash points of a run: a line's first and last time, every call."""
    found: list[Point] = []
    for where, count in sorted(counts.items()):
        if ":" in where:
            found += [Point(where, n, "line") for n in sorted({1, count})]
        else:
            moments = ("before", "halfway", "after") if where == "write" else ("before", "after")
            found += [Point(where, n, moment) for n in range(1, count + 1) for moment in moments]
    return found


def sample(points: list[Point], number: int | None, seed: int) -> list[Point]:
    """``number`` of the points, half of them calls; all for None. In a random order: the first failure is found soon."""
    rng = random.Random(seed)
    calls, lines = [p for p in points if p.moment != "line"], [p for p in points if p.moment == "line"]
    if number is not None:
        calls = rng.sample(calls, min(len(calls), number - number // 2))
        lines = rng.sample(lines, min(len(lines), number - len(calls)))
    chosen = calls + lines
    rng.shuffle(chosen)
    return chosen


def try_point(
    scenario: Scenario, point: Point, begin: Path, folder: Path, expected: dict[str, str], log: Path
) -> str | None:
    """Die at ``point``, look, run again, compare; what was wrong, or None."""
    shutil.copytree(begin, folder, symlinks=True)

    def broken_off() -> None:
        Watch(scenario.traced, point).start()
        scenario.act(folder)

    ended = in_child(broken_off, log)
    if ended not in (-signal.SIGKILL, 0):  # 0: a count that depends on timing was not reached; then nothing happened
        return f"{point}: ended with {ended} instead of being killed:\n{log.read_text()[-2000:]}"
    if problems := scenario.promise(folder):
        return f"{point}: right after the kill: {'; '.join(problems)}"
    if ended := in_child(lambda: scenario.act(folder), log):
        return f"{point}: running again ended with {ended}:\n{log.read_text()[-2000:]}"
    return compare(point, scenario.outcome(folder), expected) or "; ".join(scenario.promise(folder)) or None


def compare(point: object, found: dict[str, str], expected: dict[str, str]) -> str | None:
    """Which files differ in the end, if any."""
    names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    return f"{point}: differs in the end: {', '.join(names)}" if names else None


def begin_of(scenario: Scenario, workplace: Path, log: Path) -> Path:
    """The folder all runs of a scenario begin with."""
    begin = workplace / "begin"
    begin.mkdir(parents=True)
    if in_child(lambda: scenario.prepare(begin), log) != 0:
        raise RuntimeError(f"{scenario.name} could not be prepared:\n{log.read_text()[-3000:]}")
    return begin


def enumerate_points(
    scenario: Scenario, workplace: Path, number: int | None = None, seed: int = 0, until_first: bool = False
) -> Iterator[tuple[Point, str | None]]:
    """Try all crash points, or a sample; yields each with what was wrong."""
    log = workplace / "log.txt"
    workplace.mkdir(parents=True, exist_ok=True)
    begin = begin_of(scenario, workplace, log)
    folder = workplace / "case"  # one name for all, as paths may be part of what is written
    counts, expected = record(scenario, folder, begin, log)
    shutil.rmtree(folder)
    for point in sample(points_of(counts), number, seed):
        problem = try_point(scenario, point, begin, folder, expected, log)
        shutil.rmtree(folder)
        yield point, problem
        if problem and until_first:
            return


def hashes(folder: Path, names: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files by relative path."""
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in names if p.is_file()}
