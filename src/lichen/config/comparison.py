"""What kinds of models are compared on facts: how much they are told, what each is made of, how each learns and is examined.

An arm is a model, a text and a way of asking. One arm is the reference; every other one is made as large as it, in parameters or
in operations per token, so that no budget differs. Steps, batch, length of rows and the learning rates tried are the same for
all arms.

>>> plain = {"sizes": [{"told": 100}], "arms": {"knowledge": {"equal": None}, "dense": {}}, "against": ["dense"]}
>>> settings = ComparisonConfig.from_data(plain)
>>> settings.seeds_of(settings.sizes[0], "dense"), settings.arms["dense"].equal
(1, 'flops')
>>> ComparisonConfig.from_data({**plain, "only": ["dens"]})
Traceback (most recent call last):
    ...
lichen.config.errors.ConfigError: 1 problem in the configuration:
  the recipe = ...: only: there is no arm 'dens' (nearest: dense; available: dense, knowledge)
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lichen.config.base import Config
from lichen.config.data import LinksConfig
from lichen.config.errors import nearest
from lichen.config.evaluation import KnowledgeEvaluation, LanguageEvaluation
from lichen.config.feed_forward import FeedForwardConfig
from lichen.config.model import ModelConfig
from lichen.config.prepare import FactTextsConfig
from lichen.config.training import OptimConfig, ScheduleConfig

TextKind = Literal["seen", "bank", "quoted"]
"""Text that tells the facts that count as seen; all that the bank holds; or those seen, behind entries of the bank."""
LibraryKind = Literal["topics", "docstrings", "sources"]
PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]

DECIDED = {
    "texts": ("limit", "told", "quoted"),
    "examination": ("facts", "collisions", "limit", "prompting", "prompted_entries"),
}
"""Settings of a section that sizes and arms decide."""


class SizeConfig(Config):
    """One number of examples."""

    told: int = Field(ge=1)
    """Facts told in the training text at most; those in the bank only and those added later are reduced in proportion."""
    seeds: int | None = Field(default=None, ge=1)
    """Trainings of every arm, with other seeds; unset, those of the arm."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of every training; unset, those of the comparison."""
    repeats: int | None = Field(default=None, ge=1)
    """How often each fact is told; unset, as texts.repeats says."""


class ArmConfig(Config):
    """One kind of model, the text it learns from and the way it is asked."""

    feed_forward: FeedForwardConfig | None = None
    """The feed-forward part of all layers; unset, the model's."""
    feed_forward_by_layer: dict[str, FeedForwardConfig] = {}
    """Other feed-forward parts for single layers or ranges, as in a training's recipe."""
    equal: Literal["flops", "parameters"] | None = "flops"
    """In what it is made equal to the reference: floating-point operations per token, searching and reading included, or
    trainable parameters. None leaves it as it is; the reference is left in any case."""
    text: TextKind = "seen"
    """What its text tells: the facts that count as seen; all facts of the bank; or those seen, with entries quoted before."""
    prompting: Literal["none", "tfidf", "oracle"] = "none"
    """Entries before the questions: none, the nearest by TF-IDF, or the right one among its neighbours."""
    seeds: int = Field(default=1, ge=1)
    """Trainings with other seeds, at sizes that do not name a number of their own."""


