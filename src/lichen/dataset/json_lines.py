"""One JSON object per line, read without trust: every way in which a line can be bad has a name.

`value_of_line` is strict where the standard library is lenient (duplicate keys, NaN) and bounded where it is not (nesting);
`text_of_line` takes one text out of it, which UTF-8 must be able to hold. `lines_of` streams lines of bounded length out of
plain, gzip and zstd files, so that a line of any length costs no more memory than the limit; positions are offsets into the
uncompressed bytes.

>>> text_of_line(b'{"text": "moss"}', "text")
'moss'
>>> for line in (b'{"text": 1}', b'[1]', b'{"a": 1} {"b": 2}', b'{"text": NaN}', b'{"txet": "moss"}', b'{"text": "\\\\ud800"}'):
...     try:
...         _ = text_of_line(line, "text")
...     except BadLine as bad:
...         print(bad.cause, "-", bad)
wrong_type - text is an integer, not a string
not_an_object - an array, not an object
several_values - more follows the first value, at column 10: one object per line
not_a_number - NaN is no JSON
missing_field - no text in the object (nearest: txet; available: txet)
lone_surrogate - text holds half of a surrogate pair
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from lichen.config.errors import nearest, require

SKIP = 1 << 20  # bytes thrown away at once
BOM = b"\xef\xbb\xbf"
STRING = re.compile(r'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)  # the last quote is optional: never backtracks
PART_OF_A_DOCUMENT = re.compile(r'\s*(?:[\[\]{}]\s*,?\s*$|"(?:[^"\\]|\\.){0,99}"\s*:)')
TYPE_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}


class BadLine(ValueError):
    """A line that is no document; ``cause`` is one of a fixed set of words, for counting."""

    def __init__(self, cause: str, detail: str):
        super().__init__(detail)
        self.cause = cause


class Damaged(ValueError):
    """A compressed file breaks off or its checksum fails."""


@dataclass(frozen=True)
class Line:
    """One line without its end. ``data`` is None where it was longer than the limit."""

    data: bytes | None
    whole: bool
    """Whether a newline ended it; only a file's last line may lack one."""
    end: int
    """Offset of the next line in the uncompressed file."""


def lines_of(path: Path, compression: str, limit: int, offset: int = 0) -> Iterator[Line]:
    """The lines of a file from ``offset`` (of uncompressed bytes) on; none is held beyond ``limit`` bytes.

    A byte order mark at the start of the file is left out. Raises `Damaged` and OSError.
    """
    with open_bytes(path, compression) as stream:
        try:
            position = _skip_to(stream, offset, compression)
            while data := stream.readline(limit + 1):
                start, position = position, position + len(data)
                whole = data.endswith(b"\n")
                if not whole and len(data) > limit:
                    rest, whole = _skip_line(stream)
                    position += rest
                    yield Line(None, whole, position)
                    continue
                data = data[:-1] if whole else data
                data = data.removesuffix(b"\r") if whole else data
                yield Line(data.removeprefix(BOM) if start == 0 else data, whole, position)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Damaged(f"the compressed data is damaged ({error})") from None


def is_utf16(path: Path, compression: str) -> bool:
    """Whether a file starts like UTF-16 or UTF-32: with their byte order mark, or with every other byte zero."""
    with open_bytes(path, compression) as stream:
        try:
            head = stream.read(64)
        except (EOFError, gzip.BadGzipFile, zlib.error, Damaged):
            return False
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff"))
    even, odd = head[0::2], head[1::2]
    return marked or (len(head) >= 4 and (set(even) == {0}) != (set(odd) == {0}))


def text_of_line(line: bytes, field: str, max_nesting: int = 64, whole: bool = True) -> str:
    """The text under ``field`` (a key, or a dotted path of keys) of the one JSON object on a line; see `value_of_line`."""
    value = value_of_line(line, max_nesting, whole)
    if not isinstance(value, dict):
        raise BadLine("not_an_object", f"{type_name(value)}, not an object")
    return text_of_value(value, field)


def value_of_line(line: bytes, max_nesting: int = 64, whole: bool = True) -> Any:
    """The one JSON value on a line.

    ``whole`` False says that no newline ended the line: what does not parse is then called truncated. Raises `BadLine`, for an
    empty line too.

    >>> value_of_line(b'{"a": [1, null]}')
    {'a': [1, None]}
    """
    try:
        if not line.strip():
            raise BadLine("empty_line", "an empty line")
        return _parse(decoded(line), max_nesting)
    except BadLine as bad:
        if not whole and bad.cause in ("not_json", "invalid_utf8"):
            raise BadLine("truncated", "the file's last line breaks off") from None
        raise


