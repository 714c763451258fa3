"""docs/coming-from.md maps other projects' names to ours; every name of ours on it is looked up or run up to the work itself.

A command goes through its verb's own ``run``, flags, recipes and all, until it would begin to work; a setting is found in the
verb's configuration, and its value validated; a file must lie in a run, checkpoint or prepared folder made here.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lichen.config import yaml12
from lichen.config.base import Config, annotations_at, load
from lichen.config.cleaning import SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.model import ModelConfig
from lichen.config.prepare import TokenizerConfig
from lichen.core.device import get_best_device
from lichen.core.runs import Best, Run, resolve_checkpoint
from lichen.dataset.preparation import prepare
from lichen.metrics import records
from lichen.model.language_model import LanguageModel
from lichen.model.weights import state_for_saving, write_config
from lichen.scripts.command_line import VERBS
from lichen.trainer.checkpoints import Contents, collect_files, write_checkpoint
from lichen.trainer.state import State

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "coming-from.md"
PROJECTS = ("MiniMind", "MateConv", "02LMM", "ExplicitLM", "nanoVLM")
SECTIONS = {"prepare": "PrepareRecipe", "train": "TrainRecipe", "generate": "GenerateCommand", "chat": "ChatCommand"}
DOORS = {
    "prepare": "lichen.dataset.preparation.prepare",
    "train": "lichen.trainer.runtime.Runtime.start",
    "generate": "lichen.inference.loading.load",
    "chat": "lichen.inference.loading.load",
    "plot": "lichen.metrics.plots.plot_runs",
    "knowledge": "lichen.dataset.bank_building.build_bank",
}
"""Where a verb has understood its command line and would begin to work."""
REQUIRED = {"prepare": {"sources": [{"path": "DATA.jsonl"}], "output": "PREPARED"}, "train": {"train": {"steps": 1}}}
"""What a recipe with a single setting lacks to be whole."""
NONE = "–"
FAULTS = (AssertionError, LichenError, pytest.fail.Exception)


class Reached(BaseException):
    """A verb came to its door. No Exception, so that no verb handles it."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    line: int
    subject: str
    """The verb, or file, in the heading above: what the settings on the right belong to; '' where commands stand."""
    theirs: str
    ours: str
    remark: str


def rows_of(page: str) -> Iterator[Row]:
    """All rows but the headers."""
    subject, table = "", False
    for number, line in enumerate(page.splitlines(), start=1):
        if line.startswith("#"):
            subject = re.findall(r"`(?:lichen )?([\w.]+)`$", line)[-1] if line.endswith("`") else ""
        if not line.startswith("|"):
            table = False
        elif set(line) <= set("| -"):
            table = True
        elif table:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 3, f"line {number}: {len(cells)} cells"
            yield Row(number, subject, *cells)


def check_row(row: Row) -> None:
    """Raise AssertionError or LichenError unless everything in the row that is ours exists."""
    assert row.theirs, "what is mapped?"
    names = re.findall(r"`([^`]+)`", row.ours)
    assert re.sub(r"`[^`]+`|,| ", "", row.ours) == (NONE if row.ours == NONE else ""), f"{row.ours}: not only names"
    assert names or (row.ours == NONE and row.remark), "an answer, or a reason why there is none"
    for name in [*names, *re.findall(r"`([^`]+)`", row.remark)]:
        check_name(name, row.subject)


def check_name(name: str, subject: str) -> None:
    """Raise AssertionError or LichenError unless ``name`` is one of ours."""
    words = shlex.split(name)
    if words[0] == "torchrun":
        module = words.index("-m")
        assert words[1:module] == ["--nproc_per_node", "2"] and words[module + 1].startswith("lichen.scripts.")
        words = ["lichen", words[module + 1].removeprefix("lichen.scripts."), *words[module + 2 :]]
    if words[0] == "lichen":
        call(words[1], words[2:])
    elif name.startswith("--"):
        call(subject, words)
    elif name.startswith("RUN") and "/" not in name:
        assert resolve_checkpoint(name).is_dir()
    elif name.startswith(("RUN/", "PREPARED/", "CHECKPOINT/")):
        check_file(name)
    elif found := re.fullmatch(r"([A-Z_]+)=(\S+)", name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(found[1], "no-such-thing")
            with pytest.raises(UsageError, match="no-such-thing"):
                get_best_device()
    elif subject == "metrics.jsonl":
        assert re.search(rf"(?<![\w.]){name}(?![\w.])", str(records.__doc__)), f"{name}: no row of metrics.jsonl has it"
    else:
        check_setting(name, subject)


def call(verb: str, argv: list[str]) -> None:
    """Run ``lichen VERB ARGV`` up to its door."""
    assert verb in DOORS, f"no verb {verb!r}"
    module = importlib.import_module(f"lichen.scripts.{VERBS[verb][0]}")

    def door(*arguments: Any, **options: Any) -> None:
        raise Reached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DOORS[verb], door)
        with pytest.raises(SystemExit if "--help" in argv else Reached):
            module.run(argv)


def check_file(name: str) -> None:
    """A file or folder of a run, prepared folder or checkpoint."""
    kind, _, path = name.partition("/")
    if kind == "RUN":
        named = [value for value in vars(Run("RUN")).values() if isinstance(value, Path)]
        assert Path(name) in named, f"{name}: a run has no such thing"
    else:
        folder = resolve_checkpoint("RUN") if kind == "CHECKPOINT" else Path("PREPARED")
        assert (folder / path).exists(), f"{name}: not in {folder}"


