"""``lichen knowledge compare FACTS --output FOLDER [RECIPE.yaml …]``: kinds of models on facts, in one table.

    lichen knowledge compare made --output comparison              facts about people who do not exist
    lichen knowledge compare data/trex --output comparison         real ones: what `lichen knowledge build` reads
    lichen knowledge compare made --output comparison --dry-run    what would be done, and how large the models are

Trains and examines every arm at every size, each in a process of its own, several at once. The same command goes on where it was
stopped; other settings redo what they touch. Without a recipe it is recipes/knowledge/compare.yaml.

>>> default_recipe().name
'compare.yaml'
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.config.base import load
from lichen.config.comparison import ComparisonConfig, SizeConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.flags import existing_files, parse
from lichen.scripts.knowledge import say
from lichen.scripts.prepare import recipe_flags, sort_words

if TYPE_CHECKING:
    from lichen.dataset.fact_split import FactSplit
    from lichen.evaluation.comparison_scores import ArmFound, Compared, SizeFound
    from lichen.experiments.comparison_material import Facts
    from lichen.experiments.comparison_plan import Plan, Trained
    from lichen.experiments.processes import Job, Runner
    from lichen.experiments.sizing import About, Sized
    from lichen.metrics.report import Table

LAYERS_OF = ("dense", "knowledge", "knowledge-replacing")
"""Arms whose layers are shown beside each other, where they take part."""


class CompareCommand(ComparisonConfig):
    """Train and examine kinds of models on facts: lichen knowledge compare FACTS --output FOLDER [RECIPE.yaml …]."""

    output: Path
    """The folder for everything: texts, runs, examinations, logs, and the table."""
    dry_run: bool = False
    """Only say what would be done."""


@dataclass
class Comparison:
    """One call: its settings, and the facts it is about."""

    command: CompareCommand
    facts: Facts
    plan: Plan
    splits: dict[int, FactSplit]
    """By size."""
    notes: list[str]
    sized: dict[About, dict[str, Sized]] = field(default_factory=dict)
    """Models by what they were sized for; sizing takes a moment."""


def compare(argv: list[str]) -> int:
    """Compare; 0 if all arms were trained and examined, 1 if something failed."""
    arguments = parse(recipe_flags(argv), CompareCommand, "lichen knowledge compare", {"out": "output"})
    words, named = sort_words(arguments.positionals)
    if len(words) != 1:
        raise UsageError(
            "the form is: lichen knowledge compare FACTS --output FOLDER [RECIPE.yaml]; FACTS is a folder that lichen knowledge "
            "build reads, or the word made"
        )
    recipes = existing_files(map(str, named), "recipe") or [default_recipe()]
    command = load(CompareCommand, recipes, flags=arguments.settings)

    comparison = read(command, words[0])
    for note in comparison.notes:
        say(note)
    if command.dry_run:
        say(in_words(comparison))
        return 0
    return run(comparison)


def default_recipe() -> Path:
    """``recipes/knowledge/compare.yaml`` of the clone this package is installed from. Raises UsageError where there is none."""
    path = Path(__file__).resolve().parents[3] / "recipes" / "knowledge" / "compare.yaml"
    if not path.is_file():
        raise UsageError(
            "the recipe comes with a clone of the repository: name one, lichen knowledge compare FACTS RECIPE.yaml"
        )
    return path


def read(command: CompareCommand, facts: str) -> Comparison:
    """Look at the facts, and settle the sizes by what there is of them."""
    from lichen.experiments import comparison_material as material
    from lichen.experiments.comparison_plan import Plan
    from lichen.experiments.processes import cores

    found = material.find_facts(facts, command, command.output)
    sizes, notes = material.settle_sizes(command.sizes, len(found.split(None).told))
    command = command.model_copy(update={"sizes": sizes})
    plan = Plan(
        command, material.material_of(found, command, command.output), command.output, max(1, cores() // command.jobs)
    )
    return Comparison(command, found, plan, {size.told: found.split(size.told) for size in sizes}, notes)


# --- What will be done ---


def about(comparison: Comparison, size: SizeConfig) -> About:
    """What the texts of a size came to; an estimate where they are not there yet."""
    from lichen.dataset.tokenizer import Tokenizer
    from lichen.experiments.sizing import About

    plan, split = comparison.plan, comparison.splits[size.told]
    counts = counts_of(plan, size)
    folder = plan.data(comparison.command.sizes[0], "seen").output / "tokenizer"
    vocabulary = Tokenizer.load(folder).vocab_size if folder.is_dir() else comparison.command.vocab_size
    return About(
        told=counts.get("told", len(split.told)), entries=counts.get("bank", len(split.bank)), vocabulary=vocabulary
    )


def counts_of(plan: Plan, size: SizeConfig) -> dict[str, int]:
    """What was counted when the text of a size was made; nothing before."""
    path = plan.texts(size, "seen").output / "counts.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def models_of(comparison: Comparison) -> dict[int, dict[str, Sized]]:
    """By size and arm, the model. Raises UsageError where one can not be made equal."""
    from lichen.experiments.sizing import sized_models

    found = {size.told: about(comparison, size) for size in comparison.command.sizes}
    for one in found.values():
        if one not in comparison.sized:
            comparison.sized[one] = sized_models(comparison.command, one)
    return {told: comparison.sized[one] for told, one in found.items()}


def trained_of(
    comparison: Comparison, models: Mapping[int, dict[str, Sized]], rates: Mapping[str, float]
) -> list[Trained]:
    """All trainings, size by size, with their examinations; within a size seed by seed, so that a first table is there early."""
    sizes = comparison.command.sizes
    found = [t for size in sizes for t in comparison.plan.trained(size, models[size.told], rates)]
    return sorted(found, key=lambda t: (sizes.index(t.size), t.seed))


def in_words(comparison: Comparison) -> str:
    """The plan: models, budgets, jobs."""
    from lichen.evaluation.knowledge_report import as_text
    from lichen.experiments.processes import Runner

    command, plan = comparison.command, comparison.plan
    models = models_of(comparison)
    trained = trained_of(comparison, models, dict.fromkeys(command.chosen, command.learning_rates[0]))
    runner = Runner(command.output)
    trials = plan.trials(models[command.sizes[0].told])
    jobs = [*plan.shared(), *_tried(trials), *_jobs(trained)]
    return "\n\n".join(
        [as_text(_plan_tables(comparison, models)), jobs_in_words(jobs, [j for j in jobs if runner.is_done(j)])]
    )


def _plan_tables(comparison: Comparison, models: Mapping[int, dict[str, Sized]]) -> list[Table]:
    from lichen.metrics.report import Table

    made, command = [], comparison.command
    for size in command.sizes:
        rows = [
            {
                **arm_in_words(command, name),
                "seeds": f"{command.seeds_of(size, name)}",
                **_measures(models[size.told][name]),
            }
            for name in command.chosen
        ]
        made.append(
            Table(
                f"{size.told:,} facts told", rows, "; ".join(f"{k} {v}" for k, v in _counts(comparison, size).items())
            )
        )
    return made


def _measures(sized: Sized) -> dict[str, str]:
    names = {
        "trainable": "parameters",
        "active": "active",
        "flops_per_token": "FLOPs/token",
        "bank_bytes": "bank bytes",
    }
    return {heading: f"{getattr(sized.measures, name):,}" for name, heading in names.items()}


def arm_in_words(command: ComparisonConfig, name: str) -> dict[str, str]:
    """What an arm is, by heading."""
    from lichen.experiments.sizing import equal_in_words

    arm = command.arms[name]
    asked = {"none": "", "tfidf": ", asked with TF-IDF", "oracle": ", asked with the right entry"}[arm.prompting]
    texts = {
        "seen": "facts seen",
        "bank": "facts of the bank",
        "quoted": f"facts seen, {command.quoted} entries quoted",
    }
    return {"arm": name, "text": texts[arm.text] + asked, "equal in": equal_in_words(command, name)}


def _counts(comparison: Comparison, size: SizeConfig) -> dict[str, Any]:
    """Facts and budget of a size, by heading."""
    plan, command = comparison.plan, comparison.command
    counts, found, split = counts_of(plan, size), about(comparison, size), comparison.splits[size.told]
    more = {"of them invented": counts["invented"]} if counts.get("invented") else {}
    share = {"general text": f"{100 * counts['general_share']:.0f} %"} if "general_share" in counts else {}
    return {
        "told": f"{found.told:,}",
        **more,
        "bank": f"{found.entries:,} entries",
        "added later": f"{counts.get('added', len(split.added)):,}",
        **share,
        "tokens of every training": f"{plan.tokens(size):,}",
        "steps": f"{plan.steps(size):,} of {command.batch_size} × {command.sequence_length}",
    }


def jobs_in_words(jobs: Sequence[Job], done: Sequence[Job]) -> str:
    """How many jobs of which kind there are."""
    kinds = list(dict.fromkeys(job.kind.split("/")[0] for job in jobs))
    counted = ", ".join(f"{sum(job.kind.split('/')[0] == kind for job in jobs)} {kind}" for kind in kinds)
    return f"{len(jobs)} jobs: {counted}; {len(done)} done already"


# --- Doing it ---


def run(comparison: Comparison) -> int:
    """Do what is not done, and write the table."""
    from lichen.core.folders import FolderLock, make_folder, write_file
    from lichen.experiments import comparison_material
    from lichen.experiments.processes import Runner

    command = comparison.command
    models_of(comparison)  # what can not be made equal is said before anything is made
    make_folder(command.output)
    with FolderLock(command.output, "comparison"):
        write_file(command.output / "compare.yaml", command.model_copy(update={"dry_run": False}).to_yaml())
        comparison_material.make(comparison.facts, comparison.plan.material, command.output)
        runner = Runner(command.output, command.jobs, say=lambda text: print(text, flush=True))
        found = _run_jobs(comparison, runner)
    _report(comparison, found, runner)
    if not runner.failures:
        return 0
    say(
        "\n".join(
            ["", f"{len(runner.failures)} of the jobs failed; the same command tries them again:", *runner.summary()]
        )
    )
    return 1


def _run_jobs(comparison: Comparison, runner: Runner) -> list[Trained]:
    """Shared work, trials, then trainings and examinations; what was to be trained."""
    command, plan = comparison.command, comparison.plan
    guess = dict.fromkeys(command.chosen, command.learning_rates[0])  # for counting, before the trials say which

    def trials() -> dict[str, list[tuple[float, Job]]]:
        return plan.trials(models_of(comparison)[command.sizes[0].told])

    def trained(rates: Mapping[str, float]) -> list[Trained]:
        return trained_of(comparison, models_of(comparison), rates)

    runner.run(plan.shared(), [*_tried(trials()), *_jobs(trained(guess))])
    tried = trials()
    _run_trainings(plan, runner, _tried(tried), _jobs(trained(guess)))
    found = trained(rates_of(tried, runner) if tried else guess)
    _run_trainings(plan, runner, _jobs(found))
    return found


def _tried(trials: Mapping[str, Sequence[tuple[float, Job]]]) -> list[Job]:
    from lichen.experiments.comparison_plan import unique

    return unique(job for jobs in trials.values() for _, job in jobs)


def _jobs(trained: Sequence[Trained]) -> list[Job]:
    from lichen.experiments.comparison_plan import unique

    return unique(job for one in trained for job in one.jobs)


def _run_trainings(plan: Plan, runner: Runner, jobs: Sequence[Job], later: Sequence[Job] = ()) -> None:
    """Write the recipes of the trainings among ``jobs``, and run all."""
    from lichen.config import yaml12
    from lichen.core.folders import make_folder, write_file

    make_folder(plan.folder / "recipes")
    for job in jobs:
        if job.id in plan.recipes:
            write_file(Path(job.words[1]), yaml12.write(plan.recipes[job.id]))
    runner.run(jobs, later)


def rates_of(trials: Mapping[str, Sequence[tuple[float, Job]]], runner: Runner) -> dict[str, float]:
    """By arm the best learning rate; none for an arm all of whose trials failed. Raises LichenError where none was validated."""
    from lichen.core.runs import Run
    from lichen.experiments.comparison_plan import best_rate

    found = {}
    for arm, jobs in trials.items():
        done = [(rate, Run(job.output).read_best()) for rate, job in jobs if runner.is_done(job)]
        scores = [(rate, best.score) for rate, best in done if best is not None]
        if len(scores) < len(done):
            raise LichenError("no text was held out to judge learning rates on; raise validation_fraction")
        if scores:
            found[arm] = best_rate(scores)
    return found


# --- The table ---


def _report(comparison: Comparison, trained: Sequence[Trained], runner: Runner) -> None:
    from lichen.evaluation import comparison_report
    from lichen.evaluation.knowledge_report import as_text

    command = comparison.command
    found = gather(comparison, trained, runner)
    about = {"facts": str(comparison.facts.folder), "settings": command.to_data()}
    if not any(size.runs for size in found.sizes):
        raise LichenError("\n".join(["nothing was examined, so there is no table:", *runner.summary()]))
    paths = comparison_report.write(found, command.output, "Kinds of models on facts", about)
    say(as_text(comparison_report.tables(found)))
    say("\n" + " ".join(map(str, paths)))


def gather(comparison: Comparison, trained: Sequence[Trained], runner: Runner) -> Compared:
    """What the examinations that are done have written."""
    from lichen.evaluation.comparison_scores import Compared

    models, command = models_of(comparison), comparison.command
    sizes = [_size_found(comparison, size, models[size.told], trained, runner) for size in command.sizes]
    against = tuple(name for name in command.against if name in command.chosen)
    layers_of = tuple(name for name in LAYERS_OF if name in command.chosen)
    return Compared(sizes, command.reference, against, layers_of)


def _size_found(
    comparison: Comparison, size: SizeConfig, models: Mapping[str, Sized], trained: Sequence[Trained], runner: Runner
) -> SizeFound:
    from lichen.evaluation.comparison_scores import SizeFound

    arms = []
    for name in comparison.command.chosen:
        mine = [one for one in trained if one.size == size and one.arm == name]
        arms.append(_arm_found(comparison, name, models[name], mine, runner))
    return SizeFound(size.told, _counts(comparison, size), arms)


def _arm_found(comparison: Comparison, name: str, sized: Sized, mine: Sequence[Trained], runner: Runner) -> ArmFound:
    from lichen.evaluation.comparison_scores import ArmFound

    told = arm_in_words(comparison.command, name)
    rates = {one.rate for one in mine}
    learnt = {"learning rate": ", ".join(f"{rate:g}" for rate in rates)} if rates else {}
    return ArmFound(
        name,
        {heading: text for heading, text in told.items() if heading != "arm"} | learnt,
        asdict(sized.measures),
        [_data(one.knowledge) for one in mine if runner.is_done(one.knowledge)],
        [_data(one.language) for one in mine if one.language and runner.is_done(one.language)],
    )


def _data(job: Job) -> dict[str, Any]:
    return json.loads(job.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
