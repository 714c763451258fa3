"""Every fenced example of docs/extending.md is run as it stands, and has the effect the page promises."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lichen
from lichen.config import yaml12
from lichen.config.base import load
from lichen.config.cleaning import CleanConfig
from lichen.config.training import ScheduleConfig
from lichen.trainer.schedules import find_function, multiplier

SOURCES = Path(lichen.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(title: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks below the heading that begins with ``title``."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(title)]
    return FENCED.findall(section)


def file_name(text: str) -> str:
    """The file that a block says it is, in its first line; '' where it is none."""
    found = re.match(r"# ([\w./-]+\.\w+)\n", text)
    return found[1] if found else ""


def edit(text: str, difference: str) -> str:
    """``text`` with the lines of ``difference`` taken out (-) and put in (+); lines with neither must be there."""
    lines = difference.splitlines()[1:]
    marked = [(line[:1] or " ", line[1:]) for line in lines]
    first = next(index for index, (mark, _) in enumerate(marked) if mark != "+")
    before = "".join(line + "\n" for mark, line in marked[first:] if mark != "+")
    assert text.count(before) == 1, f"the page changes what is no longer there:\n{before}"
    return text.replace(before, "".join(line + "\n" for mark, line in marked if mark != "-"))


def test_all_fenced_blocks_belong_to_a_tested_section() -> None:
    titles = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert titles == ["A schedule of your own", "A cleaning step of your own", "A feed-forward part of your own"]
    blocks = [block for title in titles for block in examples(title)]
    assert blocks == FENCED.findall(PAGE.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} <= {"python", "yaml", "diff", "bash"}
    for language, text in blocks:
        if language == "python":
            ast.parse(text)


# --- schedule ---


@pytest.fixture
def schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that can be imported from and holds the page's my_schedules.py."""
    (text,) = [text for _, text in examples("A schedule") if file_name(text) == "my_schedules.py"]
    (tmp_path / "my_schedules.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_schedules", raising=False)
    return tmp_path


def test_the_schedule_changes_the_learning_rate(schedules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    language, text = examples("A schedule")[-1]
    assert language == "python"
    names: dict[str, Any] = {}
    exec(text, names)  # the page's own example
    curve, cosine = names["curve"], names["cosine"]
    assert len(curve) == len(cosine) == 100
    assert max(abs(a - b) for a, b in zip(curve, cosine, strict=True)) > 0.2
    assert curve[0] == pytest.approx(1 / 3) and min(curve) == 0.05
    turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(curve, curve[1:], curve[2:], strict=False))
    assert turns >= 5, "three waves go up and down"
    assert len(capsys.readouterr().out.split()) == 10


def test_the_recipe_names_the_schedule(schedules: Path) -> None:
    from lichen.scripts.train import TrainRecipe

    (text,) = [text for language, text in examples("A schedule") if language == "yaml"]
    path = schedules / "waves.yaml"
    path.write_text(text, encoding="utf-8")
    schedule = load(TrainRecipe, [path], environment={}, flags={"train.steps": "100"}).schedule
    assert schedule.floor == 0.05
    function = find_function(schedule)
    assert function is not None and function.__name__ == "cooling_waves"
    assert multiplier(schedule, 40, 100, function) != multiplier(ScheduleConfig(floor=0.05), 40, 100)


# --- cleaning ---

DOCUMENTS = [
    "Moss grows on the northern side.\nAccept all cookies",
    "Subscribe to our newsletter",
    "12 345 678 901",
    *(f"Lichen number {word} lives on bark and on stone." for word in ("one", "two", "three", "four")),
]


def test_the_cleaning_step_changes_what_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (module, text), (_, example) = (
        (file_name(text), text) for language, text in examples("A cleaning") if language == "python"
    )
    assert module == "my_cleaning.py"
    (tmp_path / module).write_text(text, encoding="utf-8")
    lines = [json.dumps({"text": document}) for document in DOCUMENTS]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_cleaning", raising=False)
    names: dict[str, Any] = {}
    exec(example, names)  # the page's own example
    dropped, documents = capsys.readouterr().out.splitlines()[-2:]
    counted = {name: count for name, count in ast.literal_eval(dropped).items() if count}
    assert counted == {"empty": 1, "mostly_digits": 1}
    assert documents == "5 documents to train on"
    recipe = next(text for language, text in examples("A cleaning") if language == "yaml")
    section = yaml12.parse(recipe)["clean"]
    assert CleanConfig.from_data(section) == names["clean"]


