"""Damaged checkpoints as the verbs meet them: named, passed over, never all; and what a finished run does when called again."""

import shutil

import pytest

from lichen.core.runs import Run


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_too_many(path):
    path.with_name("notes.txt").write_text("mine")


DAMAGES = {
    "cut weights": ("model.safetensors", cut),
    "flipped bit in the moments": ("training/optimizer.safetensors", flip),
    "half a manifest": ("MANIFEST.json", cut),
    "no state": ("training/state.json", lambda path: path.unlink()),
    "no tokenizer": ("tokenizer.json", lambda path: path.unlink()),
    "a file too many": ("config.json", one_too_many),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_continues_to_the_same_end(
    damage, run_copy, trained_run, lichen, tmp_path
):
    name, harm = DAMAGES[damage]
    latest = Run(run_copy).latest()
    whole = shutil.copytree(latest, tmp_path / "whole")
    harm(latest / name)
    shown = "notes.txt" if harm is one_too_many else name
    direct = lichen("generate", latest, "--prompt", "the moss", "--max-new-tokens", 2)
    assert shown in direct.refused(1) and latest.name in direct.error
    said = lichen("train", run_copy)
    assert said.status == 0, said.err
    assert f"{latest.name} is damaged and passed over: " in said.err and shown in said.err and "from step 4" in said.err
    for path in (latest, Run(trained_run).latest()):
        assert (path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("harm", [cut, flip, lambda path: path.unlink()], ids=["cut", "flipped", "missing"])
def test_with_all_checkpoints_damaged_nothing_starts_and_nothing_changes(harm, run_copy, lichen, snapshot, tmp_path):
    shutil.copytree(run_copy / "checkpoints", tmp_path / "copy")
    for folder in Run(run_copy).checkpoint_folders():
        harm(folder / "model.safetensors")
    before = snapshot(run_copy)
    for words in (
        ("train", run_copy),
        ("train", run_copy, "--train.steps", 12),
        ("generate", run_copy, "--prompt", "a"),
    ):
        error = lichen(*words).refused(1)
        assert "all 2 checkpoints are damaged" in error and "model.safetensors" in error and "restore" in error
        assert snapshot(run_copy) == before
    shutil.rmtree(run_copy / "checkpoints")
    shutil.copytree(tmp_path / "copy", run_copy / "checkpoints")
    said = lichen("train", run_copy, "--train.steps", 9)
    assert said.status == 0 and "from step 8" in said.err


def test_checkpoints_that_vanished_are_no_reason_to_start_at_zero(run_copy, lichen, snapshot):
    """``best.json`` proves that there were some: going on at step 0 would throw the metrics of eight steps away."""
    for folder in Run(run_copy).checkpoint_folders():
        shutil.rmtree(folder)
    before = snapshot(run_copy)
    error = lichen("train", run_copy).refused(1)
    assert "best.json" in error and "run.yaml" in error
    assert snapshot(run_copy) == before


def test_a_finished_run_called_again_does_nothing_and_says_so(run_copy, lichen, snapshot):
    before = snapshot(run_copy)
    for _ in range(2):
        said = lichen("train", run_copy)
        assert said.status == 0 and "finished at step 8; nothing to do" in said.err and "--train.steps" in said.err
        assert snapshot(run_copy) == before


def test_a_finished_run_is_extended_on_request_and_then_finished_again(run_copy, lichen, snapshot):
    kept = {name: value for name, value in snapshot(run_copy).items() if name.startswith("checkpoints/lichen")}
    said = lichen("train", run_copy, "--train.steps", 9)
    assert said.status == 0 and "config.train.steps: 8 -> 9" in said.err and "from step 8 to step 9" in said.err
    assert kept.items() <= snapshot(run_copy).items()
    again = lichen("train", run_copy)  # run.yaml now holds the greater number
    assert again.status == 0 and "finished at step 9; nothing to do" in again.err
    assert lichen("train", run_copy, "--train.steps", 5).status == 0
    assert Run(run_copy).latest().name.endswith("0000009")
