"""Clean documents as files again: one per source, JSON lines or Parquet, with the place every document came from.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> write_documents([Record("moss", "poems", "a.txt", 1, 0), Record("苔", "poems", "a.txt", 2, 1)], folder)
>>> (folder / "poems.jsonl").read_text(encoding="utf-8").splitlines()[1]
'{"text": "苔", "file": "a.txt", "line": 2}'
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from lichen.config.errors import require
from lichen.dataset.records import Record

ROWS = 4096  # of a Parquet row group; a group also ends early, at BYTES
BYTES = 32 << 20


def write_documents(records: Iterable[Record], folder: Path, format: Literal["jsonl", "parquet"] = "jsonl") -> None:
    """Write ``records``, which come source by source, as ``SOURCE.jsonl`` or ``SOURCE.parquet`` (text, file, line)."""
    write = _write_parquet if format == "parquet" else _write_json_lines
    for source, group in groupby(records, lambda record: record.source):
        write(group, folder / f"{source}.{format}")


def _write_json_lines(records: Iterable[Record], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(_row(record), ensure_ascii=False) + "\n")


def _write_parquet(records: Iterable[Record], path: Path) -> None:
    pyarrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    schema = pyarrow.schema([("text", pyarrow.string()), ("file", pyarrow.string()), ("line", pyarrow.int64())])
    with parquet.ParquetWriter(path, schema) as writer:
        for rows in _groups(records):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _groups(records: Iterable[Record]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    for record in records:
        rows.append(_row(record))
        size += len(record.text)
        if len(rows) >= ROWS or size >= BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _row(record: Record) -> dict[str, Any]:
    return {"text": record.text, "file": record.file, "line": record.line}


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
