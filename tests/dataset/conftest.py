"""Fixtures of the data's tests."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def stories(load_beside: Callable[[str, str], ModuleType]) -> ModuleType:
    """Made texts that tell facts, linked with a bank of them; see stories.py."""
    return load_beside(__file__, "stories")
