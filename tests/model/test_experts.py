"""Mixtures of experts: what a token gets, what is counted, and that experts become evenly used.

Parity with transformers is in test_parity, files in test_weights, what all variants have in common in test_variants.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lichen.config.errors import ConfigError
from lichen.config.model import ModelConfig
from lichen.core.batch import PADDING_SEGMENT, Batch
from lichen.model import experts
from lichen.model.experts import MixtureOfExperts
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.layout import Layout
from lichen.model.rope import Rope

SIZES: dict[str, Any] = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def config_of(**section: Any) -> ModelConfig:
    return ModelConfig.from_data({**SIZES, "feed_forward": {"kind": "moe", "num_experts": 4, **section}})


def mixture(**section: Any) -> MixtureOfExperts:
    part = initialise(LanguageModel(config_of(**section)), seed=0).model.layers[0].mlp
    assert isinstance(part, MixtureOfExperts)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.mul_(20)
    return part


def layout_of(rows: int, width: int, padding: int = 0) -> Layout:
    batch = Batch.of_tokens(torch.zeros(rows, width, dtype=torch.long))
    if padding:
        batch.segments[:, -padding:] = PADDING_SEGMENT
        batch.lengths = ((width - padding,),) * rows
    return Layout.of(batch, Rope(config_of()), dtype=torch.float32)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(part: MixtureOfExperts, x: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    section, banks, y = part.section, part.experts, torch.zeros_like(x)
    for row, token in enumerate(x):
        logits = part.gate.weight @ token
        scores = logits.softmax(0) if section.scoring == "softmax" else logits.sigmoid()
        bias = part.gate.e_score_correction_bias if section.balance == "bias" else 0
        chosen = (scores + bias).argsort(descending=True)[: section.num_experts_per_tok]
        weights = scores[chosen] / (scores[chosen].sum() if section.norm_topk_prob else 1)
        for weight, number in zip(weights, chosen, strict=True):
            inner = F.silu(banks.gate_proj[number] @ token) * (banks.up_proj[number] @ token)
            y[row] += weight * (banks.down_proj[number] @ inner)
        if part.shared_experts is not None:
            y[row] += part.shared_experts(token, None)[0]
    return y


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"num_experts_per_tok": 1, "norm_topk_prob": False},
        {"num_experts_per_tok": 3, "scoring": "sigmoid"},
        {"scoring": "sigmoid", "norm_topk_prob": False, "balance": "bias", "num_shared_experts": 2},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(section: dict[str, Any]) -> None:
    part = mixture(**section)
    if part.section.balance == "bias":
        part.gate.e_score_correction_bias.copy_(torch.tensor([0.3, -0.3, 0.0, 0.1]))
    x, upstream = random(2, 7, 16), random(2, 7, 16, seed=2)
    results = []
    for forward in (lambda x: part(x, layout_of(2, 7))[0], lambda x: by_hand(part, x.flatten(0, 1)).view(x.shape)):
        part.zero_grad()
        leaf = x.clone().requires_grad_()
        y = forward(leaf)
        (y * upstream).sum().backward()
        gradients = {name: parameter.grad for name, parameter in part.named_parameters()}
        results.append({"y": y.detach(), "x": leaf.grad, **gradients})
    assert all(value is not None and value.abs().sum() > 0 for value in results[0].values())
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_the_grouped_product_computes_what_the_loop_computes() -> None:
    if not hasattr(F, "grouped_mm"):
        pytest.skip("this torch has no grouped_mm")
    rows, factors = random(10, 16), random(10, 1)
    banks = [random(4, 8, 16), random(4, 8, 16), random(4, 16, 8)]
    ends = torch.tensor([3, 3, 9, 10])
    results = []
    for way in (experts._grouped, experts._one_by_one):
        leaves = [tensor.clone().requires_grad_() for tensor in (rows, factors, *banks)]
        y = way(leaves[0], leaves[1], ends, *leaves[2:])
        y.square().sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(results[0], results[1])


def test_no_token_is_dropped_and_none_depends_on_others() -> None:
    part = mixture()
    x = random(3, 11, 16).abs()
    with torch.no_grad():
        part.gate.weight[0] += 5
        together, aux = part(x, layout_of(3, 11))
        counts = aux["tokens_per_expert"]
        assert isinstance(counts, Tensor) and counts[0] == 33, "all tokens choose the first expert"
        for row in range(3):
            for column in range(11):
                alone, _ = part(x[row : row + 1, column : column + 1], layout_of(1, 1))
                torch.testing.assert_close(alone[0, 0], together[row, column])


def test_an_unused_expert_has_zero_gradient_and_not_none() -> None:
    part = mixture(num_experts_per_tok=1, norm_topk_prob=False)
    with torch.no_grad():
        part.gate.weight.copy_(torch.eye(4, 16))
    x = torch.zeros(1, 5, 16)
    x[..., 2] = 3.0
    part(x, layout_of(1, 5))[0].sum().backward()
    for parameter in part.experts.parameters():
        assert parameter.grad is not None
        assert [bool(one.any()) for one in parameter.grad] == [False, False, True, False]


def losses(part: MixtureOfExperts, x: Tensor, layout: Layout) -> dict[str, Tensor]:
    _, aux = part(x, layout)
    return {
        name: value if isinstance(value, Tensor) else torch.stack([value[0], value[1].to(value[0])])
        for name, value in aux.items()
    }


@pytest.mark.parametrize("section", [{}, {"scoring": "sigmoid"}], ids=str)
def test_padding_is_not_in_losses_or_counts(section: dict[str, Any]) -> None:
    part, x = mixture(**section), random(3, 9, 16)
    other = x.clone()
    other[:, -4:] = 100.0
    found = [losses(part, x[:, :-4], layout_of(3, 5))] + [losses(part, t, layout_of(3, 9, 4)) for t in (x, other)]
    assert found[0]["tokens_per_expert"].sum() == 2 * 15 and found[0]["balance"][1] == 15
    for padded in found[1:]:
        torch.testing.assert_close(padded, found[0])


def test_the_balance_loss_is_mixtrals_and_z_is_the_squared_partition() -> None:
    part, x = mixture(num_experts_per_tok=3), random(2, 9, 16)
    routing: list[Any] = []
    handle = part.gate.register_forward_hook(lambda module, inputs, output: routing.append(output))
    found = losses(part, x, layout_of(2, 9))
    handle.remove()
    assert [tuple(tensor.shape) for tensor in routing[0]] == [(18, 3), (18, 3), (18, 4)], "a probe sees the choice"
    expected = load_balancing_loss_func((routing[0].logits,), 4, 3)
    torch.testing.assert_close(found["balance"][0] / 18, expected)
    torch.testing.assert_close(found["router_z"][0] / 18, routing[0].logits.logsumexp(-1).square().mean())


def skewed(balance: str) -> tuple[MixtureOfExperts, Tensor]:
    part = mixture(balance=balance, bias_update_rate=0.01)
    with torch.no_grad():
        part.gate.weight.copy_(0.2 * random(4, 16, seed=3))
        part.gate.weight[0, 0] += 1.0
    x = random(4, 64, 16)
    x[..., 0] = 2.0
    return part, x


def share_of_the_busiest(part: MixtureOfExperts, x: Tensor) -> float:
    counts = losses(part, x, layout_of(4, 64))["tokens_per_expert"]
    return (counts.max() / counts.sum()).item()


def test_the_bias_evens_out_a_skewed_router_and_changes_no_weight() -> None:
    part, x = skewed("bias")
    assert share_of_the_busiest(part, x) > 0.45
    for _ in range(120):
        part.after_step({"tokens_per_expert": losses(part, x, layout_of(4, 64))["tokens_per_expert"]})
    assert share_of_the_busiest(part, x) < 0.3
    routing = part.gate(x.flatten(0, 1))
    chosen = routing.logits.softmax(-1).gather(1, routing.indices)
    torch.testing.assert_close(routing.weights, chosen / chosen.sum(-1, keepdim=True))


def test_the_balance_loss_evens_out_a_skewed_router() -> None:
    part, x = skewed("loss")
    assert share_of_the_busiest(part, x) > 0.45
    optimizer = torch.optim.SGD([part.gate.weight], lr=0.5)
    loss = torch.zeros(())
    for _ in range(100):
        total, weight = losses(part, x, layout_of(4, 64))["balance"]
        loss = total / weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert share_of_the_busiest(part, x) < 0.3
    assert loss.item() == pytest.approx(2, abs=0.1), "k where all are used evenly"


def test_the_bias_lives_in_the_checkpoint_and_only_where_it_is_used() -> None:
    names = {balance: mixture(balance=balance).state_dict().keys() for balance in ("bias", "loss", "none")}
    assert names["bias"] - names["loss"] == {"gate.e_score_correction_bias"} and names["loss"] == names["none"]
    assert not any(isinstance(value, nn.Parameter) for value in mixture(balance="bias").buffers())


def test_a_router_that_could_not_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="no gradient"):
        config_of(num_experts_per_tok=1)
    with pytest.raises(ConfigError, match="num_experts = 1"):
        config_of(num_experts=1, num_experts_per_tok=1, norm_topk_prob=False)


def test_experts_begin_as_dense_layers_do() -> None:
    sizes = {**SIZES, "hidden_size": 64}
    dense = initialise(LanguageModel(ModelConfig.from_data(sizes)), 0).state_dict()
    config = ModelConfig.from_data({**sizes, "feed_forward": {"kind": "moe", "num_experts": 4}})
    mixed = initialise(LanguageModel(config), 0).state_dict()
    for name in ("gate_proj", "up_proj", "down_proj"):
        wanted = dense[f"model.layers.0.mlp.{name}.weight"].std().item()
        assert mixed[f"model.layers.0.mlp.experts.{name}"].std().item() == pytest.approx(wanted, rel=0.05)
