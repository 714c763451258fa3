"""A checkpoint on disk: a Hugging Face model folder, with what resuming needs under ``training/``.

    config.json  model.safetensors  tokenizer files  generation_config.json  README.md
    training/state.json  training/optimizer.safetensors  training/averages.safetensors
    MANIFEST.json        sizes, checksums, the fingerprint of config, data and tokenizer; written last

Tensors are written in the safetensors format by our own few lines, because they hash while they write: a checkpoint is
read back once, to verify it, and never a second time for its manifest. Only safetensors and JSON are ever read.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp()) / "lichen_step_0000002"
>>> contents = Contents(state=State(step=2), weights={"w": torch.ones(2)}, fingerprint={"data": "d1"})
>>> write_checkpoint(folder, contents)
>>> checkpoint = read_checkpoint(folder)
>>> checkpoint.state.step, checkpoint.fingerprint, checkpoint.weights()
(2, {'data': 'd1'}, {'w': tensor([1., 1.])})
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lichen.config.errors import LichenError, UsageError
from lichen.core.disk import rename, unlink
from lichen.core.folders import (
    Entry,
    HashingWriter,
    fsync_folder,
    partial_of,
    read_manifest,
    remove_folder,
    verify,
    whole_folder,
)
from lichen.core.locks import pins, pruning_lock
from lichen.core.runs import AVERAGES, Run, step_of
from lichen.trainer.state import State

WEIGHTS, STATE = "model.safetensors", "training/state.json"
OPTIMIZER = "training/optimizer.safetensors"
MODULE = "training/module.safetensors"

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


# --- Tensor files ---


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Entry:
    """Write a safetensors file in the order of names, synced; the result is its size and checksum."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(tensors):
        size = tensors[name].numel() * tensors[name].element_size()
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _TYPES[tensors[name].dtype], "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with HashingWriter(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            if tensors[name].numel():
                file.write(_bytes_of(tensors[name]))
    return file.entry


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)  # no copy for a host buffer
    return flat.view(torch.uint8).numpy().data


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; raises `LichenError` when it is missing or malformed."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise LichenError(f"{path}: missing; use another checkpoint") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise LichenError(f"{path}: not a safetensors file ({error}); use another checkpoint") from None


def tensor_bytes(tensors: Mapping[str, Tensor] | None) -> int:
    """Bytes the tensors take on disk, but for the header."""
    return sum(t.numel() * t.element_size() for t in (tensors or {}).values())


# --- One checkpoint ---


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What goes into a checkpoint."""

    state: State
    weights: Mapping[str, Tensor]
    """By the names the model has on disk (`lichen.model.weights.state_for_saving`)."""
    optimizer: Mapping[str, Tensor] | None = None
    """From `lichen.trainer.state.optimizer_state_to_tensors`."""
    averages: Mapping[str, Tensor] | None = None
    """From `Averages.tensors`."""
    module: Mapping[str, Tensor] | None = None
    """From `LanguageModel.training_state`: what later weights could not give again."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """config.json, tokenizer and others that do not change, by relative path (`collect_files`)."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """What must agree to resume: config, data, tokenizer; plain JSON."""

    @property
    def num_bytes(self) -> int:
        """Bytes on disk, nearly."""
        tensors = sum(map(tensor_bytes, (self.weights, self.optimizer, self.averages, self.module)))
        return tensors + sum(map(len, self.files.values()))


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint; tensors are read when asked for."""

    folder: Path
    state: State
    fingerprint: dict[str, Any]

    def weights(self) -> dict[str, Tensor]:
        """The model's weights by their names on disk."""
        return read_tensors(self.folder / WEIGHTS)

    def optimizer(self) -> dict[str, Tensor]:
        """For `lichen.trainer.state.load_optimizer_state`."""
        return read_tensors(self.folder / OPTIMIZER)

    def averages(self) -> dict[str, Tensor] | None:
        """For `Averages.load`; None when the training kept none."""
        return read_tensors(self.folder / AVERAGES) if (self.folder / AVERAGES).is_file() else None

    def module(self) -> dict[str, Tensor]:
        """For `LanguageModel.load_training_state`; empty for most models."""
        return read_tensors(self.folder / MODULE) if (self.folder / MODULE).is_file() else {}


def write_checkpoint(folder: Path, contents: Contents) -> None:
    """Write a checkpoint, whole or not at all; one that stands at ``folder`` is replaced in one step.

    Raises:
        LichenError: the disk is full, read-only or unreliable; nothing has changed then.
    """
    known: dict[str, Entry] = {}
    tensors = {
        WEIGHTS: contents.weights,
        OPTIMIZER: contents.optimizer,
        AVERAGES: contents.averages,
        MODULE: contents.module,
    }
    files = {**contents.files, STATE: contents.state.to_json().encode()}
    with whole_folder(folder, contents.fingerprint, replace=True, known=known, needed=contents.num_bytes) as partial:
        for name in files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            with HashingWriter(partial / name) as file:
                file.write(data)
            known[name] = file.entry
        for name, values in tensors.items():
            if values is not None:
                known[name] = write_tensors(partial / name, values)


def read_checkpoint(folder: str | Path, verified: bool = False) -> Checkpoint:
    """The checkpoint in a folder, verified byte by byte unless the caller just did.

    Raises:
        LichenError: it is damaged, or holds weights only.
    """
    folder = Path(folder)
    if not verified and (problems := verify(folder)):
        raise LichenError(f"{folder}: damaged: {'; '.join(problems[:4])}; use another checkpoint")
    path = folder / STATE
    if not path.is_file():
        raise LichenError(f"{folder}: weights only, nothing to resume from; start a run with --init-from {folder}")
    state = State.from_json(path.read_text(encoding="utf-8"), str(path))
    return Checkpoint(folder, state, read_manifest(folder).fingerprint)


