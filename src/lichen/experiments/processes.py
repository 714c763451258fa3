"""Experiments as processes: jobs are command lines, some wait for others, a few run at once, and what is finished is kept.

A job is known by the hash of its settings. Its record appears when it has succeeded, so the same experiment, started again,
goes on where it was stopped, and changed settings redo what they touch. A failure is noted and everything that does not need
it goes on. Interrupted, the children are asked to stop, which lets a training write a checkpoint; a second time they are ended.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> made = Job("a1", "a file", "writing", ("--version",), folder / "file")
>>> runner = Runner(folder, at_once=1, say=lambda text: None)
>>> runner.is_done(made), identity({"steps": 1}) == identity({"steps": 2}), in_hours(3725)
(False, False, '1:02:05')
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lichen.config.base import ENVIRONMENT_PREFIX
from lichen.config.errors import LichenError
from lichen.core.folders import make_folder, remove_folder, write_file
from lichen.core.runs import Run

LICHEN = (sys.executable, "-m", "lichen")
PATIENCE = 60.0
"""Seconds that children get to stop in order."""
_LOOK = 0.05  # seconds between two looks at the children


@dataclass(frozen=True)
class Job:
    """One call of ``lichen``."""

    id: str
    """The hash of everything that its result depends on."""
    name: str
    """What a person reads, and the beginning of its log's name."""
    kind: str
    """``KIND`` or ``KIND/PART``: those of one kind take about as long as each other, those of one part still more so."""
    words: tuple[str, ...] = field(repr=False)
    """The command line behind ``lichen``."""
    output: Path
    """The file or folder that is there once it is done."""
    after: tuple[str, ...] = ()
    """Ids of the jobs that must be done before."""
    begun: Literal["removed", "kept", "continued"] = "removed"
    """What becomes of an output that was begun and not finished; kept: the verb itself goes on with it; continued: it is a run,
    which is trained to its end."""
    weight: float = 1.0
    """How much work it is, beside others of its kind."""


@dataclass(frozen=True)
class Failure:
    """A job that did not succeed."""

    job: Job
    status: int
    log: Path
    words: str
    """The last line of its log."""


@dataclass(frozen=True, eq=False)
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class Interrupted(LichenError):
    """A signal stopped the experiment."""

    def __init__(self, number: int):
        super().__init__("interrupted; the same command goes on from here")
        self.exit_status = 128 + number


