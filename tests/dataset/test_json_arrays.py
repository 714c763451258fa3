import io
import json

import pytest

from lichen.dataset.json_arrays import JsonArray
from lichen.dataset.json_lines import BadLine, Damaged


@pytest.mark.parametrize("block", [1, 7, 1 << 18])
@pytest.mark.parametrize("indent", [None, 2])
def test_values_and_lines_whatever_the_blocks_and_the_layout(
    monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None
):
    monkeypatch.setattr(JsonArray, "block", block)
    values = [{"a": "苔 ]},", "b": [1, {"c": '\\"'}]}, "plain", 12345, [], None]
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    found = list(JsonArray(io.StringIO(text), 1000).values())
    assert [value for _, value, _ in found] == values
    lines = text.split("\n")
    starts = {'"plain"': 1, "12345": 2, "null": 4}
    for start, number in starts.items():
        line = found[number][0]
        assert start in lines[line - 1]


def test_an_empty_array_has_no_values() -> None:
    assert list(JsonArray(io.StringIO(" [ ] \n"), 100).values()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1},\n {"a": tru}]', "line 2"),
        ('[{"a": 1},\n {"a": 1}', "line 2 .*not closed: it breaks off"),
        ('[{"a": 1},\n {"a": "mo', "line 2 .*"),
        ('[{"a": 1} {"b": 2}]', "where ']' is expected"),
        ('{"a": 1}', r"'{' where '\[' is expected"),
        ("[1]\n[2]", "more follows the array in line 2"),
        ('["' + "a" * 3000 + '"]', "line 1"),
        ("[" * 100_000, "too deeply"),
    ],
)
def test_what_is_no_array_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.setattr(JsonArray, "block", 64)
    with pytest.raises(Damaged, match=words):
        list(JsonArray(io.StringIO(text), 10**6 if "[[[" in text else 1000).values())


def test_a_spoilt_value_does_not_spoil_the_others() -> None:
    rows = list(JsonArray(io.StringIO('[{"a": 1, "a": 2}, {"a": NaN}, {"a": 3}]'), 1000).values())
    assert [row[1].cause for row in rows[:2] if isinstance(row[1], BadLine)] == ["duplicate_key", "not_a_number"]
    assert rows[2][1] == {"a": 3}
