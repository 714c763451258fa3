"""Meters: exact resume, clipping as defined, parts of time that add up, and the numbers people compare."""

import json
import math

import pytest
import torch

from lichen.metrics.meters import PARTS, ClipMeter, MovingMean, TimeSplit, bits_per_byte, memory, perplexity


def test_moving_mean_resumes_to_the_bit_through_json():
    values = [math.sin(i) * 1e3 / (i + 1) for i in range(200)]
    unbroken, first, second = MovingMean(), MovingMean(), MovingMean()
    expected = [unbroken.update(value) for value in values]
    found = [first.update(value) for value in values[:77]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += [second.update(value) for value in values[77:]]
    assert found == expected


def test_moving_mean_of_a_constant_is_the_constant_from_the_start():
    mean = MovingMean(0.9)
    assert [mean.update(3.0) for _ in range(5)] == pytest.approx([3.0] * 5)


def test_moving_mean_ignores_what_is_not_finite():
    mean = MovingMean()
    assert math.isnan(mean.value)
    mean.update(2.0)
    assert mean.update(math.nan) == mean.update(math.inf) == pytest.approx(2.0)


def test_clip_meter_counts_only_applied_steps():
    meter = ClipMeter(1.0)
    for norm in (0.5, 1.0, 2.0, 4.0, math.inf):
        meter.update(norm)
    assert meter.clip_rate == 0.5, "a norm equal to the limit is not clipped, and a skipped step does not count"
    assert meter.mean_clip_ratio == pytest.approx((1 + 1 + 0.5 + 0.25) / 4)
    other = ClipMeter(1.0)
    other.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    assert (other.clip_rate, other.mean_clip_ratio) == (meter.clip_rate, meter.mean_clip_ratio)
    meter.reset()
    assert math.isnan(meter.clip_rate)


def test_clip_meter_without_a_limit_never_clips():
    meter = ClipMeter(None)
    meter.update(1e9)
    assert (meter.clip_rate, meter.mean_clip_ratio) == (0.0, 1.0)


def test_parts_of_time_add_up_and_an_error_closes_its_part():
    seconds = 0.0

    def clock() -> float:
        nonlocal seconds
        seconds += 1.0
        return seconds

    split = TimeSplit(clock=clock)
    with pytest.raises(RuntimeError), split.part("data"), split.part("communication"):
        raise RuntimeError("dead worker")
    with split.part("optimizer"):
        pass
    start_to_report = 7.0  # one tick per border and one for the report
    report = split.report()
    assert list(report) == list(PARTS)
    assert sum(report.values()) == start_to_report
    assert report["communication"] == 1.0 and report["data"] == 2.0
    assert sum(split.report().values()) == 1.0, "a report starts a new interval"


def test_a_part_with_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="forward_backward"), TimeSplit().part("forwrd"):
        pass


def test_bits_per_byte_matches_a_compressor_s_measure():
    # a uniform byte model costs 8 bits a byte: what a compressor that does not compress has
    assert bits_per_byte(nll_sum=1000 * math.log(256), num_bytes=1000) == pytest.approx(8.0)
    assert math.isnan(bits_per_byte(1.0, 0))
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert math.isnan(perplexity(math.nan))


def test_memory_names_the_process_and_needs_no_device():
    assert set(memory(torch.device("cpu"))) == {"memory_mib"}
