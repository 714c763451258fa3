"""Packed rows, targets, initialisation, checkpointing, compilation."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lichen.config.errors import ConfigError
from lichen.config.model import ModelConfig
from lichen.core.batch import IGNORE_TARGET, PADDING_SEGMENT, Batch
from lichen.model import language_model as module
from lichen.model import layout, loss
from lichen.model.language_model import LanguageModel, initialise

SMALL: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "none": {"feed_forward": {"kind": "none"}},
    "mixed": {"feed_forward_by_layer": {"1": {"kind": "none"}}, "qk_norm": True, "tie_word_embeddings": False},
}


def small(seed: int = 0, **changes: Any) -> LanguageModel:
    return initialise(LanguageModel(ModelConfig.from_data({**SMALL, **changes})), seed)


def packed(rows: list[list[list[int]]], width: int) -> Batch:
    """Rows of segments of ids, padded on the right with id 0."""
    shape = (len(rows), width)
    tokens, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    targets, segments = torch.full(shape, IGNORE_TARGET), torch.full(shape, PADDING_SEGMENT)
    for row, parts in enumerate(rows):
        start = 0
        for number, ids in enumerate(parts):
            end = start + len(ids)
            tokens[row, start:end], positions[row, start:end] = torch.tensor(ids), torch.arange(len(ids))
            targets[row, start : end - 1], segments[row, start:end] = torch.tensor(ids[1:]), number
            start = end
    lengths = tuple(tuple(len(ids) for ids in parts) for parts in rows)
    return Batch(tokens=tokens, targets=targets, positions=positions, segments=segments, lengths=lengths)


def ids(count: int, seed: int) -> list[int]:
    return torch.randint(1, 37, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


ROWS = [[ids(5, 1), ids(9, 2), ids(5, 3)], [ids(12, 4), ids(3, 5)], [ids(20, 6)], []]


@pytest.fixture(params=["mask", "pieces"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(layout, "MASK_LENGTH", 512 if request.param == "mask" else 0)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_changing_one_segment_leaves_the_others_bit_unchanged(way: str, dtype: torch.dtype) -> None:
    model = small().to(dtype)
    before, after = packed(ROWS, 20), packed([[ROWS[0][0], ids(9, 77), ROWS[0][2]], *ROWS[1:]], 20)
    first, second = model(before, want="logits").logits, model(after, want="logits").logits
    same = torch.ones(4, 20, dtype=torch.bool)
    same[0, 5:14] = False
    assert torch.equal(first[same], second[same])
    assert not torch.equal(first[~same], second[~same])
    assert first.isfinite().all()


def test_packed_equals_alone_in_logits_and_gradients(way: str) -> None:
    model, batch = small(), packed(ROWS, 20)
    together = model(batch)
    together.nll.sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    alone = torch.cat([model(Batch.of_tokens(torch.tensor([part]))).nll for row in ROWS for part in row])
    alone.sum().backward()
    torch.testing.assert_close(together.nll, alone, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)
    assert together.rows.tolist() == [0] * 16 + [1] * 13 + [2] * 19
    assert together.segments.tolist() == [0] * 4 + [1] * 8 + [2] * 4 + [0] * 11 + [1] * 2 + [0] * 19
    assert torch.equal(batch.targets.reshape(-1)[together.index], batch.targets[batch.targets != IGNORE_TARGET])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_gradient(variant: str) -> None:
    model = small(**VARIANTS[variant])
    model(packed(ROWS, 20)).nll.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["all positions", "targets only"])
@pytest.mark.parametrize("kept", [0, 1 << 26], ids=["chunked", "kept"])
def test_every_way_of_computing_the_loss_gives_the_same(
    share: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DENSE_SHARE", share)
    monkeypatch.setattr(loss, "LOGITS_KEPT", kept)
    monkeypatch.setattr(loss, "LOGITS_PER_CHUNK", 37 * 7)
    batch = packed(ROWS, 20)
    model = small(tie_word_embeddings=False)
    weights = torch.arange(48.0)
    (model(batch).nll * weights).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logits = model(batch, want="logits").logits.flatten(0, 1)
    nll = torch.nn.functional.cross_entropy(logits, batch.targets.flatten(), reduction="none")
    (nll[batch.targets.flatten() != IGNORE_TARGET] * weights).sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-3)


def test_a_batch_without_targets_has_an_empty_loss_that_can_be_summed() -> None:
    batch = packed([[[5]], []], 4)
    output = small()(batch)
    assert output.nll.shape == (0,) and output.rows.shape == (0,)
    output.nll.sum().backward()


def test_last_gives_the_logits_of_the_last_real_token() -> None:
    model, batch = small(), packed([[ids(4, 1)], [ids(7, 2)]], 7)
    everywhere, last = model(batch, want="logits").logits, model(batch, want="last").logits
    torch.testing.assert_close(last, torch.stack([everywhere[0, 3], everywhere[1, 6]]))


def test_recomputing_activations_changes_nothing() -> None:
    model, batch = small(), packed(ROWS, 20)
    model(batch).nll.sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.model.checkpointing = True
    model(batch).nll.sum().backward()
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(model.parameters(), gradients, strict=True))


def test_initialisation_depends_on_seed_and_name_alone() -> None:
    first, other = small(seed=1), small(seed=2)
    again = LanguageModel.on_meta(first.config).to_empty(device="cpu")
    initialise(again, seed=1)
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))
        assert parameter.dim() == 1 or not torch.equal(parameter, other.get_parameter(name))
    shorter = small(seed=1, num_hidden_layers=1, initializer_range=0.3)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(shorter.get_parameter(name), first.get_parameter(name))


def test_residual_projections_start_smaller() -> None:
    model = small(hidden_size=128, initializer_range=0.02, num_hidden_layers=8)
    spread = {name: parameter.std().item() for name, parameter in model.named_parameters() if parameter.dim() > 1}
    assert spread["model.layers.0.self_attn.q_proj.weight"] == pytest.approx(0.02, rel=0.05)
    assert spread["model.layers.3.mlp.down_proj.weight"] == pytest.approx(0.02 / 4, rel=0.05)


def test_a_model_needs_a_vocabulary() -> None:
    with pytest.raises(ConfigError, match="vocab_size"):
        LanguageModel(ModelConfig())


def gradients_of(model: LanguageModel, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    nll = model(batch).nll
    nll.sum().backward()
    return nll.detach(), [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")
def test_compiled_regions_compute_the_same_and_do_not_recompile_for_new_lengths() -> None:
    plain = small()
    compiled = copy.deepcopy(plain)
    compiled.compile()
    single = Batch.of_tokens(torch.tensor([ids(20, 1), ids(20, 2)]))
    batches = [single] + [packed([[ids(a, 1), ids(12 - a, 2)], [ids(9, 3)]], 20) for a in range(2, 10)]
    with torch._dynamo.config.patch(error_on_recompile=False, recompile_limit=8, fail_on_recompile_limit_hit=True):
        for batch in batches:
            nll, gradients = gradients_of(compiled, batch)
            expected, expected_gradients = gradients_of(plain, batch)
            torch.testing.assert_close(nll, expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-4)
    assert copy.deepcopy(compiled)._regions == {}
