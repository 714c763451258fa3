"""The learning rate in closed form."""

import itertools
import math

import pytest
from pytest import approx

from lichen.config.errors import UsageError
from lichen.config.training import ScheduleConfig
from lichen.trainer.schedules import find_function, multiplier

NAMES = ["cosine", "linear", "polynomial", "constant", "warmup_stable_decay", "wsd"]


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_rises_to_one(name):
    schedule = ScheduleConfig(name=name)
    assert [multiplier(schedule, step, 100) for step in range(3)] == approx([1 / 3, 2 / 3, 1])
    assert multiplier(schedule, 3, 100) == approx(1)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "constant"])
def test_ends_at_the_floor_and_stays_there(name):
    schedule = ScheduleConfig(name=name, floor=0.25)
    values = [multiplier(schedule, step, 1000) for step in range(30, 1200)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))
    assert values[969] == approx(0.25, abs=0.005)
    assert set(values[970:]) == {0.25}


def test_shapes_halfway():
    flat = {"warmup": 0.0, "floor": 0.0}
    halfway = {name: multiplier(ScheduleConfig.from_data({"name": name, **flat}), 50, 100) for name in NAMES}
    assert halfway == approx(
        {"cosine": 0.5, "linear": 0.5, "polynomial": 0.25, "constant": 1, "warmup_stable_decay": 1, "wsd": 1}
    )


def test_cosine_is_the_formula():
    schedule = ScheduleConfig(warmup_steps=10)
    for step in (10, 57, 99):
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2
        assert multiplier(schedule, step, 100) == approx(expected)


def test_stable_part_decays_over_the_last_share():
    schedule = ScheduleConfig(name="wsd", warmup=0.0, floor=0.0, decay=0.2)
    assert multiplier(schedule, 79, 100) == multiplier(schedule, 80, 100) == 1
    assert multiplier(schedule, 90, 100) == approx(0.5)


def test_own_length_holds_the_floor_afterwards():
    assert multiplier(ScheduleConfig(length=10), 50, 100) == 0.1


def test_own_function_by_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_test_schedules.py").write_text(
        "def halved(step, total, schedule):\n    return 0.5 * step / total\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    schedule = ScheduleConfig(function="my_test_schedules:halved")
    assert multiplier(schedule, 4, 8, find_function(schedule)) == 0.25
    with pytest.raises(UsageError, match="my_test_schedules:third"):
        find_function(ScheduleConfig(function="my_test_schedules:third"))
