"""Facts under other names for one step: text and bank are changed together, so that only reading the bank gives the answer.

A model that can learn a fact by heart will, and its memory stays decorative. So in every step a share of the facts that the
batch tells get the object of another fact of the same relation, with as many tokens: in the text, wherever it is linked, as
token and as target, and in the step's view of the bank. Another share is missing from the bank in this step; where the text
tells these facts nothing is to be read, and so it is at a sample of other positions.

What changes is a pure function of (seed, step, links of the global batch). Links are found from the plan and the links
column alone, hence every rank finds those of all ranks without reading their text, and all have the same view of the bank.

Facts that one place of the text tells together (who was born and died in London) share their fate: the same new object, or
none. Facts with the same subject and relation are missing together, since a search can not tell them apart. A fact keeps its
object if the text spells it in other tokens than the bank does, or if no other object of the relation has as many tokens.
A link whose subject is not in the same piece of the row, or is itself a replaced object, teaches nothing.

>>> from lichen.dataset.plan import DocumentList, Plan
>>> links = np.zeros(1, LINK)
>>> links["start"], links["count"], links["entries"], links["checksum"] = 2, 1, [0, -1, -1, -1], checksums(np.array([[7]]))
>>> plan = Plan(DocumentList("tale", [[5, 6, 7, 8, 0]], links=[links]), capacity=6, seed=0)
>>> found = occurrences(plan, [0])
>>> found.rows.tolist(), found.starts.tolist(), found.entries[:, 0].tolist(), found.told.tolist()
([0], [2], [0], [True])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lichen.config.data import LinksConfig
from lichen.config.errors import LichenError
from lichen.core.batch import IGNORE_TARGET
from lichen.core.streams import Stream
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.linking import LINK, MOST_TOKENS, checksums
from lichen.dataset.plan import RowSource

MOST_BETWEEN = 16
"""Positions after a subject at most at which it is to be borne in mind."""
ROWS = 65536
"""Entries looked at together."""
SPACES = (" ", "Ġ", "▁")
"""How vocabularies spell tokens that begin with a space."""


class Occurrences(NamedTuple):
    """Links within rows, as columns of these; K of them, in the order of rows and columns."""

    rows: np.ndarray
    """``[K]`` int64 which of the rows asked for."""
    subjects: np.ndarray
    """``[K]`` int64 column of the subject's first token; it may lie before the piece."""
    starts: np.ndarray
    """``[K]`` int64 column of the object's first token."""
    counts: np.ndarray
    """``[K]`` int64 tokens of the object; the piece may end within them."""
    lows: np.ndarray
    """``[K]`` int64 first column of the piece of the document."""
    highs: np.ndarray
    """``[K]`` int64 the column behind it."""
    checksums: np.ndarray
    """``[K]`` uint32 of the object's tokens."""
    entries: np.ndarray
    """``[K, P]`` int64, -1 filling up."""

    @property
    def told(self) -> np.ndarray:
        """``[K]`` bool: whether the piece holds the subject too."""
        return self.subjects >= self.lows

    def of_rows(self, start: int, stop: int) -> Occurrences:
        """Those of some rows, which are counted from 0 again."""
        here = (self.rows >= start) & (self.rows < stop)
        return Occurrences(*(part[here] for part in self))._replace(rows=self.rows[here] - start)


class LinkArrays(NamedTuple):
    """Links of filled rows on their way to a batch; see ``lichen.core.batch.Links``."""

    positions: np.ndarray
    entries: np.ndarray
    nulls: np.ndarray
    first: np.ndarray
    overridden: np.ndarray
    tokens: np.ndarray
    removed: np.ndarray
    carried: np.ndarray
    carried_entries: np.ndarray


@dataclass(frozen=True)
class View:
    """How one step sees the bank."""

    overridden: np.ndarray
    """``[R]`` int64, ascending: entries with another object."""
    objects: np.ndarray
    """``[R, C]`` int64 tokens of these objects, -1 filling up."""
    tokens: np.ndarray
    """``[R, L]`` int64 the entries with them."""
    removed: np.ndarray
    """``[X]`` int64, ascending: entries that are absent."""

    def find(self, entries: np.ndarray) -> np.ndarray:
        """Where ``entries`` stand in ``overridden``; -1 for those that do not."""
        if not len(self.overridden):
            return np.full(entries.shape, -1)
        place = np.minimum(np.searchsorted(self.overridden, entries), len(self.overridden) - 1)
        return np.where(self.overridden[place] == entries, place, -1)


