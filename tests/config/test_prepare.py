"""Bounds of the preparation's sections, and that what they write reads back."""

from typing import Any

import pytest

from lichen.config.base import Config
from lichen.config.errors import ConfigError
from lichen.config.prepare import FactTextsConfig, LinkingConfig, ShardConfig, SplitConfig, TokenizerConfig


@pytest.mark.parametrize("section", [FactTextsConfig, LinkingConfig, ShardConfig, SplitConfig, TokenizerConfig])
def test_sections_read_back_what_they_write_and_explain_every_field(section: type[Config]) -> None:
    assert section.from_data(section().to_data()) == section()
    assert all(info.description for info in section.model_fields.values())


@pytest.mark.parametrize(
    ("section", "data"),
    [
        (TokenizerConfig, {"vocab_size": 319}),
        (SplitConfig, {"validation_fraction": 1}),
        (SplitConfig, {"validation_fraction": -0.1}),
        (ShardConfig, {"max_length": 1}),
        (ShardConfig, {"max_documents": 0}),
        (LinkingConfig, {"window": 0}),
        (FactTextsConfig, {"kind": "facts"}),
        (FactTextsConfig, {"general_share": 1.0}),
        (FactTextsConfig, {"companions": 1.5}),
    ],
)
def test_out_of_bounds_is_refused(section: type[Config], data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(data))):
        section.from_data(data)
