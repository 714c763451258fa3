"""Documents in reading order, in chunks: cheap to read in one process, ready to be parsed in another.

Reading numbers everything it meets, bad lines included, from 0 over all sources: document number n is the same whatever
the chunking. A `Chunk` holds raw items of one source (bytes of a line, a value of a column) and the `Cursor` behind its
last one, from which reading continues: plain files seek, compressed ones are passed over, Parquet skips row groups.
`parse` turns a raw item into a `Record`, or into a `Reject` with file, line and cause. A damaged file ends its source, and
the chunk says so in ``error``.

>>> import tempfile
>>> from pathlib import Path
>>> from lichen.dataset.sources import open_sources
>>> path = Path(tempfile.mkdtemp()) / "poems.jsonl"
>>> _ = path.write_text('{"text": "moss"}\\n[1]\\n{"text": "bark"}\\n')
>>> sources = open_sources([SourceConfig(path=path)])
>>> chunks = list(read_chunks(sources, CleanConfig(chunk_documents=2)))
>>> [[item.number for item in chunk.items] for chunk in chunks]
[[0, 1], [2]]
>>> again, = read_chunks(sources, CleanConfig(), chunks[0].end)
>>> parse(again.items[0], again, CleanConfig()).text
'bark'
>>> bad = parse(chunks[0].items[1], chunks[0], CleanConfig())
>>> bad.line, bad.cause
(2, 'not_an_object')
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError, nearest, require
from lichen.dataset.json_lines import (
    BadLine,
    Damaged,
    decoded,
    is_utf16,
    lines_of,
    text_of_line,
    text_of_value,
)
from lichen.dataset.sources import Source, SourceFile

ROWS = 256  # of a table, read at once


@dataclass(frozen=True)
class Cursor:
    """Where reading goes on: file ``file`` of source ``source``, at ``offset`` (uncompressed bytes, or rows)."""

    source: int = 0
    file: int = 0
    offset: int = 0
    line: int = 0
    """Lines (or rows) of the file that lie behind."""
    number: int = 0
    """Number of the next document."""

    def to_data(self) -> dict[str, int]:
        """Plain data; ``Cursor(**data)`` reads it back."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Raw:
    """One item as it was read. ``problem`` is set where reading alone showed that it is no document."""

    number: int
    file: str
    line: int
    """Line of the file where it begins, or row of the table; from 1."""
    data: Any
    whole: bool = True
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One document."""

    text: str
    source: str
    file: str
    line: int
    number: int


@dataclass(frozen=True, slots=True)
class Reject:
    """One line that is no document, and why."""

    file: str
    line: int
    cause: str
    detail: str
    excerpt: str
    source: str
    number: int

    def to_data(self) -> dict[str, Any]:
        """Plain data for ``rejects.jsonl``."""
        return asdict(self)


@dataclass(frozen=True)
class Chunk:
    """Consecutive items of one source, and where reading goes on behind them."""

    index: int
    source: str
    field: str
    format: str
    items: tuple[Raw, ...]
    bytes: int
    """Size of the items as read."""
    end: Cursor
    last: bool
    """Whether the source ends here."""
    error: str = ""
    """Why the source could not be read further."""


def read_chunks(
    sources: Sequence[Source], config: CleanConfig, start: Cursor | None = None, index: int = 0
) -> Iterator[Chunk]:
    """All items from ``start`` on; ``index`` numbers the first chunk. A chunk never spans sources or formats."""
    cursor = start or Cursor()
    while cursor.source < len(sources):
        for chunk in _chunks_of_source(sources[cursor.source], config, cursor, index):
            yield chunk
            cursor, index = chunk.end, chunk.index + 1


def parse(raw: Raw, chunk: Chunk, config: CleanConfig) -> Record | Reject:
    """The document in a raw item, or why there is none."""
    try:
        return Record(_text_of(raw, chunk, config), chunk.source, raw.file, raw.line, raw.number)
    except BadLine as bad:
        return Reject(raw.file, raw.line, bad.cause, str(bad), _excerpt(raw.data), chunk.source, raw.number)


def read_records(
    sources: Sequence[Source], config: CleanConfig, start: Cursor | None = None
) -> Iterator[Record | Reject]:
    """All documents and rejects in order, parsed one by one, neither cleaned nor deduplicated.

    Raises `LichenError` at a damaged file.
    """
    for chunk in read_chunks(sources, config, start):
        for raw in chunk.items:
            yield parse(raw, chunk, config)
        if chunk.error:
            raise LichenError(chunk.error)


def _text_of(raw: Raw, chunk: Chunk, config: CleanConfig) -> str:
    if raw.problem == "too_long_line":
        raise BadLine(raw.problem, f"longer than {config.max_line_bytes} bytes (max_line_bytes)")
    if raw.problem == "utf16":
        raise BadLine(raw.problem, "the file is UTF-16 or UTF-32; convert it to UTF-8")
    if chunk.format == "jsonl":
        return text_of_line(raw.data, chunk.field, config.max_nesting, raw.whole)
    if chunk.format == "text":
        return decoded(raw.data)
    text = text_of_value(raw.data, chunk.field)
    if len(text.encode()) > config.max_line_bytes:
        raise BadLine("too_long_line", f"longer than {config.max_line_bytes} bytes (max_line_bytes)")
    return text


def _excerpt(data: Any) -> str:
    """The beginning, printable."""
    if isinstance(data, bytes):
        return data[:120].decode(errors="backslashreplace")[:80]
    return "" if data is None else repr(data)[:80]


# --- Chunks ---


@dataclass
class _Building:
    """A chunk in the making."""

    index: int
    format: str
    items: list[Raw]
    bytes: int = 0

    def full(self, config: CleanConfig) -> bool:
        return len(self.items) >= config.chunk_documents or self.bytes >= config.chunk_bytes

    def close(self, source: Source, end: Cursor, last: bool, error: str = "") -> Chunk:
        field = source.config.field
        return Chunk(self.index, source.name, field, self.format, tuple(self.items), self.bytes, end, last, error)


def _chunks_of_source(source: Source, config: CleanConfig, start: Cursor, index: int) -> Iterator[Chunk]:
    """The chunks from ``start`` to the end of its source; the last one may be empty."""
    end, done = start, Cursor(start.source + 1, number=start.number)
    building = _Building(index, source.files[start.file].format if start.file < len(source.files) else "", [])
    for number, file in list(enumerate(source.files))[start.file :]:
        end = (
            replace(start, number=end.number)
            if number == start.file
            else Cursor(start.source, number, number=end.number)
        )
        if building.items and building.format != file.format:
            yield building.close(source, end, False)
            building = _Building(building.index + 1, file.format, [])
        building.format = file.format
        try:
            for raw, size, offset, line in _read_file(file, source, config, end.offset, end.line):
                building.items.append(Raw(end.number, raw.file, raw.line, raw.data, raw.whole, raw.problem))
                building.bytes += size
                end = Cursor(start.source, number, offset, line, end.number + 1)
                if building.full(config):
                    yield building.close(source, end, False)
                    building = _Building(building.index + 1, file.format, [])
        except (Damaged, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            message = f"{file.label}: {reason}, after line {end.line} (source {source.name}); restore the file or leave it out"
            yield building.close(source, replace(done, number=end.number), True, message)
            return
    yield building.close(source, replace(done, number=end.number), True)


_Item = tuple[Raw, int, int, int]  # the item, its bytes, the offset and the line behind it


def _read_file(file: SourceFile, source: Source, config: CleanConfig, offset: int, line: int) -> Iterator[_Item]:
    if file.format == "jsonl":
        return _read_lines(file, config, offset, line)
    if file.format == "text":
        return _read_text(file, source, config, offset, line)
    if file.format == "parquet":
        return _read_parquet(file, source.config, config, offset)
    return _read_datasets(file, source.config, config, offset)


def _read_lines(file: SourceFile, config: CleanConfig, offset: int, line: int) -> Iterator[_Item]:
    problem = "utf16" if is_utf16(file.path, file.compression) else ""
    for found in lines_of(file.path, file.compression, config.max_line_bytes, offset):
        line += 1
        why = "too_long_line" if found.data is None else problem
        data = found.data if not why else (found.data or b"")[:120]
        yield Raw(0, file.label, line, data, found.whole, why), found.end - offset, found.end, line
        offset = found.end


def _read_text(file: SourceFile, source: Source, config: CleanConfig, offset: int, line: int) -> Iterator[_Item]:
    """Documents of plain text: whole file, paragraphs (joined until long enough) or lines; blank ones separate only."""
    problem = "utf16" if is_utf16(file.path, file.compression) else ""
    held: list[bytes] = []
    size, characters, first, why, end = 0, 0, 0, problem, offset
    for found in lines_of(file.path, file.compression, config.max_line_bytes, offset):
        line, end = line + 1, found.end
        blank = found.data is not None and not found.data.strip()
        if not blank or held:
            first = first or line
            size += 1 + len(found.data or b"")
            characters += len((found.data or b"").decode(errors="replace"))
            if found.data is None or size > config.max_line_bytes + 1:
                why, held = why or "too_long_line", [b"\n".join(held)[:120]]
            held.append(found.data or b"" if not why else b"")
        if first and _ends_document(source, blank, characters):
            yield Raw(0, file.label, first, b"\n".join(held), True, why), end - offset, end, line
            held, size, characters, first, why, offset = [], 0, 0, 0, problem, end
    if first:
        yield Raw(0, file.label, first, b"\n".join(held), True, why), end - offset, end, line


def _ends_document(source: Source, blank: bool, characters: int) -> bool:
    if source.split == "paragraph":
        return blank and characters >= source.config.paragraph_characters
    return source.split == "line" and not blank


# --- Tables ---


def _read_parquet(file: SourceFile, source: SourceConfig, config: CleanConfig, row: int) -> Iterator[_Item]:
    pyarrow = require("pyarrow", "parquet")
    parquet = require("pyarrow.parquet", "parquet")
    try:
        with parquet.ParquetFile(file.path) as table:
            column = _column(source.field, table.schema_arrow.names, file)
            groups, before = _groups_from(table.metadata, row)
            for batch in table.iter_batches(batch_size=ROWS, row_groups=groups, columns=[column]):
                values = batch.column(0).slice(max(0, row - before)).to_pylist()
                before += batch.num_rows
                yield from _items(values, column, file, config, row)
                row = max(row, before)
    except pyarrow.ArrowException as error:
        raise Damaged(f"no readable Parquet ({_first_line(error)})") from None


def _groups_from(metadata: Any, row: int) -> tuple[list[int], int]:
    """The row groups from that of ``row`` on, and how many rows lie before them."""
    before = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if before + rows > row:
            return list(range(group, metadata.num_row_groups)), before
        before += rows
    return [], before


def _read_datasets(file: SourceFile, source: SourceConfig, config: CleanConfig, row: int) -> Iterator[_Item]:
    pyarrow = require("pyarrow", "datasets")
    datasets = require("datasets", "datasets")
    try:
        table = datasets.load_from_disk(str(file.path))
        column = _column(source.field, table.column_names, file)
        table = table.select_columns([column]).with_format(None)
        while row < len(table):
            values = table[row : row + ROWS][column]
            yield from _items(values, column, file, config, row)
            row += len(values)
    except (pyarrow.ArrowException, FileNotFoundError) as error:
        raise Damaged(f"no readable datasets folder ({_first_line(error)})") from None


def _items(values: list[Any], column: str, file: SourceFile, config: CleanConfig, row: int) -> Iterator[_Item]:
    for value in values:
        row += 1
        text = value if isinstance(value, str) else str(value)
        size = len(text.encode("utf-8", "surrogatepass"))
        why = (
            "too_long_line" if size > 2 * config.max_line_bytes else ""
        )  # spares workers the burden; else `parse` decides
        yield Raw(0, file.label, row, text[:120] if why else {column: value}, True, why), size, row, row


def _column(field: str, names: list[str], file: SourceFile) -> str:
    """The column that ``field`` begins with."""
    for name in (field, field.split(".")[0]):
        if name in names:
            return name
    raise LichenError(f"{file.label}: no column {field!r}{nearest(field, names)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120].rstrip(".")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
