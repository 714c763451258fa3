"""Finding the best keys: by comparing with all of them, or by looking only where two codebooks say.

Keys fall into two halves (subject, relation), and so does every score. Each half has a codebook: the distinct subjects lie in the
cells of about the square root of as many centroids; relations, being few, are centroids themselves (the inverted multi-index of
Babenko and Lempitsky, 2012; product keys, Lample et al., 2019). A query goes two ways:

    by subject    it is compared with the subjects of its nearest cells; the entries of the best are taken, whatever they say
    by relation   it is compared with those entries of its best relation whose subjects lie in its nearest cells, or near these

What both found is then compared in full. Either way alone loses: by relation a subject's other facts are not found, nor any where
the relation is new; by subject nothing but the nearest names.

>>> keys = F.normalize(torch.randn(500, 2, 4, generator=torch.Generator().manual_seed(0)), dim=2).flatten(1)
>>> scores, found = search_cells(keys[:3], keys, Cells.of(keys), 1)
>>> found[:, 0].tolist()
[0, 1, 2]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lichen.core.streams import Stream
from lichen.model.shapes import EVEN, even, padded

SCORES_AT_ONCE, QUERIES_AT_ONCE = 1 << 20, 4096
"""Scores computed at once, so that a processor's cache holds them, and queries that go through the codebooks together."""
ON_A_GPU = 16
"""There so many times as many."""
PROBES = 16
"""Cells of subjects that a query looks into, for any entries and for those of its best relation."""
SUBJECTS = 8
"""Subjects whose entries are looked at."""
CANDIDATES = 128
"""Entries of these subjects at most, those of the nearest first."""
FOLD, STRETCH = 8, 4096
"""Matrix products are folded so often, and taken in stretches that fit a cache."""
SAMPLE = 32
"""Subjects per centroid that k-means looks at."""
COLD_ROUNDS, WARM_ROUNDS = 8, 2
"""Rounds of k-means from nothing, and from the codebook before."""


