"""Finding the best keys: by comparing with all of them, or by looking only into the best cells of two codebooks.

Keys fall into two halves (subject, relation), and so does every score. Each half is quantised by a codebook of about the square
root of N centroids (the inverted multi-index of Babenko and Lempitsky, 2012; product keys, Lample et al., 2019); a cell is a pair
of centroids and lists its entries. As there are few relations and a query is sure of its own, it first picks the centroids of
the second half; queries of one relation are then compared with its entries together, in one product, or, where these are very
many, each with those in the cells nearest to its subject.

>>> keys = F.normalize(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)), dim=1)
>>> scores, found = search_cells(keys[:3], keys, Cells.of(keys), 1)
>>> found[:, 0].tolist()
[0, 1, 2]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SCORES_AT_ONCE = 1 << 26
"""Scores held in memory at once."""
GROUPS, MARGIN = 4, 5.0
"""Centroids of the second codebook a query looks at: so many, if their score is within the margin of the best."""
SCANNED = 1 << 17
"""Up to so many entries of one second centroid are all compared: one matrix product is faster than picking."""
PROBES, CANDIDATES = 64, 1024
"""In larger groups: centroids of the first codebook that a query looks at, and entries that it is compared with."""
SAMPLE = 32
"""Keys per centroid that k-means looks at."""
COLD_ROUNDS, WARM_ROUNDS = 8, 2
"""Rounds of k-means from nothing, and from the codebook before."""


def search_exactly(queries: Tensor, index: Tensor, number: int, removed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores and numbers ``[n, number]`` of the best of all keys ``index [N, d]``."""
    rows = max(1, SCORES_AT_ONCE // max(1, len(index)))
    found = [_best(part.to(index.dtype) @ index.T, number, removed) for part in queries.split(rows)]
    return torch.cat([scores for scores, _ in found]), torch.cat([numbers for _, numbers in found])


def _best(scores: Tensor, number: int, removed: Tensor | None) -> tuple[Tensor, Tensor]:
    if removed is not None and len(removed):
        scores.index_fill_(1, removed, float("-inf"))
    best, numbers = scores.topk(number, dim=1)
    return best.float(), numbers


@dataclass
class Cells:
    """Two codebooks and the entries of every pair of their centroids."""

    first: Tensor
    """``[C, d/2]`` centroids of the first halves, of length 1; a single one where no group is large."""
    second: Tensor
    """``[C', d/2]``, of the second."""
    starts: Tensor
    """``[C' · C + 1]`` where the entries of each cell begin in ``members``; those of one second centroid lie together."""
    members: Tensor
    """``[N]`` entry numbers, cell by cell."""

    @classmethod
    def of(cls, keys: Tensor, before: Cells | None = None) -> Cells:
        """Quantise ``keys [N, d]``; the centroids of ``before`` are where to start from."""
        first, second = keys.chunk(2, dim=1)
        groups = _codebook(second, None if before is None else before.second)
        chosen = _nearest(second, groups)
        if int(chosen.bincount().max()) <= SCANNED:  # no group is so large that it must be divided
            return cls._filled(keys.new_zeros(1, first.shape[1]), groups, first, chosen)
        book = None if before is None or len(before.first) == 1 else before.first
        return cls._filled(_codebook(first, book), groups, first, chosen)

    @classmethod
    def _filled(cls, first: Tensor, second: Tensor, first_half: Tensor, group: Tensor) -> Cells:
        cell = group if len(first) == 1 else group * len(first) + _nearest(first_half, first)
        members = cell.argsort(stable=True)
        starts = torch.zeros(len(first) * len(second) + 1, dtype=torch.long, device=cell.device)
        starts[1:] = cell.bincount(minlength=len(starts) - 1).cumsum(0)
        return cls(first, second, starts, members)

    def members_of(self, group: int) -> Tensor:
        """The entries whose second half belongs to centroid ``group``."""
        size = len(self.first)
        return self.members[self.starts[group * size] : self.starts[(group + 1) * size]]

    def state(self) -> dict[str, Tensor]:
        """The codebooks; the lists follow from them and the index."""
        return {"first": self.first, "second": self.second}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], index: Tensor) -> Cells:
        """The cells that gave ``state``, over the same index."""
        first, second = (state[name].to(index.device) for name in ("first", "second"))
        first_half, second_half = index.chunk(2, dim=1)
        return cls._filled(first, second, first_half, _nearest(second_half, second))


