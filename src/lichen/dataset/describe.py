"""What is in the data, in numbers: counts per source and split, drops by reason, lengths, token frequencies.

Everything that can be counted from the shards is counted from them, so that the statistics describe what training will
read. Lengths fall into bins that double: bin k holds lengths from 2^k to 2^(k+1) - 1.

>>> length_histogram(np.array([1, 2, 3, 300]))
[{'from': 1, 'to': 1, 'documents': 1}, {'from': 2, 'to': 3, 'documents': 2}, {'from': 256, 'to': 511, 'documents': 1}]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.dataset.records import Reject, read_records
from lichen.dataset.shards import SPLITS, STATISTICS, Documents, Prepared
from lichen.dataset.sources import open_sources
from lichen.dataset.tokenizer import Tokenizer

TOP = 50
COVERAGES = (0.5, 0.9, 0.99)


def statistics(path: str | Path) -> dict[str, Any]:
    """The statistics of a prepared folder, or of a file or folder of raw documents.

    A prepared folder answers with the ``statistics.json`` it holds. Anything `lichen prepare` could read is read once
    and answered with documents, characters, bytes and a histogram of bytes per document.
    """
    path = Path(path)
    if (path / STATISTICS).is_file():
        try:
            return json.loads((path / STATISTICS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise LichenError(f"{path / STATISTICS}: damaged ({error}); run lichen prepare again") from None
    if (path / "dataset.json").is_file():
        raise UsageError(f"{path / STATISTICS}: missing; run lichen prepare with the same recipe again")
    return _of_raw(path)


def describe_shards(documents: Mapping[str, Sequence[Documents]], tokenizer: Tokenizer) -> dict[str, Any]:
    """Lengths, token frequencies and vocabulary use over ``documents`` of every split (a mapping from its name)."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    lengths: list[np.ndarray] = []
    for part in (part for parts in documents.values() for part in parts):
        lengths.append(part.lengths)
        for shard in range(len(part.stems)):
            counts += np.bincount(part.all_tokens(shard), minlength=tokenizer.vocab_size)
    joined = np.concatenate(lengths) if lengths else np.zeros(0, np.int32)
    return {
        "lengths": _length_summary(joined),
        "length_histogram": length_histogram(joined),
        "vocabulary": _vocabulary(counts, tokenizer),
    }


def length_histogram(lengths: np.ndarray) -> list[dict[str, int]]:
    """Documents per bin of doubling width; empty bins are left out. ``lengths`` are at least 1."""
    bins = np.bincount(np.floor(np.log2(np.maximum(lengths, 1))).astype(int)) if len(lengths) else []
    return [
        {"from": 1 << place, "to": (2 << place) - 1, "documents": int(count)}
        for place, count in enumerate(bins)
        if count
    ]


def totals(parts: Sequence[Mapping[str, int]]) -> dict[str, Any]:
    """The sums of documents, tokens, bytes and characters over ``parts``, and their ratios."""
    keys = ("documents", "tokens", "bytes", "characters", "cut_documents", "cut_tokens")
    sums: dict[str, Any] = {key: sum(part.get(key, 0) for part in parts) for key in keys}
    text_tokens = sums["tokens"] - sums["documents"]
    if text_tokens > 0:
        sums["bytes_per_token"] = round(sums["bytes"] / text_tokens, 4)
        sums["characters_per_token"] = round(sums["characters"] / text_tokens, 4)
    return sums


def _length_summary(lengths: np.ndarray) -> dict[str, float]:
    if not len(lengths):
        return {}
    marks = np.percentile(lengths, [0, 5, 50, 95, 100], method="inverted_cdf")
    names = ("shortest", "percentile_5", "median", "percentile_95", "longest")
    return {name: int(mark) for name, mark in zip(names, marks, strict=True)} | {
        "mean": round(float(lengths.mean()), 2)
    }


def _vocabulary(counts: np.ndarray, tokenizer: Tokenizer) -> dict[str, Any]:
    """Which tokens occur, how often, and how many of them make up a half, most, nearly all of the text."""
    order = np.argsort(-counts, kind="stable")
    total = int(counts.sum())
    running = np.cumsum(counts[order])
    ranks = sorted({int(rank) for rank in np.geomspace(1, max(len(counts), 2), 60).round()})
    used = int((counts > 0).sum())
    return {
        "size": tokenizer.vocab_size,
        "used": used,
        "rare": int(((counts > 0) & (counts < 10)).sum()),
        "coverage": {f"{share:.0%}": int(np.searchsorted(running, share * total)) + 1 for share in COVERAGES if total},
        "top": [
            {"id": int(token), "text": tokenizer.decode([token], skip_special=False), "count": int(counts[token])}
            for token in order[:TOP]
            if counts[token]
        ],
        "frequency_by_rank": [[rank, int(counts[order[rank - 1]])] for rank in ranks if rank <= used],
    }


def _readable_texts(source: SourceConfig) -> Iterator[str]:
    """The readable documents of ``source`` as they are; unreadable ones are passed over."""
    for record in read_records(open_sources([source]), CleanConfig()):
        if not isinstance(record, Reject):
            yield record.text


def _of_raw(path: Path) -> dict[str, Any]:
    sizes: list[int] = []
    characters = 0
    for text in _readable_texts(SourceConfig(path=path)):
        sizes.append(len(text.encode()))
        characters += len(text)
    array = np.array(sizes, np.int64)
    return {
        "documents": len(sizes),
        "bytes": int(array.sum()),
        "characters": characters,
        "bytes_histogram": length_histogram(array),
    }


def of_prepared(prepared: Prepared) -> dict[str, Any]:
    """Lengths, token frequencies and vocabulary use, counted anew from the shards of a prepared folder."""
    documents = {split: prepared.documents(split) for split in SPLITS}
    return describe_shards(documents, Tokenizer.load(prepared.tokenizer_folder))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
