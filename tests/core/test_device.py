"""Device rules that hold without the devices."""

import pytest
import torch

from lichen.config.errors import UsageError
from lichen.core import device

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


def test_half_precision_is_refused_where_it_is_slow_or_unsafe() -> None:
    with pytest.raises(UsageError, match="fp16 on cpu"):
        device.autocast_dtype(CPU, "fp16")
    with pytest.raises(UsageError, match="bf16 on mps"):
        device.autocast_dtype(MPS, "bf16")
    assert device.autocast_dtype(MPS, "auto") is None
    assert device.autocast_dtype(CUDA, "fp16") is torch.float16
    assert device.autocast_dtype(CPU, "fp32") is None


def test_only_fp16_on_cuda_needs_a_scaler() -> None:
    assert device.needs_scaler(CUDA, torch.float16)
    assert not device.needs_scaler(CUDA, torch.bfloat16)


def test_host_rules() -> None:
    assert not device.pin_memory(CPU) and device.pin_memory(CUDA)
    assert device.default_workers(MPS) == 0
    assert device.allocated_bytes(CPU) is None


def test_an_unknown_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHEN_DEVICE", "cpuu")
    with pytest.raises(UsageError, match="LICHEN_DEVICE=cpuu"):
        device.get_best_device()
    monkeypatch.setenv("LICHEN_DEVICE", "cpu")
    assert device.get_best_device() == CPU
    assert device.get_device_type() == "cpu"
