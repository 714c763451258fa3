"""One update of the weights, in one function.

The loss is a sum over targets divided once by the number of targets of all micro-batches and ranks (``Totals``, counted
before the first forward pass). DDP averages gradients over ranks, so the sum is multiplied by the world size; gradients are
exchanged during the last micro-batch only. If the loss or the gradient is not finite, nothing is updated: multiplying by
zero would not do, since 0 × NaN is NaN and the moments would keep it.

>>> round(clip_factor(norm=4.0, limit=1.0), 6), clip_factor(norm=0.5, limit=1.0), clip_factor(norm=9.0, limit=0.0)
(0.25, 1.0, 1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lichen.config.errors import LichenError
from lichen.config.training import TrainConfig
from lichen.core.batch import Batch
from lichen.core.streams import Stream
from lichen.metrics.meters import TimeSplit
from lichen.trainer.objectives import Objective
from lichen.trainer.optimizers import Optimizer
from lichen.trainer.runtime import Runtime


@dataclass(frozen=True)
class Totals:
    """What a step consists of, over all micro-batches and ranks."""

    weight: float
    """The divisor of the objective's sums."""
    tokens: float
    """Tokens that are not padding."""
    targets: float
    """Targets."""


@dataclass(frozen=True)
class Result:
    """What one step did; plain numbers, equal on all ranks."""

    loss: float
    """Objective per unit of weight (nats per target for the next token)."""
    gradient_norm: float
    """Global norm before clipping."""
    applied: bool
    """False if the loss or the gradient was not finite and nothing was updated."""
    aux: Mapping[str, float] = field(default_factory=dict)
    """Mean of each auxiliary loss, unweighed."""


class OutOfMemory(LichenError):
    """The device has not enough memory for a micro-batch; nothing was updated."""


class UpdateFailed(LichenError):
    """The device ran out of memory in the middle of an update: the weights are between two steps."""


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    objective: Objective,
    batches: Sequence[Batch],
    totals: Totals,
    lr: float,
    runtime: Runtime,
    config: TrainConfig,
    times: TimeSplit,
    look: Callable[[], None] | None = None,
) -> Result:
    """Forward, backward, clip, update, over this rank's micro-batches ``batches``, all on the device.

    The host waits for the device once, to read the loss and the gradient's norm; the wait counts as forward and backward, which
    it is for. Exchanging gradients overlaps the backward pass and is part of it; ``communication`` is what the ranks tell each
    other of counts and losses. ``look`` is called once the gradients are whole, before they are clipped. Raises OutOfMemory or
    UpdateFailed with advice, and RankLost when an exchange of gradients fails.
    """
    optimizer.zero_grad()
    sums: list[Tensor] = []
    names: list[str] = []
    counts: dict[str, Tensor] = {}
    with times.part("forward_backward"), explained(runtime, batches[0], len(batches)):
        for index, batch in enumerate(batches):
            last = index == len(batches) - 1
            with nullcontext() if last else runtime.no_sync(model):
                seed_draws(config.seed, batch)
                with runtime.autocast():
                    reduced = objective(model, batch)
                share = batch.num_tokens / totals.tokens if totals.tokens else 0.0
                aux = {name: total / weight.clamp(min=1.0) * share for name, (total, weight) in reduced.aux.items()}
                loss = reduced.sum / max(totals.weight, 1.0)
                for name, value in aux.items():
                    loss = loss + value * config.aux_factor(name)
                runtime.backward(loss * runtime.world_size)
            sums.append(
                torch.stack([reduced.sum.detach().float(), *(value.detach().float() for value in aux.values())])
            )
            names = list(aux)
            counts = {name: counts[name] + value if counts else value for name, value in reduced.counts.items()}
        gradients = runtime.gradients(optimizer)
        if look is not None:
            look()
        norm_tensor = torch.nn.utils.get_total_norm(gradients)
        norm, *local = torch.cat(
            [norm_tensor.reshape(1), torch.stack(sums).sum(0)]
        ).tolist()  # the one look at the device
    with times.part("communication"):
        total, *aux_means = runtime.sum(local)
    loss_value = total / max(totals.weight, 1.0)
    applied = math.isfinite(loss_value) and math.isfinite(norm) and totals.weight > 0
    with times.part("optimizer"), explained(runtime, batches[0], len(batches), UpdateFailed):
        if applied:
            factor = clip_factor(norm, config.clip)
            if factor < 1:
                torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]
            optimizer.set_lr(lr)
            optimizer.step()
            if counts:
                runtime.unwrap(model).after_step(runtime.sum_tensors(counts))
        if runtime.scale is not None:
            runtime.scale.update(applied)
        optimizer.zero_grad()
    return Result(loss_value, norm, applied, dict(zip(names, aux_means, strict=True)))


def seed_draws(seed: int, batch: Batch) -> None:
    """Key whatever the forward pass draws by the seed and the batch's global row counter: not by rank, nor by history."""
    torch.manual_seed(Stream(seed, "forward").key(*batch.row_numbers[:1]) & (2**63 - 1))


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of global norm ``norm`` are multiplied by; ``limit`` 0 never clips."""
    return limit / norm if 0 < limit < norm else 1.0


@contextmanager
def explained(runtime: Runtime, batch: Batch, parts: int, kind: type[LichenError] = OutOfMemory) -> Iterator[None]:
    """Say in the user's words what went wrong on the device or between ranks, over ``parts`` micro-batches like ``batch``."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            rows, length = batch.tokens.shape
            raise kind(_advice(rows, length, parts, runtime)) from error
        if runtime.is_exchange_error(error):
            raise runtime.lost(error, "exchanging gradients") from error
        raise


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` is an allocation that failed, on any device."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def _advice(rows: int, length: int, parts: int, runtime: Runtime) -> str:
    """What to set, and what it would save: only what is possible with these rows, ranks and this precision."""
    factor = next((number for number in range(2, rows + 1) if rows % number == 0), None)
    if factor is None:
        advice = "one row can not be split: lower data.sequence_length or the model's size"
    else:
        share = "half" if factor == 2 else f"a {factor}th"
        advice = (
            f"--train.accumulation {parts * factor} takes {share} of the memory for activations, with the same gradient"
        )
        if factor == 2 and runtime.world_size == 1:
            advice += "; so does --train.halve_on_out_of_memory true by itself"
    if runtime.dtype is None:
        advice += "; a run with --train.precision bf16 takes about half as much for activations as one with fp32"
    return f"out of memory on {runtime.device} with {rows} × {length} tokens in a micro-batch: {advice}"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
