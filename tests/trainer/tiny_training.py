"""A training small enough for tests: documents in memory, a model of two layers; as a program, one of two ranks."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lichen.core.runs import Run
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.dataset.opening import Data
from lichen.dataset.plan import DocumentList, Plan
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.memory import KNOWLEDGE
from lichen.scripts.train import TrainRecipe
from lichen.trainer import assembly
from lichen.trainer.checkpoints import Checkpoint
from lichen.trainer.interruption import Interruption
from lichen.trainer.loop import Training
from lichen.trainer.memory import reads_facts
from lichen.trainer.runtime import Runtime
from lichen.trainer.state import optimizer_state_to_tensors
from lichen.trainer.step import Totals

RECIPE: dict[str, dict[str, Any]] = {
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    "data": {"sequence_length": 32},
    "train": {"steps": 6, "batch_size": 4, "precision": "fp32"},
    "optim": {"lr": 1e-2},
    "evaluation": {"every": 3, "max_batches": 2},
    "log": {"every": 2, "statistics_every": 4},
    "checkpoint": {"keep_last": 9, "asynchronous": False},
}


def recipe(**changes: Any) -> TrainRecipe:
    """The tiny recipe with ``section={...}`` changed."""
    data = {name: dict(section) for name, section in RECIPE.items()}
    for section, values in changes.items():
        data[section] = {**data.get(section, {}), **values}
    return TrainRecipe.from_data(data)


def tokenizer() -> Tokenizer:
    """One of 320 tokens and a bit."""
    return Tokenizer.train(["lichen on stone, lichen on bark"] * 4, vocab_size=325)


def documents(count: int, seed: int) -> DocumentList:
    """Documents of 5 to 50 tokens in which a token depends on the one before."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        start, length = generator.integers(64, 320), int(generator.integers(5, 50))
        found.append([*((start + 3 * i) % 256 + 64 for i in range(length)), 0])
    return DocumentList("tiny", found)


def data(train: TrainRecipe) -> Data:
    """In memory."""
    length = train.data.sequence_length
    return Data(
        rows=Plan(documents(40, 1), length, train.train.seed),
        validation=Plan(documents(12, 2), length, 0),
        tokenizer_folder=Path(),
        fingerprint="tiny",
        sampling={},
    )


def training(
    folder: Path, train: TrainRecipe, checkpoint: Checkpoint | None = None, runtime: Runtime | None = None
) -> Training:
    """Assembled, writing into ``folder``."""
    run = Run(folder)
    run.make_folders()
    if reads_facts(train.model) and not (folder / KNOWLEDGE).exists():
        write_bank(folder / KNOWLEDGE, [made_fact(f"stone {n}", "bears", f"lichen {n * n}") for n in range(12)])
    words, rows = tokenizer(), data(train)
    fingerprint = assembly.fingerprint_of(train, rows, words)
    runtime = runtime or Runtime.start(train.train.precision, device="cpu")
    return assembly.assemble(train, rows, words, runtime, run, checkpoint, Interruption(), fingerprint)


def resumed(folder: Path, train: TrainRecipe) -> Training:
    """Continued from the latest checkpoint, with the checks a real one goes through."""
    fingerprint = assembly.fingerprint_of(train, data(train), tokenizer())
    runtime = Runtime.start(train.train.precision, device="cpu")
    return training(folder, train, assembly.find_checkpoint(Run(folder), fingerprint, runtime), runtime)


def fingerprint(found: Training) -> str:
    """Every bit of weights, moments and averages."""
    tensors = dict(found.module.state_dict())
    tensors |= optimizer_state_to_tensors(found.module, found.optimizer.parts)
    if found.averages is not None:
        tensors |= {f"average of {name}": value for name, value in found.averages.tensors().items()}
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def first_gradient(found: Training) -> dict[str, torch.Tensor]:
    """Of the first step, as the optimizer sees it."""
    seen: dict[str, torch.Tensor] = {}
    names = {parameter: name for name, parameter in found.module.named_parameters()}
    step = found.optimizer.step

    def look() -> None:
        seen.update({name: parameter.grad.clone() for parameter, name in names.items() if parameter.grad is not None})
        step()

    found.optimizer.step = look  # type: ignore[method-assign]
    batch = next(found.data.batches(0))
    totals, _ = found.count(batch)
    found.step(batch, totals)
    found.optimizer.step = step  # type: ignore[method-assign]
    return seen


def on_a_rank(folder: Path) -> None:
    """What the test of two ranks runs twice, side by side: a gradient, twenty steps, and a count of exchanges."""
    runtime = Runtime.start("fp32", timeout=60, device="cpu")
    sgd = {"optim": {"name": "sgd", "lr": 0.3}, "train": {"steps": 20, "batch_size": 4, "clip": 0.0}}
    one = recipe(**sgd, evaluation={"every": 0})
    gradient = first_gradient(training(folder / "gradient", one, runtime=runtime))
    twenty = training(folder / "twenty", one, runtime=runtime)
    twenty.run()
    accumulated = recipe(
        train={**sgd["train"], "steps": 1, "accumulation": 2}, optim=sgd["optim"], evaluation={"every": 0}
    )
    exchanges = count_exchanges(training(folder / "counted", accumulated, runtime=runtime))
    weights = dict(twenty.module.state_dict())
    torch.save({"gradient": gradient, "weights": weights}, folder / f"rank{runtime.rank}.pt")
    bits = {"bits": fingerprint(twenty), "exchanges": exchanges, "targets": local_targets(one, runtime)}
    (folder / f"rank{runtime.rank}.json").write_text(json.dumps(bits))
    runtime.barrier()
    runtime.close()


def local_targets(train: TrainRecipe, runtime: Runtime) -> list[int]:
    """Targets of this rank's share of the first steps."""
    batches = assembly.make_loader(train, data(train), tokenizer(), runtime).batches(0)
    return [next(batches).num_targets for _ in range(3)]


def count_exchanges(found: Training) -> dict[str, int]:
    """How often gradients were exchanged during each micro-batch's backward pass."""
    counts = {"now": 0, "first": 0}

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # DDP would compare the annotations
        counts["now"] += 1
        tensor = bucket.buffer().div_(2)
        work: Any = torch.distributed.all_reduce(tensor, async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    found.model.register_comm_hook(None, hook)  # type: ignore[operator]
    backward, calls = found.runtime.backward, []

    def counted(loss: torch.Tensor) -> None:
        backward(loss)
        calls.append(counts["now"])

    found.runtime.backward = counted  # type: ignore[method-assign]
    batch = next(found.data.batches(0))
    totals, _ = found.count(batch)
    assert isinstance(totals, Totals)
    found.step(batch, totals)
    found.runtime.backward = backward  # type: ignore[method-assign]
    return {"after the first": calls[0], "after the last": calls[-1]}


if __name__ == "__main__":
    on_a_rank(Path(sys.argv[1]))
