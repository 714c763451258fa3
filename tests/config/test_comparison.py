"""Settings of a comparison: names that are meant exist, what arms and sizes decide is not set elsewhere, records read back."""

from typing import Any

import pytest

from lichen.config.base import load
from lichen.config.comparison import ArmConfig, ComparisonConfig, SizeConfig
from lichen.config.errors import ConfigError

KNOWLEDGE = {"feed_forward_by_layer": {"2": {"kind": "knowledge", "beside": {"kind": "dense"}}}}
PLAIN: dict[str, Any] = {
    "sizes": [{"told": 100}, {"told": 200, "seeds": 1}],
    "arms": {"knowledge": KNOWLEDGE, "dense": {"seeds": 3}},
}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reference": "knowlege"}, "reference: there is no arm 'knowlege'.*nearest: knowledge"),
        ({"against": ["dense", "mow"]}, "against: there is no arm 'mow'"),
        ({"against": ["knowledge"]}, "is the reference itself"),
        ({"only": ["dens"]}, "nearest: dense"),
        ({"sizes": [{"told": 5}, {"told": 5, "seeds": 2}]}, "5 told facts stand there twice"),
        ({"sizes": [], "arms": {}}, "sizes: must be given; arms: must be given"),
        ({"texts": {"limit": 3}}, r"texts\.limit: sizes and arms decide it"),
        ({"examination": {"prompting": "tfidf"}}, r"examination\.prompting: sizes and arms decide it"),
        ({"arms": {"knowledge": {}, "a b": {}}}, "'a b' is no name"),
        (
            {"arms": {"knowledge": {"feed_forward_by_layer": {"9": {"kind": "none"}}}}},
            "arms.knowledge: .*beyond the last layer",
        ),
        ({"arms": {"knowledge": {"text": "quotes"}}}, "nearest: quoted"),
        ({"learning_rates": [0.0]}, "learning_rates"),
    ],
)
def test_what_is_wrong_is_said(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ComparisonConfig.from_data({**PLAIN, **more})


def test_what_is_written_reads_back_and_every_setting_is_explained() -> None:
    settings = ComparisonConfig.from_data({**PLAIN, "texts": {"repeats": 3}, "examination": {"questions": 5}})
    assert ComparisonConfig.from_data(settings.to_data()) == settings
    for section in (ComparisonConfig, ArmConfig, SizeConfig):
        assert all(info.description for info in section.model_fields.values())


def test_a_size_decides_its_seeds_and_else_the_arm_does() -> None:
    settings = ComparisonConfig.from_data(PLAIN)
    assert [settings.seeds_of(size, "dense") for size in settings.sizes] == [3, 1]


def test_an_arm_changes_the_network_where_it_says_so() -> None:
    settings = ComparisonConfig.from_data(PLAIN)
    assert [settings.model_of("knowledge").feed_forward_of(layer).kind for layer in (1, 2)] == ["dense", "knowledge"]
    assert settings.model_of("dense") == settings.model


def test_flags_choose_arms_and_change_one() -> None:
    flags = {"only": ["dense"], "arms.dense.equal": "null", "sizes": ["[{told: 7}]"]}
    settings = load(ComparisonConfig, flags=flags, base=PLAIN, environment={})
    assert settings.chosen == ("dense",) and settings.arms["dense"].equal is None
    assert [size.told for size in settings.sizes] == [7]
