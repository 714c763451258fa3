"""Processes that build batches ahead, and what happens when one of them dies, hangs or outlives its parent.

Step n is built by the worker whose turn it is; results are taken in order. Each worker has a pipe of its own, read by a thread
of the parent, so that the parent never waits on a half-written message: it waits on a queue, with a timeout. On Linux workers
are forked (they run NumPy only, no torch operation, and touch no device), elsewhere spawned. They ignore the signals that ask a
training to stop, since its last step still needs them, and are killed when it is over; one whose parent has vanished ends by
itself within a second.

>>> with WorkerPool(_example, workers=2, prefetch=2, timeout=60) as pool:
...     [(step, int(arrays.tokens[0, 0])) for step, arrays in pool.imap(iter([3, 4, 5]))]
[(3, 9), (4, 16), (5, 25)]
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Self

import numpy as np

from lichen.config.errors import LichenError
from lichen.dataset.rebinding import LinkArrays

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
IGNORED_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
REMEDY = "the training can be resumed; data.workers 0 loads in the main process"


class Arrays(NamedTuple):
    """Filled rows on their way to a batch."""

    tokens: np.ndarray
    """int64 ``[rows, T]``"""
    targets: np.ndarray
    """int64 ``[rows, T]``"""
    lengths: tuple[tuple[int, ...], ...]
    """Segment lengths per row."""
    links: LinkArrays | None = None
    """What the rows say of the entries of a bank."""


class Failure(NamedTuple):
    """What went wrong inside a worker."""

    message: str
    traceback: str
    """Where, for whoever looks for the defect; empty for a LichenError, which says all there is to say."""


@dataclass
class _Worker:
    number: int
    process: Any
    connection: Connection
    results: queue.SimpleQueue[Any]
    receiver: threading.Thread

    def request(self, step: int) -> None:
        """Ask for ``step``; a dead worker is found out when its answer is awaited."""
        with suppress(OSError):
            self.connection.send(step)

    def kill(self) -> None:
        """End the process, which holds nothing worth saving, then the thread that listened to it."""
        self.process.kill()
        self.process.join(5)
        self.receiver.join(5)
        self.connection.close()


class WorkerPool:
    """``workers`` processes computing ``build(step)``, each up to ``prefetch`` steps ahead.

    A context manager; leaving it kills the processes. ``build`` must be pure and must not use torch.
    """

    def __init__(self, build: Callable[[int], Arrays], workers: int, prefetch: int, timeout: float):
        self._build = build
        self._count = workers
        self._prefetch = prefetch
        self._timeout = timeout
        self._owner = os.getpid()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        atexit.register(self._kill)
        try:
            for number in range(self._count):
                with (
                    _signals_blocked()
                ):  # until it ignores them, a worker would answer signals with the parent's handlers
                    self._workers.append(self._start(number))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        atexit.unregister(self._kill)

    def imap(self, steps: Iterator[int]) -> Iterator[tuple[int, Arrays]]:
        """(step, ``build(step)``) for every one of ``steps``, in order.

        Raises LichenError naming worker and step when a worker dies, delivers nothing for the time allowed, or fails.
        """
        pending: deque[tuple[int, _Worker]] = deque()
        turn = 0
        while True:
            while len(pending) < self._count * self._prefetch and (step := next(steps, None)) is not None:
                worker = self._workers[turn % self._count]
                turn += 1
                worker.request(step)
                pending.append((step, worker))
            if not pending:
                return
            step, worker = pending.popleft()
            yield step, self._take(worker, step)

    def _take(self, worker: _Worker, step: int) -> Arrays:
        where = f"loader worker {worker.number} of {self._count} (process {worker.process.pid})"
        try:
            result = worker.results.get(timeout=self._timeout)
        except queue.Empty:
            raise LichenError(
                f"{where} delivered nothing for {self._timeout:g} s at step {step}: it hangs, or data.worker_timeout is too "
                f"short for this storage; {REMEDY}"
            ) from None
        if result is None:
            worker.process.join(5)
            code = _exit_code(worker.process.exitcode)
            raise LichenError(f"{where} died at step {step} with exit code {code}; {REMEDY}")
        if isinstance(result, Failure):
            if not result.traceback:
                raise LichenError(result.message)
            raise LichenError(f"{where} failed at step {step}: {result.message}") from RuntimeError(result.traceback)
        return result

    def _start(self, number: int) -> _Worker:
        context = multiprocessing.get_context(START_METHOD)
        ours, theirs = context.Pipe()
        inherited = [*(worker.connection for worker in self._workers), ours] if START_METHOD == "fork" else []
        process = context.Process(
            target=_serve,
            args=(theirs, self._build, os.getpid(), inherited),
            name=f"lichen-loader-{number}",
            daemon=True,
        )
        with warnings.catch_warnings():
            # Python warns of forking beside threads; the child needs none of their locks: it runs NumPy and this module
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()  # from now on, the worker's end closes with the worker
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        receiver = threading.Thread(target=_receive, args=(ours, results), name=process.name, daemon=True)
        receiver.start()
        return _Worker(number, process, ours, results, receiver)

    def _kill(self) -> None:
        if os.getpid() != self._owner:  # a process forked from ours has no say over our workers
            return
        for worker in self._workers:
            worker.kill()
        self._workers.clear()


def _receive(connection: Connection, results: queue.SimpleQueue[Any]) -> None:
    """Parent's thread: pass on what one worker sends; None at its end."""
    try:
        while True:
            results.put(connection.recv())
    except (EOFError, OSError):
        results.put(None)


def _serve(connection: Connection, build: Callable[[int], Arrays], parent: int, inherited: list[Connection]) -> None:
    """Worker process: build what is asked for, until the parent closes the pipe or dies."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for other in inherited:  # the parent's ends, which a fork copies, would keep pipes open that should break
        other.close()
    with suppress(EOFError, OSError):
        while True:
            connection.send(_attempt(build, connection.recv()))


def _attempt(build: Callable[[int], Arrays], step: int) -> Arrays | Failure:
    try:
        return build(step)
    except LichenError as error:
        return Failure(str(error), "")
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


def _end_with(parent: int) -> None:
    """Worker's thread: leave when the parent is gone, whatever the worker is doing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Hold the signals back that workers ignore; they arrive afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_code(code: int | None) -> str:
    """
    >>> _exit_code(-9), _exit_code(3)
    ('-9 (SIGKILL)', '3')
    """
    if code is not None and code < 0:
        return f"{code} ({signal.Signals(-code).name})"
    return str(code)


def _example(step: int) -> Arrays:
    return Arrays(np.full((1, 1), step * step), np.zeros((1, 1)), ((1,),))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
