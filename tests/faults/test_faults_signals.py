"""Being asked to stop, as a batch system or a person at a terminal asks: a real process, its exit status, and what it leaves."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from lichen.core.folders import stale_siblings, verify
from lichen.core.runs import Run


def wait_for(process, holds, seconds=200.0):
    """Until ``holds()``; a process that ends before fails."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_rows(run: Path, step: int):
    path = Run(run).metrics
    return lambda: path.exists() and f'"step": {step},' in path.read_text()


def weights(run: Path) -> bytes:
    return (Run(run).latest() / "model.safetensors").read_bytes()


def saved_at(run: Path) -> int:
    """The step of the newest checkpoint, which must be whole and nothing beside it half-written."""
    latest = Run(run).latest()
    assert not verify(latest) and not stale_siblings(Run(run).checkpoints)
    state = json.loads((latest / "training" / "state.json").read_text())
    assert state["reason"] == "interrupted" and not state["finished"]
    return state["step"]


def stopped(said, number: int, run: Path) -> None:
    assert said.status == 128 + number, said.err
    assert "Traceback" not in said.err and "error:" not in said.err, said.err
    assert signal.Signals(number).name in said.err and f"interrupted at step {saved_at(run)}" in said.err


def whole_run(lichen, flags, tmp_path: Path) -> bytes:
    assert lichen("train", *flags, "--run.root", tmp_path, "--run.name", "whole").status == 0
    return weights(tmp_path / "whole")


@pytest.mark.nightly
def test_a_signal_to_the_whole_group_saves_although_workers_get_it_too(tiny_flags, start, end, lichen, tmp_path):
    flags = [*tiny_flags, "--train.steps", 400, "--evaluation.every", 200, "--data.workers", 2]
    process = start("train", *flags, "--run.root", tmp_path, "--run.name", "run")
    wait_for(process, has_rows(tmp_path / "run", 3))
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    os.killpg(process.pid, signal.SIGTERM)
    said = end(process, 30)
    stopped(said, signal.SIGTERM, tmp_path / "run")
    assert 3 <= saved_at(tmp_path / "run") < 400
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    more = saved_at(tmp_path / "run") + 1
    again = lichen("train", tmp_path / "run", "--train.steps", more)
    assert again.status == 0 and f"to step {more}" in again.err


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_compiling_ends_the_step_and_saves(number, tiny_flags, start, end, tmp_path):
    """The compiler's own processes get the signal as well, as they do from a batch system or a terminal."""
    flags = [*tiny_flags, "--train.steps", 6, "--train.compile", "--evaluation.every", 3]
    whole = end(start("train", *flags, "--run.root", tmp_path, "--run.name", "whole"), 400)
    assert whole.status == 0, whole.err
    fresh = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    process = start("train", *flags, "--run.root", tmp_path, "--run.name", "run", **fresh)

    def compiles() -> bool:
        cache = tmp_path / "cache"
        return cache.is_dir() and any(path.suffix == ".cpp" for path in cache.rglob("*"))

    wait_for(process, compiles)
    assert not Run(tmp_path / "run").metrics.exists() or not has_rows(tmp_path / "run", 1)()
    os.killpg(process.pid, number)
    said = end(process, 400)  # compiling takes its time on a busy machine
    stopped(said, number, tmp_path / "run")
    assert saved_at(tmp_path / "run") == 1
    assert end(start("train", tmp_path / "run"), 400).status == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_leaves_a_run_that_can_be_started(
    number, tiny_flags, start, end, lichen, tmp_path
):
    flags = [*tiny_flags, "--train.steps", 4]
    expected = whole_run(lichen, flags, tmp_path)
    process = start("train", *flags, "--run.root", tmp_path, "--run.name", "run")
    wait_for(process, (tmp_path / "run" / "logs").is_dir)
    process.send_signal(number)
    said = end(process, 60)
    stopped(said, number, tmp_path / "run")
    assert saved_at(tmp_path / "run") <= 1
    assert lichen("train", tmp_path / "run").status == 0
    assert weights(tmp_path / "run") == expected


@pytest.mark.nightly
def test_ctrl_c_once_saves_and_twice_stops_at_once_with_whole_checkpoints(tiny_flags, start, end, lichen, tmp_path):
    flags = [*tiny_flags, "--train.steps", 3000, "--checkpoint.every", 5, "--evaluation.every", 0]
    once = start("train", *flags, "--run.root", tmp_path, "--run.name", "once")
    wait_for(once, has_rows(tmp_path / "once", 12))
    os.killpg(once.pid, signal.SIGINT)
    stopped(end(once, 30), signal.SIGINT, tmp_path / "once")
    twice = start("train", *flags, "--run.root", tmp_path, "--run.name", "twice", LICHEN__LOG__WINDOW="99")
    wait_for(twice, has_rows(tmp_path / "twice", 12))
    twice.send_signal(signal.SIGSTOP)  # so that both come before it can end in order
    twice.send_signal(signal.SIGINT)
    twice.send_signal(signal.SIGCONT)
    time.sleep(0.05)
    twice.send_signal(signal.SIGINT)
    said = end(twice, 30)
    assert (
        said.status in (130, -signal.SIGINT) and "Traceback" not in said.err
    )  # the latter where it was leaving already
    assert not verify(Run(tmp_path / "twice").latest())
    step = int(Run(tmp_path / "twice").latest().name[-7:])
    assert lichen("train", tmp_path / "twice", "--train.steps", step + 2).status == 0


@pytest.mark.nightly
def test_a_preparation_that_is_terminated_continues_to_the_same_bytes(start, end, lichen, snapshot, tmp_path):
    lines = [
        json.dumps({"text": f"the moss {n} grows on stone {n * n} in the rain of day {n % 7}"}) for n in range(20000)
    ]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines) + "\n")
    words = [tmp_path / "raw.jsonl", "--clean.chunk_documents", 500, "--shards.max_documents", 1000, "--workers", 2]
    words += ["--tokenizer.vocab-size", 400]
    assert lichen("prepare", *words, "--output", tmp_path / "whole").status == 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        output = tmp_path / f"at-{number}"
        process = start("prepare", *words, "--output", output)
        wait_for(process, output.with_name(f"{output.name}.partial").joinpath("plan.json").is_file)
        time.sleep(0.4)
        os.killpg(process.pid, number)
        said = end(process, 30)
        # a shell shows 128 + number for both; Python itself ends by SIGINT where that came amid an exec of text, as in an import
        assert said.status in (-number, 128 + number), said.err
        assert "Traceback" not in said.err and not output.exists()
        assert lichen("prepare", *words, "--output", output).status == 0
        assert snapshot(output) == snapshot(tmp_path / "whole")
