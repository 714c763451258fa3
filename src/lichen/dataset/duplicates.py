"""Which documents repeat an earlier one, found with memory that does not grow with the text.

While documents are scanned, `write_hashes` writes for every chunk its digests and signatures, and per band of the signature
the documents' hashes, already sorted. `find_duplicates` then merges, band by band and, where memory asks for it, range of
hashes by range, the sorted runs of all chunks; documents with an equal hash are candidates, and each is compared with the
first of its group by reading two digests or signatures from disk. Those that do not agree with it form the next group.
Agreeing pairs are joined (union-find), and of every joined set the document with the smallest number is kept: also if it is
only linked through others, as in datatrove. In memory stay a few integers per document.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> poem = "the green moss grows on an old stone wall by the sea"
>>> poems = [poem, poem, "苔藓生在石墙之上", poem.capitalize() + "!"]
>>> config = DeduplicateConfig()
>>> for chunk in range(2):
...     write_hashes(folder / str(chunk), poems[2 * chunk :][:2], np.array([0, 1]) + 2 * chunk, config)
>>> found = find_duplicates([folder / "0", folder / "1"], config)
>>> found.numbers.tolist(), found.reasons, found.originals.tolist()
([1, 3], ['exact_duplicate', 'near_duplicate'], [0, 0])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from lichen.config.cleaning import DeduplicateConfig
from lichen.config.errors import LichenError
from lichen.core.folders import write_file
from lichen.dataset.signatures import EMPTY, band_hashes, digests, rows_per_band, sign

PAIRS = 1 << 14  # verified at once
ROUNDS = 100  # first documents a candidate is compared with, per band
BYTES_PER_ENTRY = 64  # a hash and an index, while they are sorted and grouped
REASONS = ("", "exact_duplicate", "near_duplicate")  # by code
Agree = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found, in the order of document numbers."""

    codes: np.ndarray
    """uint8 [D]: 1 exact, 2 near."""
    numbers: np.ndarray
    """int64 [D]: the documents to drop."""
    originals: np.ndarray
    """int64 [D]: the document that is kept for each."""

    def codes_of(self, numbers: np.ndarray) -> np.ndarray:
        """uint8: for each of ``numbers`` its code, 0 for those to keep."""
        codes = np.zeros(len(numbers), np.uint8)
        if len(self.numbers):
            places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
            found = self.numbers[places] == numbers
            codes[found] = self.codes[places[found]]
        return codes

    @property
    def reasons(self) -> list[str]:
        """The reason to drop each, in words."""
        return [REASONS[code] for code in self.codes]


def write_hashes(path: Path, texts: Sequence[str], numbers: np.ndarray, config: DeduplicateConfig) -> None:
    """Write what `find_duplicates` needs of a chunk's documents, with their ascending ``numbers``, as the file ``path``."""
    count, bands = len(texts), 0
    rows = np.arange(count)
    arrays: list[np.ndarray] = [np.asarray(numbers, np.int64)]
    if config.exact:
        digest = digests(texts)
        arrays += [digest, *_sorted_run(digest[None, :, 0], rows)]
    if config.near:
        signatures = sign(texts, config)
        rows = np.flatnonzero((signatures != EMPTY).any(axis=1))  # without letters there is nothing to compare
        hashes = band_hashes(signatures[rows], rows_per_band(config.permutations, config.threshold))
        bands = len(hashes)
        arrays += [signatures, *_sorted_run(hashes, rows)]
    header = np.array([count, len(rows), config.exact, bands, config.permutations if config.near else 0], np.int64)
    write_file(path, b"".join(np.ascontiguousarray(array).tobytes() for array in (header, *arrays)))


def read_numbers(path: Path) -> np.ndarray:
    """The document numbers in a file of `write_hashes`, int64 [N]."""
    return _Hashes(path).read("numbers")


