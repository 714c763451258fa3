"""Fixtures of the data's tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def stories() -> ModuleType:
    """Made texts that tell facts, linked with a bank of them; see stories.py."""
    if "stories" not in sys.modules:
        path = Path(__file__).with_name("stories.py")
        spec = importlib.util.spec_from_file_location("stories", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["stories"] = module
        spec.loader.exec_module(module)
    return sys.modules["stories"]
