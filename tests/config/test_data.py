from pathlib import Path

import pytest

from lichen.config.base import load
from lichen.config.data import DataConfig
from lichen.config.errors import ConfigError


def test_plain_data_there_and_back():
    config = DataConfig.from_data(
        {"sources": [{"path": "a", "weight": 0.7}, {"path": "b", "weight": 0.3}], "sample": 0.1}
    )
    assert config.sources[0].path == Path("a")
    assert DataConfig.from_data(config.to_data()) == config


@pytest.mark.parametrize(("text", "value"), [("500", 500), ("0.25", 0.25), ("1.0", 1.0), ("null", None)])
def test_sample_is_a_count_or_a_fraction(text, value):
    sample = load(DataConfig, flags={"sample": text}, environment={}).sample
    assert sample == value and type(sample) is type(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "a", "sources": [{"path": "b"}]}, "either path or sources"),
        ({"sources": [{"path": "a", "weight": 1.0}, {"path": "b"}]}, "every one of sources or to none"),
        ({"sources": [{"path": "a", "weight": 0.0}]}, "weight"),
        ({"sample": 1.5}, "fraction"),
        ({"sample": 0}, "at least 1"),
        ({"sequence_length": 1}, "sequence_length"),
        ({"workers": -1}, "workers"),
        ({"links": {"rebind": 1.1}}, "links.rebind"),
        ({"links": {"rebind": 0.9, "remove": 0.2}}, "at most 1 together"),
        ({"links": {"null_samples": -1}}, "null_samples"),
    ],
)
def test_impossible_settings_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig.from_data(data)