def find_duplicates(paths: Sequence[Path], config: DeduplicateConfig) -> Duplicates:
    """The documents to drop, over the chunks written at ``paths``, given in reading order."""
    store = _Store(paths)
    parents = np.arange(store.total)
    codes = np.zeros(store.total, np.uint8)
    if config.exact:
        _link_bands(store, "exact", 1, config, parents, store.equal)
        codes[parents != np.arange(store.total)] = 1
    if config.near:
        bands = config.permutations // rows_per_band(config.permutations, config.threshold)
        _link_bands(store, "near", bands, config, parents, lambda a, b: store.similar(a, b, config.threshold))
        codes[(parents != np.arange(store.total)) & (codes == 0)] = 2
    dropped = np.flatnonzero(codes)
    return Duplicates(codes[dropped], store.numbers[dropped], store.numbers[parents[dropped]])


# --- Joining ---


def _link_bands(
    store: _Store, run: str, bands: int, config: DeduplicateConfig, parents: np.ndarray, agree: Agree
) -> None:
    ranges = max(1, -(-store.total * BYTES_PER_ENTRY // (config.memory_mebibytes << 20)))
    edges = [number * 2**64 // ranges for number in range(ranges + 1)]
    exact = parents != np.arange(store.total)  # what a copy would link, the document itself links as well
    for band in range(bands):
        roots = parents.copy()  # as they are before the band, so that the ranges do not matter
        for low, high in pairwise(edges):
            hashes, members = store.merge(run, band, low, high - 1)
            single = ~exact[members]
            _link(*_groups(hashes[single], members[single]), parents, roots, agree)
        while not np.array_equal(parents, higher := parents[parents]):
            parents[:] = higher


def _groups(hashes: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Documents that share a hash with another, ordered by group and number, and their groups' numbers."""
    order = np.lexsort((members, hashes))
    hashes, members = hashes[order], members[order]
    groups = np.cumsum(np.concatenate(([0], hashes[1:] != hashes[:-1])))[: len(members)]
    shared = np.bincount(groups, minlength=1)[groups] > 1 if len(members) else np.zeros(0, bool)
    return members[shared], groups[shared]


def _link(members: np.ndarray, groups: np.ndarray, parents: np.ndarray, roots: np.ndarray, agree: Agree) -> None:
    """Join within every group those that agree with its first; the others form the next round's groups."""
    for _ in range(ROUNDS):
        if not len(members):
            break
        leads = np.concatenate(([True], groups[1:] != groups[:-1]))
        leaders = members[leads][np.cumsum(leads) - 1]
        joined = roots[leaders] == roots[members]  # the leaders themselves, and what earlier bands have joined
        asked = np.flatnonzero(~joined)
        agreed = asked[agree(leaders[asked], members[asked])]
        for leader, member in zip(leaders[agreed].tolist(), members[agreed].tolist(), strict=True):
            _join(parents, leader, member)
        joined[agreed] = True
        members, groups = members[~joined], groups[~joined]


def _join(parents: np.ndarray, first: int, second: int) -> None:
    """Union-find with the smallest member as root."""
    first, second = _root(parents, first), _root(parents, second)
    if first != second:
        parents[max(first, second)] = min(first, second)


def _root(parents: np.ndarray, member: int) -> int:
    while (parent := int(parents[member])) != member:
        parents[member] = parents[parent]
        member = parent
    return member


# --- Files ---


class _Hashes:
    """One file of `write_hashes`: where its arrays lie.

    numbers int64 [N]; digests uint64 [N, 2]; signatures uint32 [N, P]; and two runs, ``exact`` (one band of all N) and
    ``near`` (of the V documents that have letters): per band the sorted hashes, uint64, and the rows they belong to, uint32.
    """

    def __init__(self, path: Path):
        self.path = path
        self.count, valid, exact, bands, permutations = np.fromfile(path, np.int64, 5).tolist()
        self.sections: dict[str, tuple[int, type, int]] = {}  # name: offset in bytes, type, items per row
        offset = 40
        for name, kind, rows, width in (
            ("numbers", np.int64, self.count, 1),
            ("digests", np.uint64, self.count * exact, 2),
            ("exact.hashes", np.uint64, exact, self.count),
            ("exact.rows", np.uint32, exact, self.count),
            ("signatures", np.uint32, self.count, permutations),
            ("near.hashes", np.uint64, bands, valid),
            ("near.rows", np.uint32, bands, valid),
        ):
            self.sections[name] = (offset, kind, width)
            offset += np.dtype(kind).itemsize * rows * width
        if path.stat().st_size != offset:
            raise LichenError(f"{path}: has another size than it was written with; remove its folder and start again")

    def read(self, section: str, row: int = 0, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Items ``start`` to ``stop`` of one row; of ``numbers``, all of them."""
        offset, kind, width = self.sections[section]
        width = self.count if section == "numbers" else width
        place = offset + np.dtype(kind).itemsize * (row * width + start)
        return np.fromfile(self.path, kind, (width if stop is None else stop) - start, offset=place)

    def read_rows(self, section: str, rows: np.ndarray) -> np.ndarray:
        """Some whole rows [R, width] of digests or signatures."""
        offset, kind, width = self.sections[section]
        size = width * np.dtype(kind).itemsize
        with self.path.open("rb") as file:
            data = b"".join(os.pread(file.fileno(), size, offset + size * row) for row in rows.tolist())
        return np.frombuffer(data, kind).reshape(-1, width)


class _Store:
    """The hashes of all chunks; a document is an index over all of them."""

    def __init__(self, paths: Sequence[Path]):
        self.files = [_Hashes(path) for path in paths]
        self.numbers = np.concatenate([np.empty(0, np.int64), *(file.read("numbers") for file in self.files)])
        self.starts = np.cumsum([0, *(file.count for file in self.files)])
        self.total = len(self.numbers)

    def merge(self, run: str, band: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes within [low, high] of one band over all runs, uint64 [M], and their documents, int64 [M]; by run."""
        hashes, members = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for start, file in zip(self.starts, self.files, strict=False):
            values = file.read(f"{run}.hashes", band)
            first = int(np.searchsorted(values, np.uint64(low)))
            last = int(np.searchsorted(values, np.uint64(high), "right"))
            hashes.append(values[first:last])
            members.append(file.read(f"{run}.rows", band, first, last) + start)
        return np.concatenate(hashes), np.concatenate(members)

    def equal(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether the digests of two lists of documents are equal, bool [N]."""
        return self._shares(first, second, "digests") == 1

    def similar(self, first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
        """Whether the signatures of two lists of documents agree in a share of at least ``threshold``, bool [N]."""
        return self._shares(first, second, "signatures") >= threshold

    def _shares(self, first: np.ndarray, second: np.ndarray, section: str) -> np.ndarray:
        shares = np.empty(len(first))
        for start in range(0, len(first), PAIRS):
            pairs = np.stack([first[start : start + PAIRS], second[start : start + PAIRS]])
            wanted, places = np.unique(pairs, return_inverse=True)
            rows = self._rows(wanted, section)
            left, right = places.reshape(pairs.shape)
            shares[start : start + PAIRS] = (rows[left] == rows[right]).mean(axis=1)
        return shares

    def _rows(self, wanted: np.ndarray, section: str) -> np.ndarray:
        """Rows [N, width] of the documents ``wanted``, ascending."""
        chunks = np.searchsorted(self.starts, wanted, "right") - 1
        edges = [0, *(np.flatnonzero(np.diff(chunks)) + 1).tolist(), len(wanted)]
        parts = []
        for begin, end in pairwise(edges):
            chunk = int(chunks[begin])
            parts.append(self.files[chunk].read_rows(section, wanted[begin:end] - self.starts[chunk]))
        return np.concatenate(parts)


def _sorted_run(hashes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``hashes`` uint64 [bands, V] with every band sorted, and the ``rows`` [V] they belong to, uint32 [bands, V]."""
    order = np.argsort(hashes, axis=1, kind="stable")
    return np.take_along_axis(hashes, order, axis=1), rows.astype(np.uint32)[order]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
