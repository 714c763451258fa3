"""What is to stay outside of compiled regions.

Code that follows lengths, a cache or the number of targets would be compiled anew for nearly every batch; ``eager`` marks it, and
the compiler calls it as it is.

>>> @eager
... def longest(lengths: tuple[int, ...]) -> int:
...     return max(lengths)
>>> longest((3, 5))
5
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def eager(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``function``, never traced by ``torch.compile``."""
    return torch.compiler.disable(function)  # pyright: ignore[reportReturnType, reportCallIssue, reportArgumentType]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
