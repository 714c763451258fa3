"""Training speed beside transformers: the same 5.5M model, the same batch, the same process layout, interleaved.

    python benchmarks/train_lm.py [--rounds 5] [--steps 6] [--json] [--profile]

Three processes stay alive and take turns, so that a drift of the machine hits all alike: ``LlamaForCausalLM`` under the Trainer
with its defaults (fp32), the same at its best (bf16 and compile), and Lichen's loop (bf16 and compile). The ratios are medians
over rounds of neighbouring measurements. The share of the machine is 6 × parameters × tokens/s over the rate of a large bf16
product measured in the same run. ``--profile`` shows where our step's time goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from bars import Bar, report

ROWS, LENGTH, VOCABULARY = 16, 256, 4096
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": True,
}
SIDES = ("transformers, defaults", "transformers, best", "lichen")
WARM_UP = 4
LIMIT = 100_000


class Gate:
    """Between two rounds a worker stands here: says how long its steps took, waits for its turn."""

    def __init__(self, steps: int):
        self.steps = steps
        self.count = 0
        self.started = 0.0

    def passed(self) -> None:
        """One more step is done."""
        self.count += 1
        if self.count < WARM_UP or (self.count - WARM_UP) % self.steps:
            return
        print(json.dumps({"seconds": time.perf_counter() - self.started}), file=sys.stderr, flush=True)
        if not sys.stdin.readline().strip():
            os._exit(0)
        self.started = time.perf_counter()


def run_transformers(gate: Gate, best: bool) -> None:
    """``LlamaForCausalLM`` under ``Trainer``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Turn(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            gate.passed()

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return LIMIT * ROWS

        def __getitem__(self, index: int) -> dict[str, Any]:
            tokens = torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(index))
            return {"input_ids": tokens, "labels": tokens}

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            per_device_train_batch_size=ROWS,
            max_steps=LIMIT,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=best,
            torch_compile=best,
        )
        Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Turn()]).train()


def run_lichen(gate: Gate) -> None:
    """Our loop, over rows of the same shape."""
    import torch

    from lichen.config.model import ModelConfig
    from lichen.config.training import (
        CheckpointConfig,
        EarlyStoppingConfig,
        EvaluationConfig,
        OptimConfig,
        ScheduleConfig,
        TrainConfig,
    )
    from lichen.core import device
    from lichen.core.batch import Batch
    from lichen.metrics.meters import TimeSplit
    from lichen.model.language_model import LanguageModel, initialise
    from lichen.trainer.interruption import Interruption
    from lichen.trainer.loop import Training
    from lichen.trainer.objectives import NextToken
    from lichen.trainer.optimizers import make_optimizer
    from lichen.trainer.runtime import Runtime
    from lichen.trainer.state import State

    class Rows:
        def batches(self, start: int) -> Generator[Batch]:
            for step in range(start, LIMIT):
                rows = [
                    torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(step * ROWS + row))
                    for row in range(ROWS)
                ]
                yield Batch.of_tokens(torch.stack(rows))

        def epoch(self, rows: int) -> float:
            return rows / (LIMIT * ROWS)

    class Turn:
        def on_step(self, step: Any) -> None:
            gate.passed()

        def on_validation(self, validation: Any) -> None: ...

        def on_event(self, step: int, event: str, text: str) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None: ...

        def close(self) -> None: ...

    runtime = Runtime.start(device="cpu")
    device.configure(runtime.device)  # as the verb does
    module = initialise(LanguageModel(ModelConfig.from_data(SHAPE)), seed=0)
    train, optim = TrainConfig(steps=LIMIT, batch_size=ROWS, compile=True), OptimConfig()
    Training(
        module=module,
        model=runtime.prepare(module, compile=True),
        objective=NextToken(),
        optimizer=make_optimizer(module, optim),
        averages=None,
        data=Rows(),
        validation=None,
        state=State(),
        total=LIMIT,
        runtime=runtime,
        interruption=Interruption(),
        saver=None,  # type: ignore[arg-type]
        observers=[Turn()],  # pyright: ignore[reportArgumentType]
        times=TimeSplit(),
        train=train,
        optim=optim,
        schedule=ScheduleConfig(),
        evaluation=EvaluationConfig(every=0),
        checkpoint=CheckpointConfig(),
        early_stopping=EarlyStoppingConfig(),
    ).run()


def work(side: str, steps: int) -> None:
    """What a worker process does."""
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    gate = Gate(steps)
    if side == "lichen":
        run_lichen(gate)
    else:
        run_transformers(gate, best=side.endswith("best"))


class Worker:
    """One side in its own process."""

    def __init__(self, side: str, steps: int):
        command = [sys.executable, __file__, "--side", side, "--steps", str(steps)]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"} | dict(os.environ)
        self.tokens = steps * ROWS * LENGTH
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._answer()  # the warm-up is over

    def _answer(self) -> float:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            if line.startswith('{"seconds"'):
                return float(json.loads(line)["seconds"])
            said.append(line)
        raise SystemExit(f"a worker died: {''.join(said[-20:])}")

    def turn(self) -> float:
        """Tokens per second of one round."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.tokens / self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def matrix_product_rate(size: int = 2048, repetitions: int = 8) -> float:
    """FLOP/s of a bf16 matrix product on this machine."""
    import torch

    a = torch.randn(size, size).bfloat16()
    b = torch.randn(size, size).bfloat16()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times)


def profile(steps: int = 4) -> None:
    """Print where the time of our compiled step goes, by kernel."""
    import torch
    from torch.profiler import ProfilerActivity

    from lichen.config.model import ModelConfig
    from lichen.config.training import OptimConfig
    from lichen.core import device
    from lichen.core.batch import Batch
    from lichen.model.language_model import LanguageModel, initialise
    from lichen.trainer.optimizers import make_optimizer

    torch._inductor.config.cpp.enable_kernel_profile = True  # pyright: ignore[reportAttributeAccessIssue]
    device.configure(torch.device("cpu"))
    model = initialise(LanguageModel(ModelConfig.from_data(SHAPE)), seed=0)
    model.compile()
    optimizer = make_optimizer(model, OptimConfig())
    batch = Batch.of_tokens(torch.randint(0, VOCABULARY, (ROWS, LENGTH)))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            nll = model(batch).nll
        (nll.sum() / batch.num_targets).backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            step()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=60))


def parameters() -> int:
    """Trainable parameters of the model both sides train."""
    from lichen.config.model import ModelConfig
    from lichen.model.size import count

    return count(ModelConfig.from_data(SHAPE)).total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps of a round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true", help="show where our step's time goes, instead")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        work(arguments.side, arguments.steps)
        return 0
    if arguments.profile:
        profile()
        return 0
    workers = {side: Worker(side, arguments.steps) for side in SIDES}
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side, worker in workers.items():
            speeds[side].append(worker.turn())
    for worker in workers.values():
        worker.close()
    rate = matrix_product_rate()
    defaults, best, ours = (speeds[side] for side in SIDES)

    def ratio(other: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(ours, other, strict=True))

    share = 6 * parameters() * statistics.median(ours) / rate
    bars = [Bar(f"{side}, tokens/s", statistics.median(values)) for side, values in speeds.items()]
    bars += [
        Bar("lichen / transformers, defaults", ratio(defaults), at_least=2.3),
        Bar("lichen / transformers, best", ratio(best), at_least=1.08),
        Bar("bf16 matrix product, GFLOP/s", rate / 1e9),
        Bar("lichen's share of that rate", share),
    ]
    return report(bars)


if __name__ == "__main__":
    sys.exit(main())
