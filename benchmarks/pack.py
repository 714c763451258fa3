"""How full rows get, that no document is cut without need, lost or doubled, and how fast a million documents are planned.

    python benchmarks/pack.py            a table
    python benchmarks/pack.py --json     {bar: {value, bar, ok}}

The first set is 4000 documents with lognormal lengths (median 420, σ 0.85, cut to 4096) in rows of 4096; the second the same
with a million documents, planned in windows on one core, its memory measured in a separate pass (measuring slows it down).
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections import Counter

import numpy as np
from bars import Bar, report

from lichen.dataset.linking import NO_LINKS
from lichen.dataset.packing import pack
from lichen.dataset.plan import Plan

SEQUENCE_LENGTH = 4096


class LengthsOnly:
    """Documents of which only the lengths matter."""

    name = "made"
    weight = None
    linked = False

    def __init__(self, lengths: np.ndarray):
        self.lengths = lengths
        self.bytes = 4 * lengths.astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def links(self, i: int) -> np.ndarray:
        return NO_LINKS

    def tokens(self, i: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        return np.zeros(int(self.lengths[i]), dtype=np.int64)[start:stop]


def made_lengths(count: int, seed: int = 0) -> np.ndarray:
    """int32 ``[count]`` lognormal lengths, median 420, σ 0.85, in 1 … 4096."""
    lengths = np.random.default_rng(seed).lognormal(np.log(420), 0.85, count)
    return np.clip(lengths, 1, SEQUENCE_LENGTH).astype(np.int32)


def quality(lengths: np.ndarray) -> list[Bar]:
    """Pack plain lengths, then check the plan of the same lengths document by document."""
    packed = pack(lengths, SEQUENCE_LENGTH)
    filled = np.bincount(packed.bin_of, weights=lengths)
    members = np.concatenate([packed.members(bin) for bin in range(packed.bins)])
    seen = Counter(members.tolist())
    misplaced = sum(seen[i] != 1 for i in range(len(lengths))) + int((filled > SEQUENCE_LENGTH).sum())
    # a document of n tokens fills n - 1 places, so that up to 4097 tokens fit a row
    plan = Plan(LengthsOnly(lengths), SEQUENCE_LENGTH, seed=0)
    pieces = Counter(piece.document for n in range(plan.rows_in_epoch(0)) for piece in plan.row(n))
    split = sum(count > 1 for count in pieces.values())
    lost = sum(pieces[i] == 0 for i in np.flatnonzero(lengths > 1).tolist())
    utilisation = plan.targets_in_epoch / (plan.rows_in_epoch(0) * SEQUENCE_LENGTH)
    return [
        Bar("documents that fit but are split", split, at_most=0),
        Bar("documents lost, doubled or overflowing", misplaced + lost, at_most=0),
        Bar("utilisation, pack", packed.utilisation, at_least=0.995),
        Bar("utilisation, plan", utilisation, at_least=0.995),
    ]


def plan_all(lengths: np.ndarray) -> tuple[int, int]:
    """Rows of an epoch, each window packed once and its first row made."""
    plan = Plan(LengthsOnly(lengths), SEQUENCE_LENGTH, seed=0)
    rows = plan.rows_in_epoch(0)
    stride = rows // (2 * plan.windows)  # at least one row of every window
    return rows, sum(len(plan.row(n)) for n in range(0, rows, stride))


def scale(lengths: np.ndarray) -> list[Bar]:
    """Seconds and peak memory for planning, counting and packing all windows."""
    started = time.perf_counter()
    plan_all(lengths)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    plan_all(lengths)
    mebibytes = (tracemalloc.get_traced_memory()[1] - before) / 2**20
    tracemalloc.stop()
    return [
        Bar("planning a million documents", seconds, at_most=5, unit="seconds"),
        Bar("held beside their lengths", mebibytes, at_most=64, unit="MiB"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print {bar: {value, bar, ok}}")
    parser.parse_args()
    return report(quality(made_lengths(4000)) + scale(made_lengths(1_000_000)))


if __name__ == "__main__":
    sys.exit(main())
