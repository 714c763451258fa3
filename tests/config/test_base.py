"""What a user meets who writes a recipe, a variable or a flag, rightly or wrongly."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from lichen.config.base import Config, load
from lichen.config.errors import ConfigError


class Dense(Config):
    kind: Literal["dense"] = "dense"
    width: int = Field(default=8, gt=0)
    """Width."""


class Nothing(Config):
    kind: Literal["none"] = "none"


FeedForward = Annotated[Dense | Nothing, Field(discriminator="kind")]


class Source(Config):
    path: Path
    weight: float | None = None


class Model(Config):
    hidden_size: int = Field(default=64, ge=1)
    feed_forward: FeedForward = Dense()
    by_layer: dict[str, FeedForward] = {}


class Recipe(Config):
    name: str = "x"
    schedule: Literal["cosine", "linear"] = "cosine"
    steps: int | None = None
    rate: float = 1.0
    compile: bool = False
    sources: tuple[Source, ...] = ()
    model: Model = Model()


def problems(**arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Recipe, environment={}, **arguments)  # type: ignore[arg-type]
    return str(caught.value)


def test_later_sources_win(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rate: 1e-3\nsteps: 5\nname: a\nschedule: linear")
    (tmp_path / "b.yaml").write_text("steps: 6\nname: b")
    recipe = load(
        Recipe,
        recipes=[tmp_path / "a.yaml", tmp_path / "b.yaml"],
        environment={"LICHEN__NAME": "c", "LICHEN__MODEL__HIDDEN_SIZE": "32", "OTHER": "1"},
        flags={"name": "d"},
    )
    assert (recipe.rate, recipe.steps, recipe.name, recipe.schedule) == (1e-3, 6, "d", "linear")
    assert recipe.model.hidden_size == 32


def test_everything_wrong_is_said_at_once_with_origin_and_nearest_name(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "steps: many\nrat: 1\nschedule: cosin\nmodel:\n  hidden_size: 0\n  feed_forward: {kind: dense, widht: 3}\n"
        "sources: [{weight: 2}]\n"
    )
    text = problems(recipes=[recipe], flags={"compile": "perhaps", "model.feed_froward.kind": "none"})
    assert text.startswith("8 problems")
    assert f'steps = "many" (from {recipe}): must be a valid integer' in text
    assert f"rat = 1 (from {recipe}): no such setting (nearest: rate;" in text
    assert "schedule" in text and "nearest: cosine" in text
    assert "model.hidden_size = 0" in text and "greater than or equal to 1" in text
    assert "model.feed_forward.widht = 3" in text and "nearest: width; available: kind, width" in text
    assert "model.feed_froward" in text and "nearest: feed_forward" in text
    assert "sources.0.path: must be given" in text
    assert 'compile = "perhaps" (from --compile)' in text


def test_a_new_kind_replaces_the_branch(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {feed_forward: {kind: dense, width: 3}, by_layer: {'0-1': {kind: dense}}}")
    loaded = load(Recipe, recipes=[recipe], environment={}, flags={"model.feed_forward.kind": "none"})
    assert loaded.model.feed_forward == Nothing()
    assert loaded.model.by_layer == {"0-1": Dense()}


def test_a_branch_without_a_kind_is_of_the_default_one() -> None:
    loaded = load(Recipe, environment={}, flags={"model.feed_forward.width": "5"})
    assert loaded.model.feed_forward == Dense(width=5)


def test_an_unknown_kind_names_the_kinds() -> None:
    assert "no such kind 'dens' (nearest: dense; available: dense, none)" in problems(
        flags={"model.feed_forward.kind": "dens"}
    )


def test_text_stays_text_and_null_is_nothing() -> None:
    loaded = load(Recipe, environment={}, flags={"name": "123", "steps": "null"})
    assert (loaded.name, loaded.steps) == ("123", None)
    assert load(Recipe, environment={}, flags={"name": "null"}).name == "null"


def test_a_number_is_not_taken_for_text_nor_text_for_a_number() -> None:
    assert "name = 3" in problems(base={"name": 3})
    assert 'rate = "1"' in problems(base={"rate": "1"})
    assert "compile = 1" in problems(base={"compile": 1})


def test_yaml_written_reads_back_equal(tmp_path: Path) -> None:
    recipe = load(
        Recipe,
        environment={},
        base={"name": "1e3", "rate": 1e-5, "sources": [{"path": "数据/a.jsonl", "weight": 0.5}], "schedule": "linear"},
    )
    file = tmp_path / "run.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load(Recipe, recipes=[file], environment={}) == recipe


def test_every_key_of_a_recipe_misspelt_is_named() -> None:
    for name in Recipe.model_fields:
        wrong = name[:-1] + "_" if len(name) > 2 else name + "_"
        assert f"{wrong}" in problems(base={wrong: 1})


class Length(Config):
    exclusive = (("steps", "epochs"),)
    steps: int | None = None
    epochs: float | None = None


class LengthRecipe(Config):
    train: Length = Length()


def test_of_exclusive_settings_the_later_sources_choice_counts(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: {epochs: 2.0}")
    loaded = load(LengthRecipe, recipes=[tmp_path / "a.yaml"], environment={}, flags={"train.steps": "5"})
    assert (loaded.train.steps, loaded.train.epochs) == (5, None)
    (tmp_path / "b.yaml").write_text("train: {steps: 7}")
    loaded = load(LengthRecipe, recipes=[tmp_path / "b.yaml", tmp_path / "a.yaml"], environment={})
    assert (loaded.train.steps, loaded.train.epochs) == (None, 2.0)


@pytest.mark.parametrize("name", ["no", "1e3", "null", "~", "true", "12:30", "0x1f", "a: b", "- x", "中文", "", " x "])
def test_any_text_survives_yaml(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(load(Recipe, environment={}, base={"name": name}).to_yaml(), encoding="utf-8")
    assert load(Recipe, recipes=[file], environment={}).name == name
