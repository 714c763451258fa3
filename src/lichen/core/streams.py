"""Random numbers as a pure function of (seed, purpose, counters), never of rank, worker or history.

Two places that draw for different purposes can not disturb each other, and a draw can be repeated at any time: a training
resumed at step n draws what it would have drawn. Keys come from BLAKE2b; numbers from NumPy's counter-based Philox
generator (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"). A permutation is a Feistel network over
the index (Luby and Rackoff, 1988), walked along its cycle until the result lies in range: any element in O(1) memory.

>>> Stream(0, "order").key(3) == Stream(0, "order").key(3) != Stream(0, "order").key(4)
True
>>> sorted(Stream(0, "order").permutation(5).take(np.arange(5)).tolist())
[0, 1, 2, 3, 4]
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Stream:
    """A named source of randomness below one seed."""

    seed: int
    purpose: str

    def key(self, *counters: int) -> int:
        """64 bits that depend on the seed, the purpose and every counter."""
        text = "/".join([str(self.seed), self.purpose, *map(str, counters)])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def uniform(self, *counters: int) -> float:
        """One number in [0, 1)."""
        return (self.key(*counters) >> 11) * 2.0**-53

    def numpy(self, *counters: int) -> np.random.Generator:
        """A NumPy generator at its beginning."""
        return np.random.Generator(np.random.Philox(key=self.key(*counters)))

    def torch(self, *counters: int) -> torch.Generator:
        """A torch generator on the CPU at its beginning."""
        return torch.Generator().manual_seed(self.key(*counters) & (2**63 - 1))

    def permutation(self, size: int, *counters: int) -> Permutation:
        """A permutation of ``range(size)``."""
        return Permutation(size, self.key(*counters))


class Permutation:
    """A pseudo-random permutation of ``range(size)`` that computes any of its elements alone."""

    rounds = 4

    def __init__(self, size: int, key: int):
        self.size = size
        self._half_bits = max(1, ((max(size, 2) - 1).bit_length() + 1) // 2)
        self._mask = np.uint64((1 << self._half_bits) - 1)
        self._keys = [np.uint64(Stream(key, "feistel").key(i)) for i in range(self.rounds)]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return int(self.take(np.array([index]))[0])

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The elements at ``indices`` (int64), which must lie in ``range(size)``."""
        indices = np.asarray(indices)
        if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= self.size):
            raise IndexError(f"an index lies outside range({self.size})")
        values = self._encrypt(indices.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:  # walk the cycle; the domain is less than four times the size, so this ends soon
            values[outside] = self._encrypt(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        shift = np.uint64(self._half_bits)
        left, right = values >> shift, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return (left << shift) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every output bit depends on every input bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
