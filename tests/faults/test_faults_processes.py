"""Other processes: loader workers that die or hang, a second trainer, other numbers of ranks; nobody waits for ever."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from lichen.core.runs import Run
from lichen.dataset.loader import Loader

HOLD = """
import sys, time
from lichen.core.locks import FolderLock
with FolderLock(sys.argv[1], "training"):
    print("held", flush=True)
    time.sleep(60)
"""


def loaders() -> list:
    return [child for child in multiprocessing.active_children() if child.name.startswith("lichen-loader")]


def when_there_are_rows(run: Path, act) -> threading.Thread:
    """Do something once the training has taken a few steps."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if Run(run).metrics.exists() and '"step": 3,' in Run(run).metrics.read_text():
                return act()
            time.sleep(0.005)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_loader_worker_that_is_killed_ends_the_training_by_name_and_the_run_continues(tiny_flags, lichen, tmp_path):
    flags = [*tiny_flags, "--train.steps", 5000, "--data.workers", 2, "--checkpoint.every", 2, "--evaluation.every", 0]
    victims: list[int | None] = []

    def kill() -> None:
        victims.append(loaders()[0].pid)
        os.kill(victims[0] or 0, signal.SIGKILL)

    killer = when_there_are_rows(tmp_path / "run", kill)
    said = lichen("train", *flags, "--run.root", tmp_path, "--run.name", "run")
    killer.join()
    error = said.refused(1)
    assert f"(process {victims[0]}) died at step" in error and "SIGKILL" in error and not loaders()
    step = int(Run(tmp_path / "run").latest().name[-7:])
    again = lichen("train", tmp_path / "run", "--train.steps", step + 2)
    assert again.status == 0 and f"from step {step}" in again.err


def test_a_loader_worker_that_hangs_is_named_in_time(tiny_flags, lichen, tmp_path, monkeypatch):
    arrays = Loader.arrays

    def slow(self, step):
        if step == 5:
            time.sleep(600)
        return arrays(self, step)

    monkeypatch.setattr(Loader, "arrays", slow)
    flags = [*tiny_flags, "--train.steps", 50, "--data.workers", 2, "--data.worker_timeout", 1, "--run.root", tmp_path]
    started = time.monotonic()
    error = lichen("train", *flags, "--run.name", "run").refused(1)
    assert "at step 5" in error and "it hangs" in error and time.monotonic() - started < 30 and not loaders()


def test_a_second_trainer_is_told_who_is_there_and_a_killed_one_frees_the_run(run_copy, lichen, snapshot):
    before = snapshot(run_copy)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run_copy)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        error = lichen("train", run_copy, "--train.steps", 10).refused(1)
        assert f"{run_copy}: in use by process {holder.pid}" in error and "wait for it, stop it" in error
        assert snapshot(run_copy) == before
    finally:
        holder.kill()
        holder.communicate()
    assert lichen("train", run_copy, "--train.steps", 9).status == 0


@pytest.mark.nightly
def test_two_trainers_started_at_once_and_a_killed_one_succeeded_by_another(tiny_flags, start, end, tmp_path):
    flags = [*tiny_flags, "--train.steps", 3000, "--checkpoint.every", 5, "--evaluation.every", 0]
    first = start("train", *flags, "--run.root", tmp_path, "--run.name", "run")
    deadline = time.monotonic() + 60
    while not Run(tmp_path / "run").checkpoint_folders():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    second = end(start("train", tmp_path / "run"), 30)
    assert f"in use by process {first.pid}" in second.refused(1) and first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    step = int(Run(tmp_path / "run").latest().name[-7:])
    third = end(start("train", tmp_path / "run", "--train.steps", step + 2), 60)
    assert third.status == 0 and f"from step {step}" in third.err


# --- Ranks ---


def ranks(world: int, *words: object) -> list[subprocess.CompletedProcess[str]]:
    """The train verb on so many ranks, as a launcher starts them; one that does not end in time is killed and fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        environment = {name: str(value) for name, value in place.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "lichen", "train", *map(str, words)]
        processes.append(
            subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)
        )
    found = []
    for process in processes:
        try:
            _, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            raise
        found.append(subprocess.CompletedProcess([], process.returncode, "", err))
    return found


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("flags", "words", "status"),
    [
        (["--train.batch_size", 3], "choose a multiple of 2", 2),
        (["--data.path", "nowhere"], "nowhere", 2),
        (["--init_from", "nowhere"], "nowhere", 2),
    ],
)
def test_what_is_refused_on_one_rank_is_refused_on_all_at_once(flags, words, status, tiny_flags, tmp_path):
    started = time.monotonic()
    found = ranks(2, *tiny_flags, "--train.steps", 2, *flags, "--run.root", tmp_path / "runs", "--run.name", "run")
    assert [one.returncode for one in found] == [status, status], [one.stderr for one in found]
    assert all(words in one.stderr and "Traceback" not in one.stderr for one in found)
    assert time.monotonic() - started < 60


@pytest.mark.nightly
def test_damaged_data_seen_by_one_rank_alone_ends_them_all(prepared, tiny_flags, tmp_path):
    import shutil

    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    shard = next((folder / "train").rglob("*.bytes.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    flags = ["--data.path", folder, *tiny_flags[2:], "--train.steps", 2, "--run.root", tmp_path / "runs"]
    found = ranks(2, *flags)
    assert all(one.returncode == 1 and "Traceback" not in one.stderr for one in found), [one.stderr for one in found]
    assert shard.name in found[0].stderr


@pytest.mark.nightly
def test_a_run_continues_on_other_numbers_of_ranks_with_the_same_batches(tiny_flags, lichen, tmp_path):
    """Twelve steps on one rank equal four on one, four on two and four on four, within rounding."""
    flags = [*tiny_flags, "--optim.name", "sgd", "--optim.lr", 0.3, "--train.precision", "fp32", "--schedule.warmup", 0]
    flags += ["--schedule.name", "constant", "--train.batch_size", 8, "--evaluation.every", 0, "--run.root", tmp_path]
    assert lichen("train", *flags, "--train.steps", 12, "--run.name", "whole").status == 0
    assert lichen("train", *flags, "--train.steps", 4, "--run.name", "parts").status == 0
    for world, steps in ((2, 8), (4, 12)):
        found = ranks(world, tmp_path / "parts", "--train.steps", steps)
        assert [one.returncode for one in found] == [0] * world, [one.stderr for one in found]
        assert f"{world} ranks" in found[0].stderr and f"from step {steps - 4}" in found[0].stderr
    whole, parts = (load_file(Run(tmp_path / name).latest() / "model.safetensors") for name in ("whole", "parts"))
    for name, value in whole.items():
        assert abs(parts[name] - value).max() <= 1e-5 * abs(value).max() + 1e-8, name
    rows = [
        [json.loads(line) for line in Run(tmp_path / name).metrics.read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    losses = [{row["step"]: (row["loss"], row["tokens"]) for row in part if row["type"] == "train"} for part in rows]
    assert losses[0].keys() == losses[1].keys()
    for step, (loss, tokens) in losses[0].items():
        assert losses[1][step][1] == tokens and losses[1][step][0] == pytest.approx(loss, rel=1e-5)


def test_no_process_of_ours_is_left():
    assert not [child for child in psutil.Process().children(recursive=True) if "lichen-loader" in child.name()]
