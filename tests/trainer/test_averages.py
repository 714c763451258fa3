"""Averaged weights: the formula, the swap, the disk."""

import pytest
import torch
from torch import nn

from lichen.config.errors import LichenError
from lichen.trainer.averages import Averages


def walk(model: nn.Module, averages: Averages, steps: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    path = []
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator).to(p.dtype))
        averages.update()
        path.append(next(model.parameters()).detach().double().clone())
    return path


@pytest.mark.parametrize("warm_up", [True, False])
def test_the_average_is_the_formulas(warm_up: bool):
    model = nn.Linear(3, 2)
    expected = model.weight.detach().double().clone()
    averages = Averages(model, 0.9, warm_up)
    for n, weight in enumerate(walk(model, averages, 50)):
        decay = min(0.9, (1 + n) / (10 + n)) if warm_up else 0.9
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averages.tensors()["weight"].double(), expected, rtol=1e-5, atol=1e-5)


def test_small_changes_of_bf16_weights_are_not_lost():
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    averages = Averages(model, 0.999, warm_up=False)
    start = averages.tensors()["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1)
    for _ in range(3):
        averages.update()
    moved = (averages.tensors()["weight"] - start).item()
    assert averages.tensors()["weight"].dtype == torch.float32 and 0.0029 < moved < 0.0031


def test_swapping_is_exact_also_when_the_block_fails_and_keeps_the_tensors_in_place():
    model = nn.Linear(3, 2)
    averages = Averages(model)
    walk(model, averages, 3)
    before, place = model.weight.detach().clone(), model.weight.data_ptr()
    with pytest.raises(KeyError), averages.swapped_in():
        assert torch.equal(model.weight, averages.tensors()["weight"]) and not torch.equal(model.weight, before)
        assert model.weight.data_ptr() == place
        raise KeyError
    assert torch.equal(model.weight, before) and model.weight.data_ptr() == place


def test_continuing_from_the_disk_is_exact():
    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    unbroken = fresh()
    whole = Averages(unbroken, 0.95)
    walk(unbroken, whole, 3)
    saved = {k: v.clone() for k, v in whole.tensors().items()}
    second = Averages(fresh(), 0.95)
    second.load(saved)
    assert second.updates == 3
    walk(unbroken, whole, 1, seed=7)
    with torch.no_grad():
        for mine, theirs in zip(second._parameters.values(), unbroken.parameters(), strict=True):
            mine.copy_(theirs)
    second.update()
    assert all(torch.equal(second.tensors()[k], v) for k, v in whole.tensors().items())


def test_frozen_parameters_are_not_averaged_and_strangers_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    model[1].requires_grad_(True)
    averages = Averages(model)
    saved = averages.tensors()
    assert saved.keys() == {"updates", "1.weight", "1.bias"}
    for wrong in ({**saved, "0.weight": torch.zeros(2, 2)}, {**saved, "1.bias": torch.zeros(3)}, {}):
        with pytest.raises(LichenError, match="averages: "):
            averages.load(wrong)
    with pytest.raises(ValueError, match="decay"):
        Averages(model, 1.0)
