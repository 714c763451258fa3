"""``metrics.jsonl``: one JSON object per line, appended as training goes, the source of truth of every plot.

Every row has ``type`` (train, validation, epoch, event) and ``step`` (optimizer updates done). Field names, shared by
whoever writes and whoever plots; a writer leaves out what it does not have and may add its own:

    train       loss, loss_mean, perplexity, lr, gradient_norm, clip_rate, clip_ratio, tokens (seen so far), epoch
                (float), tokens_per_second, time_data … time_other (seconds since the row before, see meters.PARTS),
                memory_mib, memory_device_mib, skipped (steps not taken so far)
    validation  loss, perplexity, bits_per_byte, targets, weights ("current" or "averaged")
    epoch       epoch (int, the one that ended) and the train fields over the whole epoch
    event       event (a word: resume, skip, stop …), text, anything else

A row is one ``write`` of one whole line to a file opened for appending: a reader sees it or does not. A process killed
in the middle leaves at most a cut last line, which readers skip and the next writer removes. On resume
``truncate_after`` drops, in one atomic replacement, what was measured after the checkpoint, and leaves the other lines
byte for byte as they were. JSON has no NaN or infinity: such values are written as null.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     with Records(Path(folder) / "metrics.jsonl") as records:
...         records.append("train", step=1, loss=2.5)
...         records.append("train", step=2, loss=float("nan"))
...     truncate_after(records.path, step=1)
...     read(records.path)
1
[{'type': 'train', 'step': 1, 'loss': 2.5}]
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from lichen.config.errors import LichenError
from lichen.core.disk import disk_errors, sync, write_all
from lichen.core.folders import write_file

RowType = Literal["train", "validation", "epoch", "event"]
ROW_TYPES: tuple[RowType, ...] = ("train", "validation", "epoch", "event")


class Records:
    """The writer of one metrics file. There is one writer per file; readers may read at any time.

    Opening keeps what is there, but removes a cut last line. The file is opened with the first row, so that a run that
    fails before it measured anything leaves none behind.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._descriptor: int | None = None

    def append(self, type: RowType, step: int, **values: Any) -> None:
        """Write one row; it is with the operating system when this returns (a killed process loses nothing).

        Raises LichenError naming the file when the disk is full or the file cannot be written.
        """
        if type not in ROW_TYPES:
            raise ValueError(f"no rows of type {type!r}; there are {', '.join(ROW_TYPES)}")
        row = {"type": type, "step": int(step), **{name: _plain(value) for name, value in values.items()}}
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")
        with disk_errors(self.path):
            self._write(line)

    def _write(self, line: bytes) -> None:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_cut_line(self.path)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        before = os.fstat(self._descriptor).st_size
        try:
            write_all(self._descriptor, line)
        except OSError:  # a full disk may have taken half of it: take the half back
            os.ftruncate(self._descriptor, before)
            raise

    def sync(self) -> None:
        """Force rows to the disk; before a checkpoint that relies on them (a power loss then loses none of them)."""
        if self._descriptor is not None:
            sync(self._descriptor)

    def close(self) -> None:
        """Close the file; a later ``append`` opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read(path: Path | str, types: Iterable[RowType] = ROW_TYPES) -> list[dict[str, Any]]:
    """All whole rows of the given types, in order. A cut last line is skipped; another bad line raises LichenError."""
    wanted = set(types)
    return [row for _, row in _rows(Path(path)) if row["type"] in wanted]


def column(rows: Iterable[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the rows that have a number under ``name``.

    >>> column([{"step": 1, "loss": 2.0}, {"step": 2}, {"step": 3, "loss": None}], "loss")
    ([1], [2.0])
    """
    pairs = [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), int | float)]
    return [step for step, _ in pairs], [value for _, value in pairs]


def truncate_after(path: Path | str, step: int) -> int:
    """Drop rows beyond ``step`` and a cut last line; how many rows were dropped. Atomic; no file, no error."""
    path = Path(path)
    if not path.exists():
        return 0
    kept, dropped = [], 0
    for line, row in _rows(path):
        if row["step"] <= step:
            kept.append(line)
        else:
            dropped += 1
    content = b"".join(kept)
    if len(content) != path.stat().st_size:
        write_file(path, content)
    return dropped


def _rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every whole line with its row."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise LichenError(f"{path}: cannot read metrics ({error.strerror})") from error
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith(b"\n"):
            return
        try:
            row = json.loads(line)
            whole = isinstance(row, dict) and isinstance(row["type"], str) and type(row["step"]) is int
        except (ValueError, KeyError, RecursionError):
            whole = False
        if not whole:
            raise LichenError(f"{path}:{number}: not a row of metrics; remove the line, or the file to start anew")
        yield line, row


def _remove_cut_line(path: Path) -> None:
    """Cut the file back behind its last line break."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - 4096)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            keep = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        if keep != end:
            file.truncate(keep)


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are not finite become null, numpy and torch scalars become Python's."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | bool | None) else str(value)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
