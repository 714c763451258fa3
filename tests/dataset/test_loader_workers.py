import gc
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
import warnings

import numpy as np
import psutil
import pytest

from lichen.config.errors import LichenError
from lichen.dataset import loader_workers
from lichen.dataset.loader_workers import Arrays, WorkerPool


def numbered(step):
    return Arrays(np.full((2, 3), step), np.full((2, 3), -step), ((3,), (3,)))


def values(pool, steps):
    return [(step, int(arrays.tokens[0, 0])) for step, arrays in pool.imap(iter(steps))]


def loaders():
    return [child for child in multiprocessing.active_children() if child.name.startswith("lichen-loader")]


def send(process, number):
    assert process.pid is not None
    os.kill(process.pid, number)


def wait_until_gone(processes, seconds=30.0):
    end = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in processes):
        assert time.monotonic() < end, f"still there: {processes}"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    gc.collect()
    assert not loaders()


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_none_is_left_out(workers):
    with WorkerPool(numbered, workers, prefetch=2, timeout=30) as pool:
        assert values(pool, range(4, 24)) == [(n, n) for n in range(4, 24)]


def test_a_killed_worker_is_named_with_its_signal_and_step():
    with WorkerPool(numbered, 2, prefetch=1, timeout=30) as pool:
        results = pool.imap(iter(range(100)))
        assert next(results)[0] == 0
        victim = next(child for child in loaders() if child.name.endswith("-1"))
        send(victim, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(
            LichenError, match=rf"worker 1 of 2 \(process {victim.pid}\) died at step \d+ .*-9 \(SIGKILL\)"
        ):
            list(results)
        assert time.monotonic() - started < 10


def test_a_worker_that_exits_is_named_with_its_code():
    def leave(step):
        os._exit(3)

    with WorkerPool(leave, 1, prefetch=1, timeout=30) as pool, pytest.raises(LichenError, match="exit code 3"):
        values(pool, [0])


def test_a_hanging_worker_is_named_in_time():
    def hang(step):
        time.sleep(600)
        return numbered(step)

    started = time.monotonic()
    message = r"worker 0 of 2 .* nothing for 0\.5 s at step 6: it hangs"
    with WorkerPool(hang, 2, prefetch=1, timeout=0.5) as pool, pytest.raises(LichenError, match=message):
        values(pool, range(6, 10))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("ending", "message"), [("hang", "it hangs"), ("die", "exit code 3")])
def test_a_worker_lost_in_the_middle_of_a_message_does_not_hang_the_parent(monkeypatch, ending, message):
    def serve(connection, *_):
        os.write(
            connection.fileno(), struct.pack("!i", 1_000_000) + b"the beginning"
        )  # of a message of a million bytes
        if ending == "die":
            os._exit(3)
        time.sleep(600)

    monkeypatch.setattr(loader_workers, "_serve", serve)
    timeout = 0.5 if ending == "hang" else 30
    with WorkerPool(numbered, 1, prefetch=1, timeout=timeout) as pool, pytest.raises(LichenError, match=message):
        values(pool, [0])


def test_workers_ignore_the_signals_that_stop_a_training():
    with WorkerPool(numbered, 2, prefetch=1, timeout=30) as pool:
        results = pool.imap(iter(range(6)))
        next(results)
        for child in loaders():
            for number in (signal.SIGINT, signal.SIGTERM):
                send(child, number)
        assert [step for step, _ in results] == [1, 2, 3, 4, 5]


def test_leaving_early_ends_the_workers():
    with WorkerPool(numbered, 2, prefetch=2, timeout=30) as pool:
        next(pool.imap(iter(range(100))))
        pids = [child.pid for child in loaders()]
    assert len(pids) == 2
    wait_until_gone(pids)


def test_forking_beside_threads_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with WorkerPool(numbered, 2, prefetch=1, timeout=30) as pool:
            assert values(pool, range(2)) == [(0, 0), (1, 1)]


SCRIPT = """
    import os, sys, time
    import numpy as np
    import multiprocessing
    from lichen.dataset.loader_workers import Arrays, WorkerPool

    def numbered(step):
        return Arrays(np.full((64, 4096), step), np.full((64, 4096), step), ((1,),) * 64)

    pool = WorkerPool(numbered, 2, 3, 30.0).__enter__()
    results = pool.imap(iter(range(100)))
    next(results)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


def run_script(ending):
    script = textwrap.dedent(SCRIPT) + ending
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    return process, pids


def test_workers_end_with_a_parent_that_was_killed():
    process, pids = run_script("time.sleep(60)")
    process.kill()
    process.communicate()
    wait_until_gone(pids)


def test_a_parent_that_ends_without_closing_does_not_hang():
    process, pids = run_script("")
    process.communicate(timeout=60)
    assert process.returncode == 0
    wait_until_gone(pids)


def test_a_signal_to_the_whole_group_leaves_the_last_step_its_batches():
    ending = textwrap.dedent("""
        import signal
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.2)
        assert asked
        print([int(arrays.tokens[0, 0]) for _, (step, arrays) in zip(range(20), results)] == list(range(1, 21)))
    """)
    process, pids = run_script(ending)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (0, "True")
    wait_until_gone(pids)
