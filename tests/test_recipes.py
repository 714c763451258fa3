"""Every recipe in the repository is read by the verb it is for, says what it costs, and has the size in its name."""

import re
from pathlib import Path

import pytest

from lichen.config import base
from lichen.config.comparison import ComparisonConfig
from lichen.config.prepare import TokenizerConfig
from lichen.model.size import count
from lichen.scripts.knowledge_texts import TextsCommand
from lichen.scripts.prepare import PrepareRecipe
from lichen.scripts.train import TrainRecipe

ROOT = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(ROOT.rglob("*.yaml"))


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


OVERLAYS = [name for name in names(RECIPES) if name.startswith(("ffn/", "optim/", "schedule/"))]
SIZED = [path for path in RECIPES if re.search(r"-\d+m$", path.stem)]


def is_preparation(path):
    return "prepare" in path.relative_to(ROOT).as_posix()


def verb_settings(path):
    if is_preparation(path):
        return PrepareRecipe
    return {"compare": ComparisonConfig, "texts": TextsCommand}.get(path.stem, TrainRecipe)


def test_there_are_recipes():
    assert {"smoke.yaml", "ffn/none.yaml", "pretrain/dense-26m.yaml", "pretrain/dense-360m.yaml"} <= set(names(RECIPES))


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_it_is_valid_alone(path):
    flags = {"output": "texts"} if path.stem == "texts" else {}
    base.load(verb_settings(path), [path], environment={}, flags=flags)


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_its_head_tells_command_and_cost(path):
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(r"^#   lichen ", head, re.MULTILINE)
    assert is_preparation(path) or re.search(r"Cost.*(Outcome|[Oo]utcome|Expected|must)", head, re.DOTALL)


@pytest.mark.parametrize("path", SIZED, ids=names(SIZED))
def test_it_has_the_size_in_its_name(path):
    recipe = base.load(TrainRecipe, [path], environment={})
    found = re.search(r"-(\d+)m$", path.stem)
    assert found
    model = recipe.model if recipe.model.vocab_size else recipe.model.with_vocabulary(TokenizerConfig().vocab_size)
    assert count(model).total == pytest.approx(int(found[1]) * 1e6, rel=0.03)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_lie_on_any_pretraining(overlay):
    below = base.load(TrainRecipe, [ROOT / "pretrain" / "dense-26m.yaml"], environment={})
    both = base.load(TrainRecipe, [ROOT / "pretrain" / "dense-26m.yaml", ROOT / overlay], environment={})
    assert both.model.hidden_size == below.model.hidden_size
    assert both != below or overlay == "ffn/dense.yaml"
