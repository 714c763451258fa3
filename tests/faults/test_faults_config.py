"""Every setting, misspelt, of a wrong type, twice, or changed on the way: said at once, by name, before anything is done."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest

from lichen.config import yaml12
from lichen.config.base import Config, leaves, members_of
from lichen.config.errors import UsageError
from lichen.config.feed_forward import DenseConfig, ExpertsConfig, KnowledgeConfig, ProductKeyConfig
from lichen.scripts.prepare import PrepareRecipe
from lichen.scripts.train import TrainRecipe, read_request
from lichen.trainer.assembly import HARMLESS
from lichen.trainer.checkpoints import compare_for_resume

VERBS: dict[str, type[Config]] = {"train": TrainRecipe, "prepare": PrepareRecipe}
KIND = {"model": {"feed_forward": {"kind": "dense"}}}


NEEDED: dict[str, dict[str, Any]] = {"train": {}, "prepare": {"output": "out", "sources": [{"path": "a.jsonl"}]}}
"""What a recipe must hold in any case."""


def in_place(path: str, value: Any) -> dict[str, Any]:
    """A recipe with ``value`` at the dotted ``path``; a section of several kinds gets the kind that has it."""
    data = value
    for name in reversed(path.split(".")):
        data = {name: data}
    return data if not path.startswith("model.feed_forward.") else merged([data, KIND])


def elements(verb: str) -> Iterator[tuple[str, str]]:
    """(list, its elements' settings) of the lists of sections."""
    from lichen.config.cleaning import SourceConfig
    from lichen.config.data import MixtureSource

    for path, section in (("sources", SourceConfig), ("validation", SourceConfig), ("data.sources", MixtureSource)):
        if (verb == "train") == (path == "data.sources"):
            yield from ((path, name) for name in section.model_fields)


def own_leaves(cls: type[Config]) -> Iterator[tuple[str, Any]]:
    """All settings; of the feed-forward part those of its usual kind, as a section can be of one kind only."""
    for path, info in leaves(cls):
        inner = path.removeprefix("model.feed_forward.")
        if inner == path or inner in DenseConfig.model_fields:
            yield path, info


def settings_of(verb: str) -> list[str]:
    """Dotted paths of all settings; what chooses among kinds of a section has a test of its own."""
    return list(dict.fromkeys(path for path, _ in own_leaves(VERBS[verb]) if not path.endswith(".kind")))


def misspelt(name: str) -> str:
    """Two letters changed places."""
    swapped = name[0] + name[2:0:-1] + name[3:]
    return swapped if len(name) > 3 and swapped != name else name + "x"


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict) and isinstance(found.get(key), dict):
                found[key] = merged([found[key], value])
            else:
                found[key] = value
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_misspelt_setting_is_named_with_the_nearest_and_all_at_once(verb, lichen, tmp_path):
    paths = settings_of(verb)
    assert len(paths) > 30
    wrong = {path: ".".join([*path.split(".")[:-1], misspelt(path.split(".")[-1])]) for path in paths}
    data = merged([NEEDED[verb], *(in_place(name, 1) for name in wrong.values())])
    (tmp_path / "recipe.yaml").write_text(yaml12.write(data))
    said = lichen(verb, tmp_path / "recipe.yaml")
    assert said.refused(2).startswith(f"{len(set(wrong.values()))} problems in the configuration:")
    lines = said.err.splitlines()
    for path, name in wrong.items():
        last = path.split(".")[-1]
        assert any(line.startswith(f"  {name} = 1 ") and f"nearest: {last};" in line for line in lines), name
    assert {entry.name for entry in tmp_path.iterdir()} == {"recipe.yaml"}