def check_setting(name: str, verb: str) -> None:
    """``section.name`` or ``section.name: value`` is a setting of the verb, and takes the value."""
    assert verb in SECTIONS, (
        f"{name}: neither command nor file, and the heading names no verb whose setting it could be"
    )
    cls: type[Config] = getattr(importlib.import_module(f"lichen.scripts.{verb}"), SECTIONS[verb])
    path, colon, value = name.partition(": ")
    assert annotations_at(cls, tuple(path.split("."))), f"{path}: lichen {verb} has no such setting"
    if colon:
        data = yaml12.parse(value, "the page")
        for part in reversed(path.split(".")):
            data = {part: data}
        recipe = Path("of-the-page.yaml")
        recipe.write_text(yaml12.write(data), encoding="utf-8")
        load(cls, [recipe], environment={}, base=REQUIRED.get(verb))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the page's placeholders stand for, and the project's recipes."""
    root = tmp_path_factory.mktemp("placeholders")
    (root / "recipes").symlink_to(ROOT / "recipes", target_is_directory=True)
    (root / "OTHER.yaml").write_text("optim: {weight_decay: 0.0}\n", encoding="utf-8")
    (root / "DATA.jsonl").write_text('{"text": "moss"}\n{"text": "bark"}\n', encoding="utf-8")
    source = SourceConfig(path=root / "DATA.jsonl")
    prepared = prepare([source], root / "PREPARED", tokenizer=TokenizerConfig(vocab_size=330), workers=1).prepared
    assert prepared.tokenizer_folder.is_dir()
    make_run(Run(root / "RUN"))
    return root


def make_run(run: Run) -> None:
    """A run with one checkpoint, as a training leaves it."""
    from lichen.scripts.train import TrainRecipe

    run.make_folders()
    run.run_yaml.write_text(TrainRecipe().to_yaml(), encoding="utf-8")
    model = LanguageModel(ModelConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
    weights = state_for_saving(model)
    files = collect_files(lambda folder: write_config(model.config, folder))
    checkpoint = run.checkpoint_folder(2000)
    state = State(step=2000)
    write_checkpoint(checkpoint, Contents(state=state, weights=weights, optimizer=weights, files=files))
    run.write_best(Best(checkpoint.name, 2000, "loss", 2.0))


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


PAGE_TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("project", PROJECTS)
def test_every_row_of_a_project_holds(project: str) -> None:
    (part,) = [part for part in re.split(r"^(?=## )", PAGE_TEXT, flags=re.M) if part.startswith(f"## {project}\n")]
    rows = list(rows_of(part))
    assert len(rows) >= 20
    wrong = []
    for row in rows:
        try:
            check_row(row)
        except FAULTS as error:
            wrong.append(f"{row.theirs} → {row.ours} | {row.remark}: {' '.join(str(error).split())[:300]}")
    assert not wrong, "\n".join(wrong)


def test_the_page_covers_every_project_and_says_what_is_missing() -> None:
    for project in PROJECTS:
        part = PAGE_TEXT.split(f"\n## {project}\n")[1].split("\n## ")[0]
        assert "### Commands" in part and "\nNot here yet: " in part
        assert f"[{project}](#{project.lower()})" in PAGE_TEXT


def test_what_the_introduction_names_is_ours() -> None:
    introduction = PAGE_TEXT.split("\n## MiniMind\n")[0]
    for name in set(re.findall(r"`([^`]+)`", introduction)) - {"optim", "lr", "tests/docs/test_coming_from.py"}:
        if name in {f"lichen {verb}" for verb in VERBS}:
            continue
        check_name(name, "train")


WRONG_ROWS = [
    ("train", "`--learning_rate`", "`optim.learning_rate`", ""),
    ("train", "`--dtype bfloat16`", "`train.precision: bfloat16`", ""),
    ("train", "`--batch_size`", "`train.batch_size: many`", ""),
    ("train", "`--hidden_size`", "`hidden_size`", ""),
    ("train", "`--learning_rate`", "`--learning_rate 1e-3`", ""),
    ("train", "`--from_resume`", "`--resume NO_RUN`", ""),
    ("train", "`--epochs`", "train.epochs", ""),
    ("train", "`--epochs`", "`train.epochs`", "Or `train.passes`."),
    ("train", "`--dropout`", NONE, ""),
    ("train", "`--dropout`", "", "None."),
    ("train", "`--device`", "`LICHEN_DEVICES=cpu`", ""),
    ("prepare", "`--lr`", "`optim.lr`", ""),
    ("prepare", "`validation`", "`validation: [{file: a.jsonl}]`", ""),
    ("generate", "`--top_p`", "`sampling.top_p: 2`", ""),
    ("", "`train.py`", "`lichen fit recipes/smoke.yaml`", ""),
    ("", "`train.py`", "`lichen train recipes/no-such.yaml`", ""),
    ("", "`train.py`", "`lichen train recipes/quickstart/dense.yaml --optim.rl 1`", ""),
    ("", "`train.py`", "`torchrun --nproc_per_node 2 -m lichen.scripts.train NO.yaml`", ""),
    ("", "`generate.py`", "`lichen generate RUN`", ""),
    ("", "`generate.py`", "`lichen generate --prompt TEXT`", ""),
    ("", "`plot.py`", "`lichen plot NO_RUN`", ""),
    ("", "`model.pth`", "`CHECKPOINT/weights.bin`", ""),
    ("", "`log.json`", "`RUN/metrics.json`", ""),
    ("", "`data.bin`", "`PREPARED/training`", ""),
    ("", "`best.pth`", "`RUN@step-3`", ""),
    ("", "`lr`", "`optim.lr`", ""),
    ("metrics.jsonl", "`val_loss`", "`validation_loss`", ""),
]


@pytest.mark.parametrize("row", [Row(0, *row) for row in WRONG_ROWS], ids=lambda row: row.ours or "empty")
def test_a_wrong_row_is_caught(row: Row) -> None:
    with pytest.raises(FAULTS):
        check_row(row)
