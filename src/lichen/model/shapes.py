"""Few shapes where counts change with every batch.

A matrix product in 16 bit is prepared anew for every shape that it has not met: about a millisecond of a CPU's time and a
megabyte that stays. What is counted per batch (positions that read, queries that are taught) is therefore brought to a few sizes
with rows of zeros, which are cut off again.

>>> import torch
>>> [even(number) for number in (0, 1, 64, 65)], [len(padded(torch.ones(number, 2))) for number in (0, 1, 3, 65)]
([0, 64, 64, 128], [0, 1, 4, 128])
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

EVEN = 64
"""Many rows are a multiple of so many."""


def even(number: int) -> int:
    """The next multiple of ``EVEN``."""
    return -(-number // EVEN) * EVEN


def padded(rows: Tensor) -> Tensor:
    """``rows [n, ...]`` with zeros below: an even number of rows, or where they are few a power of two."""
    count = len(rows)
    wanted = even(count) if count > EVEN // 2 else 1 << (count - 1).bit_length() if count else 0
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, wanted - count)) if wanted > count else rows


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
