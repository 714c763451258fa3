from pathlib import Path

import pytest

from lichen.config.base import leaves
from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import ConfigError


def test_every_setting_has_a_help_text():
    for section in (CleanConfig, SourceConfig):
        for path, info in leaves(section):
            assert info.description, path


def test_settings_survive_as_plain_data():
    config = CleanConfig.from_data({"min_characters": 3, "repetition": {"max_top_2_gram_fraction": 1}})
    assert CleanConfig.from_data(config.to_data()) == config
    source = SourceConfig(path=Path("a/*.jsonl.gz"), weight=2.0)
    assert SourceConfig.from_data(source.to_data()) == source


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"max_bad_fractoin": 0.1}, "nearest: max_bad_fraction"),
        ({"deduplicate": {"threshold": 1.5}}, "deduplicate.threshold = 1.5"),
        ({"normalisation": "nfd"}, "normalisation"),
        ({"min_characters": 5, "max_characters": 4}, "below min_characters"),
    ],
)
def test_a_wrong_setting_is_named(data, words):
    with pytest.raises(ConfigError, match=words):
        CleanConfig.from_data(data)


def test_a_source_name_can_not_leave_its_folder():
    for name in ("../evil", "a/b", ".hidden", "", "-x"):
        with pytest.raises(ConfigError):
            SourceConfig.from_data({"path": "x", "name": name})