class ComparisonConfig(Config):
    """Everything about one comparison."""

    sizes: tuple[SizeConfig, ...] = ()
    """Numbers of examples. Tokenizer and learning rates are found on the first."""
    arms: dict[str, ArmConfig] = {}
    """By name, in the order of the table."""
    only: tuple[str, ...] = ()
    """Train and examine these arms only."""
    reference: str = "knowledge"
    """The arm that the others are made equal to, and whose lead is tested."""
    against: tuple[str, ...] = ()
    """The arms that the reference is compared with in pairs of facts and seeds."""

    made: int | None = Field(default=None, ge=1)
    """With FACTS made: how many facts to make; unset, enough for the largest size."""
    general: tuple[str, ...] = ("standard-library",)
    """Files, folders or globs of general text, or the word standard-library for Python's own (its held-out files left out)."""
    library: tuple[LibraryKind, ...] = ("topics", "docstrings", "sources")
    """Which parts of Python's own text are used."""
    texts: FactTextsConfig = FactTextsConfig()
    """How text is made; what is told, how many facts and whether entries are quoted is the business of sizes and arms."""
    quoted: int = Field(default=4, ge=1)
    """Entries that stand before a sentence, for arms whose text is quoted."""
    vocab_size: int = Field(default=4096, ge=320)
    """Tokens of the tokenizer, which all arms share."""
    validation_fraction: float = Field(default=0.02, gt=0, lt=1)
    """Share of the documents held out of training, on which learning rates are judged."""
    validation_batches: int = Field(default=16, ge=1)
    """Batches of them that are read."""

    model: ModelConfig = ModelConfig()
    """The network, but for what an arm says."""
    optim: OptimConfig = OptimConfig()
    """How all arms learn; the learning rate is one of learning_rates."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate goes."""
    links: LinksConfig = LinksConfig()
    """How facts are varied for arms that read them."""
    aux_weights: dict[str, float] = {}
    """Factors of auxiliary losses, as train.aux_weights: of experts' balance, of what teaches a memory's queries."""
    steps: int = Field(default=300, ge=1)
    """Steps of every training."""
    batch_size: int = Field(default=16, ge=1)
    """Rows of a step."""
    sequence_length: int = Field(default=128, ge=2)
    """Tokens of a row."""
    learning_rates: tuple[PositiveFloat, ...] = Field(default=(6e-3,), min_length=1)
    """Every arm tries each of them once, at the first size; the one with the lowest validation loss is taken."""
    trial_steps: int | None = Field(default=None, ge=1)
    """Steps of a trial; unset, a quarter of a training's."""

    examination: KnowledgeEvaluation = KnowledgeEvaluation()
    """What is asked; every arm and seed gets the same questions."""
    language: LanguageEvaluation = LanguageEvaluation()
    """How language is examined, on general text without facts; unless language.text names files, the held-out part of Python's
    own."""
    examine_language: bool = True
    """Examine language as well."""

    jobs: int = Field(default=2, ge=1)
    """Processes at once; the cores are shared out among them."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        missing = [f"{name}: must be given" for name in ("sizes", "arms") if not getattr(self, name)]
        problems = missing or [*self._names(), *self._arms(), *self._decided()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _names(self) -> list[str]:
        named = {"reference": (self.reference,), "against": self.against, "only": self.only}
        unknown = [(where, name) for where, names in named.items() for name in names if name not in self.arms]
        problems = [f"{where}: there is no arm {name!r}{nearest(name, self.arms)}" for where, name in unknown]
        if self.reference in self.against:
            problems.append(f"against: {self.reference!r} is the reference itself (leave it out)")
        told = [size.told for size in self.sizes]
        problems += [
            f"sizes: {n} told facts stand there twice (leave one out)" for n in sorted(set(told)) if told.count(n) > 1
        ]
        return problems

    def _arms(self) -> list[str]:
        problems = []
        for name in self.arms:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}", name):
                problems.append(f"arms: {name!r} is no name (use up to 40 of A-Z a-z 0-9 _ -)")
            try:
                self.model_of(name)
            except ValueError as error:
                problems.append(f"arms.{name}: {_first_words(error)}")
        return problems

    def _decided(self) -> list[str]:
        problems = []
        for section, names in DECIDED.items():
            found = getattr(self, section)
            given = [name for name in names if getattr(found, name) != type(found).model_fields[name].default]
            problems += [f"{section}.{name}: sizes and arms decide it (leave it out)" for name in given]
        return problems

    def model_of(self, arm: str) -> ModelConfig:
        """The network of ``arm``, not yet made equal to another."""
        chosen = self.arms[arm]
        whole = self.model.feed_forward if chosen.feed_forward is None else chosen.feed_forward
        by_layer = chosen.feed_forward_by_layer or self.model.feed_forward_by_layer
        return ModelConfig.model_validate(
            {**dict(self.model), "feed_forward": whole, "feed_forward_by_layer": by_layer}
        )

    def seeds_of(self, size: SizeConfig, arm: str) -> int:
        """How many trainings ``arm`` has at ``size``."""
        return size.seeds or self.arms[arm].seeds

    @property
    def chosen(self) -> tuple[str, ...]:
        """The arms to train, in the order of the table."""
        return tuple(name for name in self.arms if not self.only or name in self.only)


def _first_words(error: ValueError) -> str:
    """What pydantic, or we, have to say, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if "Value error, " in line]
    text = lines[0].removeprefix("Value error, ") if lines else str(error)
    return text.split(" [type=", 1)[0]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
