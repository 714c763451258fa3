"""The cleaned documents of a preparation: which were kept, in portions that can each be read again alone.

Cleaning writes no text. It leaves one bit per document read (kept or not) and, for every portion, the cursor where its
reading starts: so a portion is read from the sources in the time its own bytes take, and a lost shard is made again
without touching the others. A portion holds consecutive documents of one source and becomes shard number ``shard`` of
that source in both splits.

>>> portion = Portion("tales", 0, {"source": 0, "file": 0, "offset": 0, "line": 0, "number": 0}, 3, 2)
>>> Portion(**portion.to_data()) == portion
True
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lichen.config.cleaning import CleanConfig
from lichen.config.errors import LichenError
from lichen.config.prepare import ShardConfig
from lichen.core.folders import write_file
from lichen.dataset.cleaning import Cleaning
from lichen.dataset.normalising import normalise
from lichen.dataset.records import Cursor, Reject, parse, read_chunks
from lichen.dataset.sources import Source

CLEANED, KEPT, REJECTS = "cleaned.json", "kept.npy", "rejects.jsonl"
Report = Callable[[str, int, int | None], None]
"""Called with (stage, documents done, documents in all or None)."""


@dataclass(frozen=True)
class Portion:
    """Consecutive documents of one source."""

    source: str
    shard: int
    start: dict[str, int]
    """Cursor of the first document; its ``number`` is the first document's."""
    stop: int
    """Number behind the last document."""
    kept: int
    """Documents that cleaning kept."""

    def to_data(self) -> dict[str, Any]:
        """Plain data; ``Portion(**data)`` reads it back."""
        return asdict(self)


@dataclass(frozen=True)
class Corpus:
    """What cleaning left of ``sources``."""

    sources: tuple[Source, ...]
    clean: CleanConfig
    data: dict[str, Any]
    kept: np.ndarray
    """``[documents read]`` bool."""

    @cached_property
    def portions(self) -> tuple[Portion, ...]:
        """All portions with kept documents, source by source."""
        return tuple(Portion(**data) for data in self.data["portions"])

    @property
    def counts(self) -> dict[str, Any]:
        """Documents read, kept and dropped by reason, in all and per source."""
        return self.data["counts"]

    def texts(self, portion: Portion) -> Iterator[str]:
        """The kept documents of a portion, normalised, in order."""
        for chunk in read_chunks(self.sources, self.clean, Cursor(**portion.start)):
            for raw in chunk.items:
                if raw.number >= portion.stop:
                    return
                if self.kept[raw.number]:
                    record = parse(raw, chunk, self.clean)
                    if isinstance(record, Reject):
                        raise LichenError(f"{record.file}, line {record.line}: changed while preparing; prepare again")
                    yield normalise(record.text, self.clean)
            if chunk.error:
                raise LichenError(chunk.error)

    def all_texts(self, report: Report, stage: str) -> Iterator[tuple[str, str]]:
        """(source, text) of every kept document."""
        done, total = 0, sum(portion.kept for portion in self.portions)
        for portion in self.portions:
            for text in self.texts(portion):
                yield portion.source, text
                done += 1
                if done % 1000 == 0:
                    report(stage, done, total)
        report(stage, done, total)


def load_corpus(folder: Path, sources: tuple[Source, ...], clean: CleanConfig) -> Corpus | None:
    """The corpus that `clean_sources` left in ``folder``, or None where it did not finish."""
    if not (folder / CLEANED).is_file() or not (folder / KEPT).is_file() or not (folder / REJECTS).is_file():
        return None
    data = json.loads((folder / CLEANED).read_text(encoding="utf-8"))
    bits = np.load(folder / KEPT, allow_pickle=False)
    return Corpus(sources, clean, data, np.unpackbits(bits, count=data["counts"]["read"]).astype(bool))


def save_corpus(folder: Path, data: dict[str, Any], kept: np.ndarray) -> None:
    """Write what `load_corpus` reads but the rejects, ``cleaned.json`` last."""
    buffer = io.BytesIO()
    np.save(buffer, np.packbits(kept), allow_pickle=False)
    write_file(folder / KEPT, buffer.getvalue())
    write_file(folder / CLEANED, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def clean_sources(
    sources: tuple[Source, ...],
    clean: CleanConfig,
    shards: ShardConfig,
    work: Path,
    folder: Path,
    workers: int,
    report: Report,
) -> None:
    """Clean ``sources``, continued in the folder ``work`` where it was interrupted; leave the corpus in ``folder``."""
    cleaning = Cleaning(sources, clean, work)
    read = sum(summary["read"] for summary in cleaning.summaries())
    size = sum(file["bytes"] for source in cleaning.fingerprint for file in source["files"].values())
    workers = 1 if size < 2 * clean.chunk_bytes else workers  # starting processes takes longer than that

    def progress(summary: dict[str, Any]) -> None:
        nonlocal read
        read += summary["read"]
        report("clean", read, None)

    report("clean", read, None)
    cleaning.scan(workers, progress)
    report("find duplicates", 0, None)
    found = cleaning.report or cleaning.decide()
    kept = np.zeros(found.read, bool)
    kept[cleaning.kept_numbers()] = True
    portions = cut_portions(list(_chunks(cleaning.summaries(), kept)), shards)
    write_file(folder / REJECTS, cleaning.rejects_path.read_bytes())
    save_corpus(folder, {"counts": found.to_data(), "portions": [portion.to_data() for portion in portions]}, kept)


def _chunks(summaries: Iterable[dict[str, Any]], kept: np.ndarray) -> Iterator[dict[str, Any]]:
    """The scanned chunks as `cut_portions` takes them."""
    start = Cursor().to_data()
    for summary in summaries:
        stop = summary["end"]["number"]
        count = int(kept[start["number"] : stop].sum())
        yield {"source": summary["source"], "start": start, "stop": stop, "kept": count, "bytes": summary["bytes"]}
        start = summary["end"]


def cut_portions(chunks: Sequence[dict[str, Any]], shards: ShardConfig) -> list[Portion]:
    """Join consecutive chunks of one source until a shard is full.

    A chunk is a mapping of ``source``, ``start`` (cursor), ``stop`` (number behind its last document), ``kept``
    (documents) and ``bytes`` as read. Portions without a kept document are left out.
    """
    portions: list[Portion] = []
    held: list[dict[str, Any]] = []
    shard = 0
    for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
        held.append(chunk)
        full = sum(c["bytes"] for c in held) >= shards.max_bytes or sum(c["kept"] for c in held) >= shards.max_documents
        last = following is None or following["source"] != chunk["source"]
        if full or last:
            kept = sum(c["kept"] for c in held)
            if kept:
                portions.append(Portion(chunk["source"], shard, held[0]["start"], chunk["stop"], kept))
                shard += 1
            held = []
        if last:
            shard = 0
    return portions


def share(text: str, purpose: str, seed: int) -> float:
    """A number in [0, 1) that depends on a document's text, a purpose and a seed alone.

    >>> round(share("moss", "validation", 0), 4) == round(share("moss", "validation", 0), 4)
    True
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=f"{seed}/{purpose}".encode()[:64]).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