def latest_checkpoint(run: Run) -> Checkpoint:
    """The newest whole checkpoint of a run; damaged ones are logged and passed over, see `Run.latest`."""
    return read_checkpoint(run.latest(), verified=True)


def collect_files(*writers: Callable[[Path], object]) -> dict[str, bytes]:
    """What functions such as ``tokenizer.save`` write into a folder, by relative path; tensor files are left out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for write in writers:
            write(folder)
        paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".safetensors")
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


# --- Pruning ---


def prune(run: Run, keep_last: int, newest: Path) -> list[Path]:
    """Remove old checkpoints, now that ``newest`` is known to be whole; the result names those removed.

    Kept are ``newest`` and the ``keep_last - 1`` before it, the best, the pinned, and all beyond ``newest``, which a
    person may want to look at (they were damaged, or left behind by a return to an earlier step).
    """
    past = [p for p in run.checkpoint_folders() if step_of(p) < step_of(newest)]
    best = run.read_best()
    doomed = past[: len(past) - (keep_last - 1)] if keep_last > 1 else past
    removed = []
    for folder in doomed:
        if best is None or folder.name != best.checkpoint:
            removed += [folder] if _remove_unless_pinned(folder) else []
    return removed


def _remove_unless_pinned(folder: Path) -> bool:
    hidden = partial_of(folder)
    remove_folder(hidden)
    with pruning_lock(folder.parent):
        if pins(folder):
            return False
        rename(folder, hidden)  # at once invisible, so that a half-removed one is never seen
    fsync_folder(folder.parent)
    remove_folder(hidden)
    return True


def clear_leftovers(run: Run) -> None:
    """Remove what interrupted saves and prunings left among the checkpoints; the folder's lock must be held."""
    if not run.checkpoints.is_dir():
        return
    for path in run.checkpoints.iterdir():
        replaced = re.fullmatch(r"\.(.+)\.replaced", path.name)
        original = run.checkpoints / replaced[1] if replaced else path
        if replaced and not original.exists():
            rename(path, original)
        elif replaced or (path.name.startswith(".") and path.name.endswith(".partial")):
            remove_folder(path) if path.is_dir() else unlink(path)


# --- May this checkpoint be continued with this config? ---


@dataclass(frozen=True)
class Difference:
    """One value that differs between a checkpoint's fingerprint and now; absent values are None."""

    path: str
    saved: Any
    now: Any
    harmless: bool

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.saved)} -> {_shown(self.now)}"


def compare_for_resume(
    saved: Mapping[str, Any], now: Mapping[str, Any], allowed: Iterable[str] = ()
) -> list[Difference]:
    """The differences between a checkpoint's fingerprint and the present one, all of them harmless.

    Args:
        saved, now: nested plain data; ``data`` and ``tokenizer`` at the top must agree in any case.
        allowed: dotted paths that may differ, each with all below it (``config.log``, ``config.data.sources.*.path``).

    Raises:
        UsageError: something else differs; every such difference is shown, with the remedy.
        LichenError: the data or the tokenizer are not those of the checkpoint.

    >>> saved = {"config": {"optim": {"lr": 0.1}, "log": {"every": 1}}, "data": "d1"}
    >>> [str(d) for d in compare_for_resume(saved, {**saved, "config": {**saved["config"], "log": {}}}, ["config.log"])]
    ['config.log.every: 1 -> nothing']
    >>> compare_for_resume(saved, {**saved, "config": {"optim": {"lr": 0.2}, "log": {"every": 1}}})
    Traceback (most recent call last):
        ...
    lichen.config.errors.UsageError: the config differs from the checkpoint's: config.optim.lr: 0.1 -> 0.2; ...
    """
    allowed = tuple(allowed)
    before, after = _flat(saved), _flat(now)
    paths = sorted(before.keys() | after.keys())
    differing = [p for p in paths if p not in before or p not in after or before[p] != after[p]]
    found = [Difference(p, before.get(p), after.get(p), _allowed(p, allowed)) for p in differing]
    for part, remedy in (
        ("data", "put back the prepared data it was trained on, or start a new run with --init-from"),
        ("tokenizer", "put back the tokenizer it was trained with; another one gives every token another meaning"),
    ):
        if wrong := [d for d in found if d.path == part or d.path.startswith(part + ".")]:
            raise LichenError(f"the {part} differs from the checkpoint's: {'; '.join(map(str, wrong))}; {remedy}")
    if wrong := [d for d in found if not d.harmless]:
        raise UsageError(
            f"the config differs from the checkpoint's: {'; '.join(map(str, wrong))}; "
            "undo the change to resume, or start a new run with --init-from"
        )
    return found


def _allowed(path: str, allowed: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) or fnmatchcase(path, pattern + ".*") for pattern in allowed)


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts, and lists of them by number, as dotted paths; empty ones vanish, tuples count as lists."""
    if isinstance(data, (list, tuple)) and any(isinstance(value, Mapping) for value in data):
        data = dict(enumerate(data))
    if isinstance(data, Mapping):
        parts = (_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in data.items())
        return {path: value for part in parts for path, value in part.items()}
    return {prefix: [*data] if isinstance(data, (list, tuple)) else data}


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
