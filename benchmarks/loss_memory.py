"""Peak memory of head and loss at a vocabulary of 151 000: all logits at once, as is usual, and ours.

Each way runs forward and backward in a process of its own; its peak resident memory is read from the operating system, less what
the process held before. ``python benchmarks/loss_memory.py`` prints a table, with ``--json`` the bars.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from bars import Bar, report

VOCABULARY, WIDTH, TARGETS = 151_000, 256, 1024
WAYS = {
    "plain": "cross_entropy of all logits at once, product in bfloat16",
    "ours": "chunk by chunk, product in bfloat16",
}
BAR = 0.5
"""Ours may take at most this share of the plain way's memory."""


def measure(way: str, targets: int) -> None:
    """Run one way in this process and print its peak memory above the start in MiB, and its seconds."""
    import torch
    import torch.nn.functional as F

    from lichen.model.loss import linear_cross_entropy

    torch.manual_seed(0)
    dtype = torch.bfloat16
    hidden = torch.randn(targets, WIDTH, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    wanted = torch.randint(0, VOCABULARY, (targets,))
    (hidden[:8] @ weight[:8].t()).sum().backward()  # the libraries allocate their own on first use
    before, start = peak(), time.perf_counter()
    if way == "ours":
        loss = linear_cross_entropy(hidden, weight, wanted, dtype=dtype).sum()
    else:
        logits = hidden.to(dtype) @ weight.to(dtype).t()
        loss = F.cross_entropy(logits.float(), wanted, reduction="sum")
    loss.backward()
    print(json.dumps({"mib": peak() - before, "seconds": time.perf_counter() - start, "loss": loss.item()}))


def peak() -> float:
    """The most memory this process ever held, in MiB."""
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def main() -> int:
    """Measure every way and print the table or the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print {bar: {value, bar, ok}}")
    parser.add_argument("--targets", type=int, default=TARGETS, help="targets in the batch")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        measure(options.way, options.targets)
        return 0
    rows = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--targets", str(options.targets)]
        rows[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    bars = [Bar(f"{way}: {WAYS[way]}", row["mib"], unit="MiB") for way, row in rows.items()]
    bars.append(Bar("loss memory, ours / plain", rows["ours"]["mib"] / rows["plain"]["mib"], at_most=BAR))
    return report(bars)


if __name__ == "__main__":
    raise SystemExit(main())
