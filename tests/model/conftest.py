"""Fixtures of the model's tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def memory() -> ModuleType:
    """Makes tiny models that read a bank; see memory_models.py."""
    if "memory_models" not in sys.modules:
        path = Path(__file__).with_name("memory_models.py")
        spec = importlib.util.spec_from_file_location("memory_models", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["memory_models"] = module
        spec.loader.exec_module(module)
    return sys.modules["memory_models"]
