"""Time zones, clocks and languages of the machine change no byte of a result, and no message is lost for want of a letter."""

import datetime
import io
import locale
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lichen.core import logs, runs
from lichen.core.runs import Run
from lichen.metrics import records
from lichen.scripts.command_line import VERBS, main

MEASURED = ("tokens_per_second", "time_", "memory")
PLACES = {
    "C, India": {"LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kolkata"},
    "ASCII alone": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "America/Caracas"},
    "POSIX": {"LC_ALL": "POSIX", "TZ": "Pacific/Chatham", "PYTHONHASHSEED": "7"},
    "unknown": {"LC_ALL": "xx_YY.ISO-8859-5", "TZ": "Nowhere/Nothing", "LANGUAGE": "tr"},
}


def rows(run: Path) -> list[dict]:
    found = records.read(Run(run).metrics)
    return [{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in found]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_run(found: Path, expected: Path) -> None:
    """Weights, moments, state and metrics of all checkpoints."""
    assert rows(found) == rows(expected)
    for step in ("0000004", "0000008"):
        one, other = (next((run / "checkpoints").glob(f"*_{step}")) for run in (found, expected))
        for name in ("model.safetensors", "training/optimizer.safetensors", "training/state.json", "tokenizer.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


PREPARED = ["--split.validation-fraction", 0.1, "--tokenizer.vocab-size", 320, "--clean.deduplicate.near", "false"]


def same_data(found: Path, expected: Path) -> None:
    """Every file, byte for byte."""
    one, other = files(found), files(expected)
    assert one.keys() == other.keys() and not [name for name in one if one[name] != other[name]]


def test_time_zone_and_locale_of_the_process_change_no_byte(
    made_text, prepared, trained_run, tiny_flags, lichen, tmp_path, monkeypatch
):
    before = locale.setlocale(locale.LC_ALL)
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    try:
        assert time.timezone == -19800
        locale.setlocale(locale.LC_ALL, "C")
        assert lichen("prepare", made_text, "--output", tmp_path / "苔", *PREPARED).status == 0
        flags = ["--data.path", tmp_path / "苔", *tiny_flags[2:], "--train.steps", 8]
        assert lichen("train", *flags, "--run.root", tmp_path / "运行", "--run.name", "run").status == 0
    finally:
        locale.setlocale(locale.LC_ALL, before)
        monkeypatch.undo()
        time.tzset()
    same_data(tmp_path / "苔", prepared)
    same_run(tmp_path / "运行" / "run", trained_run)


@pytest.mark.nightly
@pytest.mark.parametrize("environment", PLACES.values(), ids=PLACES)
def test_language_and_time_zone_change_no_byte(
    environment, made_text, prepared, trained_run, tiny_flags, start, end, tmp_path
):
    one, two, prompt = ("moss", "runs", "the") if "PYTHONUTF8" in environment else ("苔", "运行", "苔 藓")
    said = end(start("prepare", made_text, "--output", tmp_path / one, *PREPARED, **environment))
    assert said.status == 0, said.err
    same_data(tmp_path / one, prepared)
    flags = ["--data.path", tmp_path / one, *tiny_flags[2:], "--train.steps", 8]
    said = end(start("train", *flags, "--run.root", tmp_path / two, "--run.name", "run", **environment))
    assert said.status == 0, said.err
    same_run(tmp_path / two / "run", trained_run)
    said = end(start("generate", tmp_path / two / "run", "--prompt", prompt, "--max-new-tokens", 3, **environment))
    assert said.status == 0 and "Traceback" not in said.err, said.err
    for words in (["train", tmp_path / "没有"], ["prepare", tmp_path / "苔.jsonl", "--output", tmp_path / "数据"]):
        assert end(start(*words, **environment)).refused(2)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_shown_where_only_ascii_can_be(verb, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    try:
        assert main([*verb.split(), "--help"]) == 0
    except SystemExit as left:
        assert left.code == 0
    out.flush()
    assert b"usage" in out.buffer.getvalue().lower()  # type: ignore[attr-defined]


def test_facts_and_errors_are_shown_where_only_ascii_can_be(prepared, trained_run, made_text, monkeypatch, tmp_path):
    (tmp_path / "苔.jsonl").write_bytes(made_text.read_bytes())
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    small = ["--tokenizer.vocab-size", "320", "--clean.deduplicate.near", "false", "--workers", "1"]
    assert main(["prepare", str(tmp_path / "苔.jsonl"), "--output", str(tmp_path / "数据"), *small]) == 0
    for words in (["inspect", str(tmp_path / "数据")], ["inspect", str(trained_run)], ["plot", str(trained_run)]):
        assert main(words) == 0
    assert main(["generate", str(tmp_path / "没有"), "--prompt", "a"]) == 2
    err.flush()
    assert b"error: " in err.buffer.getvalue() and b"Traceback" not in err.buffer.getvalue()  # type: ignore[attr-defined]


class Backwards:
    """A clock that is set back a day whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def time(self) -> float:
        self.now -= 86400
        return self.now


def test_a_clock_that_runs_backwards_changes_no_bit(tiny_flags, trained_run, lichen, tmp_path, monkeypatch):
    clock = Backwards()

    class Date(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime(1980, 1, 1)

    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "time_ns", lambda: int(clock.time() * 1e9))
    monkeypatch.setattr(logs, "time", SimpleNamespace(strftime=lambda *_: "19800101-000000"))
    monkeypatch.setattr(runs.datetime, "datetime", Date)
    flags = [*tiny_flags, "--run.root", tmp_path]
    assert lichen("train", *flags, "--train.steps", 8).status == 0
    assert lichen("train", *flags, "--train.steps", 8).status == 0  # the same minute again
    first, second = sorted(path.name for path in tmp_path.iterdir())
    assert first.endswith("_0101-0000") and second == f"{first}-2"
    for name in (first, second):
        same_run(tmp_path / name, trained_run)
    before = (tmp_path / first / "logs" / "train_19800101-000000.log").read_text()
    assert lichen("train", tmp_path / first, "--train.steps", 9).status == 0
    assert (tmp_path / first / "logs" / "train_19800101-000000.log").read_text().startswith(before)
    assert Run(tmp_path / first).latest().name.endswith("0000009")


def test_files_whose_dates_lie_in_the_future_or_the_past_are_the_same_files(
    prepared, made_text, lichen, run_copy, tmp_path
):
    raw = tmp_path / "made.jsonl"
    raw.write_bytes(made_text.read_bytes())
    words = ["prepare", raw, "--output", tmp_path / "data", "--tokenizer.vocab-size", 320, "--workers", 1]
    words += ["--clean.deduplicate.near", "false"]
    assert lichen(*words).status == 0
    for date in (0, 4_000_000_000):
        for path in (raw, *(p for folder in (tmp_path / "data", run_copy) for p in folder.rglob("*"))):
            os.utime(path, (date, date))
        assert "nothing to do" in lichen(*words).out
        said = lichen("train", run_copy)
        assert said.status == 0 and "nothing to do" in said.err
