"""Whatever instant a process is killed at, or the power goes, nothing reported as saved is lost and the end is the same.

The tests run in processes of their own (`run_crashes.py`), because they fork. By default a sample of the crash points;
nightly all of them, a hundred random kills in training, and every seeded bug, which the tests must catch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
QUICK_BUGS = (
    "written in place",
    "deleted before written",
    "random state not saved",
    "nothing settled",
    "nothing synced",
    "files not synced",
    "parent not synced",
)
SLOW_BUGS = (
    "file written in place",
    "old one removed before the rename",
    "cursor off by one",
    "order from unsaved random state",
    "moments not restored",
    "averages not restored",
    "skipped by multiplying with zero",
)


def run(*arguments: str) -> dict[str, Any]:
    """The report of one call."""
    command = [sys.executable, str(HERE / "run_crashes.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout.splitlines()[-1])


def check_all_survived(report: dict[str, Any], at_least: int) -> None:
    for name, found in report.items():
        assert not found["failures"], f"{name}:\n" + "\n".join(found["failures"])
        assert found["points"] >= at_least, f"{name}: only {found['points']} points"


def check_all_caught(report: dict[str, Any]) -> None:
    assert not [name for name, found in report.items() if "error" in found], report
    assert not [name for name, found in report.items() if not found["failures"]], "not caught"


def test_a_sample_of_all_crash_points():
    check_all_survived(run("points", "save", "prune", "prepare", "train", "--sample", "6"), at_least=6)


def test_power_may_go_at_any_moment_of_saving():
    check_all_survived(run("power"), at_least=200)


def test_seeded_bugs_are_caught():
    check_all_caught(run("bugs", *QUICK_BUGS))


@pytest.mark.nightly
@pytest.mark.parametrize("bug", SLOW_BUGS)
def test_the_other_seeded_bugs_are_caught(bug: str):
    check_all_caught(run("bugs", bug))


@pytest.mark.nightly
@pytest.mark.parametrize(("scenario", "at_least"), [("save", 800), ("prune", 250), ("prepare", 1500)])
def test_every_crash_point(scenario: str, at_least: int):
    check_all_survived(run("points", scenario), at_least)


@pytest.mark.nightly
def test_many_crash_points_in_training():
    check_all_survived(run("points", "train", "--sample", "300"), at_least=300)


@pytest.mark.nightly
@pytest.mark.parametrize(("ranks", "kills"), [(1, 80), (2, 30)])
def test_trainings_killed_at_random(ranks: int, kills: int):
    check_all_survived(run("kills", "train", "--ranks", str(ranks), "--kills", str(kills)), at_least=kills)


@pytest.mark.nightly
def test_a_worker_of_a_preparation_killed_at_random():
    check_all_survived(run("kills", "prepare", "--kills", "10"), at_least=10)
