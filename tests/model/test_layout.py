"""Which way attention goes is decided on the host from the lengths."""

from __future__ import annotations

import pytest
import torch

from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.cache import Cache
from lichen.model.layout import Layout, cut
from lichen.model.rope import Rope

CONFIG = ModelConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)


def rows(width: int, *lengths: tuple[int, ...]) -> Batch:
    zeros = torch.zeros(len(lengths), width, dtype=torch.long)
    segments = torch.full_like(zeros, -1)
    positions = torch.zeros_like(zeros)
    for row, parts in enumerate(lengths):
        start = 0
        for number, length in enumerate(parts):
            segments[row, start : start + length] = number
            positions[row, start : start + length] = torch.arange(length)
            start += length
    return Batch(tokens=zeros, targets=zeros - 100, positions=positions, segments=segments, lengths=lengths)


def layout(batch: Batch, cache: Cache | None = None, dtype: torch.dtype = torch.float32) -> Layout:
    return Layout.of(batch, Rope(CONFIG), dtype=dtype, cache=cache)


@pytest.mark.parametrize(
    ("width", "lengths", "way"),
    [
        (8, ((8,), (8,)), "causal"),
        (8, ((5,), (), (8,)), "causal"),
        (8, ((5, 3), (8,)), "mask"),
        (1024, ((5, 3), (1024,)), "pieces"),
    ],
)
def test_the_cheapest_exact_way_is_chosen(width: int, lengths: tuple[tuple[int, ...], ...], way: str) -> None:
    assert layout(rows(width, *lengths)).way == way


@pytest.mark.parametrize(
    ("width", "lengths", "way"),
    [
        (8, ((8,), (8,)), "biased"),
        (8, ((5, 3), (8,)), "biased"),
        (1025, ((1025,),), "causal"),
        (600, ((5, 3),), "pieces"),
    ],
)
def test_in_bfloat16_on_a_cpu_short_rows_get_a_bias(width: int, lengths: tuple[tuple[int, ...], ...], way: str) -> None:
    made = layout(rows(width, *lengths), dtype=torch.bfloat16)
    assert made.way == way
    if made.bias is not None:
        assert made.bias.dtype == torch.bfloat16 and (made.bias == 0).any(-1).all()


def test_padding_is_told_from_real_tokens_and_never_leaves_a_row_of_the_mask_empty() -> None:
    made = layout(rows(6, (2, 2), (3, 1)))
    assert made.real.tolist() == [[True] * 4 + [False] * 2] * 2
    assert made.mask is not None and made.mask.any(-1).all()
    assert made.mask[0, 0].long().tolist()[3] == [0, 0, 1, 1, 0, 0]


def test_long_rows_get_no_mask() -> None:
    made = layout(rows(1024, (1000, 20), (1024,)))
    assert made.mask is None and made.pieces == (1000, 20, 4, 1024)


def test_pieces_cover_every_token_once() -> None:
    assert cut(((3, 4), (), (7,)), 7) == (3, 4, 7, 7)
    assert cut(((), (2,)), 5) == (5, 2, 3)


def test_positions_restart_in_every_segment() -> None:
    made = layout(rows(8, (5, 3), (8,)))
    assert torch.equal(made.cos[0, 5:], made.cos[0, :3])
    assert torch.equal(made.cos[1, :, 0], Rope(CONFIG).tables(8, torch.device("cpu"))[0])


def test_a_cache_is_causal_first_then_full_or_masked() -> None:
    cache = Cache(CONFIG, rows=2, max_length=9)
    ways = []
    for width, lengths in ((4, (4, 4)), (1, (1, 1)), (2, (2, 1)), (1, (1, 1))):
        batch = cache.batch(torch.zeros(2, width, dtype=torch.long), lengths)
        ways.append(layout(batch, cache).way)
        cache.advance(batch)
    assert ways == ["causal", "full", "mask", "mask"]
