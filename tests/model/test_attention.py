"""All ways of computing attention agree with softmax over an explicit mask."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lichen.model import attention


def heads(rows: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(rows, width, count, 8, generator=generator).to(dtype) for count in (4, 2, 2))  # pyright: ignore


def explicit(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    q, k, v = (tensor.double().transpose(1, 2) for tensor in (q, k.repeat_interleave(2, 2), v.repeat_interleave(2, 2)))
    scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~visible, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2)


def blocks(width: int, *lengths: int) -> Tensor:
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return (segments[:, None] == segments) & torch.ones(width, width, dtype=torch.bool).tril()


@pytest.mark.parametrize("width", [1, 33, 100, 300])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("learning", [False, True])
def test_causal_attention(dtype: torch.dtype, tolerance: float, width: int, learning: bool) -> None:
    q, k, v = heads(2, width, dtype)
    q.requires_grad_(learning)
    got = attention.causal_attention(q, k, v)
    assert got.shape == q.shape and got.dtype == dtype
    expected = explicit(q, k, v, blocks(width, width))
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_bias_confines_rows_to_their_own_segments() -> None:
    q, k, v = heads(2, 150)
    visible = torch.stack([blocks(150, 70, 60, 20), blocks(150, 150)])
    bias = torch.zeros(2, 150, 150).masked_fill(~visible, float("-inf"))
    got = attention.biased_attention(q, k, v, bias)
    expected = explicit(q, k, v, visible[:, None])
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_pieces_of_equal_and_unequal_lengths() -> None:
    q, k, v = heads(2, 20)
    layout: Any = SimpleNamespace(cache=None, way="pieces", pieces=(7, 6, 7, 13, 7))
    got = attention._general_attention(q, k, v, layout, 0)
    torch.testing.assert_close(got[0].double(), explicit(q, k, v, blocks(20, 7, 6, 7))[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got[1].double(), explicit(q, k, v, blocks(20, 13, 7))[1], rtol=1e-5, atol=1e-5)


@pytest.mark.nightly
@pytest.mark.filterwarnings("default")
def test_flex_attention_confines_to_segments() -> None:
    from lichen.model.layout import _block_mask

    q, k, v = heads(1, 160)
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor([70, 60, 30]))[None]
    layout: Any = SimpleNamespace(cache=None, way="flex", block_mask=_block_mask(segments))
    with torch.no_grad():  # on a CPU it computes forward only
        got = attention._general_attention(q, k, v, layout, 0)
    torch.testing.assert_close(got.double(), explicit(q, k, v, blocks(160, 70, 60, 30)), rtol=1e-4, atol=1e-4)


def test_variable_lengths_are_handed_over_as_one_long_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention itself needs a GPU: here its contract stands in, boundaries and causal window."""
    q, k, v = heads(2, 20)

    def attend(
        q: Tensor, k: Tensor, v: Tensor, edges: Tensor, _: Tensor, longest: int, __: int, **options: Any
    ) -> Tensor:
        assert options == {"window_size": (-1, 0), "enable_gqa": True} and longest == 13 and edges.dtype == torch.int32
        cuts = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        return torch.cat([attention.causal_attention(q[None, a:b], k[None, a:b], v[None, a:b])[0] for a, b in cuts])

    monkeypatch.setattr(attention, "find_varlen", lambda: attend)
    pieces = (7, 6, 7, 13, 7)
    edges = torch.tensor([0, 7, 13, 20, 33, 40], dtype=torch.int32)
    layout: Any = SimpleNamespace(cache=None, way="varlen", pieces=pieces, boundaries=edges, dtype=torch.float32)
    got = attention._general_attention(q, k, v, layout, 0)
    torch.testing.assert_close(got[1].double(), explicit(q, k, v, blocks(20, 13, 7))[1], rtol=1e-5, atol=1e-5)


def test_this_torch_has_variable_lengths_with_the_options_we_use() -> None:
    assert attention.find_varlen() is not None
