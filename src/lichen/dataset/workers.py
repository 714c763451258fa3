"""Pure functions over a stream of jobs in several processes, results in order, few jobs in flight.

Processes are spawned, not forked: a fork of a process that has used threads or torch may hang. They ignore Ctrl-C and
SIGTERM sent to the whole group, so that the parent alone decides how the work ends.

>>> list(map_in_order(pow, [(2, 3), (3, 2)], workers=1))
[8, 9]
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from lichen.config.errors import LichenError

IN_FLIGHT = 2  # jobs per worker


def map_in_order(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[Any]:
    """``function(*job)`` for every job, in order; in this process for one worker.

    Raises `LichenError` when a worker dies, and whatever ``function`` raises.
    """
    if workers <= 1:
        for job in jobs:
            yield function(*job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
    try:
        yield from _through(pool, function, jobs, workers * IN_FLIGHT)
    except BrokenProcessPool:
        raise LichenError("a worker process died (out of memory?); use fewer workers or smaller chunks") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _through(
    pool: ProcessPoolExecutor, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], most: int
) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for job in jobs:
        waiting.append(pool.submit(function, *job))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _begin() -> None:
    """A worker leaves with its parent, however that ends, and not before."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
