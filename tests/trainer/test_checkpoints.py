"""Checkpoints on disk: read back exactly, damage named, never anything unpickled, pruned by the rule."""

import logging
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.core.folders import partial_of
from lichen.core.locks import pin, unpin
from lichen.core.runs import Best, Run
from lichen.trainer.checkpoints import (
    OPTIMIZER,
    WEIGHTS,
    Contents,
    clear_leftovers,
    collect_files,
    compare_for_resume,
    latest_checkpoint,
    prune,
    read_checkpoint,
    read_tensors,
    write_checkpoint,
    write_tensors,
)
from lichen.trainer.state import State


def contents(step: int) -> Contents:
    generator = torch.Generator().manual_seed(step)
    return Contents(
        state=State(step=step, rows=step * 4),
        weights={"model.norm.weight": torch.randn(8, generator=generator), "b": torch.randn(3, 5, generator=generator)},
        optimizer={"exp_avg/b": torch.randn(3, 5, generator=generator), "step/b": torch.tensor(float(step))},
        averages={"updates": torch.tensor(step), "b": torch.randn(3, 5, generator=generator)},
        files={"config.json": b'{"hidden_size": 8}', "tokenizer.json": b"{}"},
        fingerprint={"config": {"lr": 0.1}, "data": "d1", "tokenizer": "t1"},
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path, "x")
    for step in (10, 20, 30):
        write_checkpoint(made.checkpoint_folder(step), contents(step))
    return made


TENSORS = {
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 4),
    "half": torch.randn(3, 3).to(torch.bfloat16),
    "transposed": torch.arange(6).reshape(2, 3).T,
    "bool": torch.tensor([True, False]),
    "double": torch.randn(5, dtype=torch.float64),
}


