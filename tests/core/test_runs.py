"""Finding checkpoints: names, the newest whole one, the best one."""

import datetime
import logging
import shutil
from pathlib import Path

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.core.folders import partial_of, whole_folder
from lichen.core.runs import Best, Run, check_run_name, resolve_checkpoint, run_name

WHEN = datetime.datetime(2026, 11, 21, 21, 40)


def add(run: Run, step: int) -> Path:
    folder = run.checkpoint_folder(step, "lichen-26m_dense")
    with whole_folder(folder) as partial:
        (partial / "config.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path / "runs", "x")
    for step in (20, 100, 3):
        add(made, step)
    return made


def test_names_are_valid_and_short_whatever_goes_in():
    names = {run_name("模型" * 90, 26_000_000, "v" * k + "/../ x", 64, 5e-4, WHEN) for k in (1, 100, 500, 501)}
    assert len(names) == 4
    for name in names:
        assert len(name) <= 160 and name.endswith("_bs64_lr5e-4_1121-2140")
    assert run_name("..", 0, "-", 1, 1.0, WHEN) == "model-0_model_bs1_lr1e0_1121-2140"


@pytest.mark.parametrize("name", ["", ".x", "-x", "a/b", "a b", "x" * 161, "é", "a\n"])
def test_bad_names_are_refused(name: str):
    with pytest.raises(UsageError, match="not a run's name"):
        check_run_name(name)


def test_a_taken_name_gets_a_number(tmp_path: Path):
    made = [Run.create(tmp_path, "x" * 160).folder.name for _ in range(3)]
    assert made[1:] == ["x" * 158 + "-2", "x" * 158 + "-3"]


def test_latest_is_the_newest_by_step(run: Run):
    partial_of(run.checkpoint_folder(200)).mkdir()
    (run.checkpoints / "notes").mkdir()
    assert [p.name[-3:] for p in run.checkpoint_folders()] == ["003", "020", "100"]
    assert run.latest().name == "lichen-26m_dense_step_0000100"


def test_damaged_ones_are_named_and_passed_over(run: Run, caplog: pytest.LogCaptureFixture):
    newest = run.checkpoint_folders()[-1]
    (newest / "config.json").write_text("[]")
    with caplog.at_level(logging.WARNING):
        assert run.latest().name.endswith("0000020")
    assert "step_0000100 is damaged and passed over: config.json: checksum differs" in caplog.text


def test_all_damaged_is_an_error_and_so_is_none(run: Run, tmp_path: Path):
    for folder in run.checkpoint_folders():
        (folder / "config.json").unlink()
    with pytest.raises(LichenError, match="all 3 checkpoints are damaged"):
        run.latest()
    with pytest.raises(LichenError, match="no checkpoint yet"):
        Run.create(tmp_path, "empty").latest()


def test_best(run: Run):
    with pytest.raises(LichenError, match="no best checkpoint yet"):
        run.best()
    run.write_best(Best("lichen-26m_dense_step_0000020", 20, "loss", 1.5))
    assert run.best().name.endswith("0000020") and run.read_best() == Best(run.best().name, 20, "loss", 1.5)
    shutil.rmtree(run.best())
    with pytest.raises(LichenError, match="damaged"):
        run.best()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"checkpoint": "../../x_step_0000001", "step": 1, "metric": "", "score": 1}']
)
def test_best_that_is_none(run: Run, text: str):
    run.best_json.write_text(text)
    with pytest.raises(LichenError, match=r"best\.json"):
        run.best()


def test_every_way_to_name_a_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch):
    run.write_best(Best("lichen-26m_dense_step_0000020", 20, "loss", 1.5))
    monkeypatch.chdir(run.folder.parent.parent)
    for spec in (run.folder, "runs/x", "x", "x@latest", "runs/x@step-100", run.checkpoint_folders()[-1]):
        assert resolve_checkpoint(spec).name.endswith("0000100"), spec
    for spec in ("x@best", "x@step-20", "x@step-0000020"):
        assert resolve_checkpoint(spec).name.endswith("0000020"), spec


def test_wrong_names_are_answered_with_near_ones(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(run.folder.parent.parent)
    with pytest.raises(UsageError, match=r"x@step-30: no such checkpoint \(nearest: step-"):
        resolve_checkpoint("x@step-30")
    with pytest.raises(UsageError, match="nearest: latest"):
        resolve_checkpoint("x@lattest")
    with pytest.raises(UsageError, match=r"runs/y: no such run \(nearest: runs/x"):
        resolve_checkpoint("runs/y")


def test_a_damaged_checkpoint_named_directly_is_refused(run: Run):
    folder = run.checkpoint_folders()[-1]
    (folder / "extra").write_text("")
    for spec in (folder, f"{run.folder}@step-100"):
        with pytest.raises(LichenError, match="damaged"):
            resolve_checkpoint(spec)


def test_a_model_folder_from_elsewhere_has_no_manifest(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve_checkpoint(tmp_path) == tmp_path


def test_a_folder_with_an_at_sign(tmp_path: Path):
    run = Run(tmp_path / "me@home")
    run.make_folders()
    add(run, 1)
    assert resolve_checkpoint(run.folder).parent == run.checkpoints
