import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError
from lichen.dataset.records import Cursor, Record, Reject, read_chunks, read_records
from lichen.dataset.sources import open_sources

POEMS = ["green moss", "苔藓地衣", "on bark", "石上", "old stone", "by the sea", "海边"]


def lines(texts: Iterable[object] = POEMS) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def write_all_formats(folder: Path) -> list[SourceConfig]:
    import datasets
    import pyarrow
    import pyarrow.parquet

    (folder / "a.jsonl").write_bytes(lines())
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines()))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(lines()))
    pyarrow.parquet.write_table(pyarrow.table({"n": range(7), "text": POEMS}), folder / "d.parquet", row_group_size=3)
    datasets.Dataset.from_dict({"text": POEMS, "n": list(range(7))}).save_to_disk(str(folder / "e"))
    (folder / "f.txt").write_text("\n\n".join(POEMS) + "\n", encoding="utf-8")
    names = ["a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "e", "f.txt"]
    return [SourceConfig(path=folder / name, paragraph_characters=1) for name in names]


def texts(records: Iterable[Record | Reject]) -> list[str]:
    return [record.text.strip() if isinstance(record, Record) else record.cause for record in records]


def only(
    folder: Path, name: str, data: bytes, config: CleanConfig | None = None, **settings: object
) -> list[Record | Reject]:
    (folder / name).write_bytes(data)
    sources = open_sources([SourceConfig.from_data({"path": folder / name, **settings})])
    return list(read_records(sources, config or CleanConfig()))


def test_every_format_gives_the_same_documents_in_order(tmp_path):
    sources = open_sources(write_all_formats(tmp_path))
    records = list(read_records(sources, CleanConfig()))
    assert texts(records) == POEMS * 6
    assert [record.number for record in records] == list(range(42))
    assert [record.line for record in records][:28] == [1, 2, 3, 4, 5, 6, 7] * 4
    assert [record.line for record in records][-7:] == [1, 3, 5, 7, 9, 11, 13]


@pytest.mark.parametrize(("documents", "size"), [(1, 1 << 20), (3, 1 << 20), (100, 1), (100, 40)])
def test_reading_continues_behind_any_chunk(tmp_path, documents, size):
    sources = open_sources(write_all_formats(tmp_path))
    config = CleanConfig(chunk_documents=documents, chunk_bytes=size)
    chunks = list(read_chunks(sources, config))
    assert [item.number for chunk in chunks for item in chunk.items] == list(range(42))
    assert [chunk.source for chunk in chunks if chunk.last] == [source.name for source in sources]
    for chunk in chunks:
        assert (
            list(read_chunks(sources, config, Cursor(**chunk.end.to_data()), chunk.index + 1))
            == chunks[chunk.index + 1 :]
        )


def test_bad_rows_of_tables_are_rejected_with_their_number(tmp_path):
    import pyarrow
    import pyarrow.parquet

    column = [{"body": "moss"}, None, {"body": None}, {"body": "b" * 100}, {"body": "a\x00"}]
    pyarrow.parquet.write_table(pyarrow.table({"page": column}), tmp_path / "a.parquet")
    config = SourceConfig(path=tmp_path / "a.parquet", field="page.body")
    records = list(read_records(open_sources([config]), CleanConfig(max_line_bytes=64)))
    assert texts(records) == ["moss", "wrong_type", "wrong_type", "too_long_line", "nul"]
    assert [record.line for record in records] == [1, 2, 3, 4, 5]


def test_a_long_text_in_a_table_is_rejected(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["moss", "苔" * 22]}), tmp_path / "a.parquet")
    records = list(
        read_records(open_sources([SourceConfig(path=tmp_path / "a.parquet")]), CleanConfig(max_line_bytes=64))
    )
    assert texts(records) == ["moss", "too_long_line"]


def test_a_missing_column_names_the_nearest(tmp_path):
    sources = open_sources(write_all_formats(tmp_path)[3:4])
    wrong = SourceConfig(path=sources[0].files[0].path, field="txet")
    with pytest.raises(LichenError, match=r"d\.parquet: no column 'txet' \(nearest: text"):
        list(read_records(open_sources([wrong]), CleanConfig()))


def test_a_damaged_file_is_named(tmp_path):
    write_all_formats(tmp_path)
    for name in ("b.jsonl.gz", "c.jsonl.zst", "d.parquet"):
        data = (tmp_path / name).read_bytes()
        with pytest.raises(LichenError, match=name):
            only(tmp_path, name, data[: len(data) // 2])


def test_paragraphs_join_until_long_enough(tmp_path):
    data = b"one\ntwo\n\n\n three\n\nfour\n"
    assert texts(only(tmp_path, "a.txt", data, split="paragraph", paragraph_characters=0)) == [
        "one\ntwo",
        "three",
        "four",
    ]
    joined = texts(only(tmp_path, "a.txt", data, split="paragraph", paragraph_characters=8))
    assert joined == ["one\ntwo\n\n\n three", "four"]
    assert texts(only(tmp_path, "a.txt", data, split="line")) == ["one", "two", "three", "four"]
    assert texts(only(tmp_path, "a.txt", data, split="file")) == ["one\ntwo\n\n\n three\n\nfour"]


def test_paragraph_length_counts_characters_of_every_script(tmp_path):
    data = "苔藓地衣\n\n石上海边\n\n一二".encode()
    assert texts(only(tmp_path, "a.txt", data, split="paragraph", paragraph_characters=5)) == [
        "苔藓地衣\n\n石上海边",
        "一二",
    ]


def test_bad_plain_text_is_rejected_per_document(tmp_path):
    data = b"good\n\nbad \xff\n\nnul \x00\n\n" + b"long\n" * 30 + b"\nend"
    records = only(tmp_path, "a.txt", data, CleanConfig(max_line_bytes=64), split="paragraph", paragraph_characters=0)
    assert texts(records) == ["good", "invalid_utf8", "nul", "too_long_line", "end"]
    assert [record.line for record in records] == [1, 3, 5, 7, 38]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path):
    assert texts(only(tmp_path, "a.jsonl", b"\xef\xbb\xbf" + lines().replace(b"\n", b"\r\n"))) == POEMS


def test_every_line_of_a_utf16_file_is_rejected(tmp_path):
    records = only(tmp_path, "a.jsonl", lines().decode().encode("utf-16"))
    assert set(texts(records)) == {"utf16"} and len(records) >= 7
    assert texts(only(tmp_path, "a.txt", "moss".encode("utf-16"))) == ["utf16"]


def test_a_reject_says_file_line_cause_and_shows_the_beginning(tmp_path):
    data = lines() + b'{"text": 5, "x": "' + b"y" * 500 + b'"}\n'
    reject = only(tmp_path, "a.jsonl", data)[-1]
    assert isinstance(reject, Reject)
    assert (reject.file, reject.line, reject.cause, reject.number) == (str(tmp_path / "a.jsonl"), 8, "wrong_type", 7)
    assert reject.detail == "text is an integer, not a string"
    assert reject.excerpt.startswith('{"text": 5') and len(reject.excerpt) == 80
