"""Raw sources to clean documents, in two passes that an interruption can not harm.

Pass 1, `Cleaning.scan`: every chunk is read, parsed, normalised, filtered and hashed; what is learnt lands in the work
folder, one small JSON file per chunk written last. `Cleaning.decide` finds the duplicates over all chunks and writes which
documents are kept, ``rejects.jsonl`` and the counts. Pass 2, `Cleaning.kept_chunks`, reads the same chunks again:
`records_of` gives the texts of the kept ones. Both passes hold one chunk (per worker) in memory and hand chunks to workers as
pure functions; the same sources and settings give the same documents whatever the chunking, the number of workers, and the
interruptions. `clean` is all of this in one call, to JSON lines or Parquet.

Counting: everything read is kept or dropped under exactly one reason; bad lines are dropped as ``rejected``.

>>> import tempfile
>>> from lichen.config.cleaning import DeduplicateConfig
>>> path = Path(tempfile.mkdtemp()) / "poems.jsonl"
>>> _ = path.write_text('{"text": "moss"}\\n{"text": "moss "}\\n{"text": ""}\\n{"text": "bark"}\\n')
>>> report = clean([path], CleanConfig(deduplicate=DeduplicateConfig(near=False)), path.parent / "clean")
>>> report.read, report.kept, report.dropped
(4, 2, {'empty': 1, 'exact_duplicate': 1})
>>> print((path.parent / "clean" / "poems.jsonl").read_text().strip())
{"text": "moss", "file": ".../poems.jsonl", "line": 1}
{"text": "bark", "file": ".../poems.jsonl", "line": 4}
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.core.disk import disk_errors, rename
from lichen.core.folders import HashingWriter, fsync_folder, partial_of, remove_folder, whole_folder, write_file
from lichen.dataset.duplicates import Duplicates, find_duplicates, read_numbers, write_hashes
from lichen.dataset.filters import find_reasons
from lichen.dataset.normalising import apply_functions, normalise
from lichen.dataset.records import Chunk, Cursor, Record, Reject, parse, read_chunks
from lichen.dataset.rejects import CleanReport, Tally, in_words
from lichen.dataset.sources import Source, SourceError, check_fingerprint, open_sources
from lichen.dataset.workers import map_in_order
from lichen.dataset.writing import write_documents

FORMAT = 1  # of the work folder
HARMLESS = {"max_bad_fraction", "bad_source"}  # settings that may change while the work goes on
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Cleaned:
    """One chunk after the steps that look at a single document."""

    kept: tuple[Record, ...]
    drops: tuple[tuple[int, str], ...]
    """(document number, reason) of the dropped, rejects left out."""
    rejects: tuple[Reject, ...]


@dataclass(frozen=True)
class KeptChunk:
    """A chunk read again, and which of its documents are kept (ascending numbers, int64)."""

    chunk: Chunk
    numbers: np.ndarray


def clean_chunk(chunk: Chunk, config: CleanConfig) -> Cleaned:
    """Parse, normalise and filter; pure. Kept, dropped and rejected are together what the chunk holds."""
    parsed = [parse(raw, chunk, config) for raw in chunk.items]
    rejects = tuple(item for item in parsed if isinstance(item, Reject))
    made = [_normalised(item, config) for item in parsed if isinstance(item, Record)]
    records = [record for record, _ in made]
    found = find_reasons([record.text for record in records], config)
    reasons = [own or reason for (_, own), reason in zip(made, found, strict=True)]
    kept = tuple(record for record, reason in zip(records, reasons, strict=True) if not reason)
    drops = tuple((record.number, reason) for record, reason in zip(records, reasons, strict=True) if reason)
    return Cleaned(kept, drops, rejects)


def records_of(kept: KeptChunk, config: CleanConfig) -> list[Record]:
    """The kept documents of a chunk, normalised, in order; pure."""
    wanted = set(kept.numbers.tolist())
    parsed = [parse(raw, kept.chunk, config) for raw in kept.chunk.items if raw.number in wanted]
    records = [_normalised(item, config)[0] for item in parsed if isinstance(item, Record)]
    if len(records) != len(wanted):
        raise SourceError(f"source {kept.chunk.source} changed while it was prepared; start again", kept.chunk.source)
    return records


def _normalised(record: Record, config: CleanConfig) -> tuple[Record, str]:
    """The record with normalised text, and the name of the function of one's own that drops it, or ''."""
    text, reason = apply_functions(normalise(record.text, config), config)
    return Record(text, record.source, record.file, record.line, record.number), reason