@pytest.mark.parametrize("section", (ExpertsConfig, ProductKeyConfig, KnowledgeConfig))
def test_every_setting_of_every_feed_forward_kind_too(section, lichen, tmp_path):
    names = [name for name in section.model_fields if name != "kind"]
    kind = section.model_fields["kind"].default
    part = {"kind": kind, **{misspelt(name): 1 for name in names}}
    (tmp_path / "recipe.yaml").write_text(yaml12.write({"model": {"feed_forward": part}}))
    said = lichen("train", tmp_path / "recipe.yaml")
    assert said.refused(2)
    for name in names:
        wrong = f"model.feed_forward.{misspelt(name)} = 1"
        assert any(wrong in line and f"nearest: {name}" in line for line in said.err.splitlines()), name
    part = {"kind": kind, **{name: {"a": [1]} for name in names}}
    (tmp_path / "recipe.yaml").write_text(yaml12.write({"model": {"feed_forward": part}}))
    said = lichen("train", tmp_path / "recipe.yaml")
    assert said.refused(2)
    for name in names:
        assert f"model.feed_forward.{name}" in said.err, name


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_of_a_listed_source_too(verb, lichen, tmp_path):
    for path, name in elements(verb):
        data = merged([NEEDED[verb], in_place(path, [{"path": "a", misspelt(name): 1}])])
        (tmp_path / "recipe.yaml").write_text(yaml12.write(data))
        said = lichen(verb, tmp_path / "recipe.yaml")
        assert said.refused(2) and f"{path}.0.{misspelt(name)} = 1" in said.err and f"nearest: {name};" in said.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_misspelt_flag_and_variable_is_named_with_the_nearest(verb, lichen, monkeypatch):
    for path in settings_of(verb):
        if path.startswith("model.feed_forward."):
            continue  # alone, a section of several kinds lacks its kind
        name = ".".join([*path.split(".")[:-1], misspelt(path.split(".")[-1])])
        said = lichen(verb, f"--{name}=1", *(["--output", "out", "a.jsonl"] if verb == "prepare" else []))
        assert said.refused(2) and "nearest: " in said.err and name.split(".")[-1] in said.err, said.err
        assert path.split(".")[-1] in said.err.split("nearest: ")[1].split(";")[0]
    monkeypatch.setenv("LICHEN__SEEED", "1")
    monkeypatch.setenv("LICHEN__TRAIN__SEEED", "1")
    said = lichen(verb, *(["--output", "out", "a.jsonl"] if verb == "prepare" else []))
    assert said.refused(2) and "from LICHEN__SEEED" in said.err and "from LICHEN__TRAIN__SEEED" in said.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_value_of_a_wrong_type_is_named_and_all_at_once(verb, lichen, tmp_path):
    problems, parts = [], [NEEDED[verb]]
    for path, info in own_leaves(VERBS[verb]):
        if path.endswith(".kind") or path == "train.epochs":  # beside steps it is the one problem of its section
            continue
        takes_mapping = any(get_origin(member) is dict for member in members_of(info.annotation))
        parts.append(in_place(path, 7.25 if takes_mapping else {"a": [1]}))
        problems.append(path)
    (tmp_path / "recipe.yaml").write_text(yaml12.write(merged(parts)))
    said = lichen(verb, tmp_path / "recipe.yaml")
    assert said.refused(2)
    for path in problems:
        assert any(line.startswith(f"  {path}") for line in said.err.splitlines()), path


