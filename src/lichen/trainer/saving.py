"""Saving beside the training: the training thread copies, another thread writes, syncs, verifies and prunes.

A save costs the training one copy of the state into host memory that is kept and reused. There is one save in flight at
most; a second waits for the first. A full disk does not end a training: it is said loudly, older checkpoints stay, the
next save tries again, and only ``max_failures`` failures in a row stop it. The order of a save is: checkpoint written and
verified, ``best.json``, pruning; `Saver.settle` finishes a save that was interrupted between these.

>>> import tempfile
>>> run = Run.create(tempfile.mkdtemp(), "example")
>>> with Saver(run, keep_last=2) as saver:
...     for step in (1, 2, 3):
...         saver.save(Contents(state=State(step=step, best_step=1), weights={"w": torch.full((2,), float(step))}))
>>> [p.name for p in run.checkpoint_folders()], run.latest() == saver.last_saved
(['lichen_step_0000001', 'lichen_step_0000002', 'lichen_step_0000003'], True)
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lichen.config.errors import LichenError
from lichen.core.disk import check_writable
from lichen.core.runs import Best, Run
from lichen.trainer.checkpoints import Contents, clear_leftovers, prune, write_checkpoint
from lichen.trainer.state import State

_log = logging.getLogger("lichen.saving")
_UNREADABLE = Best("", -1, "", 0.0)


class SavingFailed(LichenError):
    """So many saves in a row have failed that going on would risk the work done."""


class HostBuffers:
    """Copies of tensors in host memory; the memory is kept and used again for the same names."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def copy(self, tensors: Mapping[str, Tensor] | None, group: str) -> dict[str, Tensor] | None:
        """A copy of ``tensors`` that later updates do not reach, until the next call with the same ``group``."""
        if tensors is None:
            return None
        return {name: self._copy_one(f"{group}:{name}", tensor.detach()) for name, tensor in tensors.items()}

    def _copy_one(self, key: str, tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[key] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        return buffer.copy_(tensor)


class Saver:
    """Writes a run's checkpoints; on rank 0 only. Use it as a context manager: leaving waits for the save in flight.

    Args:
        run: where to.
        prefix: first part of a checkpoint's name (``lichen-26m_dense``).
        keep_last: so many of the newest are kept, beside the best and the pinned.
        asynchronous: write in a thread; else `save` returns when the checkpoint is on the disk.
        max_failures: this many failures in a row raise `SavingFailed`.

    Raises:
        LichenError: the checkpoints' folder can not be written to.
    """

    def __init__(
        self, run: Run, *, prefix: str = "lichen", keep_last: int = 3, asynchronous: bool = True, max_failures: int = 3
    ):
        check_writable(run.checkpoints)
        self.run, self.prefix, self.keep_last = run, prefix, keep_last
        self.asynchronous, self.max_failures = asynchronous, max_failures
        self.failures = 0
        """Failed saves in a row."""
        self.last_saved: Path | None = None
        """The newest checkpoint known to be whole."""
        self.seconds_copying = self.seconds_waiting = self.seconds_writing = 0.0
        """Wall clock; the first two were taken from the training thread."""
        self._buffers = HostBuffers()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def settle(self, newest: Path, state: State) -> None:
        """At the start: finish what an interrupted save left to do. ``newest`` is the checkpoint resumed from."""
        clear_leftovers(self.run)
        self.last_saved = newest
        self._conclude(newest, state)

    def save(self, contents: Contents, final: bool = False) -> None:
        """Save ``contents`` as the checkpoint of its step; the tensors may change as soon as this returns.

        If ``state.best_step`` is this step, the checkpoint becomes the best. ``final`` waits, and raises if it fails.

        Raises:
            SavingFailed: too many failures in a row (or, with ``final``, this one).
        """
        self.wait()
        self.check()
        if final or not self.asynchronous:
            self._write(contents)
            self.check(1 if final else None)
            return
        start = time.perf_counter()
        copied = dataclasses.replace(
            contents,
            state=copy.deepcopy(contents.state),
            weights=self._buffers.copy(contents.weights, "weights"),
            optimizer=self._buffers.copy(contents.optimizer, "optimizer"),
            averages=self._buffers.copy(contents.averages, "averages"),
            module=self._buffers.copy(contents.module, "module"),
        )
        self.seconds_copying += time.perf_counter() - start
        self._thread = threading.Thread(target=self._write_beside, args=(copied,), name="lichen-saving")
        self._thread.start()

    def check(self, max_failures: int | None = None) -> None:
        """Raise what the writing thread could not deal with; costs nothing, does not wait."""
        error = self._error
        if error is None:
            return
        if not isinstance(error, LichenError):
            self._error = None
            raise error
        if self.failures >= (max_failures or self.max_failures):
            raise SavingFailed(f"{self.failures} saves in a row have failed: {error}") from error

    @property
    def failed(self) -> bool:
        """Whether the last save that ended failed."""
        return self._error is not None

    def wait(self) -> None:
        """Wait for the save in flight, if there is one."""
        if self._thread is not None:
            start = time.perf_counter()
            self._thread.join()
            self._thread = None
            self.seconds_waiting += time.perf_counter() - start

    def close(self) -> None:
        """Wait for the save in flight and raise if it failed in an unforeseen way."""
        self.wait()
        self.check()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.wait()
        if kind is None:
            self.check()

    def _write_beside(self, contents: Contents) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux: this thread alone yields to the training
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        self._write(contents)

    def _write(self, contents: Contents) -> None:
        folder = self.run.checkpoint_folder(contents.state.step, self.prefix)
        start = time.perf_counter()
        try:
            write_checkpoint(folder, contents)
            self.last_saved, self.failures, self._error = folder, 0, None
            self._conclude(folder, contents.state)
        except (LichenError, OSError) as error:
            self.failures += 1
            self._error = error if isinstance(error, LichenError) else LichenError(f"{folder}: {error}")
            _log.error("SAVING FAILED (%d of %d in a row): %s", self.failures, self.max_failures, error)
        except BaseException as error:
            self._error = error
        self.seconds_writing += time.perf_counter() - start

    def _conclude(self, folder: Path, state: State) -> None:
        if state.best_step == state.step:
            best = Best(folder.name, state.step, state.best_metric or "", state.best_score or 0.0)
            if self._read_best() != best:
                self.run.write_best(best)
        if self._read_best() is not _UNREADABLE:  # else the best one could be removed
            prune(self.run, self.keep_last, folder)

    def _read_best(self) -> Best | None:
        try:
            return self.run.read_best()
        except LichenError as error:
            _log.warning("nothing is pruned: %s", error)
            return _UNREADABLE


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
