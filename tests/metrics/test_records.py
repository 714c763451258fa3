"""The metrics file: whole rows or none, whatever moment the process dies."""

import json
import subprocess
import sys

import pytest

from lichen.config.errors import LichenError
from lichen.metrics.records import Records, column, read, truncate_after


def write(path, steps):
    with Records(path) as records:
        for step in steps:
            records.append("train", step, loss=1.0 / step)


def test_rows_come_back_in_order_and_by_type(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with Records(path) as records:
        records.append("train", 1, loss=3.0, lr=1e-3)
        records.append("validation", 1, loss=2.0, bits_per_byte=1.5)
        records.append("epoch", 2, epoch=0, loss=2.5)
        records.append("event", 2, event="stop", text="多谢\n\x1b[31m")
    assert [row["type"] for row in read(path)] == ["train", "validation", "epoch", "event"]
    assert read(path, ("event",))[0]["text"] == "多谢\n\x1b[31m"
    assert len(path.read_bytes().splitlines()) == 4
    assert column(read(path, ("train",)), "lr") == ([1], [1e-3])


def test_a_file_cut_at_any_byte_is_read_and_continued(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2, 3])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        assert [row["step"] for row in read(path)] == [1, 2, 3][:complete]
        with Records(path) as records:
            records.append("train", 9)
        assert [row["step"] for row in read(path)] == [*[1, 2, 3][:complete], 9], f"cut at byte {cut}"


def test_a_long_cut_line_is_removed_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1])
    with path.open("ab") as file:
        file.write(b'{"type": "event", "step": 2, "text": "' + b"x" * 20_000)
    write(path, [2])
    assert [row["step"] for row in read(path)] == [1, 2]


def test_truncate_after_keeps_the_other_lines_byte_for_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2])
    kept = path.read_bytes()
    write(path, [3, 4])
    with path.open("ab") as file:
        file.write(b'{"type": "tr')
    assert truncate_after(path, 2) == 2
    assert path.read_bytes() == kept
    assert truncate_after(path, 2) == 0
    assert truncate_after(tmp_path / "absent.jsonl", 0) == 0


def test_resumed_rows_equal_unbroken_rows(tmp_path):
    write(tmp_path / "a.jsonl", range(1, 10))
    write(tmp_path / "b.jsonl", range(1, 7))
    truncate_after(tmp_path / "b.jsonl", 4)
    write(tmp_path / "b.jsonl", range(5, 10))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_numbers_json_does_not_have_become_null(tmp_path):
    import numpy as np
    import torch

    path = tmp_path / "metrics.jsonl"
    with Records(path) as records:
        records.append(
            "train", 1, loss=float("nan"), a=np.float32(0.5), b=torch.tensor(2), c=[float("inf"), 1], d=tmp_path
        )
    row = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (row["loss"], row["a"], row["b"], row["c"], row["d"]) == (None, 0.5, 2, [None, 1], str(tmp_path))


def test_text_with_a_lone_surrogate_is_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with Records(path) as records:
        records.append("event", 1, text="\udc80")
    assert read(path)[0]["text"] == "\udc80"


@pytest.mark.parametrize(
    "line", ["[]", "1", "{}", '{"type": "train"}', '{"type": "train", "step": "x"}', "not json", "[" * 9999]
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    write(path, [1])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(LichenError, match=r"metrics\.jsonl:2: "):
        read(path)


def test_a_full_disk_leaves_no_half_row_and_is_named(tmp_path):
    program = """
import resource, signal, sys
from lichen.metrics.records import Records
from lichen.config.errors import LichenError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    with Records(sys.argv[1]) as records:
        for step in range(100):
            records.append("train", step, loss=1.0)
except LichenError as error:
    print(error)
"""
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "metrics.jsonl" in done.stdout and "limit" in done.stdout
    assert path.read_bytes().endswith(b"}\n") and len(read(path)) == 2


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LichenError, match=r"metrics\.jsonl|file"):
        Records(tmp_path / "file" / "metrics.jsonl").append("train", 1)


def test_rows_survive_a_killed_writer(tmp_path):
    program = """
import os, sys
from lichen.metrics.records import Records
records = Records(sys.argv[1])
records.append("train", 1)
os._exit(9)
"""
    path = tmp_path / "metrics.jsonl"
    assert subprocess.run([sys.executable, "-c", program, str(path)]).returncode == 9
    assert len(read(path)) == 1


def test_an_unknown_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="validation"):
        Records(tmp_path / "metrics.jsonl").append("valdation", 1)  # type: ignore[arg-type]
