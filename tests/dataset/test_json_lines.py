import contextlib
import gzip
import random
from pathlib import Path

import pytest
import zstandard

from lichen.dataset.json_lines import (
    BadLine,
    Damaged,
    Line,
    is_utf16,
    lines_of,
    open_bytes,
    text_of_line,
    value_of_line,
)

BAD_LINES = {
    "empty": (b"", "empty_line"),
    "blank": (b"  \t", "empty_line"),
    "two objects": (b'{"text": "a"} {"text": "b"}', "several_values"),
    "two objects without a space": (b'{"text": "a"}{"text": "b"}', "several_values"),
    "bare list": (b'["text"]', "not_an_object"),
    "bare number": (b"7", "not_an_object"),
    "bare string": (b'"text"', "not_an_object"),
    "bare null": (b"null", "not_an_object"),
    "bare boolean": (b"true", "not_an_object"),
    "NUL byte": (b'{"text": "a\x00"}', "nul"),
    "escaped NUL": (b'{"text": "a\\u0000"}', "nul"),
    "invalid UTF-8": (b'{"text": "\xff"}', "invalid_utf8"),
    "cut UTF-8": ('{"text": "苔"}'.encode()[:-3] + b'"}', "invalid_utf8"),
    "surrogate bytes": (b'{"text": "\xed\xa0\x80"}', "invalid_utf8"),
    "duplicate key": (b'{"text": "a", "text": "b"}', "duplicate_key"),
    "duplicate key inside": (b'{"text": "a", "meta": {"k": 1, "k": 2}}', "duplicate_key"),
    "NaN": (b'{"text": "a", "score": NaN}', "not_a_number"),
    "Infinity": (b'{"text": "a", "score": -Infinity}', "not_a_number"),
    "lone surrogate": (b'{"text": "\\ud83d"}', "lone_surrogate"),
    "reversed surrogates": (b'{"text": "\\ude00\\ud83d"}', "lone_surrogate"),
    "deep arrays": (b'{"text": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}", "too_deep"),
    "very deep arrays": (b"[" * 100_000, "too_deep"),
    "very deep objects": (b'{"a":' * 100_000, "too_deep"),
    "opened array": (b"[", "pretty_printed"),
    "opened object": (b"  {", "pretty_printed"),
    "closed object": (b"  },", "pretty_printed"),
    "key of a spread object": (b'    "text": "moss",', "pretty_printed"),
    "element of a spread array": (b'  {"text": "moss"},', "pretty_printed"),
    "number as text": (b'{"text": 1.5}', "wrong_type"),
    "null as text": (b'{"text": null}', "wrong_type"),
    "list as text": (b'{"text": ["a"]}', "wrong_type"),
    "missing field": (b'{"texts": "a"}', "missing_field"),
    "empty object": (b"{}", "missing_field"),
    "single quotes": (b"{'text': 'a'}", "not_json"),
    "trailing comma": (b'{"text": "a",}', "not_json"),
    "raw control character": (b'{"text": "a\x01"}', "not_json"),
    "endless integer": (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "not_json"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_every_kind_of_bad_line_has_its_cause(name):
    line, cause = BAD_LINES[name]
    with pytest.raises(BadLine) as caught:
        text_of_line(line, "text")
    assert caught.value.cause == cause
    assert str(caught.value) and len(str(caught.value)) < 250 and "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [b'{"text": "mo', b'{"text": "moss"', '{"text": "苔'.encode()[:-1], b'{"te'])
def test_a_last_line_that_breaks_off_is_called_truncated(line):
    with pytest.raises(BadLine) as caught:
        text_of_line(line, "text", whole=False)
    assert caught.value.cause == "truncated"


def test_good_lines():
    assert text_of_line(b'{"text": "\\ud83d\\ude00 \xe8\x8b\x94", "meta": [[1]]}', "text") == "😀 苔"
    assert text_of_line(b'\t{"text":""}\r', "text") == ""
    assert text_of_line(b'{"text": "' + b"[" * 1000 + b'"}', "text") == "[" * 1000, "brackets in text do not nest"
    assert text_of_line(b'{"text": "\\"' + b"{" * 1000 + b'\\\\"}', "text") == '"' + "{" * 1000 + "\\"
    assert text_of_line(b'{"text": "moss"}', "text", whole=False) == "moss"


def test_a_value_of_any_kind_is_read_as_strictly_as_a_text():
    assert [value_of_line(line) for line in (b"7", b' ["moss"]\r', b'{"a": null}')] == [7, ["moss"], {"a": None}]
    for line, whole, cause in (
        (b'{"a": 1, "a": 2}', True, "duplicate_key"),
        (b"[NaN]", True, "not_a_number"),
        (b"[[7]]", True, "too_deep"),
        (b"[7", True, "not_json"),
        (b"[7", False, "truncated"),
        (b"", False, "empty_line"),
    ):
        with pytest.raises(BadLine) as caught:
            value_of_line(line, max_nesting=1, whole=whole)
        assert caught.value.cause == cause


def test_a_dotted_path_reaches_into_objects_and_is_named_when_it_fails():
    line = b'{"page": {"body": "moss", "score": 1}, "a.b": "bark"}'
    assert text_of_line(line, "page.body") == "moss"
    assert text_of_line(line, "a.b") == "bark"
    for field, words in {
        "page.bdoy": r"no page\.bdoy in page \(nearest: body",
        "page.score": r"page\.score is an integer, not a string",
        "page.score.x": r"page\.score is an integer, not an object with x",
        "pgae.body": r"no pgae in the object \(nearest: page",
    }.items():
        with pytest.raises(BadLine, match=words):
            text_of_line(line, field)


def test_hostile_lines_take_no_quadratic_time():
    for line in (
        b'{"text": "' + b'\\"' * 200_000,
        b'"' + b"\\" * 400_001,
        b'{"text": "' + b"[" * 400_000,
        b" " * 400_000,
    ):
        with pytest.raises(BadLine):
            text_of_line(line, "text")


def pack(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        half = len(data) // 2  # two frames, as concatenated files have
        frames = (zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in (data[:half], data[half:]))
        data = b"".join(frames)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_lines_are_the_same_from_every_offset(tmp_path, suffix):
    data = b"\xef\xbb\xbfone\r\ntwo\n\n" + b"long" * 5000 + b"\nfour\r\nlast\r"
    path = pack(tmp_path / f"a{suffix}", data)
    lines = list(lines_of(path, suffix, 100))
    assert [line.data for line in lines] == [b"one", b"two", b"", None, b"four", b"last\r"]
    assert [line.whole for line in lines] == [True] * 5 + [False]
    assert lines[-1].end == len(data)
    for place, line in enumerate(lines):
        assert list(lines_of(path, suffix, 100, line.end)) == lines[place + 1 :]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_file_opens_as_the_bytes_that_were_packed(tmp_path, suffix):
    data = random.Random(0).randbytes(100_000)
    with open_bytes(pack(tmp_path / f"a{suffix}", data), suffix) as stream:
        assert stream.read() == data


def test_a_line_of_exactly_the_limit_is_kept(tmp_path):
    path = pack(tmp_path / "a", b"x" * 64 + b"\n" + b"x" * 65 + b"\n" + b"y" * 64)
    assert [line.data and len(line.data) for line in lines_of(path, "", 64)] == [64, None, 64]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_that_break_off_or_hold_garbage_are_damaged(tmp_path, suffix):
    whole = pack(tmp_path / f"a{suffix}", random.Random(0).randbytes(4096).hex().encode()).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in (len(whole) - 1, len(whole) // 3, 5):
        cut.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            list(lines_of(cut, suffix, 100))
    cut.write_bytes(b"no archive at all")
    with pytest.raises(Damaged):
        list(lines_of(cut, suffix, 100))
    cut.write_bytes(whole[: len(whole) // 2] + b"\x00\xff\x00\xff" + whole[len(whole) // 2 + 4 :])
    with pytest.raises(Damaged):
        list(lines_of(cut, suffix, 100))


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-16", True),
        ("utf-16-le", True),
        ("utf-16-be", True),
        ("utf-32", True),
        ("utf-8", False),
        ("utf-8-sig", False),
    ],
)
def test_utf16_files_are_recognised(tmp_path, encoding, found):
    path = tmp_path / "a"
    path.write_bytes('{"text": "moss"}\n'.encode(encoding))
    assert is_utf16(path, "") is found


def test_random_bytes_are_a_text_or_a_bad_line():
    draw = random.Random(0)
    words = [
        b'{"text": "',
        b'"}',
        b"[",
        b"{",
        b"\\u",
        b"\\",
        b"d83d",
        b"\xe8",
        b"\x8b",
        b"\x00",
        b'"',
        b":",
        b"1e999",
        b",",
        b"moss",
    ]
    for _ in range(3000):
        line = b"".join(draw.choices(words, k=draw.randint(0, 12)))
        with contextlib.suppress(BadLine):
            assert isinstance(text_of_line(line, "text", whole=draw.random() < 0.5), str)


def test_a_line_knows_where_the_next_begins(tmp_path):
    path = pack(tmp_path / "a", b"a\nb\n")
    assert list(lines_of(path, "", 100)) == [Line(b"a", True, 2), Line(b"b", True, 4)]
