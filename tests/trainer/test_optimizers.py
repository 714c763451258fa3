"""Which parameter is updated by which rule, and what decays."""

from typing import Any

import pytest
import torch
from torch import nn

from lichen.config.model import ModelConfig
from lichen.config.training import OptimConfig
from lichen.core.batch import Batch
from lichen.model.language_model import LanguageModel, initialise
from lichen.trainer.optimizers import StackedMuon, make_optimizer
from lichen.trainer.state import load_optimizer_state, optimizer_state_to_tensors


def model(tied: bool = False, **feed_forward: Any) -> LanguageModel:
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"feed_forward": feed_forward} if feed_forward else {}
    return initialise(LanguageModel(ModelConfig.from_data({**sizes, "tie_word_embeddings": tied, **more})), 0)


EXPERTS = {"kind": "moe", "num_experts": 4}
TABLE = {"kind": "product_key", "num_keys": 4, "top_k": 2, "key_dim": 4, "value_dim": 8, "lr_scale": 10.0}


def groups(name: str, **more) -> list[tuple[str, float, set[str]]]:
    optimizer = make_optimizer(model(), OptimConfig.from_data({"name": name, **more}))
    return [
        (type(part).__name__, group["weight_decay"], set(group["names"]))
        for part in optimizer.parts
        for group in part.param_groups
    ]


def test_only_matrices_decay():
    (_, decay, matrices), (_, none, others) = groups("adamw")
    assert (decay, none) == (0.1, 0.0)
    assert "lm_head.weight" in matrices and "model.layers.0.self_attn.q_proj.weight" in matrices
    assert "model.embed_tokens.weight" in others and "model.norm.weight" in others
    assert not matrices & others
    assert "model.embed_tokens.weight" in groups("adamw", decay_embeddings=True)[0][2]


def test_adam_decays_nothing():
    assert [decay for _, decay, _ in groups("adam")] == [0.0]


def test_muon_takes_the_matrices_of_the_blocks():
    found = groups("muon")
    assert [rule for rule, _, _ in found] == ["Muon", "AdamW", "AdamW"]
    assert all(name.startswith("model.layers.") and name.endswith("_proj.weight") for name in found[0][2])
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= found[1][2] | found[2][2]


def test_every_parameter_once_and_tied_ones_too():
    for name in ("adamw", "adam", "muon", "sgd"):
        network = model(tied=True)
        optimizer = make_optimizer(network, OptimConfig(name=name))
        held = [parameter for group in optimizer.groups for parameter in group["params"]]
        assert {id(parameter) for parameter in held} == {id(parameter) for parameter in network.parameters()}
        assert len(held) == len(list(network.parameters()))


def test_frozen_parameters_are_left_out():
    network = model()
    network.model.embed_tokens.weight.requires_grad_(False)
    names = [name for group in make_optimizer(network, OptimConfig()).groups for name in group["names"]]
    assert "model.embed_tokens.weight" not in names


def test_adamw_is_the_formula():
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(layer, OptimConfig(lr=0.1, weight_decay=0.5))
    layer.weight.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    optimizer.set_lr(0.1)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5) - 0.1 * layer.weight.grad.sign())
    optimizer.zero_grad()
    assert layer.weight.grad is None


def test_every_rule_lowers_a_loss():
    for name in ("adamw", "adam", "muon", "sgd"):
        layer = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
        inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
        optimizer = make_optimizer(layer, OptimConfig(name=name))
        losses = []
        for _ in range(30):
            loss = (layer(inputs) - inputs.sum(1, keepdim=True)).square().mean()
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.set_lr(0.01)
            optimizer.step()
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["adamw", "adam", "muon", "sgd"])
def test_a_table_has_its_own_learning_rate_no_decay_and_never_muon(name: str) -> None:
    optimizer = make_optimizer(model(**TABLE), OptimConfig.from_data({"name": name}))
    optimizer.set_lr(0.5)
    found = {n: (group, part) for part in optimizer.parts for group in part.param_groups for n in group["names"]}
    group, part = found["shared.values_4x4x8.weight"]
    assert group["lr"] == 5.0 and group["weight_decay"] == 0.0 and not isinstance(part, torch.optim.Muon)
    group, part = found["model.layers.1.mlp.keys.halves"]
    assert group["lr"] == 0.5 and group["weight_decay"] == 0.0 and not isinstance(part, torch.optim.Muon)
    group, part = found["model.layers.1.mlp.query_proj.weight"]
    assert group["lr"] == 0.5 and isinstance(part, torch.optim.Muon) == (name == "muon")


def test_muon_takes_every_expert_by_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 12, 8), (3, 8, 12)):
        stack = nn.Parameter(torch.randn(shape, generator=generator))
        single = [nn.Parameter(matrix.clone()) for matrix in stack.detach()]
        ours = StackedMuon([{"params": [stack], "weight_decay": 0.1}], 0.02, 0.95, 5)
        theirs = torch.optim.Muon(single, 0.02, 0.1, 0.95, ns_steps=5, adjust_lr_fn="match_rms_adamw")
        for _ in range(3):
            stack.grad = torch.randn(shape, generator=generator)
            for parameter, gradient in zip(single, stack.grad, strict=True):
                parameter.grad = gradient.clone()
            before = stack.detach().clone()
            ours.step()
            theirs.step()
            together = torch.stack([parameter.detach() for parameter in single])
            torch.testing.assert_close(stack.detach(), together, atol=2e-4, rtol=0)
            assert (stack.detach() - before).abs().mean() > 2e-3


def test_an_expert_without_tokens_stays_where_it_is_under_muon() -> None:
    stack = nn.Parameter(torch.ones(2, 4, 4))
    optimizer = StackedMuon([{"params": [stack]}], 0.1, 0.95, 5)
    stack.grad = torch.stack([torch.zeros(4, 4), torch.eye(4)])
    optimizer.step()
    assert torch.equal(stack[0].detach(), torch.ones(4, 4)) and not torch.equal(stack[1].detach(), torch.ones(4, 4))


@pytest.mark.parametrize("section", [EXPERTS, TABLE], ids=["experts", "table"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_what_was_remembered_is_loaded_again(name: str, section: dict[str, Any]) -> None:
    def step(network: LanguageModel, optimizer: Any) -> None:
        optimizer.zero_grad()
        network(Batch.of_tokens(torch.arange(48).view(4, 12))).nll.mean().backward()
        optimizer.set_lr(0.01)
        optimizer.step()

    first = model(**section)
    optimizer = make_optimizer(first, OptimConfig.from_data({"name": name}))
    if section is EXPERTS:
        assert any(isinstance(part, StackedMuon) for part in optimizer.parts) == (name == "muon")
    step(first, optimizer)
    saved = {key: value.clone() for key, value in optimizer_state_to_tensors(first, optimizer.parts).items()}
    second = model(**section)
    second.load_state_dict(first.state_dict())
    other = make_optimizer(second, OptimConfig.from_data({"name": name}))
    load_optimizer_state(second, other.parts, saved)
    step(first, optimizer)
    step(second, other)
    for (key, one), two in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(one, two), key
