"""What has to be done for a comparison: texts, trials of learning rates, trainings, examinations, as jobs.

What is shared is made once: the bank, the tokenizer (of the first size), and for every size and kind of text the text and its
prepared form. Two arms with equal trainings share them. A job's id is a hash of its settings and of the ids of what it needs.

>>> settings = ComparisonConfig.from_data({"sizes": [{"told": 600}], "arms": {"knowledge": {}, "dense": {"text": "bank"}}})
>>> plan = Plan(settings, Material(Path("facts"), "f0", (Path("general.jsonl"),), "g0", (), ""), Path("out"))
>>> [job.name for job in plan.shared()]
['bank', '600-seen-texts', '600-bank-texts', '600-seen-preparation', '600-bank-preparation']
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lichen.config.base import Config
from lichen.config.comparison import DECIDED, ComparisonConfig, SizeConfig, TextKind
from lichen.config.errors import LichenError
from lichen.config.model import ModelConfig
from lichen.experiments.comparison_material import Material
from lichen.experiments.processes import Job, identity
from lichen.experiments.sizing import Sized


@dataclass(frozen=True)
class Trained:
    """One training and what is asked of it."""

    size: SizeConfig
    arm: str
    seed: int
    rate: float
    training: Job
    knowledge: Job
    language: Job | None

    @property
    def jobs(self) -> list[Job]:
        """The training, then the examinations."""
        return [self.training, self.knowledge, *([self.language] if self.language else [])]


@dataclass
class Plan:
    """All jobs of a comparison, in the order they are wanted; nothing is touched by making them."""

    settings: ComparisonConfig
    material: Material
    folder: Path
    workers: int = 1
    """Processes that a preparation may use."""
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Id of a training planned → the contents of its recipe, which the job's second word names."""

    # --- What is shared ---

    def shared(self) -> list[Job]:
        """The bank, and the texts and prepared texts of all sizes."""
        sizes, kinds = self.settings.sizes, self.kinds
        prepared = [self.data(sizes[0], "seen"), *(self.data(size, kind) for size in sizes for kind in kinds)]
        texts = [
            text for size in sizes for text in (self.texts(size, "seen"), *(self.texts(size, kind) for kind in kinds))
        ]
        return unique([self.bank(), *texts, *prepared])

    @property
    def kinds(self) -> list[TextKind]:
        """The kinds of text that the arms learn from."""
        return list(dict.fromkeys(self.settings.arms[name].text for name in self.settings.chosen))

    def bank(self) -> Job:
        """All facts, as a bank."""
        id = identity({"what": "bank", "facts": self.material.facts_id})
        output = self.folder / f"bank-{id}"
        return Job(id, "bank", "bank", _words("knowledge", "build", self.material.facts, "--output", output), output)

    def texts(self, size: SizeConfig, kind: TextKind) -> Job:
        """Text that tells facts, beside the facts of every group."""
        settings, bank = self.settings, self.bank()
        own: dict[str, Any] = {"limit": size.told}
        if size.repeats is not None:
            own["repeats"] = size.repeats
        if kind == "bank":
            own["told"] = "bank"
        if kind == "quoted":
            own["quoted"] = settings.quoted
        flags = {**given(settings.texts), **own}
        id = identity({"what": "texts", "bank": bank.id, "general": self.material.general_id, "flags": flags})
        output = self.folder / "texts" / f"{size.told}-{kind}-{id}"
        general = [word for path in self.material.general for word in ("--general", path)]
        reserved = ["--reserved", self.material.collisions] if self.material.collisions else []
        words = (
            "knowledge",
            "texts",
            bank.output,
            *general,
            *reserved,
            "--output",
            output,
            *flag_words("texts", flags),
        )
        return Job(id, f"{size.told}-{kind}-texts", "texts", _words(*words), output, (bank.id,), weight=size.told)

    def data(self, size: SizeConfig, kind: TextKind) -> Job:
        """The same, tokenised and linked with its bank."""
        settings, texts = self.settings, self.texts(size, kind)
        is_first = size == settings.sizes[0] and kind == "seen"
        first = None if is_first else self.data(settings.sizes[0], "seen")
        flags = {"split.validation_fraction": settings.validation_fraction}
        if first is None:
            flags["tokenizer.vocab_size"] = settings.vocab_size
        id = identity({"what": "data", "texts": texts.id, "first": first and first.id, "flags": flags})
        output = self.folder / "data" / f"{size.told}-{kind}-{id}"
        tokenizer = ["--tokenizer.path", first.output / "tokenizer"] if first else []
        words = ["prepare", texts.output / "texts.jsonl", "--knowledge.bank", texts.output / "bank", "--output", output]
        words += [*tokenizer, *flag_words("", flags), "--workers", self.workers]
        after = (texts.id, first.id) if first else (texts.id,)
        return Job(
            id, f"{size.told}-{kind}-preparation", "preparation", _words(*words), output, after, "kept", size.told
        )

    # --- Trainings ---

    def trials(self, models: Mapping[str, Sized]) -> dict[str, list[tuple[float, Job]]]:
        """By arm, the trials of every learning rate at the first size; empty where there is but one."""
        rates = self.settings.learning_rates
        if len(rates) == 1:
            return {}
        size = self.settings.sizes[0]
        steps = self.settings.trial_steps or max(1, self.steps(size) // 4)
        return {
            arm: [(rate, self._training(size, arm, 0, models, rate, steps, trial=True)) for rate in rates]
            for arm in self.settings.chosen
        }

    def trained(self, size: SizeConfig, models: Mapping[str, Sized], rates: Mapping[str, float]) -> list[Trained]:
        """Trainings and examinations of one size; arms without a learning rate are left out."""
        found = []
        for arm in self.settings.chosen:
            for seed in range(self.settings.seeds_of(size, arm) if arm in rates else 0):
                training = self._training(size, arm, seed, models, rates[arm], self.steps(size))
                knowledge = self._knowledge(size, arm, seed, training)
                language = self._language(training) if self.settings.examine_language else None
                found.append(Trained(size, arm, seed, rates[arm], training, knowledge, language))
        return found

    def steps(self, size: SizeConfig) -> int:
        """Steps of a training at ``size``."""
        return size.steps or self.settings.steps

    def tokens(self, size: SizeConfig) -> int:
        """Tokens that every training at ``size`` reads, those that fill rows included."""
        return self.steps(size) * self.settings.batch_size * self.settings.sequence_length

    def _training(
        self,
        size: SizeConfig,
        arm: str,
        seed: int,
        models: Mapping[str, Sized],
        rate: float,
        steps: int,
        trial: bool = False,
    ) -> Job:
        data = self.data(size, self.settings.arms[arm].text)
        recipe = self._recipe(models[arm].model, seed, rate, steps)
        id = identity({"what": "training", "data": data.id, "recipe": recipe})
        twin = next(name for name in self.settings.arms if self._alike(name, arm))
        name = f"{size.told}-{twin}-{f'lr{rate:g}' if trial else f's{seed}'}"
        root, what = (self.folder / "trials", "trial") if trial else (self.folder / "runs", "training")
        output = root / f"{name}-{id}"
        place = {"run": {"root": str(root), "name": output.name}, "data": {"path": str(data.output), **recipe["data"]}}
        self.recipes[id] = {**recipe, **place}
        words = _words("train", self.folder / "recipes" / f"{output.name}.yaml")
        return Job(id, f"{name}-{what}", f"{what}/{twin}", words, output, (data.id,), "continued", steps)

    def _alike(self, one: str, other: str) -> bool:
        """Whether two arms learn the same, and differ in how they are asked; the first of them names the training."""
        asking = {"prompting": "none", "seeds": 1}
        arms = self.settings.arms
        return arms[one].model_copy(update=asking) == arms[other].model_copy(update=asking)

    def _recipe(self, model: ModelConfig, seed: int, rate: float, steps: int) -> dict[str, Any]:
        settings = self.settings
        return {
            "model": model.to_data(),
            "data": {"sequence_length": settings.sequence_length, "links": settings.links.to_data()},
            "optim": {**settings.optim.to_data(), "lr": rate},
            "schedule": settings.schedule.to_data(),
            "train": {
                **{"steps": steps, "batch_size": settings.batch_size, "seed": seed},
                "aux_weights": settings.aux_weights,
            },
            "evaluation": {"every": steps, "max_batches": settings.validation_batches},
            "checkpoint": {"keep_last": 1},
            "log": {"every": max(1, steps // 20), "statistics_every": steps},
        }

    # --- Examinations ---

    def _knowledge(self, size: SizeConfig, arm: str, seed: int, training: Job) -> Job:
        settings, facts = self.settings, self.texts(size, "seen")
        flags = given(settings.examination, leave_out=DECIDED["examination"])
        if (prompting := settings.arms[arm].prompting) != "none":
            flags |= {"prompting": prompting, "prompted_entries": settings.quoted}
        id = identity({"what": "knowledge", "training": training.id, "facts": facts.id, "flags": flags})
        name = f"{size.told}-{arm}-s{seed}"
        folder = self.folder / "evaluation" / f"{name}-{id}"
        collisions = "collisions" in settings.examination.groups and self.material.collisions
        asked = ["--collisions", self.material.collisions] if collisions else []
        words = [
            "evaluate",
            "knowledge",
            training.output,
            "--facts",
            facts.output,
            *asked,
            "--output",
            folder,
            "--quiet",
        ]
        after = (training.id, facts.id)
        words += flag_words("examination", flags)
        return Job(id, f"{name}-knowledge", f"knowledge/{arm}", _words(*words), folder / "knowledge.json", after)

    def _language(self, training: Job) -> Job:
        flags = given(self.settings.language, leave_out=("text",))
        id = identity({"what": "language", "of": training.id, "text": self.material.held_out_id, "flags": flags})
        name = training.name.removesuffix("-training")
        folder = self.folder / "language" / f"{name}-{id}"
        texts = [word for path in self.material.held_out for word in ("--text", path)]
        words = ["evaluate", "language", training.output, *texts, "--output", folder, "--quiet"]
        words += flag_words("examination", flags)
        kind = f"language/{training.kind.split('/')[1]}"
        return Job(id, f"{name}-language", kind, _words(*words), folder / "language.json", (training.id,))


# --- Words of a command line ---


def given(section: Config, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """Setting → value, of those that are not as usual."""
    usual = type(section)().to_data()
    return {name: value for name, value in section.to_data().items() if value != usual[name] and name not in leave_out}


def flag_words(section: str, values: Mapping[str, Any]) -> list[str]:
    """Settings as flags.

    >>> flag_words("texts", {"repeats": 2, "kind": "trex"}), flag_words("", {"groups": ["seen", "added"], "limit": None})
    (['--texts.repeats', '2', '--texts.kind', 'trex'], ['--groups', 'seen', '--groups', 'added', '--limit', 'null'])
    """
    words = []
    for name, value in values.items():
        flag = f"--{section}.{name}" if section else f"--{name}"
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [flag, _text(each)]
    return words


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _words(*words: object) -> tuple[str, ...]:
    return tuple(map(str, words))


def unique(jobs: Iterable[Job]) -> list[Job]:
    """Each job once, where it stands first."""
    return list({job.id: job for job in jobs}.values())


def best_rate(trials: Iterable[tuple[float, float]]) -> float:
    """The learning rate with the lowest validation loss. Raises LichenError where none is a number.

    >>> best_rate([(1e-3, 2.1), (3e-3, 1.9), (1e-2, float("nan"))])
    0.003
    """
    found = [(loss, rate) for rate, loss in trials if not math.isnan(loss)]
    if not found:
        raise LichenError("no trial of a learning rate came to a loss; give lower learning_rates")
    return min(found)[1]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
