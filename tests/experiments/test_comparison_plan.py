"""The plan of a comparison: shared work once, ids that change with what they depend on, command lines that verbs understand."""

import functools
from pathlib import Path
from typing import Any

import pytest

from lichen.config.base import load
from lichen.config.comparison import ComparisonConfig
from lichen.config.errors import LichenError
from lichen.config.flags import parse
from lichen.config.model import ModelConfig
from lichen.experiments.comparison_material import Material
from lichen.experiments.comparison_plan import Plan, best_rate, flag_words, given, unique
from lichen.experiments.processes import Job
from lichen.experiments.sizing import About, Sized, sized_models
from lichen.scripts.evaluate import KnowledgeCommand
from lichen.scripts.evaluate_language import LanguageCommand
from lichen.scripts.knowledge_build import BuildCommand
from lichen.scripts.knowledge_texts import TextsCommand
from lichen.scripts.prepare import PrepareRecipe
from lichen.scripts.train import TrainRecipe

READING = {"feed_forward_by_layer": {"1": {"kind": "knowledge", "beside": {"kind": "dense"}}}}
SETTINGS: dict[str, Any] = {
    "sizes": [{"told": 100}, {"told": 300, "seeds": 1, "steps": 9, "repeats": 1}],
    "arms": {
        "dense": {"seeds": 2},
        "dense-information": {"text": "bank"},
        "knowledge": READING,
        "prompt-tfidf": {"text": "quoted", "prompting": "tfidf"},
        "prompt-oracle": {"text": "quoted", "prompting": "oracle"},
    },
    "against": ["dense"],
    "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "texts": {"repeats": 3, "companions": 0.5},
    "examination": {"groups": ["seen", "bank only", "collisions"], "questions": 20, "generate": False},
    "language": {"documents": 5},
    "steps": 40,
    "quoted": 3,
}
MATERIAL = Material(
    Path("facts"),
    "f1",
    (Path("a.jsonl"), Path("b.jsonl")),
    "g1",
    (Path("h.jsonl"),),
    "h1",
    Path("facts/collisions.jsonl"),
)


def plan_of(tmp_path: Path, **more: Any) -> Plan:
    return Plan(ComparisonConfig.from_data({**SETTINGS, **more}), MATERIAL, tmp_path)


@functools.cache
def usual_models() -> dict[str, Sized]:
    return sized_models(ComparisonConfig.from_data(SETTINGS), About(100, 130, 400))


def models_of(plan: Plan) -> dict[str, Sized]:
    return {name: usual_models()[name] for name in plan.settings.chosen}


def jobs_of(plan: Plan, rates: dict[str, float] | None = None) -> list[Job]:
    rates = rates or dict.fromkeys(plan.settings.chosen, 1e-3)
    trained = [one for size in plan.settings.sizes for one in plan.trained(size, models_of(plan), rates)]
    return unique([*plan.shared(), *(job for one in trained for job in one.jobs)])


def ids(plan: Plan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for job in jobs_of(plan):
        found.setdefault(job.kind.split("/")[0], set()).add(job.id)
    return found


def test_shared_work_is_done_once_and_needed_work_comes_first(tmp_path: Path) -> None:
    jobs = jobs_of(plan_of(tmp_path))
    counts = {
        kind: sum(job.kind.split("/")[0] == kind for job in jobs)
        for kind in ("bank", "texts", "preparation", "training")
    }
    # 2 sizes × (seen, bank, quoted); dense 2 + 1 trainings, the others 1 + 1, and both ways of prompting share theirs
    assert counts == {"bank": 1, "texts": 6, "preparation": 6, "training": 9}
    place = {job.id: number for number, job in enumerate(jobs)}
    assert all(place[need] < place[job.id] for job in jobs for need in job.after)
    assert len({job.output for job in jobs}) == len({job.name for job in jobs}) == len(jobs)
    assert sum(job.kind.startswith("knowledge/prompt") for job in jobs) == 4
    tokenizers = {job.words[job.words.index("--tokenizer.path") + 1] for job in jobs if "--tokenizer.path" in job.words}
    assert len(tokenizers) == 1 and "100-seen" in tokenizers.pop()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"jobs": 7}, {"bank", "texts", "preparation", "training", "knowledge", "language"}),
        ({"language": {"documents": 6}}, {"bank", "texts", "preparation", "training", "knowledge"}),
        ({"examination": {"questions": 21}}, {"bank", "texts", "preparation", "training", "language"}),
        ({"batch_size": 3}, {"bank", "texts", "preparation"}),
        ({"vocab_size": 999}, {"bank", "texts"}),
        ({"texts": {"repeats": 2}}, {"bank"}),
    ],
)
def test_changed_settings_redo_what_they_touch(tmp_path: Path, change: dict[str, Any], same: set[str]) -> None:
    before, after = ids(plan_of(tmp_path)), ids(plan_of(tmp_path, **change))
    assert {kind for kind in before if before[kind] == after[kind]} == same
    assert all(not before[kind] & after[kind] for kind in before if kind not in same and kind != "texts")


