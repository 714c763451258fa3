"""Runs crash tests in a process of its own, which never computes with torch, and prints one JSON line.

python tests/crash/run_crashes.py points save prune --sample 20
python tests/crash/run_crashes.py power
python tests/crash/run_crashes.py kills --ranks 2 --kills 100
python tests/crash/run_crashes.py bugs "written in place" "nothing synced"
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # equal threads, equal bits

from crash_points import enumerate_points, in_child
from power_loss import try_power_losses
from random_kills import try_random_kills
from scenarios import SAVE, SCENARIOS, TRAIN, WORKERS, tiny


def points(name: str, folder: Path, number: int | None, seed: int, until_first: bool = False) -> dict[str, Any]:
    """Try the crash points of one scenario."""
    if name == "train":
        tiny()  # imported once, before the forks
    start = time.monotonic()
    tried = list(enumerate_points(SCENARIOS[name], folder / name, number, seed, until_first))
    failures = [problem for _, problem in tried if problem]
    return {"points": len(tried), "failures": failures, "seconds": round(time.monotonic() - start, 1)}


def power(folder: Path) -> dict[str, Any]:
    """Lose the power after every call of a series of saves."""
    looked, failures = try_power_losses(SAVE, folder / "power")
    return {"points": looked, "failures": failures}


def kills(name: str, folder: Path, number: int, ranks: int, seed: int) -> dict[str, Any]:
    """Kill trainings, or preparations with worker processes, at random."""
    tiny()
    scenario = WORKERS if name == "prepare" else TRAIN
    killed, failures = try_random_kills(scenario, folder / "kills", number, ranks, seed)
    return {"points": killed, "failures": failures}


def caught(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """Put one bug in, and see whether the tests notice; in a child, as nothing takes it out again."""
    from seeded_bugs import BUGS

    bug, report = BUGS[name], folder / "caught.json"
    tiny()

    def work() -> None:
        bug.seed()
        try:
            found = power(folder) if bug.caught_by == "power" else points(bug.caught_by, folder, None, seed, True)
        except RuntimeError as error:  # so bad that even the undisturbed run breaks its promise
            found = {"points": 0, "failures": [str(error)]}
        report.write_text(json.dumps(found))

    if in_child(work, folder / "log.txt", 900):
        return {"points": 0, "failures": [], "error": (folder / "log.txt").read_text()[-2000:]}
    return json.loads(report.read_text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("points", "power", "kills", "bugs"))
    parser.add_argument("names", nargs="*", help="scenarios, or bugs")
    parser.add_argument("--sample", type=int, help="so many points of each scenario; all unless given")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for name in options.names or [options.what]:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            if options.what == "points":
                report[name] = points(name, Path(folder), options.sample, options.seed)
            elif options.what == "bugs":
                report[name] = caught(name, Path(folder), options.seed)
            else:
                whole = power(Path(folder)) if options.what == "power" else None
                report[name] = whole or kills(name, Path(folder), options.kills, options.ranks, options.seed)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
