"""A sample of the documents, drawn without replacement by a named seed.

The sample is the beginning of a pseudo-random permutation of the documents: a larger sample with the same seed contains the
smaller one, and no list of the whole is shuffled. It is read in the order of the original.

>>> from lichen.dataset.plan import DocumentList
>>> tales = DocumentList("tales", [[1, 2, 3, 0], [4, 5, 0], [6, 0], [7, 8, 9, 0]])
>>> (sample,), record = sample_documents([tales], 0.5, seed=3)
>>> [sample.tokens(i).tolist() for i in range(len(sample))], record["sources"][0]["documents"]
([[6, 0], [7, 8, 9, 0]], 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lichen.config.errors import UsageError
from lichen.core.streams import Stream
from lichen.dataset.mixture import given_weight
from lichen.dataset.plan import DocumentSet

STRATEGY = "prefix of a seeded permutation of the documents, without replacement"


class Subset:
    """``count`` documents of a set."""

    def __init__(self, documents: DocumentSet, count: int, seed: int):
        self.whole = documents
        self.name = documents.name
        self.weight = given_weight(documents)
        self.linked = documents.linked
        permutation = Stream(seed, f"sample/{documents.name}").permutation(len(documents))
        kept = np.sort(permutation.take(np.arange(count)))
        self.indices = kept.astype(np.min_scalar_type(max(len(documents) - 1, 0)))  # mostly four bytes a document
        self.lengths = documents.lengths[self.indices]
        self._bytes: np.ndarray | None = None

    @property
    def bytes(self) -> np.ndarray:
        """``[N]`` UTF-8 bytes per document."""
        if self._bytes is None:
            self._bytes = self.whole.bytes[self.indices]
        return self._bytes

    def __len__(self) -> int:
        return len(self.indices)

    def tokens(self, i: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Tokens ``start … stop`` of document ``i``."""
        return self.whole.tokens(int(self.indices[i]), start, stop)

    def links(self, i: int) -> np.ndarray:
        """The links of document ``i``."""
        return self.whole.links(int(self.indices[i]))


def sample_documents(
    documents: Sequence[DocumentSet], sample: int | float | None, seed: int
) -> tuple[tuple[DocumentSet, ...], dict[str, Any]]:
    """Sample every source, and a record of how (strategy, seed, counts) for ``environment.json``.

    ``sample`` is a count of documents over all sources (int; split over them by their sizes), a fraction of each (float, at least
    one document), or None for all. Raises UsageError when it asks for more than there is.
    """
    sizes = [len(part) for part in documents]
    counts = sizes if sample is None else _counts(sizes, sample)
    chosen = tuple(
        part if count == len(part) else Subset(part, count, seed) for part, count in zip(documents, counts, strict=True)
    )
    sources = [
        {"name": part.name, "documents": len(part), "of": size, "tokens": int(np.sum(part.lengths, dtype=np.int64))}
        for part, size in zip(chosen, sizes, strict=True)
    ]
    return chosen, {
        "strategy": "all" if sample is None else STRATEGY,
        "seed": seed,
        "sample": sample,
        "sources": sources,
    }


def _counts(sizes: Sequence[int], sample: int | float) -> list[int]:
    total = sum(sizes)
    if isinstance(sample, float):
        if not 0 < sample <= 1:
            raise UsageError(
                f"data.sample = {sample}: a fraction lies above 0 and at most 1; a count is a whole number"
            )
        return [max(1, round(sample * size)) if size else 0 for size in sizes]
    if not 0 < sample <= total:
        raise UsageError(
            f"data.sample = {sample}: there are {total} documents; ask for 1 … {total}, or leave it out for all"
        )
    shares = [sample * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(sample * sizes[i] % total))
    for i in by_remainder[: sample - sum(shares)]:
        shares[i] += 1
    return shares


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
