"""Where the computing happens: the only place that knows devices and their rules.

cuda before mps before cpu, unless ``LICHEN_DEVICE`` says otherwise. bf16 where the device computes in it, no automatic
lower precision on MPS, fp16 on CUDA only (a CPU takes it at a two-hundredth of the speed). Nothing here touches a device that is
not there.

>>> get_device_type(torch.device("cpu"))
'cpu'
>>> default_workers(torch.device("cpu"))
0
"""

from __future__ import annotations

import os
from typing import Literal

import torch

from lichen.config.errors import UsageError, nearest
from lichen.core import environment
from lichen.core.allocation import keep_freed_memory

Precision = Literal["auto", "bf16", "fp16", "fp32"]


def get_best_device() -> torch.device:
    """The best device of this process: the local rank's GPU, else MPS, else the CPU. ``LICHEN_DEVICE`` overrides."""
    wanted = environment.variable("LICHEN_DEVICE")
    if wanted:
        return _named(wanted)
    if torch.cuda.is_available():
        return _gpu_of_this_rank()
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _named(name: str) -> torch.device:
    available = [kind for kind in ("cuda", "mps", "cpu") if is_available(kind)]
    if name.split(":")[0] not in available:
        raise UsageError(f"LICHEN_DEVICE={name}: this machine has no such device{nearest(name, available)}")
    return _gpu_of_this_rank() if name == "cuda" else torch.device(name)


def _gpu_of_this_rank() -> torch.device:
    return torch.device("cuda", environment.local_rank() % device_count())


def is_available(kind: str) -> bool:
    """Whether a device of this kind is here and torch can use it."""
    return (
        kind == "cpu"
        or (kind == "cuda" and torch.cuda.is_available())
        or (kind == "mps" and torch.backends.mps.is_available())
    )


def get_device_type(device: torch.device | None = None) -> str:
    """``cuda``, ``mps`` or ``cpu``."""
    return (device or get_best_device()).type


def device_count() -> int:
    """How many devices of the best kind there are, at most ``NUM_GPUS_OVERRIDE``; 1 without a GPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 1
    override = environment.variable("NUM_GPUS_OVERRIDE")
    return max(1, min(count, int(override))) if override and override.isdigit() else count


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16 faster than in fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(getattr(torch.cpu, name, lambda: False)() for name in _CPU_BF16)
    return False


_CPU_BF16 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """The dtype to autocast to, or None for plain fp32. Raises UsageError where the device cannot do what is asked."""
    if precision == "auto":
        return torch.bfloat16 if has_bf16(device) else None
    if precision == "fp32":
        return None
    if precision == "fp16" and device.type != "cuda":
        raise UsageError(
            f"precision fp16 on {device.type}: it is two hundred times slower there; use bf16, fp32 or auto"
        )
    if precision == "bf16" and device.type == "mps":
        raise UsageError("precision bf16 on mps: autocast to it is not dependable there; use fp32 or auto")
    return torch.float16 if precision == "fp16" else torch.bfloat16


def needs_scaler(device: torch.device, dtype: torch.dtype | None) -> bool:
    """Only fp16 gradients underflow; bf16 has fp32's range."""
    return device.type == "cuda" and dtype is torch.float16


def pin_memory(device: torch.device) -> bool:
    """Pinned host memory speeds up copies to CUDA and to nothing else."""
    return device.type == "cuda"


def default_workers(device: torch.device) -> int:
    """Loader processes unless set: on a CPU they would take the cores the training needs; on MPS they cost more than help."""
    return min(4, os.cpu_count() or 1) if device.type == "cuda" else 0


def configure(device: torch.device, threads: int | None = None, precision: Precision = "auto") -> None:
    """Process-wide settings, once at the start: threads (None leaves them), on CUDA the device and the precision of fp32
    matrix products: TF32, unless ``precision`` fp32 asks for all of it."""
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "ieee" if precision == "fp32" else "tf32"
        torch.cuda.set_device(device)


def seed_everything(seed: int) -> None:
    """Seed what is there. Draws that matter come from ``core.streams``; this covers libraries that draw behind our back."""
    import random

    import numpy

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, for timings."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def allocated_bytes(device: torch.device) -> int | None:
    """The most memory this process has had allocated on the device, or None where the device is the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return None


def describe(device: torch.device) -> str:
    """The device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return environment.processor() if device.type == "cpu" else "Apple GPU (mps)"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
