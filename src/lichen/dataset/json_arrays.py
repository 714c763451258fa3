"""One JSON array of any length, read value by value.

The standard library would hold the whole file and all its objects at once. Here a block of text and one value are held, and
every value comes with the line where it begins. What is no JSON can not be passed over, since nobody knows where the next
value starts: the array ends there, with the line named; only a duplicate key or a NaN spoils its own value alone.

>>> import io
>>> rows = JsonArray(io.StringIO('[{"a": 1},\\n {"a": NaN},\\n {"a"]'), 1000).values()
>>> next(rows)
(1, {'a': 1}, '{"a": 1}')
>>> line, bad, _ = next(rows)
>>> line, bad.cause
(2, 'not_a_number')
>>> next(rows)
Traceback (most recent call last):
    ...
lichen.dataset.json_lines.Damaged: no JSON in line 3 (it breaks off)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from lichen.dataset.json_lines import BadLine, Damaged

Value = tuple[int, Any, str]
"""The line where it begins, the value or a `BadLine`, and how it looks."""


class JsonArray:
    """One JSON array in ``stream``; a value of more than ``limit`` characters can not be read."""

    block = 1 << 18  # characters

    def __init__(self, stream: TextIO, limit: int):
        self._stream = stream
        self._limit = limit
        self._text = ""
        self._place = 0
        self._line = 1
        self._ended = False
        self._problem: BadLine | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant)

    def values(self) -> Iterator[Value]:
        """All values in order. Raises `Damaged` where the array can not be read further, or is not closed."""
        self._take("[")
        if self._peek() == "]":
            self._take("]")
        else:
            yield self._value()
            while self._peek() == ",":
                self._take(",")
                self._peek()
                yield self._value()
            self._take("]")
        if self._peek():
            raise Damaged(f"more follows the array in line {self._line}")

    def _value(self) -> Value:
        while True:
            self._problem = None
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
                if end < len(self._text) or self._ended:
                    break
            except json.JSONDecodeError as error:
                if self._ended or len(self._text) - self._place > self._limit:
                    line = self._line + self._text.count("\n", self._place, error.pos)
                    cut = self._ended and (error.pos >= len(self._text) - 1 or error.msg.startswith("Unterminated"))
                    words = "it breaks off" if cut else error.msg
                    raise Damaged(f"no JSON in line {line} ({words})") from None
            except RecursionError:
                raise Damaged(f"nested too deeply in line {self._line}") from None
            self._more()
        excerpt = self._text[self._place : min(end, self._place + 80)]
        found = self._line, self._problem or value, " ".join(excerpt.split())
        self._pass(end)
        return found

    def _peek(self) -> str:
        """The next character that is no white space, or '' at the end."""
        while True:
            place = self._place
            while place < len(self._text) and self._text[place] in " \t\r\n":
                place += 1
            self._pass(place)
            if place < len(self._text) or self._ended:
                return self._text[place : place + 1]
            self._more()

    def _take(self, character: str) -> None:
        found = self._peek()
        if found != character:
            what = f"{found!r} where {character!r} is expected" if found else "the array is not closed: it breaks off"
            raise Damaged(f"no JSON in line {self._line} ({what})")
        self._pass(self._place + 1)

    def _pass(self, place: int) -> None:
        self._line += self._text.count("\n", self._place, place)
        self._place = place

    def _more(self) -> None:
        new = self._stream.read(self.block)
        self._ended = not new
        self._text, self._place = self._text[self._place :] + new, 0

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            self._problem = BadLine("duplicate_key", "a key stands twice in an object")
        return result

    def _constant(self, name: str) -> None:
        self._problem = BadLine("not_a_number", f"{name} is no JSON")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
