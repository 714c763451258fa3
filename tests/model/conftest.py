"""Fixtures of the model's tests."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def memory(load_beside: Callable[[str, str], ModuleType]) -> ModuleType:
    """Makes tiny models that read a bank; see memory_models.py."""
    return load_beside(__file__, "memory_models")
