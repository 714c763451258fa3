"""The train verb: start, continue, extend, branch, refuse; and what signals do to a real process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lichen.config import yaml12
from lichen.config.errors import LichenError, UsageError
from lichen.core.folders import verify
from lichen.core.locks import FolderLock
from lichen.core.runs import Run
from lichen.metrics import records
from lichen.scripts import train
from lichen.scripts.command_line import main

MEASURED = ("tokens_per_second", "time_", "memory")


def metrics(folder):
    found = records.read(Run(folder).metrics)
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in found]


def weights(folder):
    return (Run(folder).latest() / "model.safetensors").read_bytes()


@pytest.fixture
def run_copy(trained_run, tmp_path):
    """A finished run of eight steps, to be changed."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def test_a_run_folder_has_everything(trained_run):
    run = Run(trained_run)
    assert [folder.name.rpartition("_")[2] for folder in run.checkpoint_folders()] == ["0000004", "0000008"]
    latest = run.latest()
    assert not verify(latest)
    assert {path.name for path in latest.iterdir()} >= {"config.json", "tokenizer.json", "README.md", "training"}
    config = json.loads((latest / "config.json").read_text())
    assert config["eos_token_id"] == 0 and config["vocab_size"] == 320
    environment = json.loads(run.environment_json.read_text())
    assert environment["sampling"]["strategy"] == "all" and environment["seed"] == 0
    assert list(run.logs.glob("train_*.log"))
    assert yaml12.read(run.run_yaml)["train"]["steps"] == 8


def test_run_yaml_starts_the_same_anew(trained_run, tmp_path):
    assert train.run([str(trained_run / "run.yaml"), "--run.root", str(tmp_path), "--run.name", "again"]) == 0
    assert weights(tmp_path / "again") == weights(trained_run)
    assert metrics(tmp_path / "again") == metrics(trained_run)


def test_names_are_made_and_never_taken_twice(tiny_flags, tmp_path):
    flags = [*tiny_flags, "--train.steps", "1", "--evaluation.every", "0", "--run.root", str(tmp_path)]
    assert train.run(flags) == train.run(flags) == 0
    first, second = sorted(path.name for path in tmp_path.iterdir())
    assert first.startswith("lichen-") and "_dense_bs4_lr5e-4_" in first and second == first + "-2"


def test_a_finished_run_is_left_alone_or_extended(run_copy):
    before = weights(run_copy)
    assert train.run([str(run_copy)]) == 0
    assert weights(run_copy) == before and len(Run(run_copy).checkpoint_folders()) == 2
    assert train.run(["--resume", str(run_copy), "--train.steps", "10"]) == 0
    assert weights(run_copy) != before
    assert metrics(run_copy)[-1]["step"] == 10
    assert yaml12.read(run_copy / "run.yaml")["train"]["steps"] == 10
    assert len(json.loads((run_copy / "environment.json").read_text())["earlier_sittings"]) == 1


def test_what_matters_may_not_change_when_continuing(run_copy, prepared, tmp_path):
    for flag, value in (
        ("optim.lr", "0.1"),
        ("train.batch_size", "8"),
        ("train.seed", "1"),
        ("model.hidden_size", "64"),
    ):
        with pytest.raises(UsageError, match=f"config.{flag}: .* -> "):
            train.run([str(run_copy), f"--{flag}", value])
    other = Path(shutil.copytree(prepared, tmp_path / "moved"))
    assert train.run([str(run_copy), "--data.path", str(other), "--log.every", "2"]) == 0  # the same data elsewhere


def test_init_from_takes_the_weights_alone(trained_run, tiny_flags, tmp_path):
    flags = [
        *tiny_flags,
        "--train.steps",
        "1",
        "--optim.lr",
        "1e-9",
        "--run.root",
        str(tmp_path),
        "--run.name",
        "branch",
    ]
    assert train.run([*flags, "--init-from", f"{trained_run}@best"]) == 0
    assert metrics(tmp_path / "branch")[0]["step"] == 1
    last = [row for row in metrics(trained_run) if row["type"] == "validation"][-1]
    first = next(row for row in metrics(tmp_path / "branch") if row["type"] == "validation")
    assert first["loss"] == pytest.approx(last["loss"], rel=1e-4)
    with pytest.raises(UsageError, match="hidden_size"):
        train.run([*flags, "--init-from", str(trained_run), "--model.hidden_size", "64"])


def test_damaged_checkpoints_are_passed_over_but_never_all(run_copy):
    run = Run(run_copy)
    with (run.latest() / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    before = metrics(run_copy)
    assert train.run([str(run_copy)]) == 0  # goes on from step 4, to the same end
    assert metrics(run_copy) == before
    for folder in run.checkpoint_folders():
        (folder / "MANIFEST.json").unlink()
    with pytest.raises(LichenError, match="damaged"):
        train.run([str(run_copy)])


def test_other_data_is_refused(run_copy, prepared, tmp_path):
    from lichen.core.folders import write_manifest

    other = Path(shutil.copytree(prepared, tmp_path / "other"))
    data = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(data) + "\n")
    write_manifest(other)
    with pytest.raises(LichenError, match="the data differs"):
        train.run([str(run_copy), "--data.path", str(other)])


def test_two_trainers_in_one_folder(run_copy):
    with FolderLock(run_copy, "training"), pytest.raises(LichenError, match="in use by process"):
        train.run([str(run_copy)])
    assert train.run([str(run_copy)]) == 0


