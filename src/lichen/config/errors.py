"""The errors a user may meet, and the words they are said in.

Every one of them says in one line what was wrong, where, and what to do; the command line prints that line and ends with
``exit_status``: 2 for a wrong request, 1 for a fault. Anything else that escapes is a defect of ours.

>>> raise UsageError("no such verb 'trian'" + nearest("trian", ["train", "prepare"]))
Traceback (most recent call last):
    ...
lichen.config.errors.UsageError: no such verb 'trian' (nearest: train; available: prepare, train)
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class LichenError(ValueError):
    """A fault that is not the program's own: bad data, a damaged file, a full disk. The message carries the remedy."""

    exit_status = 1


class UsageError(LichenError):
    """The request itself is wrong: a flag, a name, a path, a configuration value."""

    exit_status = 2


class ConfigError(UsageError):
    """Everything that is wrong with a configuration, said at once."""


class MissingDependency(LichenError):
    """An optional package is needed and not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra installs it.

    >>> require("json", "none").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependency(f'{module} is not installed: pip install "lichen[{extra}]"') from None


def nearest(name: str, available: Iterable[str], most: int = 12) -> str:
    """A parenthesis with the nearest and the available names, to end an error message with.

    >>> nearest("laern_rate", ["lr", "learn_rate"])
    ' (nearest: learn_rate; available: learn_rate, lr)'
    """
    names = sorted(set(available))
    if not names:
        return " (there are none)"
    found = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    shown = names if len(names) <= most else [*names[:most], "…"]
    hint = f"nearest: {found[0]}; " if found else ""
    return f" ({hint}available: {', '.join(shown)})"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