def occurrences(source: RowSource, numbers: Iterable[int | None]) -> Occurrences:
    """The links in the rows of ``numbers`` (None: a row of padding), found without reading a token."""
    parts: list[np.ndarray] = [np.zeros(0, LINK)]
    frames: list[tuple[int, int, int, int, int]] = []
    for row, number in enumerate(numbers):
        stop = 0
        for piece in () if number is None else source.row(number):
            start, stop = stop, stop + piece.length
            links = source.documents.links(piece.document)
            if len(links):
                begins = links["start"]
                reach = piece.start - MOST_TOKENS, piece.start + piece.length + 1
                links = links[slice(*np.searchsorted(begins, reach))]
                parts.append(links)
                frames.append((len(links), row, start, stop, start - piece.start))
    links = np.concatenate(parts)
    counts, rows, lows, highs, shifts = np.array(frames, np.int64).reshape(-1, 5).T
    rows, lows, highs, shifts = (np.repeat(part, counts) for part in (rows, lows, highs, shifts))
    starts = links["start"] + shifts
    ends = starts + links["count"] - 1  # positions are those before: start - 1 up to end - 1
    kept = (starts - 1 < highs) & (ends - 1 >= lows)
    found = Occurrences(
        rows=rows,
        subjects=links["subject"] + shifts,
        starts=starts,
        counts=links["count"].astype(np.int64),
        lows=lows,
        highs=highs,
        checksums=links["checksum"],
        entries=links["entries"].astype(np.int64),
    )
    return Occurrences(*(part[kept] for part in found))


