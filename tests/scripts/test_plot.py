"""``lichen plot``: runs by folder or name, one picture, wrong requests in a line."""

import pytest

from lichen.config.errors import UsageError
from lichen.metrics.records import Records
from lichen.scripts.plot import run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    for name in ("first", "second"):
        folder = tmp_path / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        with Records(folder / "metrics.jsonl") as records:
            records.append("train", 1, loss=2.0, tokens=5)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_one_run_gets_its_curves_into_its_own_folder(runs, capsys):
    assert run([str(runs / "first")]) == 0
    assert (runs / "first" / "plots" / "curves.png").is_file()
    assert capsys.readouterr().out.strip().endswith("curves.png")


def test_several_runs_by_name_into_one_picture(runs):
    assert run(["first", "second", "--output", "both.svg", "--over", "tokens", "--title", "two"]) == 0
    assert "<svg" in (runs.parent / "both.svg").read_text()


@pytest.mark.parametrize("argv", [[], ["frst"], ["first", "--output", "x.gif"], ["first", "--ouput", "x"]])
def test_a_wrong_request_is_said_in_a_line(runs, argv):
    with pytest.raises(UsageError):
        run(argv)
