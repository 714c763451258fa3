"""Mistakes that crash-proof code must not make, put in one at a time: each has to be caught, or the tests prove nothing."""

from __future__ import annotations

import contextlib
import math
import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scenarios
import torch

from lichen.core import disk, folders, runs
from lichen.trainer import assembly, checkpoints, keeping, saving, step


@dataclass(frozen=True)
class Bug:
    """A mistake, and the scenario (or ``power``) that must catch it."""

    seed: Callable[[], None]
    caught_by: str


def written_in_place() -> None:
    @contextlib.contextmanager
    def whole_folder(path: Path, fingerprint: Any = None, **options: Any) -> Iterator[Path]:
        path.mkdir(parents=True, exist_ok=True)
        yield path
        folders.write_manifest(path, fingerprint, options.get("known"))

    checkpoints.whole_folder = whole_folder


def file_written_in_place() -> None:
    def write_file(path: Path, data: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, data.encode())
        os.fsync(descriptor)
        os.close(descriptor)

    runs.write_file = write_file  # type: ignore[assignment]


def deleted_before_written() -> None:
    write = saving.Saver._write

    def delete_then_write(self: saving.Saver, contents: checkpoints.Contents) -> None:
        best = self.run.read_best()
        for old in self.run.checkpoint_folders():
            if best is None or old.name != best.checkpoint:
                folders.remove_folder(old)
        write(self, contents)

    saving.Saver._write = delete_then_write


def old_one_removed_before_the_rename() -> None:
    def move(partial: Path, path: Path) -> None:
        folders.remove_folder(path)
        folders.rename(partial, path)

    folders._move_into_place = move


def random_state_not_saved() -> None:
    generator = None

    def noise(step: int) -> torch.Tensor:
        nonlocal generator
        generator = generator or torch.Generator().manual_seed(0)
        return torch.randn(300, generator=generator)

    scenarios.noise = noise


def nothing_settled() -> None:
    saving.Saver.settle = lambda self, newest, state: None  # type: ignore[method-assign,assignment]


def cursor_off_by_one() -> None:
    batches = assembly.TrainingData.batches
    assembly.TrainingData.batches = lambda self, start: batches(self, start + 1 if start else 0)  # type: ignore[method-assign]


def order_from_unsaved_random_state() -> None:
    batches = assembly.TrainingData.batches

    def shuffled(self: assembly.TrainingData, start: int) -> Iterator[Any]:
        rng = random.Random(0)  # begins anew with every sitting
        for batch in batches(self, start):
            batch.weights = torch.full(batch.targets.shape, rng.random())
            yield batch

    assembly.TrainingData.batches = shuffled  # type: ignore[method-assign,assignment]


def moments_not_restored() -> None:
    assert hasattr(keeping, "load_optimizer_state")  # or nothing would be seeded here
    keeping.load_optimizer_state = lambda *_: None  # type: ignore[assignment]


def averages_not_restored() -> None:
    assembly.Averages.load = lambda *_: None  # type: ignore[method-assign,assignment]


class Careless:
    """``math`` for a step that takes every number for finite."""

    def __getattr__(self, name: str) -> Any:
        return (lambda value: True) if name == "isfinite" else getattr(math, name)


def skipped_by_multiplying_with_zero() -> None:
    real = torch.optim.AdamW.step

    def careless(self: Any, closure: Any = None) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not all(torch.isfinite(gradient).all() for gradient in gradients):
            for gradient in gradients:
                gradient.mul_(0)  # 0 × NaN is NaN
        return real(self, closure)

    step.math = Careless()  # type: ignore[assignment]
    torch.optim.AdamW.step = careless  # type: ignore[method-assign,assignment]


def nothing_synced() -> None:
    for module in (disk, folders):
        module.sync = lambda descriptor: None  # type: ignore[assignment]


def files_not_synced() -> None:
    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)

    folders.sync = sync


def parent_not_synced() -> None:
    real = folders.fsync_folder
    folders.fsync_folder = lambda path: None if Path(path).name == "checkpoints" else real(path)


BUGS = {
    "written in place": Bug(written_in_place, "save"),
    "file written in place": Bug(file_written_in_place, "save"),
    "deleted before written": Bug(deleted_before_written, "save"),
    "old one removed before the rename": Bug(old_one_removed_before_the_rename, "save"),
    "random state not saved": Bug(random_state_not_saved, "save"),
    "nothing settled": Bug(nothing_settled, "save"),
    "cursor off by one": Bug(cursor_off_by_one, "train"),
    "order from unsaved random state": Bug(order_from_unsaved_random_state, "train"),
    "moments not restored": Bug(moments_not_restored, "train"),
    "averages not restored": Bug(averages_not_restored, "train"),
    "skipped by multiplying with zero": Bug(skipped_by_multiplying_with_zero, "train"),
    "nothing synced": Bug(nothing_synced, "power"),
    "files not synced": Bug(files_not_synced, "power"),
    "parent not synced": Bug(parent_not_synced, "power"),
}