def search_exactly(queries: Tensor, index: Tensor, number: int, removed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores and numbers ``[n, number]`` of the best of all keys ``index [N, d]``."""
    rows = max(EVEN, _at_once(SCORES_AT_ONCE, index) // max(1, len(index)))
    parts = padded(queries.to(index.dtype)).split(rows)
    scores, numbers = zip(*(_best(_products(part, index), number, removed) for part in parts), strict=True)
    return torch.cat(scores)[: len(queries)], torch.cat(numbers)[: len(queries)]


def _at_once(number: int, keys: Tensor) -> int:
    return number if keys.device.type == "cpu" else ON_A_GPU * number


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """``queries [n, d]`` times ``keys [m, d]``, ``[n, m]``; this way round in half the time where keys are many."""
    return (keys @ queries.T).T


def _best(scores: Tensor, number: int, removed: Tensor | None) -> tuple[Tensor, Tensor]:
    if removed is not None and len(removed):
        scores.index_fill_(1, removed, float("-inf"))
    best, numbers = largest(scores, number)
    return best.float(), numbers


def largest(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """``scores.topk(number, dim=1)`` of ``[n, m]``, several times as fast where m is large.

    A row is folded into columns; the largest values lie in the columns with the largest maxima, and only these are sorted.

    >>> largest(torch.arange(1000.0)[None], 2)
    (tensor([[999., 998.]]), tensor([[999, 998]]))
    """
    width = scores.shape[1]
    columns = max(math.isqrt(number * width), 64 * number)  # of fewer values, topk would go the slower of its two ways
    whole, rest = divmod(width, columns)
    if whole < 4:
        return scores.topk(number, dim=1)
    maxima = _folded(scores[:, : whole * columns], whole)
    if rest:
        maxima[:, :rest] = torch.maximum(maxima[:, :rest], scores[:, whole * columns :])
    best = maxima.topk(number, dim=1).indices
    down = torch.arange(0, width, columns, device=scores.device)[:, None]
    places = (best[:, None] + down).flatten(1)
    values = scores.gather(1, places.clamp(max=width - 1)).masked_fill(places >= width, float("-inf"))
    values, chosen = values.topk(number, dim=1)
    return values, places.gather(1, chosen).clamp(max=width - 1)


def _folded(scores: Tensor, height: int) -> Tensor:
    """``[n, m / height]``: the maxima of ``scores [n, m]`` folded so often, whichever way they lie in memory."""
    if scores.stride(0) == 1:
        return scores.T.unflatten(0, (height, -1)).amax(dim=0).T
    return scores.unflatten(1, (height, -1)).amax(dim=1)


# --- Codebooks ---


@dataclass
class Lists:
    """Vectors in lists; those of one list lie together."""

    vectors: Tensor
    """``[M, d]``, and ``EVEN`` rows of zeros."""
    members: Tensor
    """``[M]`` what each vector belongs to."""
    starts: Tensor
    """``[L + 1]`` where the lists begin."""

    @classmethod
    def of(cls, vectors: Tensor, which: Tensor, count: int, vector_of: Tensor | None = None) -> Lists:
        """``M`` members in the lists ``which [M]`` of ``count``; member m has the vector of its number, or that of
        ``vector_of [M]``.
        """
        members = which.argsort(stable=True)
        ordered = vectors[members if vector_of is None else vector_of[members]]
        starts = F.pad(which.bincount(minlength=count).cumsum(0), (1, 0))
        return cls(F.pad(ordered, (0, 0, 0, EVEN)), members, starts)

    def nearest(
        self, queries: Tensor, chosen: Tensor, number: int, gone: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The ``number`` best of the lists ``chosen [n, P]`` (-1 is none) together, for ``queries [n, d]``: scores, -inf where
        there are fewer, and members ``[n, number]``, without those that are ``gone`` (a mask over members).

        Every stretch of a list is folded into columns; the vectors of the columns with the best maxima are compared again.
        """
        lengths = self.starts.diff()
        widest = max(1, even(int(lengths.max())) // FOLD)
        maxima = queries.new_full((chosen.numel(), widest), float("-inf"))
        with _one_thread():
            for pairs, place, scores in self._products(queries, chosen, gone):
                maxima[pairs, place // FOLD : (place + scores.shape[1]) // FOLD] = _folded(scores, FOLD)[: len(pairs)]
        _, columns = largest(maxima.view(len(queries), chosen.shape[1] * widest), min(number, chosen.shape[1] * widest))
        which, column = chosen.gather(1, columns // widest), columns % widest
        stretch = column * FOLD // STRETCH * STRETCH
        width = ((lengths[which] - stretch + EVEN - 1) // EVEN * EVEN).clamp(max=STRETCH) // FOLD
        down = torch.arange(FOLD, device=queries.device) * width[:, :, None]
        within = (stretch + column - stretch // FOLD)[:, :, None] + down
        places = (self.starts[which][:, :, None] + within).flatten(1).clamp(max=len(self.members))
        absent = ((within >= lengths[which][:, :, None]) | (which < 0)[:, :, None]).flatten(1)
        again = F.embedding(places, self.vectors)  # several times as fast as indexing
        scores = torch.bmm(again, queries[:, :, None])[..., 0].float()
        members = F.pad(self.members, (0, 1))[places]
        if gone is not None:
            absent = absent | gone[members]
        best, chosen = scores.masked_fill(absent, float("-inf")).topk(min(number, places.shape[1]), dim=1)
        return best, members.gather(1, chosen)

    def _products(self, queries: Tensor, chosen: Tensor, gone: Tensor | None) -> Iterator[tuple[Tensor, int, Tensor]]:
        """``queries [n, d]`` times the vectors of the lists ``chosen [n, P]`` of each, list by list, in stretches of these.

        Yields which of the n · P pairs, where in their list the stretch begins, and the products ``[pairs or more, stretch]``,
        -inf for what is gone and behind the list. Shapes are multiples of ``EVEN``: a new one costs a product a preparation.
        """
        order = chosen.flatten().argsort(stable=True)  # pairs of one list together, for one product
        asked = F.pad(queries.index_select(0, order // chosen.shape[1]), (0, 0, 0, EVEN))
        nowhere, *ends = (chosen.flatten() + 1).bincount(minlength=len(self.starts)).cumsum(0).tolist()
        starts = self.starts.tolist()
        absent = None if gone is None else gone[self.members]
        for begin, end, start, stop in zip([nowhere, *ends], ends, starts[:-1], starts[1:], strict=False):
            for place in range(start, stop if end > begin else start, STRETCH):
                behind = min(place + STRETCH, stop)
                keys = self.vectors[place : place + even(behind - place)]
                missing = None if absent is None else absent[place:behind].nonzero()[:, 0]
                step = max(1, _at_once(SCORES_AT_ONCE, keys) // STRETCH)
                for first in range(begin, end, step):
                    rows = min(step, end - first)
                    scores = _products(asked[first : first + even(rows)], keys)
                    scores[:, behind - place :] = float("-inf")
                    if missing is not None:
                        scores.index_fill_(1, missing, float("-inf"))
                    yield order[first : first + rows], place - start, scores


@contextmanager
def _one_thread() -> Iterator[None]:
    """For thousands of small operations, of which none is worth sharing out: they take half as long again where all are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class Cells:
    """Two codebooks, and what lies in their cells. Of a million entries it takes up to 0.3 GB, about as much as their index."""

    first: Tensor
    """``[C, d/2]`` centroids of subjects, of length 1."""
    second: Tensor
    """``[C', d/2]`` the relations, or centroids of them if they are more than the square root of the entries."""
    subjects: Lists
    """The distinct subjects in the cells of the first codebook."""
    starts: Tensor
    """``[S + 1]`` where the entries of each subject begin in ``entries``."""
    entries: Tensor
    """``[N]`` entry numbers, subject by subject."""
    group: Tensor
    """``[N]`` the relation's place in the second codebook, of every entry."""
    blocks: Tensor
    """``[C', C]`` the list in ``relations`` that holds a relation's entries with subjects of a cell."""
    relations: Lists
    """The subjects of all entries, relation by relation: those of as many cells as make a list worth a product."""

    @classmethod
    def of(cls, keys: Tensor, before: Cells | None = None) -> Cells:
        """Quantise ``keys [N, d]``; the centroids of ``before`` are where to start from."""
        halves = [_distinct(half) for half in keys.chunk(2, dim=1)]
        (subjects, _), (relations, _) = halves
        most = 2 ** round(math.log2(len(keys)) / 2)
        groups = relations if len(relations) <= most else _codebook(relations, most, before and before.second)
        size = 2 ** round(math.log2(len(subjects)) / 2)
        return cls._filled(_codebook(subjects, size, before and before.first), groups, *halves)

    @classmethod
    def _filled(
        cls, first: Tensor, second: Tensor, by_subject: tuple[Tensor, Tensor], by_relation: tuple[Tensor, Tensor]
    ) -> Cells:
        (subjects, subject), (relations, relation) = by_subject, by_relation
        group = relation if relations.equal(second) else _nearest(relations, second)[relation]
        cell = _nearest(subjects, first)
        blocks, count = _blocks(group, cell[subject], (len(second), len(first)))
        return cls(
            first,
            second,
            Lists.of(subjects, cell, len(first)),
            F.pad(subject.bincount(minlength=len(subjects)).cumsum(0), (1, 0)),
            subject.argsort(stable=True),
            group,
            blocks,
            Lists.of(subjects, blocks[group, cell[subject]], count, subject),
        )

    def state(self) -> dict[str, Tensor]:
        """The codebooks; the lists follow from them and the index."""
        return {"first": self.first, "second": self.second}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], index: Tensor) -> Cells:
        """The cells that gave ``state``, over the same index."""
        halves = [_distinct(half) for half in index.chunk(2, dim=1)]
        return cls._filled(state["first"].to(index.device), state["second"].to(index.device), *halves)


def _blocks(group: Tensor, cell: Tensor, shape: tuple[int, int]) -> tuple[Tensor, int]:
    """``[C', C]`` which list the entries of a relation and a cell belong to, and how many lists there are.

    Entries ``[N]`` are of the relations ``group`` and their subjects in the cells ``cell``; neighbouring cells of a relation
    share a list until it has about twice the square root of all entries: fewer would not be worth a product of their own.
    """
    sizes = (group * shape[1] + cell).bincount(minlength=shape[0] * shape[1]).view(shape)
    block = (sizes.cumsum(dim=1) - sizes) // 2 ** round(math.log2(len(group)) / 2 + 1)
    relation = torch.arange(shape[0], device=group.device)[:, None]
    different, which = (relation * (len(group) + 1) + block).unique(return_inverse=True)
    return which, len(different)


def _distinct(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows ``[U, d]`` of ``vectors [N, d]``, and which of them each row is, ``[N]``.

    Rows are told apart by 64 bits made of all of theirs, which takes a fraction of the time of sorting them.
    """
    vectors = vectors.contiguous()
    wide = vectors.shape[1] * vectors.element_size() % 8 == 0
    words = vectors.view(torch.int64 if wide else torch.int16)
    factors = torch.randint(-(2**62), 2**62, words.shape[1:], generator=Stream(0, "knowledge/rows").torch())
    factors = 2 * factors.to(vectors.device) + 1
    parts = [((part ^ (part >> 32) if wide else part.long()) * factors).sum(dim=1) for part in words.split(1 << 16)]
    values, which = torch.cat(parts).unique(return_inverse=True)
    place = torch.arange(len(vectors), device=vectors.device)
    one_of_each = torch.full_like(values, len(vectors)).scatter_reduce(0, which, place, "amin")
    return vectors[one_of_each], which


def _codebook(vectors: Tensor, size: int, before: Tensor | None) -> Tensor:
    """``[size, d]`` centroids of the different ``vectors [U, d]`` of length 1, by spherical k-means."""
    sample = vectors[:: max(1, len(vectors) // (SAMPLE * size))]
    centroids = sample[:: len(sample) // size][:size] if before is None or len(before) != size else before
    for _ in range(WARM_ROUNDS if centroids is before else COLD_ROUNDS):
        sums = torch.zeros(size, vectors.shape[1], device=vectors.device)
        sums.index_add_(0, _nearest(sample, centroids), sample.float())
        lonely = sums.square().sum(1) == 0
        centroids = torch.where(lonely[:, None], centroids.float(), F.normalize(sums, dim=1)).to(vectors.dtype)
    return centroids


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """``[N]`` the number of the centroid with the largest product."""
    rows = max(1, _at_once(SCORES_AT_ONCE, vectors) // len(centroids))
    return torch.cat([largest(_products(part, centroids), 1)[1][:, 0] for part in vectors.split(rows)])


# --- Searching them ---


def search_cells(
    queries: Tensor, index: Tensor, cells: Cells, number: int, removed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As ``search_exactly``, by way of the codebooks."""
    gone = None
    if removed is not None and len(removed):
        gone = torch.zeros(len(index), dtype=torch.bool, device=index.device)
        gone[removed] = True
    found = [_by_both(part, index, cells, number, gone) for part in queries.split(_at_once(QUERIES_AT_ONCE, index))]
    scores, numbers = (torch.cat(parts) for parts in zip(*found, strict=True))
    short = scores[:, -1].isneginf().nonzero()[:, 0]  # of very small banks, or where nearly all is removed
    if len(short):
        scores[short], numbers[short] = search_exactly(queries[short], index, number, removed)
    return scores, numbers


def compared_in_cells(entries: int) -> int:
    """With how many keys, about, a query is compared by way of the codebooks: with halves first, then with a few in full.

    >>> [compared_in_cells(2**size) for size in (14, 17, 20)]
    [3192, 8925, 25144]
    """
    cells = round(entries**0.5)
    halves = cells + 3 * PROBES * cells + FOLD * SUBJECTS
    return halves // 2 + 3 * FOLD


def _by_both(queries: Tensor, index: Tensor, cells: Cells, number: int, gone: Tensor | None) -> tuple[Tensor, Tensor]:
    """What both ways found, compared in full."""
    first, second = (half.contiguous() for half in queries.to(index.dtype).chunk(2, dim=1))
    relation_scores = (second @ cells.second.T).float()
    chosen = (first @ cells.first.T).topk(min(PROBES, len(cells.first)), dim=1).indices
    one_way = _by_relation(first, chosen, relation_scores, cells, number, gone)
    other = _by_subject(first, chosen, relation_scores, cells, 2 * number, gone)
    scores, numbers = (torch.cat(parts, dim=1) for parts in zip(one_way, other, strict=True))
    twice = (other[1][:, :, None] == one_way[1][:, None]) & ~one_way[0].isneginf()[:, None]
    absent = scores.isneginf() | F.pad(twice.any(dim=2), (one_way[1].shape[1], 0))
    full = torch.bmm(F.embedding(numbers, index).float(), queries[:, :, None].float())[..., 0]
    best, place = full.masked_fill(absent, float("-inf")).topk(number, dim=1)
    return best, numbers.gather(1, place)


def _by_relation(
    first: Tensor, chosen: Tensor, relation_scores: Tensor, cells: Cells, number: int, gone: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The best entries ``[n, number]`` of the best relation in or near the cells ``chosen [n, P]``, by first halves ``[n, d/2]``;
    with their scores, -inf for none.
    """
    best, relation = relation_scores.max(dim=1, keepdim=True)
    scores, members = cells.relations.nearest(first, _once(cells.blocks[relation, chosen]), number, gone)
    return scores + best, members


def _once(numbers: Tensor) -> Tensor:
    """``numbers [n, P]``, of which those that came before in their row are -1.

    >>> _once(torch.tensor([[5, 3, 5], [2, 2, 2]]))
    tensor([[ 5,  3, -1],
            [ 2, -1, -1]])
    """
    same = (numbers[:, :, None] == numbers[:, None]).tril(diagonal=-1).any(dim=2)
    return numbers.masked_fill(same, -1)


def _by_subject(
    first: Tensor, chosen: Tensor, relation_scores: Tensor, cells: Cells, number: int, gone: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The best entries of the nearest subjects in the cells ``chosen [n, P]``, in the same way; ``number`` or, if less,
    ``CANDIDATES`` of them.
    """
    near, subjects = cells.subjects.nearest(first, chosen, max(SUBJECTS, number))
    which, entries, present = _entries_of(subjects, near, cells)
    if gone is not None:
        present = present & ~gone[entries]
    scores = near.gather(1, which) + relation_scores.gather(1, cells.group[entries])
    scores, place = scores.masked_fill(~present, float("-inf")).topk(min(number, CANDIDATES), dim=1)
    return scores, entries.gather(1, place)


def _entries_of(subjects: Tensor, near: Tensor, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
    """The entries of ``subjects [n, S]``, nearest first, where ``near`` is not -inf: for each of ``CANDIDATES`` slots which
    subject's, which entry, and whether there is one.
    """
    begin = cells.starts[subjects]
    reached = ((cells.starts[subjects + 1] - begin) * ~near.isneginf()).cumsum(dim=1)
    slot = torch.arange(CANDIDATES, device=near.device).expand(len(near), -1).contiguous()
    which = torch.searchsorted(reached, slot, right=True)
    present = which < near.shape[1]
    which = which.clamp(max=near.shape[1] - 1)
    before = F.pad(reached, (1, 0)).gather(1, which)
    place = (begin.gather(1, which) + slot - before).clamp(max=len(cells.entries) - 1)
    return which, cells.entries[place], present


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
