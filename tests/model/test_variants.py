"""What holds of every feed-forward kind with weights of its own, inside a whole model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import lichen.model.hf  # noqa: F401 - registers the folder's type
from lichen.config.model import ModelConfig
from lichen.core.batch import PADDING_SEGMENT, Batch
from lichen.model.cache import Cache
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model

MOE = {"kind": "moe", "num_experts": 4}
TABLE = {"kind": "product_key", "num_keys": 6, "heads": 2, "key_dim": 8, "top_k": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "moe": MOE,
    "moe sigmoid, bias, shared": {**MOE, "scoring": "sigmoid", "balance": "bias", "num_shared_experts": 1},
    "moe, one of eight": {**MOE, "num_experts": 8, "num_experts_per_tok": 1, "norm_topk_prob": False},
    "product keys": TABLE,
    "product keys, narrow, own values": {**TABLE, "value_dim": 12, "share_values": False, "query_norm": False},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def model_of(variant: str, **changes: Any) -> LanguageModel:
    sizes = {"vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    dense_first = {"feed_forward_by_layer": {"0": {"kind": "dense"}}}
    config = ModelConfig.from_data(
        {**sizes, "initializer_range": 0.2, **dense_first, "feed_forward": VARIANTS[variant], **changes}
    )
    return initialise(LanguageModel(config), seed=0)


def tokens(rows: int = 3, length: int = 20) -> Tensor:
    return torch.randint(0, 41, (rows, length), generator=torch.Generator().manual_seed(1))


def total_loss(model: LanguageModel, batch: Batch) -> Tensor:
    output = model(batch)
    return output.nll.mean() + 0.01 * sum((total / weight for total, weight in output.aux.values()), torch.zeros(()))


@variants
def test_every_parameter_has_gradient_after_two_updates(variant: str) -> None:
    model = model_of(variant)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        total_loss(model, Batch.of_tokens(tokens(8, 40))).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        parts = parameter.grad if ".experts." in name or name.endswith("halves") else parameter.grad[None]
        assert all(bool(part.any()) for part in parts), f"{name}: no gradient"


@variants
def test_reading_through_the_cache_gives_the_same(variant: str) -> None:
    model, ids = model_of(variant).eval(), tokens()
    with torch.no_grad():
        expected = model(Batch.of_tokens(ids), want="logits").logits
        cache = Cache(model.config, rows=3, max_length=20)
        pieces = []
        for start, stop in ((0, 7), (7, 8), (8, 9), (9, 15), (15, 20)):
            pieces.append(model(cache.batch(ids[:, start:stop]), want="logits", cache=cache).logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-4, atol=1e-5)


def packed(ids: Tensor, cut: int, padding: int) -> Batch:
    """Two segments a row, then padding."""
    rows, width = ids.shape
    positions = torch.cat([torch.arange(cut), torch.arange(width - cut)]).expand(rows, width).contiguous()
    segments = torch.zeros_like(ids)
    segments[:, cut:] = 1
    if padding:
        segments[:, -padding:] = PADDING_SEGMENT
    targets = torch.full_like(ids, -100)
    targets[:, : cut - 1] = ids[:, 1:cut]
    lengths = ((cut, width - cut - padding),) * rows
    return Batch(tokens=ids, targets=targets, positions=positions, segments=segments, lengths=lengths)


@variants
def test_a_neighbour_in_the_row_changes_nothing(variant: str) -> None:
    model, ids = model_of(variant).eval(), tokens()
    other = ids.clone()
    other[:, 8:] = (other[:, 8:] + 7) % 41
    with torch.no_grad():
        one, two = (model(packed(t, 8, 4), want="logits").logits[:, :8] for t in (ids, other))
        alone = model(Batch.of_tokens(ids[:, :8]), want="logits").logits
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one, alone, rtol=1e-4, atol=1e-5)


@variants
def test_no_position_sees_what_follows(variant: str) -> None:
    model, ids = model_of(variant).eval(), tokens()
    other = ids.clone()
    other[:, 12:] = (other[:, 12:] + 7) % 41
    with torch.no_grad():
        one, two = (model(Batch.of_tokens(t), want="logits").logits for t in (ids, other))
    torch.testing.assert_close(one[:, :12], two[:, :12], rtol=1e-5, atol=1e-6)
    assert (one[:, 12:] - two[:, 12:]).abs().max() > 1e-2


@variants
def test_evaluation_is_the_same_twice_and_after_another_batch_and_in_training_mode(variant: str) -> None:
    model, batch = model_of(variant).eval(), Batch.of_tokens(tokens())
    first = model(batch).nll
    model(Batch.of_tokens(tokens(5, 9)))
    assert torch.equal(model(batch).nll, first) and torch.equal(model.train()(batch).nll, first)


@variants
def test_a_checkpoint_loads_through_transformers_and_generates(variant: str, tmp_path: Path) -> None:
    model = model_of(variant).eval()
    for buffer in model.buffers():
        if buffer.shape == (4,):
            buffer.copy_(torch.tensor([0.4, -0.4, 0.2, 0.0]))  # a bias that changes choices
    write_model(model, tmp_path)
    wrapped: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = tokens(2, 9)
    with torch.no_grad():
        expected = model(Batch.of_tokens(ids), want="logits").logits
    torch.testing.assert_close(wrapped(ids).logits, expected)
    got = wrapped.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    for _ in range(4):
        last = model(Batch.of_tokens(ids), want="last").logits
        ids = torch.cat([ids, last.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(got, ids)


@variants
def test_keeping_only_the_inputs_of_blocks_changes_no_gradient(variant: str) -> None:
    model, batch = model_of(variant), Batch.of_tokens(tokens())
    found = []
    for model.model.checkpointing in (False, True):
        model.zero_grad()
        total_loss(model, batch).backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(found[0], found[1])


@variants
def test_sixteen_bits_are_near_thirty_two(variant: str) -> None:
    model, batch = model_of(variant), Batch.of_tokens(tokens())
    exact = model(batch).nll.mean()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = total_loss(model, batch)
    mixed.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    half = model.bfloat16()(batch).nll.mean()
    assert abs(model(batch).nll.mean() - exact) < 0.1 and abs(half - exact) < 0.1


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("variant", ["moe", "moe, one of eight", "product keys"])
def test_compiled_it_computes_the_same_and_is_compiled_once_whatever_is_chosen(variant: str) -> None:
    torch._dynamo.reset()
    plain = model_of(variant)
    compiled = copy.deepcopy(plain)
    compiled.compile()
    batches = [Batch.of_tokens(torch.roll(tokens(), shift) // (shift + 1)) for shift in range(6)]
    with torch._dynamo.config.patch(recompile_limit=3, fail_on_recompile_limit_hit=True):
        for batch in batches:
            found = []
            for model in (plain, compiled):
                model.zero_grad()
                loss = total_loss(model, batch)
                loss.backward()
                found.append((loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}))
            torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)
