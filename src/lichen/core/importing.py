"""Functions of one's own, named in a recipe by import path: ``package.module:function``.

>>> find_function("math:sqrt", "schedule.function")(4.0)
2.0
>>> find_function("math:sqr", "schedule.function")
Traceback (most recent call last):
    ...
lichen.config.errors.UsageError: schedule.function = math:sqr: math has no 'sqr' (nearest: sqrt; available: ...)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from lichen.config.errors import UsageError, nearest


def find_function(path: str, setting: str) -> Callable[..., Any]:
    """Import what ``path`` names; ``setting`` is where it stands. Raises UsageError naming what is missing."""
    module_name, _, name = path.partition(":")
    where = f"{setting} = {path}"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        remedy = "install it, or put its folder on PYTHONPATH"
        raise UsageError(f"{where}: {error}; give package.module:function, and {remedy}") from error
    function = getattr(module, name, None)
    if not callable(function):
        names = [known for known in vars(module) if not known.startswith("_") and callable(vars(module)[known])]
        raise UsageError(f"{where}: {module_name} has no {name!r}{nearest(name, names)}")
    return function


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