class Rebinder:
    """Decides what changes in a step, and labels the rows accordingly.

    Every rank has one of its own, made of the same bank, configuration and seed.
    """

    def __init__(self, arrays: BankArrays, config: LinksConfig, seed: int):
        self.arrays = arrays
        self.config = config
        self._draws, self._null_draws = Stream(seed, "rebinding"), Stream(seed, "null positions")
        self._counts = arrays.object_stop.astype(np.int64) - arrays.object_start
        self._checksums = self._entry_checksums()
        kinds = (arrays.relation_ids.astype(np.int64) << 9) | (self._counts << 1) | self._are_spaced()
        self._kinds = (kinds << 32) | self._checksums
        donors = np.flatnonzero(self._checksums)
        self._donors = donors[np.argsort(self._kinds[donors], kind="stable")]
        self._donor_kinds = self._kinds[self._donors]
        self._by_pair = np.argsort(arrays.pair_ids, kind="stable")
        self._sorted_pairs = arrays.pair_ids[self._by_pair]

    def _entry_checksums(self) -> np.ndarray:
        """``[N]`` int64 of the objects' tokens; 0 for entries without an object."""
        parts = [np.zeros(0, np.int64)]
        for start in range(0, len(self._counts), ROWS):
            entries = np.arange(start, min(start + ROWS, len(self._counts)))
            parts.append(np.where(self._counts[entries] > 0, checksums(self._objects(entries)), 0))
        return np.concatenate(parts).astype(np.int64)

    def _are_spaced(self) -> np.ndarray:
        """``[N]`` whether each object's tokens begin with a space: an object takes the place of one that is spelt alike."""
        first = self.arrays.entries[np.arange(len(self._counts)), self.arrays.object_start]
        tokens, inverse = np.unique(first, return_inverse=True)
        names = [self.arrays.tokenizer.name_of(token) for token in tokens.tolist()]
        return np.array([name.startswith(SPACES) for name in names], np.int64)[inverse]

    def _objects(self, entries: np.ndarray) -> np.ndarray:
        """``[n, C]`` int64 the objects' tokens of ``entries``, -1 filling up."""
        start, stop = self.arrays.object_start[entries, None], self.arrays.object_stop[entries, None]
        place = start + np.arange(int(self._counts[entries].max(initial=0)))
        tokens = self.arrays.entries[entries[:, None], np.minimum(place, self.arrays.entries.shape[1] - 1)]
        return np.where(place < stop, tokens, -1).astype(np.int64)

    # The view of a step

    def unchanged(self) -> View:
        """The bank as it is."""
        nothing = np.zeros(0, np.int64)
        return View(nothing, np.zeros((0, 0), np.int64), self._overridden_tokens(nothing, nothing), nothing)

    def view(self, step: int, found: Occurrences) -> View:
        """What changes in ``step``, whose global batch has the links ``found``."""
        told = np.flatnonzero(found.told)
        place, column = np.nonzero(found.entries[told] >= 0)
        entries, nodes = np.unique(found.entries[told][place, column], return_inverse=True)
        if len(entries) and entries[-1] >= len(self._counts):
            raise LichenError(
                f"a link leads to entry {entries[-1]} of {len(self._counts)}: another bank; prepare again"
            )
        together = _components(len(entries), place, nodes)
        pairs = np.unique(self.arrays.pair_ids[entries], return_inverse=True)[1]
        alike = _components(
            len(entries), np.concatenate([place, pairs + len(told)]), np.concatenate([nodes, np.arange(len(entries))])
        )
        removal, rebinding, choice = self._draws.numpy(step).random((3, len(entries)))
        remove, rebind = self.config.remove, self.config.rebind
        removed = removal[alike] < remove
        rebound = ~removed & (rebinding[together] * (1 - remove) < rebind)
        spelt = (found.checksums[told][place] == self._checksums[entries][nodes]) & (
            found.counts[told][place] == self._counts[entries][nodes]
        )
        rebound &= self._share_tokens(spelt, entries, nodes, together)
        donors = self._donors_of(entries[together], choice[together])
        rebound &= donors >= 0
        overridden, donors = entries[rebound], donors[rebound]
        gone = self._with_their_pairs(entries[removed])
        return View(overridden, self._objects(donors), self._overridden_tokens(overridden, donors), gone)

    def _share_tokens(
        self, spelt: np.ndarray, entries: np.ndarray, nodes: np.ndarray, together: np.ndarray
    ) -> np.ndarray:
        """``[n]`` whether all that is told together with each entry has its tokens; ``spelt [I]``: where the text tells it."""
        own = self._checksums[entries]
        same = (own == own[together]) & (own > 0)
        np.logical_and.at(same, nodes, spelt)
        whole = np.ones(len(entries), bool)
        np.logical_and.at(whole, together, same)
        return whole[together]

    def _donors_of(self, entries: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """For each entry one of the same relation with another object of as many tokens, or -1; ``choice`` in [0, 1)."""
        own = self._kinds[entries]
        kind = own >> 32
        low, high = np.searchsorted(self._donor_kinds, kind << 32), np.searchsorted(self._donor_kinds, (kind + 1) << 32)
        same, behind = np.searchsorted(self._donor_kinds, own), np.searchsorted(self._donor_kinds, own, side="right")
        available = (high - low) - (behind - same)
        place = low + (choice * available).astype(np.int64)
        place += np.where(place >= same, behind - same, 0)
        if not len(self._donors):
            return np.full(len(entries), -1)
        return np.where(available > 0, self._donors[np.minimum(place, len(self._donors) - 1)], -1)

    def _overridden_tokens(self, overridden: np.ndarray, donors: np.ndarray) -> np.ndarray:
        tokens = self.arrays.entries[overridden].astype(np.int64)
        objects = self._objects(donors)
        place, column = np.nonzero(objects >= 0)
        tokens[place, self.arrays.object_start[overridden][place] + column] = objects[place, column]
        return tokens

    def _with_their_pairs(self, entries: np.ndarray) -> np.ndarray:
        """``entries`` and all others of the same subject and relation, ascending."""
        pairs = self.arrays.pair_ids[entries]
        low, high = np.searchsorted(self._sorted_pairs, pairs), np.searchsorted(self._sorted_pairs, pairs, side="right")
        others = [self._by_pair[start:stop] for start, stop in zip(low.tolist(), high.tolist(), strict=True)]
        return np.unique(np.concatenate([entries, *others])).astype(np.int64)

    # The rows of a step

    def label(
        self, view: View, found: Occurrences, tokens: np.ndarray, targets: np.ndarray, numbers: Sequence[int | None]
    ) -> LinkArrays:
        """Write the objects of ``view`` into ``tokens`` and ``targets [rows, T]``, in place; say what each position is to read.

        ``found`` are the links of these rows, ``numbers`` their global counters.
        """
        columns = found.starts[:, None] + np.arange(int(found.counts.max(initial=0)))
        within = np.arange(columns.shape[1]) < found.counts[:, None]
        is_token = within & (columns >= found.lows[:, None]) & (columns < found.highs[:, None])
        is_target = within & (columns > found.lows[:, None]) & (columns <= found.highs[:, None])
        replaced = self._write(view, found, columns, is_token, is_target, tokens, targets)
        width = tokens.shape[1]
        told = found.told & ~replaced[found.rows, np.clip(found.subjects, 0, width - 1)]
        gone = np.isin(found.entries[:, 0], view.removed)
        places = found.rows[:, None] * width + columns - 1
        covered = np.zeros(tokens.size, bool)
        covered[places[is_target]] = True
        link, column = np.nonzero(is_target & (told & ~gone)[:, None])
        positions, kept = np.unique(places[link, column], return_index=True)
        missing = places[is_target & (told & gone)[:, None]]
        free = (targets != IGNORE_TARGET) & ~covered.reshape(targets.shape)
        nulls = np.unique(np.concatenate([missing, self._null_sample(free, numbers)]))
        carried, about = self._between(found, np.flatnonzero(told & ~gone), width)
        return LinkArrays(
            positions=np.stack(np.divmod(positions, width), axis=1),
            entries=found.entries[link[kept]],
            nulls=np.stack(np.divmod(nulls, width), axis=1),
            first=column[kept] == 0,
            overridden=view.overridden,
            tokens=view.tokens,
            removed=view.removed,
            carried=np.stack(np.divmod(carried, width), axis=1),
            carried_entries=about,
        )

    def _between(self, found: Occurrences, links: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Flat positions from the subjects' last tokens on, before those that predict the object; an entry about each."""
        entries = found.entries[links, 0]
        first = found.subjects[links] + np.maximum(self.arrays.subject_lengths[entries].astype(np.int64), 1) - 1
        columns = first[:, None] + np.arange(MOST_BETWEEN)
        link, place = np.nonzero((columns < found.starts[links, None] - 1) & (columns < found.highs[links, None]))
        flat = found.rows[links][link] * width + columns[link, place]
        flat, last = np.unique(
            flat[::-1], return_index=True
        )  # of two subjects the later one, as the text goes on from it
        return flat, entries[link[::-1][last]]

    def _write(
        self,
        view: View,
        found: Occurrences,
        columns: np.ndarray,
        is_token: np.ndarray,
        is_target: np.ndarray,
        tokens: np.ndarray,
        targets: np.ndarray,
    ) -> np.ndarray:
        """Replace the objects of told links whose entries are overridden; ``[rows, T]`` which tokens were."""
        place = np.where(found.told, view.find(found.entries[:, 0]), -1)
        replaced = np.zeros(tokens.shape, bool)
        for array, mask, shift in ((tokens, is_token, 0), (targets, is_target, 1)):
            link, column = np.nonzero(mask & (place >= 0)[:, None])
            where = found.rows[link], columns[link, column] - shift
            array[where] = view.objects[place[link], column]
            if array is tokens:
                replaced[where] = True
        return replaced

    def _null_sample(self, free: np.ndarray, numbers: Sequence[int | None]) -> np.ndarray:
        """Flat positions, ``null_samples`` of every row that has as many ``free [rows, T]`` ones; a function of its number."""
        chosen = [np.zeros(0, np.int64)]
        for row, number in enumerate(numbers):
            places = np.flatnonzero(free[row])
            if number is not None and len(places) and self.config.null_samples:
                draw = self._null_draws.numpy(number).permutation(len(places))[: self.config.null_samples]
                chosen.append(row * free.shape[1] + places[draw])
        return np.concatenate(chosen)


def _components(count: int, groups: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """``[count]`` the least node that each node is connected with; ``groups [I]`` hold ``nodes [I]``, and connect them.

    >>> _components(5, np.array([0, 0, 1, 1]), np.array([1, 3, 3, 4])).tolist()
    [0, 1, 2, 1, 1]
    """
    label = np.arange(count)
    while True:
        least = np.full(int(groups.max(initial=-1)) + 1, count)
        np.minimum.at(least, groups, label[nodes])
        joined = label.copy()
        np.minimum.at(joined, nodes, least[groups])
        if (joined == label).all():
            return label
        label = joined


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
