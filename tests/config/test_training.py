"""Defaults people rely on, and what is refused."""

import pytest

from lichen.config.errors import ConfigError
from lichen.config.training import (
    AveragesConfig,
    CheckpointConfig,
    EarlyStoppingConfig,
    EvaluationConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)


def test_defaults():
    train, schedule, evaluation = TrainConfig(steps=1), ScheduleConfig(), EvaluationConfig()
    assert (train.clip, train.accumulation, train.precision, train.compile) == (1.0, 1, "auto", False)
    assert (schedule.name, schedule.warmup, schedule.floor) == ("cosine", 0.03, 0.1)
    assert (evaluation.every, evaluation.max_batches, evaluation.save_with_evaluation) == (500, 64, True)
    assert (AveragesConfig().enabled, EarlyStoppingConfig().enabled, EarlyStoppingConfig().patience) == (
        False,
        False,
        5,
    )
    assert (LogConfig().statistics_every, LogConfig().trackers, CheckpointConfig().asynchronous) == (
        100,
        ("jsonl",),
        True,
    )
    assert RunConfig.from_data({"name": "a"}).root.name == "runs"


@pytest.mark.parametrize(
    "data", [{"steps": 1, "epochs": 1}, {"steps": 0}, {"epochs": 0}, {"steps": 1, "batch_size": 0}]
)
def test_lengths_that_make_no_sense(data):
    with pytest.raises(ConfigError):
        TrainConfig.from_data(data)


@pytest.mark.parametrize(
    ("section", "data", "words"),
    [
        (OptimConfig, {"name": "adamv"}, "nearest: adam"),
        (OptimConfig, {"betas": [0.9, 1.0]}, "betas must lie"),
        (ScheduleConfig, {"name": "cosinus"}, "nearest: cosine"),
        (ScheduleConfig, {"function": "no colon"}, "function"),
        (RunConfig, {"name": "../up"}, "name"),
        (RunConfig, {"name": ".hidden"}, "name"),
        (TrainConfig, {"steps": 1, "precision": "fp8"}, "precision"),
        (TrainConfig, {"steps": 1, "clipp": 1.0}, "nearest: clip"),
    ],
)
def test_mistakes_are_named(section, data, words):
    with pytest.raises(ConfigError, match=words):
        section.from_data(data)


def test_plain_data_and_back():
    for config in (TrainConfig(epochs=0.5, aux_weights={"balance": 0.1}), OptimConfig(), ScheduleConfig(), LogConfig()):
        assert type(config).from_data(config.to_data()) == config