def test_unwritable_output_is_refused_before_the_first_step(tiny_flags, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LichenError, match=r"choose another folder|check the disk"):
        train.run([*tiny_flags, "--train.steps", "1", "--run.root", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == ""


def test_indivisible_batches_are_refused_before_a_folder_is_made(tiny_flags, tmp_path):
    with pytest.raises(UsageError, match="choose a multiple of 3"):
        train.run([*tiny_flags, "--train.steps", "1", "--train.accumulation", "3", "--run.root", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_requests_that_make_no_sense(tmp_path, trained_run):
    (tmp_path / "recipe.yaml").write_text("train: {steps: 1}\n")
    with pytest.raises(UsageError, match=r"no such recipe.*nearest: recipe\.yaml"):
        train.run([str(tmp_path / "recip.yaml")])
    with pytest.raises(UsageError, match="no such run"):
        train.run([str(tmp_path / "nothing")])
    with pytest.raises(UsageError, match="steps or epochs, not both"):
        train.run([str(tmp_path / "recipe.yaml"), "--train.epochs", "2", "--train.steps", "3"])
    with pytest.raises(UsageError, match="--init-from"):
        train.run([f"{trained_run}@step-4"])
    with pytest.raises(UsageError, match=r"log.trackers.0 = \"wandbb\" .*available: jsonl"):
        train.run([str(tmp_path / "recipe.yaml"), "--log.trackers", "wandbb"])
    with pytest.raises(UsageError, match="no prepared folder"):
        train.run([str(tmp_path / "recipe.yaml")])


def test_ways_to_name_a_recipe_and_a_run(tmp_path, trained_run):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("optim: {lr: 0.25}\n")
    for words in ([str(recipe)], ["--config", str(recipe)], [f"--config={recipe}"]):
        assert train.read_request(words).recipe.optim.lr == 0.25
    latest = Run(trained_run).latest()
    for words in ([str(trained_run)], ["--resume", str(trained_run)], ["--resume_from", str(latest)]):
        assert train.read_request(words).resume == trained_run


def test_a_finished_run_finishes_its_pruning(run_copy):
    assert train.run([str(run_copy), "--checkpoint.keep_last", "1"]) == 0
    assert [folder.name[-1] for folder in Run(run_copy).checkpoint_folders()] == ["8"]


def test_an_error_names_the_log_and_stands_in_it(run_copy, capsys, monkeypatch):
    def dies(self, batch):
        raise LichenError("loader worker 1 died")

    monkeypatch.setattr("lichen.trainer.loop.Training.count", dies)
    assert main(["train", str(run_copy), "--train.steps", "9"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    path = Path(said.rpartition("(log: ")[2].rstrip(")"))
    assert said.startswith("error: loader worker 1 died (log: ") and path.parent == run_copy / "logs"
    assert "ERROR loader worker 1 died" in path.read_text()


@pytest.mark.parametrize("error", [KeyError("boom"), LichenError("damaged")])
def test_any_fault_of_one_of_several_ranks_abandons_the_others(tiny_flags, monkeypatch, error):
    class Abandoned(Exception):
        pass

    class Several:
        world_size = 2

        def abandon(self, found):
            assert found is error
            raise Abandoned

    def fails(request, runtime):
        raise error

    monkeypatch.setattr("lichen.trainer.runtime.Runtime.start", lambda *_: Several())
    monkeypatch.setattr(train, "_train", fails)
    with pytest.raises(Abandoned):
        train.run([*tiny_flags, "--train.steps", "1"])


def process(*words):
    """``python -m lichen.scripts.train`` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "lichen.scripts.train", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path, text, seconds=60):
    """Until a file holds ``text``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"{path} never held {text}")


def test_sigterm_saves_and_continuing_ends_with_the_same_bits(tiny_flags, tmp_path):
    flags = [*tiny_flags, "--train.steps", "60", "--evaluation.every", "30", "--run.root", tmp_path]
    parts = process(*flags, "--run.name", "parts")
    wait_for(tmp_path / "parts" / "metrics.jsonl", '"step": 3,')
    parts.send_signal(signal.SIGTERM)
    output = parts.communicate(timeout=60)[0]
    assert parts.returncode == 143, output
    state = json.loads((Run(tmp_path / "parts").latest() / "training" / "state.json").read_text())
    assert state["reason"] == "interrupted" and 3 <= state["step"] < 60
    assert train.run([str(tmp_path / "parts")]) == 0
    assert train.run([*map(str, flags), "--run.name", "whole"]) == 0
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


@pytest.mark.nightly
def test_two_ranks_under_torchrun_stopped_and_continued(tiny_flags, tmp_path):
    def torchrun(*words):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += ["-m", "lichen.scripts.train", *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    flags = [*tiny_flags, "--train.steps", "60", "--run.root", tmp_path, "--averages.enabled"]
    whole = torchrun(*flags, "--run.name", "whole")
    assert whole.communicate(timeout=120)[0] and whole.returncode == 0
    parts = torchrun(*flags, "--run.name", "parts")
    wait_for(tmp_path / "parts" / "metrics.jsonl", '"step": 9,')
    parts.send_signal(signal.SIGTERM)
    parts.communicate(timeout=120)
    assert 9 <= json.loads((Run(tmp_path / "parts").latest() / "training" / "state.json").read_text())["step"] < 60
    again = torchrun(tmp_path / "parts")
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
