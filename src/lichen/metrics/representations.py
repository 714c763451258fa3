"""How much of their space the states of a layer use, and how alike they are.

All measures come from sums over positions, so that parts of a batch, or ranks, add sums and never average measures: ``Moments``
(n, Σx, Σxxᵀ) give effective rank and participation ratio, ``CosineSums`` (n, Σu, and per segment Σu, where u = x / ‖x‖) give mean
cosines between positions without ever forming a pair. States are taken in float32 and summed in float64.

Whoever measures chooses the positions: those with a target, the first of every segment apart, since models use it as a sink
(Xiao et al., 2024, "Efficient streaming language models with attention sinks") and a state of many times the usual length
would decide every number by itself.

>>> states = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]])
>>> round(effective_rank(states), 6), round(participation_ratio(states), 6)
(2.0, 2.0)
>>> segments = torch.tensor([0, 0, 1, 1])
>>> cosine_intra(states, segments), cosine_inter(states, segments)
(0.0, -0.5)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# --- Rank ---


@dataclass(frozen=True)
class Moments:
    """Sums over n states of width D."""

    n: int
    total: Tensor
    """``[D]`` float64 Σx."""
    products: Tensor
    """``[D, D]`` float64 Σxxᵀ."""

    @classmethod
    def of(cls, states: Tensor) -> Moments:
        """Of ``states [n, D]``."""
        wide = _wide(states)
        return cls(len(wide), wide.sum(0), wide.t() @ wide)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> Tensor:
        """``[D]`` float64 μ = Σx / n."""
        return self.total / self.n

    def spectrum(self, centred: bool) -> Tensor:
        """``[D]`` float64 eigenvalues, ascending, of Σxxᵀ, or of Σ(x − μ)(x − μ)ᵀ; their roots are the singular values of the
        states as they are, or less their mean.
        """
        matrix = self.products - torch.outer(self.total, self.total) / self.n if centred and self.n else self.products
        values = torch.linalg.eigvalsh(matrix).clamp(min=0)
        rounding = len(values) * torch.finfo(values.dtype).eps * self.products.diagonal().sum()
        return torch.where(values > rounding, values, 0.0)

    def effective_rank(self, centred: bool = False) -> float:
        """See `effective_rank`."""
        return _effective_rank(self.spectrum(centred))

    def participation_ratio(self) -> float:
        """See `participation_ratio`."""
        values = self.spectrum(centred=True)
        squares = float(values.square().sum())
        return float(values.sum()) ** 2 / squares if squares else math.nan


def effective_rank(states: Tensor, centred: bool = False) -> float:
    """exp(−Σ p ln p) with p = σ / Σσ over the singular values σ of ``states [n, D]`` (Roy and Vetterli, 2007, "The effective
    rank"), with ``centred`` of the states less their mean.

    Between 1 (all states lie on one line) and min(n, D) (all directions are used alike): small means a collapsed layer. States
    that share a large mean look lower than they are; centred, the mean does not count. Not a number where all states are equal
    to zero (or to each other, centred).
    """
    return Moments.of(states).effective_rank(centred)


def participation_ratio(states: Tensor) -> float:
    """(Σλ)² / Σλ² over the eigenvalues λ of the centred covariance of ``states [n, D]``.

    Between 1 and min(n − 1, D): in how many directions the variance would lie if it were spread evenly. As λ = σ², a few strong
    directions weigh more than in the effective rank. Not a number where all states are equal.
    """
    return Moments.of(states).participation_ratio()


def _effective_rank(values: Tensor) -> float:
    """From eigenvalues σ²."""
    sizes = values.sqrt()
    if not float(sizes.sum()):
        return math.nan
    shares = sizes / sizes.sum()
    return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


# --- Likeness ---


@dataclass(frozen=True)
class CosineSums:
    """Sums over the directions u = x / ‖x‖ of n states in segments; a segment lies within one part of what is added up.

    With u of length 1, Σ over pairs i ≠ j of uᵢ·uⱼ = ‖Σu‖² − n.
    """

    n: int
    total: Tensor
    """``[D]`` float64 Σu."""
    within: float
    """Σ over segments of ‖Σu‖², all pairs of a segment, a position with itself counted."""
    pairs: int
    """Σ over segments of m², how many those are, m being a segment's positions."""
    means: float
    """Σ over segments of at least two positions of the mean cosine of their pairs i ≠ j."""
    segments: int
    """How many such segments there are."""

    @classmethod
    def of(cls, states: Tensor, segments: Tensor, centre: Tensor | None = None) -> CosineSums:
        """Of ``states [n, D]``, less ``centre [D]`` if given, in ``segments [n]``, any whole numbers."""
        wide = _wide(states)
        shifted = wide if centre is None else wide - centre.to(wide)
        directions = F.normalize(shifted, dim=-1, eps=torch.finfo(wide.dtype).tiny)
        names, places = segments.to(wide.device).unique(return_inverse=True)
        sums = wide.new_zeros(len(names), wide.shape[1]).index_add_(0, places, directions)
        counts = torch.bincount(places, minlength=len(names))
        itself = wide.new_zeros(len(names)).index_add_(0, places, directions.square().sum(-1))
        squares = sums.square().sum(-1)
        several = counts > 1
        means = (squares - itself)[several] / (counts * (counts - 1))[several]
        return cls(
            n=len(wide),
            total=directions.sum(0),
            within=float(squares.sum()),
            pairs=int(counts.square().sum()),
            means=float(means.sum()),
            segments=int(several.sum()),
        )

    def __add__(self, other: CosineSums) -> CosineSums:
        return CosineSums(
            n=self.n + other.n,
            total=self.total + other.total,
            within=self.within + other.within,
            pairs=self.pairs + other.pairs,
            means=self.means + other.means,
            segments=self.segments + other.segments,
        )

    @property
    def intra(self) -> float:
        """See `cosine_intra`."""
        return self.means / self.segments if self.segments else math.nan

    @property
    def inter(self) -> float:
        """See `cosine_inter`."""
        across = self.n**2 - self.pairs
        return (float(self.total.square().sum()) - self.within) / across if across else math.nan


def cosine_intra(states: Tensor, segments: Tensor, centre: Tensor | None = None) -> float:
    """The mean cosine of two different positions of one segment, averaged per segment, then over segments.

    Between −1 and 1: near 1 the tokens of a text have become one (over-smoothing, as in Dong et al., 2021, "Attention is not all
    you need"). ``centre``, the mean of all states, takes away what all positions share. A state of zeros is alike to none. Not a
    number where no segment has two positions.
    """
    return CosineSums.of(states, segments, centre).intra


def cosine_inter(states: Tensor, segments: Tensor, centre: Tensor | None = None) -> float:
    """The mean cosine over all pairs of positions of different segments; ``centre`` as for `cosine_intra`.

    Between −1 and 1: raw and near 1, all states lie in a narrow cone (Ethayarajh, 2019); what intra has above inter is what the
    positions of a text have in common. Not a number where there is one segment only.
    """
    return CosineSums.of(states, segments, centre).inter


# --- Size ---


def mean_norm(states: Tensor) -> float:
    """The mean of ‖x‖ over ``states [n, D]``: 0 or more; it grows with depth as layers write to the residual stream."""
    return float(_wide(states).norm(dim=-1).mean()) if len(states) else math.nan


def _wide(states: Tensor) -> Tensor:
    """As float32 and then float64, where there is such a thing (not on MPS)."""
    narrow = states.detach().float()
    return (narrow.cpu() if narrow.device.type == "mps" else narrow).double()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
