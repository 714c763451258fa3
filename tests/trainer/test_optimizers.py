"""Which parameter is updated by which rule, and what decays."""

import torch
from torch import nn

from lichen.config.model import ModelConfig
from lichen.config.training import OptimConfig
from lichen.model.language_model import LanguageModel, initialise
from lichen.trainer.optimizers import make_optimizer


def model(tied: bool = False) -> LanguageModel:
    config = ModelConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=tied
    )
    return initialise(LanguageModel(config), 0)


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
