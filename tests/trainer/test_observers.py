"""What is written while training, and that watching changes nothing."""

import logging
from dataclasses import replace

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.config.training import LogConfig, TrainConfig
from lichen.metrics.meters import TimeSplit
from lichen.metrics.records import Records, read
from lichen.trainer.observers import Progress, Recorder, Samples, Step, duration
from lichen.trainer.validation import Validation

STEP = Step(
    step=1,
    total=4,
    epoch=0.5,
    loss=2.0,
    loss_mean=2.0,
    lr=0.1,
    gradient_norm=4.0,
    applied=True,
    targets=10,
    tokens=12,
    tokens_seen=12,
    skipped=0,
    seconds=0.5,
    aux={"balance": 1.5},
)
VALIDATION = Validation(step=2, loss=1.0, targets=10.0, num_bytes=30.0)


def recorder(path, every=2):
    return Recorder(Records(path), LogConfig(every=every, statistics_every=4), TrainConfig(steps=4), TimeSplit())


def test_rows_cover_their_interval(tmp_path):
    watching = recorder(tmp_path / "m.jsonl")
    watching.on_step(STEP)
    watching.on_step(replace(STEP, step=2, loss=1.0, gradient_norm=0.5, epoch=1.0))
    row, epoch = read(tmp_path / "m.jsonl")
    assert (row["loss"], row["clip_rate"], row["clip_ratio"]) == (1.0, 0.5, pytest.approx((0.25 + 1) / 2))
    assert (row["tokens_per_second"], row["aux_balance"]) == (24.0, 1.5)
    assert (epoch["type"], epoch["epoch"], epoch["loss"]) == ("epoch", 1, 1.5)
    watching.close()


def test_a_resumed_recorder_goes_on_in_the_middle(tmp_path):
    whole, before, after = (recorder(tmp_path / name) for name in ("whole", "parts", "parts"))
    for number in (1, 2, 3, 4):
        step = replace(STEP, step=number, gradient_norm=float(number), epoch=number / 3)
        whole.on_step(step)
        if number == 3:
            after.load_state_dict(before.state_dict())
        (before if number < 3 else after).on_step(step)
    rows = [
        [
            {k: v for k, v in row.items() if not k.startswith(("time_", "memory", "tokens_per"))}
            for row in read(tmp_path / name)
        ]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    for watching in (whole, before, after):
        watching.close()


def test_steps_not_applied_leave_the_means_alone(tmp_path):
    watching = recorder(tmp_path / "m.jsonl", every=1)
    watching.on_step(replace(STEP, loss=float("nan"), gradient_norm=float("nan"), applied=False, skipped=1))
    watching.on_event(1, "skip", "not finite")
    row, event = read(tmp_path / "m.jsonl")
    assert row["loss"] is None and row["clip_rate"] is None and row["skipped"] == 1
    assert (event["event"], event["text"]) == ("skip", "not finite")
    watching.close()


def test_a_full_disk_delays_rows_and_loses_none(tmp_path, monkeypatch):
    watching = recorder(tmp_path / "m.jsonl", every=1)
    append = Records.append

    def full(self, *arguments, **values):
        raise LichenError("no space left")

    monkeypatch.setattr(Records, "append", full)
    watching.on_step(STEP)
    watching.on_event(1, "spike", "high")
    monkeypatch.setattr(Records, "append", append)
    watching.on_step(replace(STEP, step=2))
    assert [(row["type"], row["step"]) for row in read(tmp_path / "m.jsonl")] == [
        ("train", 1),
        ("event", 1),
        ("train", 2),
    ]
    watching.close()


def test_progress_is_a_few_lines_of_the_log(caplog):
    watching = Progress(every=1, seconds=1000)
    logging.getLogger("lichen").propagate = True
    with caplog.at_level(logging.INFO, logger="lichen"):
        for number in (1, 2, 3, 4):
            watching.on_step(replace(STEP, step=number))
        watching.on_validation(VALIDATION)
    lines = [record.getMessage() for record in caplog.records]
    assert [line[:8] for line in lines] == ["step 1/4", "step 4/4", "step 2: "]
    assert "loss 2.0000 (mean 2.0000) lr 1.00e-01 norm 4.00 24 tokens/s ETA" in lines[0]
    assert "0.4809 bits per byte" in lines[2]


def test_samples_are_written_once_per_step_and_stay_text(tmp_path):
    path = tmp_path / "samples.md"
    watching = Samples(
        path, ["once\nupon", "a"], lambda prompts: [f"{prompt} # no heading\x1b[31m" for prompt in prompts]
    )
    watching.on_validation(VALIDATION)
    watching.on_validation(replace(VALIDATION, step=4))
    whole = path.read_text()
    watching.on_validation(replace(VALIDATION, weights="averaged"))
    watching.on_validation(replace(VALIDATION, step=4))  # a resumed training comes by again
    assert path.read_text() == whole
    assert whole.count("## Step") == 2 and "> once upon\n" in whole
    assert "    a # no heading\\x1b[31m\n" in whole


def test_duration():
    assert [duration(seconds) for seconds in (0, 61, 3600)] == ["0:00", "1:01", "1:00:00"]


def test_an_epoch_has_the_fields_of_a_row(tmp_path):
    now = iter(range(100)).__next__
    times = TimeSplit(clock=now)
    watching = Recorder(
        Records(tmp_path / "m.jsonl"), LogConfig(every=2, statistics_every=2), TrainConfig(steps=4), times
    )
    for number in (1, 2, 3):
        with times.part("optimizer"):
            pass
        norm = float("nan") if number == 1 else float(number)
        watching.on_step(replace(STEP, step=number, gradient_norm=norm, epoch=number / 3))
    row, epoch = read(tmp_path / "m.jsonl")
    assert (row["time_optimizer"], epoch["time_optimizer"]) == (2.0, 3.0)  # the epoch's reach back beyond the row
    assert epoch["gradient_norm"] == 2.5 and epoch["skipped"] == 0
    assert {"time_data", "memory_mib", "tokens_per_second", "clip_rate", "tokens"} <= epoch.keys()
    watching.close()


@pytest.mark.parametrize("fault", [UsageError("the prompt is too long"), OSError(28, "No space left on device")])
def test_samples_that_can_not_be_made_do_not_end_a_training(tmp_path, caplog, fault):
    def fails(prompts):
        raise fault

    logging.getLogger("lichen").propagate = True
    Samples(tmp_path / "samples.md", ["a"], fails).on_validation(VALIDATION)
    assert "step 2: no samples: " in caplog.text and str(fault) in caplog.text
    assert not (tmp_path / "samples.md").exists()