@pytest.mark.parametrize("verb", VERBS)
def test_every_section_and_setting_given_twice_is_refused_with_its_line(verb, lichen, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    for path in settings_of(verb):
        *sections, last = path.split(".")
        indents = ["  " * depth for depth in range(len(sections) + 1)]
        lines = [f"{indent}{name}:" for indent, name in zip(indents, sections, strict=False)]
        lines += [f"{indents[-1]}{last}: 1"] * 2
        recipe.write_text("\n".join(lines) + "\n")
        error = lichen(verb, recipe).refused(2)
        assert error.startswith(f"{recipe} line {len(lines)}: the key '{last}' stands twice"), error


@pytest.mark.parametrize(
    ("branch", "words"),
    [
        ("feed_forward: {knid: none}", 'model.feed_forward.knid = "none"'),
        ("feed_forward: {kind: nnoe}", "available: dense, knowledge, moe, none, product_key"),
        ("feed_forward_by_layer: {'0': {intermediate_size: 8}}", "available: dense, knowledge, moe, none, product_key"),
    ],
)
def test_a_missing_or_misspelt_kind_is_named(lichen, tmp_path, branch, words):
    (tmp_path / "recipe.yaml").write_text(f"model: {{{branch}}}")
    said = lichen("train", tmp_path / "recipe.yaml")
    assert said.refused(2) and words in said.err, said.err


def another(path: str, info: Any, value: Any) -> Any:
    """A valid value that differs from ``value``."""
    chosen = {
        "model.hidden_size": 64,
        "model.num_attention_heads": 4,
        "model.num_key_value_heads": 1,
        "model.head_dim": 8,
        "model.vocab_size": 320,
        "model.feed_forward_by_layer": {"0": {"kind": "none"}},
        "model.rope_scaling.factor": 2.0,
        "optim.betas": [0.8, 0.9],
        "train.aux_weights": {"balance": 0.5},
        "schedule.function": "math:floor",
        "run.name": "other",
        "run.root": "elsewhere",
        "init_from": "elsewhere",
        "knowledge.database_init_path": "elsewhere",
        "knowledge.cluster_cache_path": "elsewhere",
        "data.path": "elsewhere",
        "data.validation": "elsewhere",
        "data.sources": [{"path": "a"}],
        "data.sample": 0.5,
        "log.prompts": ["a"],
        "log.trackers": ["jsonl", "jsonl"],
        "train.epochs": 2.0,
        "optim.name": "muon",
        "schedule.name": "linear",
        "train.precision": "fp32",
        "train.spike_rollbacks": 1,
    }
    if path in chosen:
        return chosen[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 + (0.01 if value == 0 else 0.0) + (1.0 if path == "train.spike_factor" else 0.0)
    assert value is None, (path, value)
    return 2 if int in members_of(info.annotation) else 0.5


def at(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


YARN = ("rope_type", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "truncate")
"""What comes with ``factor``; where there is no scaling, none of them can be changed alone."""
MAY_CHANGE = {
    "run.root", "run.name", "init_from",
    "log.every", "log.statistics_every", "log.window", "log.prompts", "log.sample_tokens", "log.trackers",
    "checkpoint.every", "checkpoint.keep_last", "checkpoint.asynchronous", "checkpoint.max_failures",
    "early_stopping.enabled", "early_stopping.patience", "early_stopping.min_delta",
    "evaluation.every", "evaluation.save_with_evaluation",
    "train.steps", "train.epochs", "train.accumulation", "train.compile", "train.halve_on_out_of_memory",
    "train.max_consecutive_skips", "train.spike_factor", "train.spike_rollbacks", "train.threads", "train.timeout",
    "knowledge.database_init_path", "knowledge.cluster_cache_path",
    "data.path", "data.validation", "data.workers", "data.prefetch", "data.worker_timeout",
}  # fmt: skip
"""What a continued run may change. All else makes it another training."""


def test_every_setting_changed_on_continuing_is_shown_and_allowed_or_refused(trained_run):
    recipe = read_request([str(trained_run)]).recipe
    saved = {"config": recipe.to_data(), "data": "d", "tokenizer": "t"}
    tried = set()
    for path, info in own_leaves(TrainRecipe):
        if path in tried or path in ("model.feed_forward.kind", *(f"model.rope_scaling.{name}" for name in YARN)):
            continue
        tried.add(path)
        value = another(path, info, at(saved["config"], path))
        part: Any = value
        for name in reversed(path.split(".")):
            part = {name: part}
        if path == "train.epochs":
            part["train"]["steps"] = None
        if path == "data.sources":
            part["data"]["path"] = None
        now = {**saved, "config": type(recipe).from_data(merged([saved["config"], part])).to_data()}
        assert now != saved, path
        if path in MAY_CHANGE:
            shown = [str(found) for found in compare_for_resume(saved, now, HARMLESS)]
            assert any(line.startswith(f"config.{path}") and " -> " in line for line in shown), (path, shown)
        else:
            with pytest.raises(UsageError, match=rf"config\.{path}.* -> .*--init-from"):
                compare_for_resume(saved, now, HARMLESS)
    assert tried >= MAY_CHANGE and len(tried) > 75


def test_changes_on_continuing_are_shown_together_and_nothing_is_touched(run_copy, lichen, snapshot):
    before = snapshot(run_copy)
    said = lichen("train", run_copy, "--lr", "0.1", "--train.clip", "2", "--log.every", "2", "--train.steps", "9")
    error = said.refused(2)
    assert "config.optim.lr: 0.0005 -> 0.1" in error and "config.train.clip: 1.0 -> 2.0" in error
    assert "log.every" not in error and "--init-from" in error and snapshot(run_copy) == before
    said = lichen("train", run_copy, "--log.every", "2")
    assert said.status == 0 and "differs from the checkpoint, harmlessly: config.log.every: 1 -> 2" in said.err


def test_a_recipe_of_another_shape_is_refused(lichen, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    for text, words in (
        ("- train\n- optim\n", "a recipe is a mapping of sections, not a list"),
        ("train: [1]\n", "train"),
        ("train:\n\tsteps: 1\n", "line 2"),
        ("a: &a [*a]\n", "aliases"),
    ):
        recipe.write_text(text)
        assert lichen("train", recipe).status == 2
        recipe.write_text(text)
        said = lichen("train", recipe)
        assert words in said.err and "Traceback" not in said.err, said.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train.accumulation", 3], "choose a multiple of 3"),
        (["--train.batch_size", 6, "--train.accumulation", 4], "choose a multiple of 4"),
    ],
)
def test_a_batch_that_can_not_be_shared_out_is_refused_before_a_folder_is_made(
    flags, words, tiny_flags, lichen, tmp_path
):
    assert words in lichen("train", *tiny_flags, "--train.steps", 1, *flags, "--run.root", tmp_path / "runs").refused(2)
    assert not (tmp_path / "runs").exists()


def test_a_run_yaml_that_was_edited_into_nonsense_is_refused(run_copy: Path, lichen, snapshot):
    text = (run_copy / "run.yaml").read_text()
    (run_copy / "run.yaml").write_text(text.replace("batch_size:", "batch_sise:"))
    before = snapshot(run_copy)
    said = lichen("train", run_copy)
    assert said.refused(2) and "train.batch_sise" in said.err and "nearest: batch_size" in said.err
    (run_copy / "run.yaml").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in lichen("train", run_copy).refused(2)
    (run_copy / "run.yaml").unlink()
    assert "run.yaml" in lichen("train", run_copy).refused(2)
    del before["run.yaml"]
    assert snapshot(run_copy) == before
    (run_copy / "run.yaml").write_text(text)
    assert lichen("train", run_copy).status == 0 and json.loads((run_copy / "environment.json").read_text())
