"""Compressors as yardsticks."""

import gzip

import pytest

from lichen.core.streams import Stream
from lichen.metrics.compression import compressors


def test_rates_are_bits_of_the_compressed_per_byte() -> None:
    noise = Stream(0, "noise").numpy().bytes(20_000)
    scores = compressors(noise)
    assert scores["gzip"] == 8 * len(gzip.compress(noise, 9)) / 20_000
    assert all(8.0 < score < 8.1 for score in scores.values())


@pytest.mark.parametrize("size", [500_000, pytest.param(9_000_000, marks=pytest.mark.nightly)])
def test_training_text_far_back_still_helps(size: int) -> None:
    noise = Stream(0, "noise").numpy().bytes(size)
    assert compressors(noise[:20_000], given=noise)["xz, given the training text"] < 0.2
