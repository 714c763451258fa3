"""What `lichen inspect` says of everything there is, whole and damaged."""

import json
from pathlib import Path

import pytest

from lichen.config.base import load
from lichen.config.errors import UsageError
from lichen.core.runs import Run
from lichen.model.size import count
from lichen.scripts import inspection
from lichen.scripts.train import TrainRecipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_prepared_data_shows_counts_that_add_up(prepared: Path) -> None:
    kind, facts = inspection.inspect(str(prepared))
    assert kind == "prepared data"
    cleaning = dict(facts["Cleaning"])
    read, kept = cleaning.pop("read"), cleaning.pop("kept")
    assert read == 240 == kept + sum(cleaning.values())
    assert facts["Train"]["documents"] + facts["Validation"]["documents"] == kept
    assert facts["State"]["damage"] == "none"


def test_a_shard_shows_its_source(prepared: Path) -> None:
    shard = next((prepared / "train").rglob("shard_*"))
    kind, facts = inspection.inspect(str(shard))
    assert kind == "shard" and facts["All shards of this source"]["documents"] > 200


def test_a_run_lists_its_checkpoints(trained_run: Path) -> None:
    kind, facts = inspection.inspect(str(trained_run))
    assert kind == "run"
    assert list(facts["Checkpoints"]) == ["step 4", "step 8"]
    assert facts["Last validation row"]["step"] == 8


def test_a_checkpoint_counts_what_is_in_its_file(trained_run: Path) -> None:
    from safetensors import safe_open

    kind, facts = inspection.inspect(f"{trained_run}@latest")
    with safe_open(Run(trained_run).latest() / "model.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert kind == "checkpoint" and facts["Parameters"]["total"] == stored
    assert facts["Training"]["step"] == 8


def test_damage_is_named(trained_run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "tiny"
    shutil.copytree(trained_run, copy)
    weights = Run(copy).checkpoint_folders()[-1] / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "model.safetensors: checksum differs" in inspection.inspect(str(copy))[1]["Checkpoints"]["step 8"]


def test_recipes_are_built_without_allocating() -> None:
    kind, facts = inspection.inspect(str(RECIPES / "pretrain" / "dense-360m.yaml"))
    assert kind == "recipe of a training" and facts["Parameters"]["total"] > 300e6
    assert inspection.inspect(str(RECIPES / "prepare" / "text.yaml"))[0] == "recipe of a preparation"


def test_a_mixture_is_made_equal_to_a_dense_model(capsys: pytest.CaptureFixture[str]) -> None:
    dense, moe = str(RECIPES / "pretrain" / "dense-26m.yaml"), str(RECIPES / "ffn" / "moe.yaml")
    assert inspection.run([dense, moe, "--iso-parameters", dense]) == 0
    shown = capsys.readouterr().out
    (setting,) = [line.removeprefix("set: ") for line in shown.splitlines() if line.startswith("set: ")]
    name, value = setting.removeprefix("--").split(" ")
    recipe = load(TrainRecipe, [dense, moe], environment={}, flags={name: value})  # what is printed can be set
    reference = inspection.inspect(dense)[1]["Parameters"]["trainable"]
    found = count(recipe.model.with_vocabulary(6400)).trainable
    assert abs(found - reference) < 0.005 * reference
    assert f"{found:,}" in shown and f"{reference:,}" in shown and f"{100 * (found / reference - 1):+.2f} %" in shown


def test_a_dense_model_is_made_as_cheap_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    dense, table = str(RECIPES / "pretrain" / "dense-26m.yaml"), str(RECIPES / "ffn" / "product-key.yaml")
    assert inspection.run([dense, "--iso-flops", dense, "--iso-flops", table, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["settings"].keys() == {"intermediate_size"} and rows["settings"]["intermediate_size"] < 800
    assert abs(rows["so set"]["differences"]["flops_per_token"]) < 0.5 < rows["as it is"]["differences"]["trainable"]
    assert rows["other"]["trainable"] > 1.5 * rows["so set"]["trainable"]


def test_sizes_can_not_be_compared_with_what_is_no_recipe(tmp_path: Path) -> None:
    dense = str(RECIPES / "pretrain" / "dense-26m.yaml")
    with pytest.raises(UsageError, match="no such recipe"):
        inspection.run([dense, "--iso-flops", str(tmp_path / "none.yaml")])
    with pytest.raises(UsageError, match="not both"):
        inspection.run([dense, "--iso-flops", dense, "--iso-parameters", dense])


def test_something_else_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match="nearest: data"):
        inspection.inspect(str(tmp_path / "dta"))
    with pytest.raises(UsageError, match="neither a prepared data set"):
        inspection.inspect(str(tmp_path / "data"))


def test_json_is_json(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspection.run([str(trained_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "run"
