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


def test_a_gpu_always_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device.get_best_device() == torch.device("cuda", 3)
    monkeypatch.setenv("NUM_GPUS_OVERRIDE", "2")
    assert device.get_best_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LICHEN_DEVICE", "cuda")
    assert device.get_best_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LICHEN_DEVICE", "cuda:2")
    assert device.get_best_device() == torch.device("cuda", 2)


@pytest.mark.parametrize(("precision", "products"), [("auto", "tf32"), ("bf16", "tf32"), ("fp32", "ieee")])
def test_fp32_means_fp32_on_cuda(monkeypatch: pytest.MonkeyPatch, precision: device.Precision, products: str) -> None:
    before, chosen = torch.backends.cuda.matmul.fp32_precision, []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    try:
        device.configure(torch.device("cuda", 1), precision=precision)
        assert torch.backends.cuda.matmul.fp32_precision == products and chosen == [torch.device("cuda", 1)]
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_threads_are_set_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    device.configure(CPU)
    device.configure(CPU, threads=3)
    assert asked == [3]
