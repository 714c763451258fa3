import pytest

from lichen.config.base import load
from lichen.config.errors import ConfigError
from lichen.config.knowledge import BankConfig


def test_lengths_must_fit_a_byte() -> None:
    for name in ("knowledge_length", "key_length"):
        assert getattr(load(BankConfig, flags={name: "255"}, environment={}), name) == 255
        for text in ("256", "1", "0"):
            with pytest.raises(ConfigError, match=name):
                load(BankConfig, flags={name: text}, environment={})