def test_our_tensor_files_are_what_safetensors_reads(tmp_path: Path):
    entry = write_tensors(tmp_path / "a.safetensors", TENSORS)
    assert entry.bytes == (tmp_path / "a.safetensors").stat().st_size
    found = read_tensors(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_equal_tensors_give_equal_bytes(tmp_path: Path):
    write_tensors(tmp_path / "a", TENSORS)
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_no_tensor_file(tmp_path: Path):
    for data in (b"", b"\xff" * 100, pickle.dumps({"a": 1})):
        (tmp_path / "a").write_bytes(data)
        with pytest.raises(LichenError, match="not a safetensors file"):
            read_tensors(tmp_path / "a")
    with pytest.raises(LichenError, match="missing"):
        read_tensors(tmp_path / "b")


def test_a_checkpoint_reads_back_exactly(run: Run):
    checkpoint = latest_checkpoint(run)
    expected = contents(30)
    assert checkpoint.state == expected.state and checkpoint.fingerprint == expected.fingerprint
    for found, wanted in (
        (checkpoint.weights(), expected.weights),
        (checkpoint.optimizer(), expected.optimizer),
        (checkpoint.averages(), expected.averages),
    ):
        assert found is not None and wanted is not None and found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (checkpoint.folder / "config.json").read_bytes() == expected.files["config.json"]


def test_the_same_step_again_replaces(run: Run):
    folder = run.checkpoint_folder(30)
    write_checkpoint(folder, Contents(state=State(step=30, reason="finished"), weights={"b": torch.zeros(1)}))
    checkpoint = read_checkpoint(folder)
    assert checkpoint.state.reason == "finished" and checkpoint.averages() is None
    assert not partial_of(folder).exists()


# --- Damage: named, and the next older one is used ---


def newest_after(run: Run, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert latest_checkpoint(run).state.step == 20
    assert "step_0000030 is damaged and passed over" in caplog.text and damage in caplog.text


@pytest.mark.parametrize("name", [WEIGHTS, OPTIMIZER, "training/state.json"])
def test_cut_at_twenty_offsets(run: Run, name: str, caplog: pytest.LogCaptureFixture):
    path = run.checkpoint_folder(30) / name
    whole = path.read_bytes()
    for i in range(20):
        path.write_bytes(whole[: len(whole) * i // 20])
        newest_after(run, name, caplog)


def test_fifty_flipped_bits(run: Run, caplog: pytest.LogCaptureFixture):
    rng = random.Random(0)
    files = sorted(p for p in run.checkpoint_folder(30).rglob("*") if p.is_file())
    for _ in range(50):
        path = rng.choice(files)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        newest_after(run, path.name, caplog)
        path.write_bytes(whole)
    assert latest_checkpoint(run).state.step == 30


def test_each_file_deleted_in_turn_or_one_too_many(run: Run, caplog: pytest.LogCaptureFixture):
    for path in sorted(p for p in run.checkpoint_folder(30).rglob("*") if p.is_file()):
        whole = path.read_bytes()
        path.unlink()
        newest_after(run, path.name, caplog)
        path.write_bytes(whole)
    (run.checkpoint_folder(30) / "notes.txt").write_text("")
    newest_after(run, "notes.txt: extra", caplog)


def test_all_damaged_stops(run: Run):
    for folder in run.checkpoint_folders():
        (folder / WEIGHTS).unlink()
    with pytest.raises(LichenError, match="all 3 checkpoints are damaged"):
        latest_checkpoint(run)


class Payload:
    """Runs when unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("name", ["optimizer.bin", "pytorch_model.bin", "training/optimizer.pt", OPTIMIZER, WEIGHTS])
def test_a_pickle_is_never_executed(run: Run, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Neither beside the files of a checkpoint, nor in place of one, nor where a whole manifest vouches for it."""
    marker = tmp_path / "executed"
    data = pickle.dumps(Payload(marker))
    (run.checkpoint_folder(30) / name).write_bytes(data)
    newest_after(run, name, caplog)
    evil = run.checkpoint_folder(40)
    write_checkpoint(evil, Contents(state=State(step=40), weights={}, files={name.replace(WEIGHTS, "x.bin"): data}))
    checkpoint = latest_checkpoint(run)
    for read in (checkpoint.weights, checkpoint.averages, checkpoint.optimizer):
        try:
            read()
        except LichenError as error:
            assert "safetensors" in str(error) or "missing" in str(error)
    assert checkpoint.state.step == 40 and not marker.exists()


def test_a_yaml_tag_in_the_json_files_is_not_executed(run: Run, tmp_path: Path):
    marker = tmp_path / "executed"
    text = f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{marker}]]"
    (run.checkpoint_folder(30) / "MANIFEST.json").write_text(text)
    (run.checkpoint_folder(20) / "training" / "state.json").write_text(text)
    run.best_json.write_text(text)
    assert latest_checkpoint(run).state.step == 10 and not marker.exists()
    with pytest.raises(LichenError):
        run.best()


def test_weights_without_training_can_not_be_resumed(run: Run):
    folder = run.checkpoint_folder(30)
    shutil.rmtree(folder / "training")
    with pytest.raises(LichenError, match="--init-from"):
        read_checkpoint(folder, verified=True)


def test_files_are_collected_without_weights():
    def write(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("a")
        (folder / "model.safetensors").write_text("")

    assert collect_files(write) == {"config.json": b"{}", "sub/a.txt": b"a"}


# --- Pruning ---


def steps(run: Run) -> list[int]:
    return [int(p.name[-7:]) for p in run.checkpoint_folders()]


def test_the_newest_the_best_and_the_pinned_stay(run: Run):
    for step in (40, 50):
        write_checkpoint(run.checkpoint_folder(step), contents(step))
    run.write_best(Best(run.checkpoint_folder(10).name, 10, "loss", 1.0))
    pin(run.checkpoint_folder(20), "evaluation")
    assert [p.name[-2:] for p in prune(run, 2, run.checkpoint_folder(50))] == ["30"]
    assert steps(run) == [10, 20, 40, 50]
    unpin(run.checkpoint_folder(20), "evaluation")
    prune(run, 1, run.checkpoint_folder(50))
    assert steps(run) == [10, 50]


def test_checkpoints_beyond_the_newest_whole_one_do_not_displace_it(run: Run):
    """After a fall back to step 10 the damaged 20 and 30 are newer by number than the new 15."""
    write_checkpoint(run.checkpoint_folder(15), contents(15))
    prune(run, 1, run.checkpoint_folder(15))
    assert steps(run) == [15, 20, 30]


def test_leftovers_go_and_an_old_one_set_aside_comes_back(run: Run):
    partial_of(run.checkpoint_folder(40)).mkdir()
    (run.checkpoints / ".best.json.partial").write_text("{")
    run.checkpoint_folder(30).rename(run.checkpoints / f".{run.checkpoint_folder(30).name}.replaced")
    clear_leftovers(run)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [p.name for p in run.checkpoint_folders()]
    assert latest_checkpoint(run).state.step == 30


# --- Resuming with another config, other data, another tokenizer ---

SAVED = {"config": {"train": {"steps": 10, "betas": [0.9, 0.95]}, "log": {"every": 1}}, "data": "d1", "tokenizer": "t1"}


def now(**changes: object) -> dict:
    return {**SAVED, **changes}


def test_equal_is_equal_tuples_and_lists_too():
    train = {"steps": 10, "betas": (0.9, 0.95)}
    assert compare_for_resume(SAVED, now(config={"train": train, "log": {"every": 1}})) == []


def test_harmless_differences_are_shown_others_refused_all_at_once():
    config = {"train": {"steps": 20, "betas": [0.9, 0.95]}, "log": {"every": 2, "new": True}}
    found = compare_for_resume(SAVED, now(config=config), ["config.log", "config.train.steps"])
    assert [str(d) for d in found] == [
        "config.log.every: 1 -> 2",
        "config.log.new: nothing -> True",
        "config.train.steps: 10 -> 20",
    ]
    with pytest.raises(
        UsageError, match=r"config.log.every: 1 -> 2; config.log.new: nothing -> True; .*--init-from"
    ) as error:
        compare_for_resume(SAVED, now(config=config), ["config.train"])
    assert "steps" not in str(error.value)


@pytest.mark.parametrize("part", ["data", "tokenizer"])
def test_other_data_or_another_tokenizer_are_refused_even_if_allowed(part: str):
    with pytest.raises(LichenError, match=f"the {part} differs from the checkpoint's: {part}: '.1' -> 'x'; put back"):
        compare_for_resume(SAVED, now(**{part: "x"}), [part])
    with pytest.raises(LichenError, match=f"{part}.a: nothing -> 1"):
        compare_for_resume(SAVED, now(**{part: {"a": 1}}), [part])
