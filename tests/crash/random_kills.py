"""Trainings killed again and again at random moments, on one rank or several, must end as if nothing had happened.

With several ranks one of them is killed; the others must notice and leave by themselves, within seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import psutil
from crash_points import Scenario, begin_of, compare, start_child

PATIENCE_S = 60
WITH_WORKERS = "prepare with workers"


def start(scenario: Scenario, folder: Path, ranks: int, log: Path) -> list[int]:
    """Start the scenario, as ``torchrun`` would with several ranks; the process ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        if ranks > 1:
            world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in (world | address).items()})
        scenario.act(folder)

    return [start_child(lambda rank=rank: work(rank), log) for rank in range(ranks)]


def wait_for(children: list[int]) -> list[int]:
    """Their exit statuses; one that does not end in time is killed and counts as -9."""
    statuses, deadline = [], time.monotonic() + PATIENCE_S
    for child in children:
        found, status = os.waitpid(child, os.WNOHANG)
        while not found and time.monotonic() < deadline:
            time.sleep(0.02)
            found, status = os.waitpid(child, os.WNOHANG)
        if not found:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        statuses.append(os.waitstatus_to_exitcode(status))
    return statuses


def choose_worker(process: int, rng: random.Random) -> int:
    """One of the processes that ``process`` has started, or itself."""
    return rng.choice([process, *(child.pid for child in psutil.Process(process).children(recursive=True))])


def kill(process: int) -> None:
    """``kill -9``; it may have ended by itself a moment ago (one of ours is not reaped yet: its number is its own)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def try_random_kills(
    scenario: Scenario, workplace: Path, kills: int, ranks: int = 1, seed: int = 0, kills_per_run: int = 5
) -> tuple[int, list[str]]:
    """How many processes were really killed, and what was wrong."""
    workplace.mkdir(parents=True)
    log, folder, rng = workplace / "log.txt", workplace / "case", random.Random(seed)
    begin = begin_of(scenario, workplace, log)
    shutil.copytree(begin, folder)
    begun = time.monotonic()
    if any(wait_for(start(scenario, folder, ranks, log))):
        raise RuntimeError(f"the undisturbed run failed:\n{log.read_text()[-3000:]}")
    duration, expected = time.monotonic() - begun, scenario.outcome(folder)
    killed, problems = 0, []
    while killed < kills and not problems:
        shutil.rmtree(folder)
        shutil.copytree(begin, folder)
        for _ in range(kills_per_run):
            children = start(scenario, folder, ranks, log)
            time.sleep(rng.uniform(0, duration))
            victim = children[rng.randrange(ranks)]
            worker = choose_worker(victim, rng) if scenario.name == WITH_WORKERS else victim
            kill(worker)
            statuses = dict(zip(children, wait_for(children), strict=True))
            killed += worker != victim or statuses[victim] == -signal.SIGKILL
            if any(status == -signal.SIGKILL for child, status in statuses.items() if child != worker):
                problems.append(f"kill {killed}: another process did not end in {PATIENCE_S} s")
            problems += [f"kill {killed}: {problem}" for problem in scenario.promise(folder)]
        if any(statuses := wait_for(start(scenario, folder, ranks, log))):
            problems.append(f"kill {killed}: running again ended with {statuses}:\n{log.read_text()[-3000:]}")
        elif problem := compare(f"kill {killed}", scenario.outcome(folder), expected):
            problems.append(problem)
    return killed, problems