class Cleaning:
    """The two passes over some sources, with everything that must survive an interruption in the folder ``work``.

    Raises `SourceError` when ``work`` belongs to other sources or settings: it names the file or setting that changed.
    """

    def __init__(self, sources: Sequence[Source], config: CleanConfig, work: Path):
        self.sources, self.config, self.work = tuple(sources), config, Path(work)
        self.rejects_path = self.work / "rejects.jsonl"
        self._scan = self.work / "scan"
        with disk_errors(self.work):
            self._scan.mkdir(parents=True, exist_ok=True)
        self.fingerprint = [source.fingerprint() for source in self.sources]
        self._claim()

    def scan(self, workers: int = 1, progress: Progress | None = None) -> None:
        """Pass 1, continued where it was interrupted. ``progress`` gets every chunk's summary, in order.

        Raises `SourceError` for a source that is damaged, empty, or has too many bad lines, unless those are skipped.
        """
        (self.work / "report.json").unlink(missing_ok=True)
        tally = Tally(self.sources, self.config)
        cursor = Cursor()
        try:
            for summary in self.summaries():
                cursor = Cursor(**summary["end"])
                tally.add(summary)
            chunks = read_chunks(self.sources, self.config, cursor, tally.chunks)
            jobs = ((chunk, self.config, self._path(chunk.index)) for chunk in chunks)
            for summary in map_in_order(scan_chunk, jobs, workers):
                tally.add(summary)
                if progress:
                    progress(summary)
        except SourceError:
            self._write_rejects()
            raise

    def decide(self) -> CleanReport:
        """Find the duplicates, write which documents are kept, the rejects and the counts.

        Raises `LichenError` when nothing is left.
        """
        tally = Tally(self.sources, self.config)
        for summary in self.summaries():
            tally.add(summary)
        paths = [self._path(index) for index, source in enumerate(tally.chunk_sources) if not tally.error(source)]
        duplicates = find_duplicates(paths, self.config.deduplicate)
        self._write_kept(tally, duplicates)
        self._write_rejects()
        report = tally.report()
        if not report.kept:
            raise LichenError(f"nothing is left of {report.read} documents ({in_words(report.dropped)}); relax clean.*")
        write_file(self.work / "report.json", json.dumps(report.to_data(), indent=1))
        return report

    @property
    def report(self) -> CleanReport | None:
        """What `decide` found since the last `scan`, or None before it has."""
        path = self.work / "report.json"
        return CleanReport(**json.loads(path.read_bytes())) if path.exists() else None

    def summaries(self) -> Iterator[dict[str, Any]]:
        """What `scan_chunk` found in every chunk scanned so far, in order: source, read, kept, dropped, bytes, end, …"""
        index = 0
        while self._path(index).with_suffix(".json").exists():
            yield self._summary(index)
            index += 1

    def kept_numbers(self) -> np.ndarray:
        """The numbers of all kept documents after `decide`, int64, ascending."""
        return np.fromfile(self.work / "kept.numbers", np.int64)

    def kept_chunks(self, start: int = 0) -> Iterator[KeptChunk]:
        """Pass 2: all chunks from number ``start`` on, in order; also those of which nothing is kept."""
        numbers = self.kept_numbers()
        cursor = Cursor(**self._summary(start - 1)["end"]) if start else Cursor()
        for chunk in read_chunks(self.sources, self.config, cursor, start):
            first = chunk.end.number - len(chunk.items)
            bounds = np.searchsorted(numbers, [first, chunk.end.number])
            yield KeptChunk(chunk, numbers[bounds[0] : bounds[1]])

    def _claim(self) -> None:
        path = self.work / "work.json"
        config = self.config.model_dump(mode="json", exclude=HARMLESS)
        now = {"format": FORMAT, "sources": self.fingerprint, "clean": config}
        if not path.exists():
            write_file(path, json.dumps(now, indent=1))
            return
        then = json.loads(path.read_bytes())
        check_fingerprint(then["sources"], self.fingerprint)
        if then["clean"] != config or then["format"] != FORMAT:
            changed = ", ".join(key for key in config if then["clean"].get(key) != config[key]) or "format"
            raise SourceError(f"{self.work}: was begun with other settings (clean.{changed}); remove it to start again")

    def _path(self, index: int) -> Path:
        return self._scan / f"chunk_{index:06d}.hashes"

    def _summary(self, index: int) -> dict[str, Any]:
        return json.loads(self._path(index).with_suffix(".json").read_bytes())

    def _write_kept(self, tally: Tally, duplicates: Duplicates) -> None:
        with _replaced(self.work / "kept.numbers") as file:
            for index, source in enumerate(tally.chunk_sources):
                numbers = read_numbers(self._path(index))
                found = duplicates.codes_of(numbers)
                tally.decide(source, found)
                if not tally.error(source):
                    file.write(numbers[found == 0].tobytes())

    def _write_rejects(self) -> None:
        """Write ``rejects.jsonl`` from all scanned chunks: a line per reject with file, line and cause."""
        with _replaced(self.rejects_path) as file:
            for summary in self.summaries():
                if summary["rejects"]:
                    file.write(self._path(summary["index"]).with_suffix(".rejects").read_bytes())


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[HashingWriter]:
    """A writer whose file takes the place of ``path`` at the end, whole."""
    with disk_errors(path):
        with HashingWriter(partial_of(path)) as file:
            yield file
        rename(partial_of(path), path)
        fsync_folder(path.parent)


