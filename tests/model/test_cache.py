"""Reading step by step equals reading at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.cache import Cache
from lichen.model.language_model import LanguageModel, initialise


def small(**changes: object) -> LanguageModel:
    sizes = {
        "vocab_size": 37,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
    }
    config = ModelConfig.from_data({**sizes, "num_key_value_heads": 2, "qk_norm": True, **changes})
    return initialise(LanguageModel(config), seed=0).eval()


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(0, 37, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 1, 3, 2]], ids=str)
def test_cached_reading_in_any_chunks_equals_reading_at_once(chunks: list[int]) -> None:
    model, text = small(), tokens(3, 12)
    expected = model(Batch.of_tokens(text), want="logits").logits
    cache = Cache(model.config, rows=3, max_length=12)
    parts = [model(cache.batch(part), want="logits", cache=cache).logits for part in text.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_ragged_rows_prefilled_together_decode_as_alone() -> None:
    model, lengths = small(), (2, 7, 4)
    prompts, following = tokens(3, 7), tokens(3, 5)
    cache = Cache(model.config, rows=3, max_length=12)
    last = [model(cache.batch(prompts, lengths), want="last", cache=cache).logits]
    last += [model(cache.batch(step), want="last", cache=cache).logits for step in following.split(1, dim=1)]
    assert cache.lengths == [7, 12, 9]
    for row, length in enumerate(lengths):
        text = torch.cat([prompts[row, :length], following[row]])[None]
        expected = model(Batch.of_tokens(text), want="logits").logits[0, length - 1 :]
        torch.testing.assert_close(torch.stack([step[row] for step in last]), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_can_be_dropped_reordered_and_shortened() -> None:
    model, text = small(), tokens(3, 6)
    cache = Cache(model.config, rows=3, max_length=8)
    model(cache.batch(text), want="last", cache=cache)
    cache.select([2, 0])
    cache.truncate([4, 6])
    assert cache.rows == 2 and cache.lengths == [4, 6]
    step = torch.tensor([[5], [6]])
    got = model(cache.batch(step), want="last", cache=cache).logits
    for row, kept in enumerate((text[2, :4], text[0])):
        alone = Batch.of_tokens(torch.cat([kept, step[row]])[None])
        torch.testing.assert_close(got[row], model(alone, want="last").logits[0], rtol=1e-4, atol=1e-5)


def test_a_full_cache_says_what_is_needed() -> None:
    model = small()
    cache = Cache(model.config, rows=1, max_length=4)
    with pytest.raises(UsageError, match="holds 4 tokens per row, 5 are needed"):
        model(cache.batch(tokens(1, 5)), cache=cache)
    with pytest.raises(UsageError, match="2 rows"):
        model(Batch.of_tokens(tokens(2, 3)), cache=cache)


@torch.no_grad()
def test_a_bfloat16_cache_serves_a_bfloat16_model() -> None:
    model, text = small().bfloat16(), tokens(2, 6)
    cache = Cache(model.config, rows=2, max_length=6, dtype=torch.bfloat16)
    parts = [model(cache.batch(part), want="logits", cache=cache).logits for part in text.split([4, 1, 1], dim=1)]
    expected = model(Batch.of_tokens(text), want="logits").logits
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0.05, atol=0.05)
