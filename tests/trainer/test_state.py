"""The state survives the disk exactly, and so do the optimizers' moments, under any grouping."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from lichen.config.errors import LichenError
from lichen.config.training import EarlyStoppingConfig
from lichen.trainer.state import State, load_optimizer_state, optimizer_state_to_tensors


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 2))


def make_optimizers(kind: str, model: nn.Module) -> list[torch.optim.Optimizer]:
    parameters = list(model.parameters())
    matrices, others = [p for p in parameters if p.dim() == 2], [p for p in parameters if p.dim() != 2]
    if kind == "muon":
        return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.01)]
    if kind == "sgd":
        return [torch.optim.SGD(parameters, lr=0.1, momentum=0.9)]
    if kind == "plain sgd":
        return [torch.optim.SGD(parameters, lr=0.1)]
    if kind == "fused":
        return [torch.optim.AdamW(parameters, lr=0.01, fused=True)]
    if kind == "groups":
        groups = [{"params": others, "weight_decay": 0.0}, {"params": matrices, "weight_decay": 0.1}]
        return [torch.optim.AdamW(groups, lr=0.01)]
    return [{"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[kind](parameters, lr=0.01)]


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
    for step in steps:
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["adamw", "adam", "fused", "sgd", "plain sgd", "muon", "groups"])
def test_a_training_continued_equals_one_unbroken_to_the_bit(kind: str):
    unbroken = make_model()
    train(unbroken, make_optimizers(kind, unbroken), range(6))
    first = make_model()
    optimizers = make_optimizers(kind, first)
    train(first, optimizers, range(3))
    weights = {k: v.clone() for k, v in first.state_dict().items()}
    moments = {k: v.clone() for k, v in optimizer_state_to_tensors(first, optimizers).items()}
    second = make_model(seed=1)
    second.load_state_dict(weights)
    optimizers = make_optimizers(kind, second)
    load_optimizer_state(second, optimizers, moments)
    train(second, optimizers, range(3, 6))
    for name, value in second.state_dict().items():
        assert torch.equal(value, unbroken.state_dict()[name]), name


def test_names_shapes_and_other_groups():
    model = make_model()
    optimizers = make_optimizers("adamw", model)
    train(model, optimizers, range(2))
    tensors = optimizer_state_to_tensors(model, optimizers)
    assert tensors["exp_avg/0.weight"].shape == (8, 4) and tensors["step/1.bias"].item() == 2
    wrapped = nn.ModuleDict({"module": model})
    assert optimizer_state_to_tensors(wrapped, optimizers).keys() == tensors.keys()
    other = make_optimizers("groups", model)
    load_optimizer_state(model, other, tensors)
    again = optimizer_state_to_tensors(model, other)
    assert all(torch.equal(again[k], tensors[k]) for k in tensors)
    assert other[0].param_groups[0]["weight_decay"] == 0.0  # what the config says stays


def test_nothing_is_remembered_before_the_first_step():
    model = make_model()
    optimizers = make_optimizers("adamw", model)
    tensors = optimizer_state_to_tensors(model, optimizers)
    assert {key.split("/")[0] for key in tensors} == {"none"}
    load_optimizer_state(model, optimizers, tensors)
    train(model, optimizers, range(1))


def test_loaded_moments_do_not_share_memory_with_the_file():
    model = make_model()
    optimizers = make_optimizers("adamw", model)
    train(model, optimizers, range(1))
    tensors = {k: v.clone() for k, v in optimizer_state_to_tensors(model, optimizers).items()}
    before = {k: v.clone() for k, v in tensors.items()}
    load_optimizer_state(model, optimizers, tensors)
    train(model, optimizers, range(1))
    assert all(torch.equal(before[k], tensors[k]) for k in tensors)


@pytest.mark.parametrize("break_", ["missing", "unknown", "shape"])
def test_other_parameters_are_refused_and_nothing_changes(break_: str):
    model = make_model()
    optimizers = make_optimizers("adamw", model)
    train(model, optimizers, range(1))
    tensors = optimizer_state_to_tensors(model, optimizers)
    before = {k: v.clone() for k, v in tensors.items()}
    wrong = {k: v * 2 for k, v in tensors.items()}
    if break_ == "missing":
        wrong = {k: v for k, v in wrong.items() if not k.endswith("/2.bias")}
    elif break_ == "unknown":
        wrong["exp_avg/3.weight"] = torch.zeros(1)
    else:
        wrong["exp_avg/2.bias"] = torch.zeros(3)
    with pytest.raises(LichenError, match="optimizer state: "):
        load_optimizer_state(model, optimizers, wrong)
    after = optimizer_state_to_tensors(model, optimizers)
    assert all(torch.equal(after[k], before[k]) for k in before)


class Counting(torch.optim.SGD):
    """Remembers Python numbers, as optimizers of other libraries do."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"], state["share"] = state.get("count", 0) + 1, 0.1


def test_python_numbers_keep_their_type_and_value():
    model = make_model()
    optimizer = Counting(model.parameters(), lr=0.1)
    train(model, [optimizer], range(2))
    tensors = optimizer_state_to_tensors(model, optimizer)
    fresh = Counting(model.parameters(), lr=0.1)
    load_optimizer_state(model, fresh, tensors)
    state = fresh.state[next(model.parameters())]
    assert (state["count"], type(state["count"]), state["share"]) == (2, int, 0.1)


FULL = State(
    step=7,
    best_metric="loss",
    best_score=0.1 + 0.2,
    best_step=5,
    patience_left=2,
    moving_means={"loss": {"values": [0.1, 1e-300], "n": 3}},
    seconds={"train": 1.5},
    reason="interrupted",
)


def test_json_and_back_exactly():
    assert State.from_json(FULL.to_json()) == FULL
    assert State.from_json(State().to_json()) == State()


def test_every_key_is_required_and_no_other_known():
    data = json.loads(FULL.to_json())
    for field in dataclasses.fields(State):
        with pytest.raises(LichenError, match=f"missing: {field.name};"):
            State.from_json(json.dumps({k: v for k, v in data.items() if k != field.name}))
    with pytest.raises(LichenError, match=r"unknown: stepp \(nearest: step"):
        State.from_json(json.dumps({**data, "stepp": 1}))


@pytest.mark.parametrize(
    ("key", "value"), [("step", "7"), ("step", 7.5), ("step", True), ("scaler", []), ("reason", None)]
)
def test_wrong_types_are_named(key: str, value: object):
    with pytest.raises(LichenError, match=f"{key}: .* is no "):
        State.from_json(json.dumps({**json.loads(FULL.to_json()), key: value}))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000])
def test_what_is_no_state_at_all(text: str):
    with pytest.raises(LichenError, match=r"state\.json: not "):
        State.from_json(text)


def test_the_best_is_the_best_by_any_margin_and_patience_asks_for_more():
    state, stopping = State(), EarlyStoppingConfig(enabled=True, patience=2, min_delta=0.5)
    for step, loss in enumerate((5.0, 4.8, 4.4, 4.3), 1):
        state.step = step
        state.judge("loss", loss, stopping)
    assert (state.best_step, state.best_score, state.patience_score, state.patience_left) == (4, 4.3, 4.4, 1)
    state.judge("loss", float("nan"), stopping)
    assert (state.best_step, state.patience_left) == (4, 0)
    state.judge("loss", 9.0, EarlyStoppingConfig(enabled=False))
    assert (state.best_score, state.patience_left) == (4.3, None)
