"""Output that can not be written: refused before the first step; a disk that fills up on the way costs saves, not the run."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lichen.core.disk import DiskFull
from lichen.core.folders import stale_siblings
from lichen.core.runs import Run
from lichen.trainer import saving

RAW = '{"text": "the moss grows slowly on the old stone"}\n'


def may_mount() -> bool:
    """Whether this system lets us make a namespace with mounts of its own."""
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


def on_a_read_only(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A verb in a namespace where ``folder`` can only be read."""
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(folder), sys.executable, "-m", "lichen"]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("new run", marks=pytest.mark.nightly),
        pytest.param("continued run", marks=pytest.mark.nightly),
        "prepared data",
    ],
)
def test_a_read_only_place_is_refused_before_anything_is_done(what, tiny_flags, run_copy, snapshot, tmp_path):
    """Where the system permits no namespace, the test below with a file in the way holds alone."""
    if not may_mount():
        return
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "raw.jsonl").write_text(RAW)
    before = snapshot(run_copy)
    if what == "new run":
        done = on_a_read_only(place, "train", *tiny_flags, "--train.steps", 1, "--run.root", place / "runs")
    elif what == "continued run":
        done = on_a_read_only(run_copy, "train", run_copy, "--train.steps", 10)
    else:
        done = on_a_read_only(place, "prepare", tmp_path / "raw.jsonl", "--output", place / "data")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert lines[-1].startswith("error: ") and "Read-only file system" in lines[-1] and "choose another" in lines[-1]
    assert "step 1/" not in done.stderr and not list(place.iterdir()) and snapshot(run_copy) == before


@pytest.mark.parametrize("verb", ["train", "prepare"])
def test_a_file_where_the_folder_should_be_is_refused(verb, tiny_flags, lichen, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "raw.jsonl").write_text(RAW)
    if verb == "train":
        said = lichen("train", *tiny_flags, "--train.steps", 1, "--run.root", tmp_path / "file")
    else:
        said = lichen("prepare", tmp_path / "raw.jsonl", "--output", tmp_path / "file" / "data")
    assert str(tmp_path / "file") in said.refused(1)
    assert (tmp_path / "file").read_text() == "mine" and {p.name for p in tmp_path.iterdir()} == {"file", "raw.jsonl"}


def test_saves_that_always_fail_end_the_training_and_running_again_succeeds(tiny_flags, trained_run, lichen, tmp_path):
    flags = [*tiny_flags, "--train.steps", 8, "--checkpoint.every", 1, "--run.root", tmp_path, "--run.name", "small"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # enough for metrics, too little for weights
    try:
        said = lichen("train", *flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = said.refused(1)
    assert "3 saves in a row have failed" in error and "ulimit -f" in error
    assert said.err.count("SAVING FAILED") >= 3
    run = Run(tmp_path / "small")
    assert not run.checkpoint_folders() and not stale_siblings(run.checkpoints)
    again = lichen("train", tmp_path / "small")
    assert again.status == 0 and "no checkpoint yet" in again.err
    assert (run.latest() / "model.safetensors").read_bytes() == (
        Run(trained_run).latest() / "model.safetensors"
    ).read_bytes()


def test_one_failed_save_is_loud_and_training_goes_on(tiny_flags, trained_run, lichen, tmp_path, monkeypatch):
    write, failed = saving.write_checkpoint, []

    def full_once(folder: Path, contents: saving.Contents) -> None:
        if not failed:
            failed.append(folder)
            raise DiskFull(f"{folder}: no space left on the disk")
        write(folder, contents)

    monkeypatch.setattr(saving, "write_checkpoint", full_once)
    said = lichen("train", *tiny_flags, "--train.steps", 8, "--run.root", tmp_path, "--run.name", "run")
    assert said.status == 0 and "SAVING FAILED (1 of 3 in a row)" in said.err
    assert [path.name[-7:] for path in Run(tmp_path / "run").checkpoint_folders()] == ["0000008"]
    found, expected = (Run(folder).latest() / "model.safetensors" for folder in (tmp_path / "run", trained_run))
    assert found.read_bytes() == expected.read_bytes()