def scan_chunk(chunk: Chunk, config: CleanConfig, path: Path) -> dict[str, Any]:
    """Clean one chunk and write its hashes and, last, its summary at ``path``; returns the summary."""
    cleaned = clean_chunk(chunk, config)
    numbers = np.array([record.number for record in cleaned.kept], np.int64)
    write_hashes(path, [record.text for record in cleaned.kept], numbers, config.deduplicate)
    if cleaned.rejects:
        lines = (json.dumps(reject.to_data(), ensure_ascii=False) + "\n" for reject in cleaned.rejects)
        write_file(path.with_suffix(".rejects"), "".join(lines).encode(errors="backslashreplace"))
    summary = {
        "index": chunk.index,
        "source": chunk.source,
        "read": len(chunk.items),
        "bytes": chunk.bytes,
        "kept": len(cleaned.kept),
        "dropped": dict(Counter(reason for _, reason in cleaned.drops)),
        "rejects": dict(Counter(reject.cause for reject in cleaned.rejects)),
        "first_reject": cleaned.rejects[0].to_data() if cleaned.rejects else None,
        "end": chunk.end.to_data(),
        "last": chunk.last,
        "error": chunk.error,
    }
    write_file(path.with_suffix(".json"), json.dumps(summary))
    return summary


def clean(
    sources: Sequence[SourceConfig | Path | str],
    config: CleanConfig | None = None,
    output: Path | str = "cleaned",
    format: Literal["jsonl", "parquet"] = "jsonl",
    *,
    workers: int = 1,
    replace: bool = False,
) -> CleanReport:
    """Clean sources into the folder ``output``: a file per source, ``rejects.jsonl`` and ``report.json``.

    Every document has the columns text, file and line. The folder appears whole at the end; an interrupted call, made
    again, continues from ``.OUTPUT.cleaning`` beside it. ``replace`` exchanges an existing folder. Raises `LichenError`.
    """
    output, config = Path(output), config or CleanConfig()
    configs = [source if isinstance(source, SourceConfig) else SourceConfig(path=Path(source)) for source in sources]
    if output.exists() and not replace:
        raise UsageError(f"{output}: exists already; choose another folder, or say replace")
    work = output.with_name(f".{output.name}.cleaning")
    cleaning = Cleaning(open_sources(configs), config, work)
    cleaning.scan(workers)
    report = cleaning.decide()
    with whole_folder(output, {"sources": cleaning.fingerprint, "clean": config.to_data()}, replace=replace) as folder:
        documents = (record for kept in cleaning.kept_chunks() for record in records_of(kept, config))
        write_documents(documents, folder, format)
        shutil.copyfile(cleaning.rejects_path, folder / "rejects.jsonl")
        write_file(folder / "report.json", json.dumps(report.to_data(), indent=1))
    remove_folder(work)
    return report


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
