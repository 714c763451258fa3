"""What saving costs a training: a 26M model, its weights and both moments (312 MB in float32), every 200 steps.

Side by side in one process, in turns: so many steps without a save, so many with one that is copied by the training
thread and written, hashed, synced, verified and pruned by another. The cost is what the steps with a save took longer,
as a share of what 200 steps take; the share of processor time is given as well, which other processes on the machine do not
disturb. A step has few tokens: that makes the cost a larger share than it is in a real training, never a smaller one.

    python benchmarks/checkpoint.py [--json] [--folder DIR] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lichen.core.runs import Run
from lichen.trainer.checkpoints import Contents, write_checkpoint
from lichen.trainer.saving import Saver
from lichen.trainer.state import State, optimizer_state_to_tensors

EVERY = 200
BAR = 0.02


def model_of_26m() -> nn.Module:
    """About 26M parameters in the shapes of a small decoder: 8 layers of 512, a vocabulary of 6400."""
    width, inner = 512, 1408
    layer = lambda: nn.ModuleList(  # noqa: E731
        [
            *(nn.Linear(width, n, bias=False) for n in (width, width // 4, width // 4, width)),
            *(nn.Linear(width, inner, bias=False) for _ in range(2)),
            nn.Linear(inner, width, bias=False),
            nn.RMSNorm(width),
            nn.RMSNorm(width),
        ]
    )
    return nn.ModuleDict({"embed": nn.Embedding(6400, width), "layers": nn.ModuleList(layer() for _ in range(8))})


def step(model: nn.Module, optimizer: torch.optim.Optimizer, tokens: int) -> None:
    """One update: forward and backward through every matrix for so many tokens."""
    x = model["embed"].weight[:tokens]  # type: ignore[index]
    for layer in model["layers"]:  # type: ignore[index]
        query, key, value, out, gate, up, down, first, second = layer
        y = first(x)
        x = x + out(query(y) + (key(y) + value(y)).repeat(1, 4))
        y = second(x)
        x = x + down(torch.nn.functional.silu(gate(y)) * up(y))
    (x @ model["embed"].weight.T).logsumexp(-1).sum().backward()  # type: ignore[index]
    optimizer.step()
    optimizer.zero_grad()


def contents(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Contents:
    """As the training would save them."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return Contents(state=State(step=number), weights=weights, optimizer=optimizer_state_to_tensors(model, optimizer))


def timed(steps: int, work: Callable[[], None]) -> float:
    """Seconds of wall clock."""
    start = time.perf_counter()
    for _ in range(steps):
        work()
    return time.perf_counter() - start


def measure(folder: Path, rounds: int, tokens: int, device: str) -> dict[str, float]:
    """Seconds of everything, medians over rounds."""
    torch.manual_seed(0)
    model = model_of_26m().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=device == "cuda")

    def work() -> None:
        step(model, optimizer, tokens)
        if device == "cuda":
            torch.cuda.synchronize()

    timed(3, work)
    one = statistics.median(timed(1, work) for _ in range(5))
    steps = max(4, min(EVERY, int(4 / one)))  # long enough for a save to end within
    without, with_save, copying, busy = [], [], [], []
    with Saver(Run(folder), keep_last=2) as saver:
        for number in range(rounds + 1):
            cpu = time.process_time()
            a = timed(steps, work)
            before, middle = saver.seconds_copying, time.process_time()
            start = time.perf_counter()
            saver.save(contents(model, optimizer, number + 1))
            timed(steps, work)
            late = time.perf_counter()
            saver.wait()
            waited = time.perf_counter() - late
            if number:  # the first makes the buffers
                without.append(a)
                with_save.append(late - start + waited)
                copying.append(saver.seconds_copying - before)
                busy.append((time.process_time() - middle - (middle - cpu)) / (middle - cpu) * steps / EVERY)
        writing = saver.seconds_writing / (rounds + 1)
    median = statistics.median
    extra = median(b - a for a, b in zip(without, with_save, strict=True))
    per_step = median(without) / steps
    alone = time.perf_counter()
    write_checkpoint(folder / "alone_step_0000001", contents(model, optimizer, 1))
    alone = time.perf_counter() - alone
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": contents(model, optimizer, 1).num_bytes,
        "step_s": per_step,
        "copy_s": median(copying),
        "write_beside_s": writing,
        "write_alone_s": alone,
        "extra_s": extra,
        "share_of_processor": median(busy),
        "share": extra / (EVERY * per_step),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256, help="of a step; a real one has at least 4096")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.rounds, options.tokens, options.device)
    ok = found["share"] <= BAR
    if options.json:
        print(json.dumps({"checkpoint_share": {"value": round(found["share"], 5), "bar": BAR, "ok": ok}}))
    else:
        for name, value in found.items():
            print(f"{name:>16}  {value:,.4f}" if value < 1000 else f"{name:>16}  {value:,.0f}")
        verdict = f"(bar {BAR:.0%}): {'ok' if ok else 'TOO MUCH'}"
        print(f"saving every {EVERY} steps costs {found['share']:.2%} of training time {verdict}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