def text_of_value(value: Any, field: str) -> str:
    """The text under ``field`` of parsed data. Raises `BadLine`."""
    if isinstance(value, dict) and field in value:
        return checked_text(value[field], field)
    path: list[str] = []
    for key in field.split("."):
        if not isinstance(value, dict):
            raise BadLine("wrong_type", f"{'.'.join(path)} is {type_name(value)}, not an object with {key}")
        if key not in value:
            where = f"in {'.'.join(path)}" if path else "in the object"
            names = [str(name)[:40] for name in value]
            raise BadLine("missing_field", f"no {'.'.join([*path, key])} {where}{nearest(key, names)}")
        path.append(key)
        value = value[key]
    return checked_text(value, field)


def checked_text(value: Any, field: str) -> str:
    """``value`` if it is text that UTF-8 can hold, without NUL. Raises `BadLine`."""
    if not isinstance(value, str):
        raise BadLine("wrong_type", f"{field} is {type_name(value)}, not a string")
    if "\x00" in value:
        raise BadLine("nul", f"{field} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadLine("lone_surrogate", f"{field} holds half of a surrogate pair") from None
    return value


def decoded(data: bytes) -> str:
    """UTF-8 without NUL. Raises `BadLine`."""
    if b"\x00" in data:
        raise BadLine("nul", f"a NUL byte at byte {data.index(0) + 1}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadLine("invalid_utf8", f"no UTF-8 at byte {error.start + 1}") from None


def type_name(value: Any) -> str:
    """What JSON calls the value's type."""
    return "null" if value is None else TYPE_NAMES.get(type(value), "a number")


def _parse(text: str, max_nesting: int) -> Any:
    if text.count("{") + text.count("[") > max_nesting:
        _check_nesting(text, max_nesting)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        if PART_OF_A_DOCUMENT.match(text) or text.rstrip().endswith("},"):
            raise BadLine("pretty_printed", "part of JSON spread over lines: one object per line") from None
        if error.msg == "Extra data":
            detail = f"more follows the first value, at column {error.colno}: one object per line"
            raise BadLine("several_values", detail) from None
        raise BadLine("not_json", f"no JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadLine("too_deep", "nested too deeply") from None
    except BadLine:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise BadLine("not_json", str(error)) from None


def _check_nesting(text: str, most: int) -> None:
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > most:
            raise BadLine("too_deep", f"nested deeper than {most} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise BadLine("duplicate_key", f"the key {twice[:40]!r} stands twice in an object")
    return result


def _refuse_constant(name: str) -> Any:
    raise BadLine("not_a_number", f"{name} is no JSON")


# --- Bytes out of files ---


def open_bytes(path: Path, compression: str) -> BinaryIO:
    """The uncompressed bytes of a file; ``compression`` is "", ".gz" or ".zst".

    Reading damaged data raises EOFError, gzip.BadGzipFile or zlib.error.
    """
    if compression == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if compression == ".zst":
        return cast(BinaryIO, io.BufferedReader(_ZstdFile(path), SKIP))
    return path.open("rb", buffering=SKIP)


def _skip_to(stream: BinaryIO, offset: int, compression: str) -> int:
    if not compression:
        return stream.seek(offset)
    left = offset
    while left and (data := stream.read(min(left, SKIP))):
        left -= len(data)
    return offset - left


def _skip_line(stream: BinaryIO) -> tuple[int, bool]:
    """Pass over the rest of a line: how many bytes it had, and whether a newline ended it."""
    skipped = 0
    while data := stream.readline(SKIP):
        skipped += len(data)
        if data.endswith(b"\n"):
            return skipped, True
    return skipped, False


class _ZstdFile(io.RawIOBase):
    """The content of a zstd file of one or more frames; unlike `zstandard`'s own reader it notices a missing end."""

    feed = 2048  # bytes; a frame may expand 30 000 times, so that more at once would not bound memory

    def __init__(self, path: Path):
        self._library = require("zstandard", "zstd")
        self._file = path.open("rb")
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._file.read(self.feed)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._decompress()
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _decompress(self) -> None:
        self._frame = self._frame or self._library.ZstdDecompressor().decompressobj()
        try:
            self._output = memoryview(self._frame.decompress(self._input))
        except self._library.ZstdError as error:
            raise EOFError(str(error)) from None
        self._input = b""
        if self._frame.eof:
            self._input, self._frame = self._frame.unused_data, None

    def close(self) -> None:
        self._file.close()
        super().close()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