class Runner:
    """Runs jobs; everything it writes itself lies in ``folder``: ``logs/NAME-ID.log`` and ``records/ID.json``.

    Args:
        folder: of the experiment.
        at_once: processes at a time; the cores are shared out among them.
        say: told a line for every job that ends.
        program: what stands before a job's words.
    """

    def __init__(
        self, folder: Path, at_once: int = 1, say: Callable[[str], None] = print, program: Sequence[str] = LICHEN
    ):
        self.folder, self.at_once, self.say, self.program = folder, at_once, say, program
        self.threads = max(1, cores() // at_once)
        self.failures: list[Failure] = []
        self.left_out: list[Job] = []
        """Jobs that needed one that failed."""
        self._started = time.monotonic()
        self._pace = Pace()
        self._ended = 0
        self._waiting: dict[str, Job] = {}
        self._later: list[Job] = []
        self._children: list[_Child] = []

    def is_done(self, job: Job) -> bool:
        """Whether its record and its output are there."""
        return job.output.exists() and self._record(job).is_file()

    def run(self, jobs: Iterable[Job], later: Iterable[Job] = ()) -> None:
        """Run what is not done, each after those it needs. ``later``: what will be run after that, for the estimate of time.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came; the children have stopped.
        """
        self._later = [job for job in later if not self.is_done(job)]
        for job in jobs:
            if self.is_done(job):
                self._recall(job)
            elif job.id not in {failure.job.id for failure in self.failures}:
                self._waiting[job.id] = job
        with _Signals() as signals:
            try:
                while self._waiting or self._children:
                    self._leave_out()
                    while len(self._children) < self.at_once and (job := self._ready()):
                        self._children.append(self._start(self._waiting.pop(job.id)))
                    time.sleep(_LOOK)
                    for child in [child for child in self._children if child.process.poll() is not None]:
                        self._children.remove(child)
                        self._end(child)
                    if signals.first is not None:
                        self._stop(signals)
                        raise Interrupted(signals.first)
            finally:
                end(child.process for child in self._children)

    # --- One job ---

    def _ready(self) -> Job | None:
        """The first job none of whose needs is still to be done."""
        pending = {*self._waiting, *(child.job.id for child in self._children)}
        return next((job for job in self._waiting.values() if not pending & set(job.after)), None)

    def _start(self, job: Job) -> _Child:
        words = job.words
        if job.output.exists():
            if job.begun == "continued" and Run(job.output).checkpoint_folders():
                words = (*words[:1], str(job.output))
            elif job.begun != "kept":
                remove_folder(job.output) if job.output.is_dir() else job.output.unlink()
        log = self.folder / "logs" / f"{job.name}-{job.id[:6]}.log"
        make_folder(log.parent)
        make_folder(job.output.parent)
        with log.open("ab") as file:
            file.write(f"$ lichen {shlex.join(words)}\n".encode())
            file.flush()
            process = subprocess.Popen(
                [*self.program, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(self.threads),
                start_new_session=True,  # a terminal's Ctrl-C comes here, and here it is passed on
            )
        return _Child(job, process, log, time.monotonic())

    def _end(self, child: _Child) -> None:
        job, status, seconds = child.job, child.process.returncode, child.seconds
        self._ended += 1
        if status == 0 and job.output.exists():
            what = f"{seconds:,.0f} s"
            self._pace.add(job, seconds)
            data = {"name": job.name, "kind": job.kind, "words": job.words, "seconds": round(seconds, 2)}
            make_folder(self._record(job).parent)
            write_file(self._record(job), json.dumps(data, ensure_ascii=False, indent=1) + "\n")
        else:
            what = f"FAILED, see {child.log}"
            words = last_line(child.log) if status else f"it made no {job.output}"
            self.failures.append(Failure(job, status, child.log, words))
        self.say(f"{self._place()}  {job.name}: {what} · {self._time()}")

    def _leave_out(self) -> None:
        """Give up what needs a job that failed, or was given up itself."""
        lost = {failure.job.id for failure in self.failures} | {job.id for job in self.left_out}
        for job in list(self._waiting.values()):
            if lost & set(job.after):
                self.left_out.append(self._waiting.pop(job.id))
                lost.add(job.id)

    def _stop(self, signals: _Signals) -> None:
        names = ", ".join(child.job.name for child in self._children)
        self.say(f"stopping {names or 'here'}; Ctrl-C again ends at once")
        for child in self._children:
            child.process.send_signal(signal.SIGINT)
        until = time.monotonic() + PATIENCE
        while not signals.again and time.monotonic() < until:
            if all(child.process.poll() is not None for child in self._children):
                break
            time.sleep(_LOOK)

    # --- Records and time ---

    def _record(self, job: Job) -> Path:
        return self.folder / "records" / f"{job.id}.json"

    def _recall(self, job: Job) -> None:
        """What a job took that an earlier sitting has done."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._pace.add(job, float(json.loads(self._record(job).read_text(encoding="utf-8"))["seconds"]))

    def _place(self) -> str:
        total = str(self._ended + len(self._waiting) + len(self._children) + len(self._later))
        return f"[{self._ended:>{len(total)}}/{total}]"

    def _time(self) -> str:
        waiting = [*self._waiting.values(), *self._later]
        begun = {child.job: child.seconds for child in self._children}
        left, known = self._pace.left(waiting, begun)
        gone, more = in_hours(time.monotonic() - self._started), in_hours(left / self.at_once)
        return f"{gone} gone, about {more} left" if known else f"{gone} gone"

    def summary(self) -> list[str]:
        """What failed, with the log of each, and what could not be done for that reason."""
        lines = [f"{f.job.name}: ended with status {f.status}: {f.words}\n    {f.log}" for f in self.failures]
        return [*lines, *(f"{job.name}: left out, since it needs one of these" for job in self.left_out)]


class Pace:
    """How long jobs take, by those that have ended.

    >>> pace = Pace()
    >>> pace.add(Job("1", "a", "training/dense", (), Path("a"), weight=100), 50.0)
    >>> pace.left([Job("2", "b", "training/moe", (), Path("b"), weight=300)]), pace.left([Job("3", "c", "asking", (), Path("c"))])
    ((150.0, True), (0.0, False))
    """

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[float, float]]] = defaultdict(list)  # kind → (seconds, weight)

    def add(self, job: Job, seconds: float) -> None:
        """``job`` took so long."""
        for kind in {job.kind, job.kind.split("/")[0]}:
            self._found[kind].append((seconds, job.weight))

    def left(self, jobs: Iterable[Job], begun: Mapping[Job, float] | None = None) -> tuple[float, bool]:
        """Seconds that ``jobs`` and the rest of those ``begun`` (so many seconds ago) take one after the other, and whether
        something is known of every kind among them; those of other kinds are not counted."""
        ages = {**dict.fromkeys(jobs, 0.0), **(begun or {})}
        times = [(self._seconds(job), age) for job, age in ages.items()]
        return sum((max(0.0, s - age) for s, age in times if s is not None), 0.0), all(s is not None for s, _ in times)

    def _seconds(self, job: Job) -> float | None:
        found = self._found.get(job.kind) or self._found.get(job.kind.split("/")[0])
        return job.weight * sum(s for s, _ in found) / sum(w for _, w in found) if found else None


def identity(data: Any) -> str:
    """Twelve hexadecimal digits that tell ``data``, which JSON can write, from any other."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def environment(threads: int, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: without settings from ours, which would be in no record.

    >>> environment(1, {"LICHEN__JOBS": "3", "HOME": "/h"})
    {'HOME': '/h', 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}
    """
    found = os.environ if variables is None else variables
    kept = {name: value for name, value in found.items() if not name.startswith(ENVIRONMENT_PREFIX)}
    return {**kept, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_line(log: Path) -> str:
    """The last line of a log that says something; the error's, where there is one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    begins = max((place for place, line in enumerate(lines) if line.startswith("$ lichen ")), default=0)
    errors = [line for line in lines[begins:] if line.startswith("error:")]
    return (errors or lines or ["nothing"])[-1]


def in_hours(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def count_by_kind(jobs: Iterable[Job]) -> dict[str, int]:
    """How many jobs there are of each kind."""
    return dict(Counter(job.kind for job in jobs))


# --- Stopping ---


class _Signals:
    """Notes Ctrl-C and SIGTERM meanwhile, so that nothing is torn; outside the main thread nothing can be noted."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.again = False
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self._when = number, now
        self.again = self.again or now - self._when > 1.0  # a launcher may pass one press on twice

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Kill what still runs, with everything it started."""
    for process in processes:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
