"""The search is exact, the read is the definition's, tables are shared by shape and counted truthfully."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lichen.config.errors import ConfigError
from lichen.config.model import ModelConfig
from lichen.core.batch import PADDING_SEGMENT, Batch
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.layout import Layout
from lichen.model.product_key import ProductKeyMemory, ProductKeys, Values
from lichen.model.rope import Rope
from lichen.model.size import count, flops_per_token

SIZES: dict[str, Any] = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SECTION: dict[str, Any] = {"kind": "product_key", "num_keys": 6, "heads": 3, "key_dim": 8, "top_k": 4}


def model_of(**section: Any) -> LanguageModel:
    config = ModelConfig.from_data({**SIZES, "feed_forward": {**SECTION, **section}})
    return initialise(LanguageModel(config), seed=0)


def memory(model: LanguageModel, layer: int = 0) -> ProductKeyMemory:
    part = model.model.layers[layer].mlp
    assert isinstance(part, ProductKeyMemory)
    return part


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layout_of(model: LanguageModel, rows: int, width: int, padding: int = 0) -> Layout:
    batch = Batch.of_tokens(torch.zeros(rows, width, dtype=torch.long))
    if padding:
        batch.segments[:, -padding:] = PADDING_SEGMENT
        batch.lengths = ((width - padding,),) * rows
    rope = Rope(ModelConfig(hidden_size=16, num_attention_heads=2))
    return Layout.of(batch, rope, dtype=torch.float32, shared=dict(model.shared.items()))


@pytest.mark.parametrize("top_k", [1, 2, 7, 12])
@pytest.mark.parametrize("num_keys", [12, 33])
def test_the_search_finds_the_best_of_all_keys(num_keys: int, top_k: int) -> None:
    keys = ProductKeys(heads=2, num_keys=num_keys, key_dim=6, top_k=top_k)
    with torch.no_grad():
        keys.halves.copy_(random(2, 2, num_keys, 3))
    queries = random(50, 2, 6, seed=2)
    scores, rows = keys(queries)
    whole = torch.cat(  # every one of the num_keys² keys, written out
        [
            keys.halves[0][:, :, None].expand(-1, -1, num_keys, -1),
            keys.halves[1][:, None].expand(-1, num_keys, -1, -1),
        ],
        dim=-1,
    ).flatten(1, 2)
    every = torch.einsum("nhd,hkd->nhk", queries, whole)
    expected = every.topk(top_k, dim=-1)
    torch.testing.assert_close(scores, expected.values)
    torch.testing.assert_close(every.gather(-1, rows), scores)
    assert torch.equal(rows, expected.indices)


@pytest.mark.parametrize(
    "section",
    [{}, {"query_norm": False}, {"gate": False}, {"value_dim": 10}, {"share_values": False, "top_k": 2}],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_definition(section: dict[str, Any]) -> None:
    model = model_of(**section)
    part = memory(model)
    values = part.values or model.shared[part.table]
    assert isinstance(values, Values)

    def by_hand(x: Tensor) -> Tensor:
        queries = part.query_proj(x).view(-1, 3, 2, 4)
        if part.query_norm is not None:
            queries = queries / queries.square().mean(-1, keepdim=True).add(1e-5).sqrt() * part.query_norm.weight
        one, two = (torch.einsum("nhd,hkd->nhk", queries[:, :, side], part.keys.halves[side]) for side in (0, 1))
        every = (one[..., None] + two[:, :, None]).flatten(2)
        best = every.topk(part.section.top_k, dim=-1)
        weights = torch.zeros_like(every).scatter(-1, best.indices, best.values.softmax(-1))
        y = weights.sum(1) @ values.weight
        y = y * F.silu(x @ part.gate_proj.weight.t()) if part.gate_proj is not None else y
        return y @ part.out_proj.weight.t() if part.out_proj is not None else y

    x, upstream = random(2, 9, 16), random(2, 9, 16, seed=2)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.mul_(3)
    results = []
    for forward in (lambda x: part(x, layout_of(model, 2, 9))[0], lambda x: by_hand(x.flatten(0, 1)).view(x.shape)):
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        y = forward(leaf)
        (y * upstream).sum().backward()
        named = {**dict(part.named_parameters()), "table": values.weight}
        results.append({"y": y.detach(), "x": leaf.grad, **{name: p.grad for name, p in named.items()}})
    assert all(value is not None and bool(value.any()) for value in results[0].values())
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_a_single_value_whose_key_could_not_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="top_k = 1"):
        model_of(top_k=1)


def test_layers_share_a_table_by_its_shape() -> None:
    other = {**SECTION, "num_keys": 5}
    layers = {"num_hidden_layers": 4, "feed_forward": SECTION, "feed_forward_by_layer": {"2": other}}
    model = LanguageModel(ModelConfig.from_data({**SIZES, **layers}))
    assert {name: tuple(p.shape) for name, p in model.shared.named_parameters()} == {
        "values_6x6x16.weight": (36, 16),
        "values_5x5x16.weight": (25, 16),
    }
    own = LanguageModel(ModelConfig.from_data({**SIZES, "feed_forward": {**SECTION, "share_values": False}}))
    assert not list(own.shared.parameters())
    assert sum(name.endswith("mlp.values.weight") for name, _ in own.named_parameters()) == 2


def test_layers_that_share_cannot_want_different_learning_rates() -> None:
    layers = {"feed_forward": SECTION, "feed_forward_by_layer": {"1": {**SECTION, "lr_scale": 4.0}}}
    with pytest.raises(ConfigError, match=r"36 values have lr_scale 1\.0 and 4\.0"):
        LanguageModel(ModelConfig.from_data({**SIZES, **layers}))


def test_reads_are_counted_by_half_key_without_padding() -> None:
    model = model_of()
    part, x = memory(model), random(2, 9, 16)
    seen: list[Any] = []
    handle = part.keys.register_forward_hook(lambda module, inputs, output: seen.append(output))
    counts = part(x, layout_of(model, 2, 9, padding=3))[1]["reads_per_half_key"]
    handle.remove()
    rows = seen[0][1].reshape(2, 9, -1)[:, :6]
    assert isinstance(counts, Tensor) and counts.shape == (2, 6)
    assert torch.equal(counts[0], torch.bincount(rows.flatten() // 6, minlength=6))
    assert torch.equal(counts[1], torch.bincount(rows.flatten() % 6, minlength=6))


def test_values_have_norm_one_and_half_keys_lamples_bound_at_first() -> None:
    model = model_of(num_keys=40)
    values = model.shared["values_40x40x16"].get_parameter("weight")
    assert values.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    halves = memory(model).keys.halves
    assert 0.45 < halves.abs().max().item() <= 0.5 and abs(halves.mean().item()) < 0.02


@pytest.mark.parametrize("share", [True, False])
def test_one_token_meets_the_keys_and_a_few_values(share: bool) -> None:
    config = ModelConfig.from_data(
        {**SIZES, "feed_forward": {**SECTION, "num_keys": 10, "value_dim": 10, "share_values": share}}
    )
    size, attention, norms, embedding = count(config), 4 * 16 * 16, 2 * 16, 31 * 16
    projections, halves, query_norm = 16 * (3 * 8) + 16 * 10 + 10 * 16, 2 * 3 * 10 * 4, 4
    layer = projections + halves + query_norm
    tables = 1 if share else 2
    assert size.total == embedding + 16 + 2 * (attention + norms + layer) + tables * 100 * 10
    assert size.active == embedding + 16 + 2 * (attention + norms + layer + 3 * 4 * 10)
    sums = 3 * (4 + 2 + 1 + 1)  # of the 4 x 4 pairs only these can be among the 4 best
    operations = 2 * (projections + halves) + sums + 2 * 3 * 4 * 10
    assert flops_per_token(config, 0) == 2 * embedding + 2 * (2 * attention + operations)