# --- feed-forward, trained under the schedule ---


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's three changes in it."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(SOURCES, root / "src" / "lichen", ignore=shutil.ignore_patterns("__pycache__"))
    for language, text in examples("A feed-forward"):
        name = file_name(text)
        if language == "diff":
            path = root / name
            path.write_text(edit(path.read_text(encoding="utf-8"), text), encoding="utf-8")
        elif name:
            assert not (root / name).exists()
            (root / name).write_text(text.partition("\n")[2], encoding="utf-8")
    return root


def run_in(root: Path, *arguments: str) -> str:
    """What Python prints with the package in ``root``; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=root)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


LOOK = """
import doctest
import lichen.model.relu_squared
from lichen.__main__ import main
from lichen.core.runs import Run
from lichen.model.feed_forward import Dense
from lichen.model.weights import read_model

assert lichen.__file__.startswith(ROOT)
assert isinstance(model.model.layers[0].mlp, Dense)
assert model.model.layers[1].mlp.up_proj.weight.shape == (48, 16)
assert losses[-1] < 0.5 * losses[0]
assert output.aux["activation"][1].item() == 32
result = doctest.testmod(lichen.model.relu_squared)
assert result.attempted == 2 and not result.failed

prepare = "prepare raw.jsonl --output data --vocab_size 330 --workers 1 --validation_fraction 0.2 --no-near"
small = "--hidden_size 16 --num_hidden_layers 2 --num_attention_heads 2 --sequence_length 32 --train.batch_size 2"
train = f"train page.yaml waves.yaml --data.path data --run.name mine --train.steps 2 --log.every 1 {small}"
for line in (prepare, train, "train runs/mine --train.steps 3"):
    assert main(line.split()) == 0, line
model = read_model(Run("runs/mine").latest())
print([type(layer.mlp).__name__ for layer in model.model.layers])
"""


def test_the_feed_forward_part_trains_and_goes_on_where_it_was_placed(extended: Path, schedules: Path) -> None:
    shutil.copy(schedules / "my_schedules.py", extended)
    _, example = examples("A feed-forward")[-1]
    for title, name in (("A feed-forward", "page.yaml"), ("A schedule", "waves.yaml")):
        (recipe,) = [text for language, text in examples(title) if language == "yaml"]
        (extended / name).write_text(recipe, encoding="utf-8")
    texts = [f"Lichen number {n} lives on bark and on stone, {n} years." for n in range(40)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (extended / "raw.jsonl").write_text(lines, encoding="utf-8")
    printed = run_in(extended, "-c", f"{example}\nROOT = {str(extended)!r}\n{LOOK}").splitlines()
    assert re.fullmatch(r"ReluSquared \d\.\d\d -> \d\.\d\d", printed[0])
    assert printed[-1] == "['Dense', 'ReluSquared']", "read from the checkpoint"
    rows = [json.loads(line) for line in (extended / "runs/mine/metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["type"] == "train"]
    assert [row["step"] for row in steps] == [1, 2, 3] and steps[-1]["aux_activation"] >= 0
    waves = find_function(ScheduleConfig(function="my_schedules:cooling_waves"))
    assert waves is not None
    expected = [5e-4 * waves(step, total, ScheduleConfig(floor=0.05)) for step, total in ((0, 2), (1, 2), (2, 3))]
    assert [row["lr"] for row in steps] == pytest.approx(expected)


def test_a_change_that_no_longer_fits_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no longer there"):
        edit("a = 1\n", "# file.py\n-a = 2\n+a = 3\n")
    assert edit("a = 1\nb = 2\n", "# file.py\n+new = 0\n-a = 1\n b = 2\n") == "new = 0\nb = 2\n"
