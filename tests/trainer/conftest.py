"""Fixtures of the trainer's tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    path = Path(__file__).with_name("tiny_training.py")
    spec = importlib.util.spec_from_file_location("tiny_training", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_training"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """Makes trainings small enough for tests; see tiny_training.py."""
    return sys.modules.get("tiny_training") or _load()
