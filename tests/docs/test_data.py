"""The examples of docs/data.md run as they stand, one after another."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"Document {number} speaks of moss, rain and stone number {number}." for number in range(30)]
    lines = [json.dumps({"text": text}) for text in [*texts, texts[0], ""]]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(example, names)
    out = capsys.readouterr().out
    assert out.startswith("32 ") and "'exact_duplicate': 1" in out and "'empty': 1" in out
    kept = int(out.split()[1])
    assert f"{kept} documents\n" in out and "speaks of moss" in out
