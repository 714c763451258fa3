import json

import pyarrow.parquet
import pytest

from lichen.dataset import writing
from lichen.dataset.records import Record
from lichen.dataset.writing import write_documents

RECORDS = [Record(f"moss 苔\n{number}", "ab"[number > 5], "x.txt", number, number) for number in range(10)]


def read(folder, format):
    if format == "jsonl":
        return {
            p.stem: [json.loads(line) for line in p.read_text("utf-8").splitlines()] for p in sorted(folder.iterdir())
        }
    return {p.stem: pyarrow.parquet.read_table(p).to_pylist() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_what_is_written_reads_back(tmp_path, monkeypatch, format):
    monkeypatch.setattr(writing, "ROWS", 4)
    write_documents(RECORDS, tmp_path, format)
    rows = read(tmp_path, format)
    assert list(rows) == ["a", "b"]
    assert [row["text"] for name in rows for row in rows[name]] == [record.text for record in RECORDS]
    assert rows["b"][0] == {"text": "moss 苔\n6", "file": "x.txt", "line": 6}


def test_row_groups_do_not_depend_on_how_documents_arrive(tmp_path):
    for name, records in (("a", RECORDS), ("b", iter(RECORDS))):
        (tmp_path / name).mkdir()
        write_documents(records, tmp_path / name, "parquet")
    assert (tmp_path / "a" / "a.parquet").read_bytes() == (tmp_path / "b" / "a.parquet").read_bytes()