def _codebook(vectors: Tensor, before: Tensor | None) -> Tensor:
    """Centroids ``[C, d]`` of ``vectors [N, d]`` of length 1: all distinct ones if they are few, else by spherical k-means."""
    size = 2 ** round(math.log2(len(vectors)) / 2)
    sample = vectors[:: max(1, len(vectors) // (SAMPLE * size))]
    distinct = sample.unique(dim=0)
    if len(distinct) <= size:
        return distinct
    centroids = before if before is not None and len(before) == size else distinct[:: len(distinct) // size][:size]
    for _ in range(WARM_ROUNDS if before is not None else COLD_ROUNDS):
        chosen = _nearest(distinct, centroids)
        sums = torch.zeros(size, vectors.shape[1], device=vectors.device).index_add_(0, chosen, distinct.float())
        lonely = sums.square().sum(1) == 0
        centroids = torch.where(lonely[:, None], centroids.float(), F.normalize(sums, dim=1)).to(vectors.dtype)
    return centroids


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """``[N]`` the number of the centroid with the largest product."""
    rows = max(1, SCORES_AT_ONCE // len(centroids))
    return torch.cat([(part @ centroids.T).argmax(dim=1) for part in vectors.split(rows)])


def search_cells(
    queries: Tensor, index: Tensor, cells: Cells, number: int, removed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As ``search_exactly``, among the entries of the second halves' best centroids, and there of the best cells."""
    queries = queries.to(index.dtype)
    first, second = queries.chunk(2, dim=1)
    groups = (second @ cells.second.T).float().topk(min(GROUPS, len(cells.second)), dim=1)
    near = groups.values > groups.values[:, :1] - MARGIN
    best = torch.full((len(queries), number), float("-inf"), device=queries.device)
    found = torch.zeros(len(queries), number, dtype=torch.long, device=queries.device)
    for group in groups.indices[near].unique().tolist():
        rows = (near & (groups.indices == group)).any(dim=1).nonzero()[:, 0]
        members = cells.members_of(group)
        if len(members) <= SCANNED:
            scores, numbers = _scan(queries[rows], index, members, number, removed)
        else:
            candidates, present = _candidates(first[rows], cells, group)
            scores, numbers = _compare(queries[rows], index, candidates, present, number, removed)
        merged, place = torch.cat([best[rows], scores], dim=1).topk(number, dim=1)
        best[rows] = merged
        found[rows] = torch.cat([found[rows], numbers], dim=1).gather(1, place)
    return best, found


def _scan(
    queries: Tensor, index: Tensor, members: Tensor, number: int, removed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compare with all ``members`` of a group."""
    absent = None if removed is None else torch.isin(members, removed).nonzero()[:, 0]
    scores, place = search_exactly(queries, index[members], min(number, len(members)), absent)
    return scores, members[place]


def _compare(
    queries: Tensor, index: Tensor, candidates: Tensor, present: Tensor, number: int, removed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compare every query with ``candidates [n, CANDIDATES]`` of its own."""
    if removed is not None and len(removed):
        present = present & ~torch.isin(candidates, removed)
    scores = torch.bmm(index[candidates], queries[:, :, None])[..., 0].float()
    best, place = scores.masked_fill(~present, float("-inf")).topk(number, dim=1)
    return best, candidates.gather(1, place)


def _candidates(first: Tensor, cells: Cells, group: int) -> tuple[Tensor, Tensor]:
    """``[n, CANDIDATES]`` entries of one group from the cells nearest to the first halves, and which are there at all."""
    nearest = (first @ cells.first.T).topk(min(PROBES, len(cells.first)), dim=1).indices
    cell = group * len(cells.first) + nearest
    begin, end = cells.starts[cell], cells.starts[cell + 1]
    reached = (end - begin).cumsum(dim=1)
    slot = torch.arange(CANDIDATES, device=first.device).expand(len(first), -1).contiguous()
    which = torch.searchsorted(reached, slot, right=True)
    present = which < cell.shape[1]
    which = which.clamp(max=cell.shape[1] - 1)
    before = reached.gather(1, which) - (end - begin).gather(1, which)
    place = (begin.gather(1, which) + slot - before).clamp(max=len(cells.members) - 1)
    return cells.members[place], present


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