def test_fewer_arms_and_more_sizes_leave_what_is_done(tmp_path: Path) -> None:
    every = {job.id: job.output for job in jobs_of(plan_of(tmp_path))}
    few = {
        job.id: job.output for job in jobs_of(plan_of(tmp_path, only=["prompt-oracle"], sizes=SETTINGS["sizes"][:1]))
    }
    assert few.items() <= every.items()


def test_every_command_line_is_understood(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    understood = {
        "knowledge build": BuildCommand,
        "knowledge texts": TextsCommand,
        "prepare": PrepareRecipe,
        "evaluate knowledge": KnowledgeCommand,
        "evaluate language": LanguageCommand,
    }
    met = set()
    for job in jobs_of(plan):
        verb = next((verb for verb in understood if " ".join(job.words).startswith(verb + " ")), None)
        if verb is None:
            assert (
                job.words == ("train", str(tmp_path / "recipes" / f"{job.output.name}.yaml"))
                and job.begun == "continued"
            )
            recipe = TrainRecipe.from_data(plan.recipes[job.id])
            assert recipe.run.root / str(recipe.run.name) == job.output and recipe.optim.lr == 1e-3
            assert recipe.train.steps == (9 if job.name.startswith("300") else 40)
            continue
        met.add(verb)
        arguments = parse(job.words[len(verb.split()) :], understood[verb], verb)
        more = {"sources": ['{"path": "x"}']} if verb == "prepare" else {"sources": ["x"]} if "build" in verb else {}
        command = load(understood[verb], flags={**arguments.settings, **more}, environment={})
        if isinstance(command, TextsCommand):
            check_texts(job, command)
        if isinstance(command, KnowledgeCommand):
            check_examination(job, command)
        if isinstance(command, LanguageCommand):
            assert command.examination.text == (Path("h.jsonl"),) and command.examination.documents == 5
    assert met == set(understood)


def check_texts(job: Job, command: TextsCommand) -> None:
    size, kind, _ = job.name.split("-")
    assert command.texts.limit == int(size) and command.texts.repeats == (1 if size == "300" else 3)
    assert command.texts.told == ("bank" if kind == "bank" else "seen")
    assert command.texts.quoted == (3 if kind == "quoted" else 0)
    assert command.texts.companions == 0.5 and command.reserved == MATERIAL.collisions
    assert command.general == ("a.jsonl", "b.jsonl") and command.output == job.output


def check_examination(job: Job, command: KnowledgeCommand) -> None:
    settings = command.examination
    prompting = "tfidf" if "tfidf" in job.name else "oracle" if "oracle" in job.name else "none"
    assert settings.prompting == prompting and settings.prompted_entries == (3 if prompting != "none" else 4)
    assert settings.groups == ("seen", "bank only", "collisions") and settings.questions == 20 and not settings.generate
    assert settings.collisions == MATERIAL.collisions
    assert settings.facts is not None and settings.facts.name.startswith(f"{job.name.split('-')[0]}-seen-")


def test_seeds_and_models_get_into_the_recipes_and_room_for_facts_stays(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    models = models_of(plan)
    trained = plan.trained(plan.settings.sizes[0], models, dict.fromkeys(plan.settings.chosen, 1e-3))
    recipes = {(one.arm, one.seed): TrainRecipe.from_data(plan.recipes[one.training.id]) for one in trained}
    assert recipes["dense", 1].train.seed == 1 and recipes["dense", 0].model == models["dense"].model
    section = recipes["knowledge", 0].model.feed_forward_of(1)
    assert section.kind == "knowledge" and section.knowledge_num is None
    tokens = {r.train.steps * r.train.batch_size * r.data.sequence_length for r in recipes.values() if r.train.steps}
    assert tokens == {plan.tokens(plan.settings.sizes[0])}


def test_trials_are_the_same_for_all_arms_and_only_where_there_is_a_choice(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert plan.trials(models_of(plan)) == {}
    plan = plan_of(tmp_path, learning_rates=[1e-3, 3e-3])
    trials = plan.trials(models_of(plan))
    assert set(trials) == set(plan.settings.chosen)
    for jobs in trials.values():
        recipes = [TrainRecipe.from_data(plan.recipes[job.id]) for _, job in jobs]
        assert [(recipe.optim.lr, recipe.train.steps, recipe.train.seed) for recipe in recipes] == [
            (1e-3, 10, 0),
            (3e-3, 10, 0),
        ]
    rates = {"dense": 3e-3}
    assert [one.arm for one in plan.trained(plan.settings.sizes[1], models_of(plan), rates)] == ["dense"]


def test_the_best_rate_is_that_of_the_lowest_loss() -> None:
    assert best_rate([(1e-3, 2.0), (2e-3, 1.5), (4e-3, 1.7)]) == 2e-3
    with pytest.raises(LichenError, match="lower learning_rates"):
        best_rate([(1e-3, float("nan"))])


def test_flags_say_numbers_that_look_like_truth_as_numbers() -> None:
    assert flag_words("", {"a": 1, "b": True, "c": 0, "d": None}) == [
        "--a",
        "1",
        "--b",
        "true",
        "--c",
        "0",
        "--d",
        "null",
    ]
    assert given(ModelConfig(hidden_size=64), leave_out=()) == {"hidden_size": 64}
