"""Ranks, devices and mixed precision: the only file that knows `accelerate` and `torch.distributed`.

The same training runs under plain Python (one rank) and under ``torchrun`` (one process per rank). Accelerate starts the
process group and wraps the model; its samplers, loaders, schedulers and ``save_state`` are not used. It would divide the loss
by the accumulation steps, and DDP averages gradients over ranks: here accumulation is ours, and the loss is multiplied by the
world size, so that the gradient is that of the sum over all ranks (`lichen.trainer.step`).

Statistics travel over a gloo group on the CPU, as Python floats. Every exchange has a time limit: a rank that died or hangs
makes all others raise `RankLost` in time instead of waiting for ever.

>>> runtime = Runtime.start(device="cpu", precision="fp32")
>>> runtime.is_master, runtime.rank, runtime.world_size, runtime.sum([1.5, 2.0]), runtime.any(False)
(True, 0, 1, [1.5, 2.0], False)
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lichen.config.errors import LichenError
from lichen.core import device as devices
from lichen.core.device import Precision
from lichen.core.logs import current_log

if TYPE_CHECKING:
    from lichen.trainer.optimizers import Optimizer


_PATIENCE = 24 * 3600.0
"""Seconds the others wait while rank 0 reads or writes a lot: a death is noticed at once, only a hang takes as long."""


class RankLost(LichenError):
    """Another rank died or does not answer."""


@dataclass
class LossScale:
    """The factor that keeps small fp16 gradients from vanishing (Micikevicius et al., 2018): halved when a gradient overflows,
    doubled after ``interval`` steps without. Two plain numbers, so that resuming goes on with the same ones.

    >>> scale = LossScale(interval=2)
    >>> scale.update(False), scale.value, scale.update(True), scale.update(True), scale.value
    (None, 32768.0, None, None, 65536.0)
    """

    value: float = 65536.0
    good_steps: int = 0
    interval: int = 2000

    def update(self, applied: bool) -> None:
        """Take note of one step."""
        self.good_steps = self.good_steps + 1 if applied else 0
        if not applied:
            self.value = max(1.0, self.value / 2)
        elif self.good_steps % self.interval == 0:
            self.value *= 2


class Runtime:
    """What a training needs to know of the processes and devices it runs on."""

    def __init__(self, accelerator: Any, dtype: torch.dtype | None, group: Any, timeout: float, patient: Any = None):
        self._accelerator = accelerator
        self._group = group
        self._patient = patient
        self._timeout = timeout
        self.dtype = dtype
        """Autocast type, or None for full precision."""
        device = accelerator.device
        if device.type == "cuda" and device.index is None:  # Accelerate's word for the first GPU on one rank
            device = devices.get_best_device()
        self.device = torch.device("cpu") if device.type == "cpu" else device
        self.rank: int = accelerator.process_index
        self.world_size: int = accelerator.num_processes
        self.scale = LossScale() if dtype == torch.float16 else None
        """Factor of the loss, for fp16 only."""

    @classmethod
    def start(
        cls, precision: Precision = "auto", timeout: float = 300.0, device: str | torch.device | None = None
    ) -> Runtime:
        """Join the other ranks, if there are any, and choose device and precision.

        ``timeout`` in seconds bounds every exchange between ranks. Raises UsageError for fp16 where it cannot be trained in.
        """
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        kind = torch.device(device).type if device is not None else devices.get_device_type()
        limit = InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))
        wrapping = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        accelerator = Accelerator(cpu=kind == "cpu", mixed_precision="no", kwargs_handlers=[limit, wrapping])
        group = patient = None
        if accelerator.num_processes > 1:
            group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
            patient = dist.new_group(backend="gloo", timeout=timedelta(seconds=max(timeout, _PATIENCE)))
        dtype = devices.autocast_dtype(accelerator.device, precision)
        return cls(accelerator, dtype, group, timeout, patient)

    @property
    def is_master(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    # ------------------------------------------------------------------ computing

    def prepare(self, model: nn.Module, compile: bool = False) -> nn.Module:
        """``model`` on the device, compiled in place if asked, wrapped if there are several ranks; same parameters."""
        model = model.to(self.device)
        if compile:
            model.compile()
        return self._accelerator.prepare_model(model) if self.world_size > 1 else model

    def unwrap(self, model: nn.Module) -> Any:
        """The plain model inside what ``prepare`` returned."""
        return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision for a forward pass."""
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Keep gradients local for a micro-batch that is not the last; holds for forward and backward."""
        return self._accelerator.no_sync(model) if self.world_size > 1 else contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of ``loss``, scaled where fp16 would lose small ones."""
        (loss if self.scale is None else loss * self.scale.value).backward()

    def gradients(self, optimizer: Optimizer) -> list[Tensor]:
        """The gradients of all parameters that have one, with the loss's scale taken out."""
        found = [p.grad for group in optimizer.groups for p in group["params"] if p.grad is not None]
        if self.scale is not None:
            torch._foreach_mul_(found, 1.0 / self.scale.value)  # pyright: ignore[reportPrivateImportUsage]
        return found

    # ------------------------------------------------------------------ statistics

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks, in float64; the same bits on every rank."""
        if self.world_size == 1:
            return [float(value) for value in values]
        tensor = torch.tensor(values, dtype=torch.float64)
        with self._watch("adding up"):
            dist.all_reduce(tensor, group=self._group)
        return tensor.tolist()

    def sum_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Small tensors summed over the ranks, each where it was; the same names and shapes on every rank."""
        if self.world_size == 1:
            return dict(tensors)
        flat = torch.cat([tensor.reshape(-1).cpu().double() for tensor in tensors.values()])
        with self._watch("adding up"):
            dist.all_reduce(flat, group=self._group)
        pieces = flat.split([tensor.numel() for tensor in tensors.values()])
        return {
            name: piece.view(tensor.shape).to(tensor.device, tensor.dtype)
            for (name, tensor), piece in zip(tensors.items(), pieces, strict=True)
        }

    def mean(self, value: float) -> float:
        """The mean over the ranks."""
        return self.sum([value])[0] / self.world_size

    def any(self, flag: bool) -> bool:
        """Whether any rank says so: how ranks agree to stop, save or give up."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, value: Any, patient: bool = False) -> list[Any]:
        """Every rank's plain value (numbers, text, lists, mappings of these), in order of rank, on every rank.

        ``patient`` ranks wait as long as it takes while one of them reads or writes a lot; one that dies ends it all the same.
        """
        if self.world_size == 1:
            return [value]
        found: list[Any] = [None] * self.world_size
        with self._watch("gathering"):
            dist.all_gather_object(found, value, group=self._patient if patient else self._group)
        return found

    def broadcast(self, value: Any, patient: bool = False) -> Any:
        """Rank 0's value on every rank."""
        return self.gather(value if self.is_master else None, patient)[0]

    def meet(self) -> None:
        """Wait, patiently, until all ranks are here."""
        self.gather(None, patient=True)

    def barrier(self, timeout: float | None = None) -> None:
        """Wait until all ranks are here. Raises RankLost, naming who is missing, after ``timeout`` seconds."""
        if self.world_size > 1:
            with self._watch("waiting"):
                dist.monitored_barrier(self._group, timedelta(seconds=timeout or self._timeout), wait_all_ranks=True)

    @contextlib.contextmanager
    def _watch(self, doing: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.lost(error, doing) from error

    def lost(self, error: RuntimeError, doing: str) -> RankLost:
        """What to raise for an exchange between ranks that failed."""
        reason = str(error).splitlines()[0][:200]
        return RankLost(
            f"rank {self.rank} of {self.world_size} lost another rank while {doing} (limit {self._timeout:g} s, train.timeout): "
            f"{reason}; look at that rank's log and continue from the latest checkpoint"
        )

    def is_exchange_error(self, error: RuntimeError) -> bool:
        """Whether ``error`` came out of an exchange between ranks inside the backward pass."""
        words = ("gloo", "Connection", "Timed out", "timed out", "NCCL", "Broken pipe", "ProcessGroup")
        return self.world_size > 1 and any(word in str(error) for word in words)

    def abandon(self, error: Exception) -> NoReturn:
        """Say what happened, of a defect also where, and end the process without the orderly end that would wait for others."""
        log = current_log()
        text = str(error)
        if not isinstance(error, LichenError):
            text = f"rank {self.rank}: {''.join(traceback.format_exception(error))}this is a defect of lichen"
        print(f"error: {text}{f' (log: {log})' if log else ''}", file=sys.stderr)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_status if isinstance(error, LichenError) else 1)

    def close(self) -> None:
        """Leave the process group."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
