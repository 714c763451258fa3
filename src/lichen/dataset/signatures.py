"""What is remembered of a document to recognise it again: a digest of its text, a MinHash signature, a hash per band.

The signature holds, for each of P permutations of the 32-bit integers, the smallest image of the document's shingles (Broder,
1997); two signatures agree in a share of places that estimates the Jaccard similarity of the shingle sets. The permutations
are `datasketch`'s (scheme affine32), applied to whole blocks of documents at once; the values equal those of its `MinHash`.
Bands of r values each are hashed together: documents that agree in a whole band become candidates. The r is the largest at
which a pair exactly at the threshold is still a candidate with probability `RECALL`; candidates are verified afterwards.

>>> config = DeduplicateConfig(permutations=64, threshold=0.8)
>>> a, b, c = sign(["the green moss grows on an old stone wall", "The green moss grows on an old stone wall!", "苔"], config)
>>> bool((a == b).all()), float((a == c).mean())
(True, 0.0)
>>> rows_per_band(128, 0.8), band_hashes(np.stack([a, b, c]), 8).shape
(8, (8, 3))
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lichen.config.cleaning import DeduplicateConfig
from lichen.config.errors import require
from lichen.dataset.filters import blocks_of
from lichen.dataset.units import BASE, Units, mix

RECALL = 0.9  # of pairs exactly at the threshold; pairs above it are found more often
PIECE = 1 << 20  # characters of a long document that are shingled at once
TILE = 1 << 14  # shingles permuted at once
SEED = 1
EMPTY = np.uint32(0xFFFFFFFF)


def digests(texts: Sequence[str]) -> np.ndarray:
    """The 128-bit BLAKE2b digest of each text, as uint64 [N, 2]."""
    joined = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(joined, np.dtype("<u8")).reshape(-1, 2).astype(np.uint64)


def sign(texts: Sequence[str], config: DeduplicateConfig) -> np.ndarray:
    """MinHash signatures, uint32 [N, P]. A text without a letter or digit gets `EMPTY` everywhere."""
    signatures = np.full((len(texts), config.permutations), EMPTY, np.uint32)
    pieces, owners = _pieces(texts)
    for block in blocks_of(pieces):
        _sign_pieces(pieces[block], owners[block], signatures, config)
    return signatures


def rows_per_band(permutations: int, threshold: float) -> int:
    """How many values make a band: the most with which a pair at the threshold is found with probability `RECALL`."""
    rows = 1
    for candidate in range(2, permutations + 1):
        if 1 - (1 - threshold**candidate) ** (permutations // candidate) >= RECALL:
            rows = candidate
    return rows


def band_hashes(signatures: np.ndarray, rows: int) -> np.ndarray:
    """One hash per band and document, uint64 [bands, N], from signatures uint32 [N, P]; left-over values are in no band."""
    bands = signatures.shape[1] // rows
    values = signatures[:, : bands * rows].reshape(len(signatures), bands, rows).astype(np.uint64)
    combined = np.zeros(values.shape[:2], np.uint64)
    for row in range(rows):
        combined = combined * BASE + values[:, :, row] + np.uint64(1)
    return np.ascontiguousarray(mix(combined).T)


def _pieces(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Texts cut so that none is longer than PIECE, and the row of each: the minimum over pieces is that of the whole.

    A block holds at most one piece of a text, for all but the last are longer than a block may be.
    """
    pieces, owners = [], []
    for row, text in enumerate(texts):
        for start in range(0, max(len(text), 1), PIECE):
            pieces.append(text if len(text) <= PIECE else text[start : start + PIECE])
            owners.append(row)
    return pieces, np.array(owners, np.int64)


def _sign_pieces(pieces: Sequence[str], owners: np.ndarray, signatures: np.ndarray, config: DeduplicateConfig) -> None:
    shingles, documents = _shingles(Units.of(pieces, config.shingle == "character"), config.shingle_size)
    if not len(shingles):
        return
    multipliers, summands = _permutations(config.permutations)
    starts = np.flatnonzero(np.concatenate(([True], documents[1:] != documents[:-1])))
    rows = owners[documents[starts]]
    for begin, end in _tiles(starts, len(shingles)):
        last = len(shingles) if end == len(starts) else starts[end]
        tile, inner = shingles[starts[begin] : last], starts[begin:end] - starts[begin]
        minima = np.empty((len(multipliers), end - begin), np.uint32)
        images = np.empty_like(tile)
        for index in range(len(multipliers)):
            np.multiply(tile, multipliers[index], out=images)
            np.add(images, summands[index], out=images)
            np.minimum.reduceat(images, inner, out=minima[index])
        signatures[rows[begin:end]] = np.minimum(signatures[rows[begin:end]], minima.T)


def _tiles(starts: np.ndarray, total: int) -> list[tuple[int, int]]:
    """Ranges of documents with about TILE shingles each."""
    edges = [0]
    while edges[-1] < len(starts):
        reach = int(np.searchsorted(starts, starts[edges[-1]] + TILE))
        edges.append(max(reach, edges[-1] + 1))
    return list(pairwise(edges))


def _shingles(units: Units, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Premixed 32-bit hashes of all shingles, grouped by document, and their documents.

    A document with fewer units than a shingle has one shingle: all it has.
    """
    hashes, documents = units.n_grams(size)
    short = np.flatnonzero((units.counts > 0) & (units.counts < size))
    if len(short):
        ends = np.cumsum(units.counts)
        places = np.concatenate([np.arange(ends[row] - units.counts[row], ends[row]) for row in short])
        lone = Units(units.hashes[places], units.counts[short])
        whole = [
            _fold(lone.hashes[end - count : end])
            for end, count in zip(np.cumsum(lone.counts), lone.counts, strict=True)
        ]
        hashes = np.concatenate([hashes, np.array(whole, np.uint64)])
        documents = np.concatenate([documents, short])
        order = np.argsort(documents, kind="stable")
        hashes, documents = hashes[order], documents[order]
    return _premix((hashes >> np.uint64(32)).astype(np.uint32)), documents


def _fold(hashes: np.ndarray) -> np.uint64:
    powers = np.cumprod(np.full(len(hashes), BASE))
    return mix(np.add.reduce(hashes * powers, keepdims=True))[0]


def _premix(values: np.ndarray) -> np.ndarray:
    """The 32-bit finaliser of MurmurHash3, which datasketch applies before permuting."""
    values = (values ^ (values >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    values = (values ^ (values >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


@functools.cache
def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers (odd) and summands uint32 [P] of datasketch's affine permutations of the 32-bit integers."""
    datasketch = require("datasketch", "dedupe")
    multipliers, summands = datasketch.MinHash(num_perm=count, seed=SEED, scheme="affine32").permutations
    return multipliers, summands


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
