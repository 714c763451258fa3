"""``lichen prepare``: raw text in, a folder that a training reads out.

    lichen prepare RECIPE.yaml [MORE.yaml …] [--dotted.flag VALUE …]
    lichen prepare FILE_OR_FOLDER … --output OUT

An interrupted preparation is continued by the same command; a finished one is verified, and mended where it is damaged.

>>> sources, recipes = sort_words(["poems.jsonl", "text.yaml"])
>>> sources, recipes
(['poems.jsonl'], [PosixPath('text.yaml')])
>>> PrepareRecipe.from_data({"sources": [{"path": "poems.jsonl"}], "output": "out"}).tokenizer.vocab_size
6400
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from lichen.config.base import Config, load
from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.flags import existing_files, parse
from lichen.config.prepare import LinkingConfig, ShardConfig, SplitConfig, TokenizerConfig

SUMMARY = "clean, deduplicate, tokenise raw text into a folder a training reads"


class PrepareRecipe(Config):
    """Everything about one preparation."""

    sources: tuple[SourceConfig, ...] = ()
    """What to train on: files, folders, globs; each with its own format, field and weight."""
    output: Path
    """The folder to make."""
    validation: tuple[SourceConfig, ...] = ()
    """What to hold out, instead of a share of the sources. Documents that repeat it are dropped from the sources."""
    clean: CleanConfig = CleanConfig()
    """Normalisation, filters, duplicates."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Trained on the documents, or loaded."""
    split: SplitConfig = SplitConfig()
    """What is held out."""
    shards: ShardConfig = ShardConfig()
    """How the files are cut."""
    knowledge: LinkingConfig = LinkingConfig()
    """A bank of facts to link the text with."""
    seed: int = Field(default=0, ge=0)
    """Seed of the split and of the sample that the tokenizer is trained on."""
    workers: int | None = Field(default=None, ge=1)
    """Cores to use; null for all. Changes nothing but the time."""

    @model_validator(mode="after")
    def _sources_and_weights(self) -> Self:
        if not self.sources:
            raise ValueError("name at least one source: a file, a folder or a glob, or sources in a recipe")
        given = [source.weight is not None for source in self.sources]
        if any(given) and not all(given):
            missing = ", ".join(str(source.path) for source in self.sources if source.weight is None)
            raise ValueError(f"give a weight to every source or to none; without one: {missing}")
        return self


def run(argv: list[str]) -> int:
    """Prepare what ``argv`` names; the exit status."""
    arguments = parse(recipe_flags(argv), PrepareRecipe, "lichen prepare", _ALIASES)
    sources, recipes = sort_words(arguments.positionals)
    settings = dict(arguments.settings)
    if sources:
        settings["sources"] = [json.dumps({"path": source}) for source in sources]
    recipe = load(PrepareRecipe, existing_files(map(str, recipes), "recipe"), flags=settings)
    progress = Progress()
    try:
        outcome = _prepare(recipe, progress)
    except KeyboardInterrupt:
        progress.end()
        print(f"interrupted; the same command continues where {recipe.output}.partial stands", file=sys.stderr)
        return 130
    progress.end()
    for line in outcome.damaged:
        print(f"damaged, made again: {line}")
    if outcome.state == "whole":
        print(f"{recipe.output} is finished and whole: nothing to do")
    print(table(outcome.prepared.statistics))
    print(f"\nin {recipe.output}: statistics.json, plots/, rejects.jsonl")
    print(f"next: lichen train recipes/smoke.yaml --data.path {recipe.output}")
    return 0


def _prepare(recipe: PrepareRecipe, progress: "Progress") -> Any:
    from lichen.dataset.preparation import prepare
    from lichen.metrics.data_plots import draw_data_plots

    return prepare(
        recipe.sources,
        recipe.output,
        validation=recipe.validation,
        clean=recipe.clean,
        tokenizer=recipe.tokenizer,
        split=recipe.split,
        shards=recipe.shards,
        knowledge=recipe.knowledge,
        seed=recipe.seed,
        workers=recipe.workers,
        report=progress,
        draw=draw_data_plots,
    )


_ALIASES = {"out": "output", "vocab_size": "tokenizer.vocab_size", "num_workers": "workers"}


def recipe_flags(argv: Sequence[str]) -> list[str]:
    """``argv`` with ``--config FILE`` written as the positional ``FILE``.

    >>> recipe_flags(["--config", "a.yaml", "--seed", "1", "--config=b.yaml"])
    ['a.yaml', '--seed', '1', 'b.yaml']
    """
    return [word.removeprefix("--config=") for word in argv if word != "--config"]


def sort_words(words: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Sources and recipes among the positionals: a recipe ends in .yaml or .yml."""
    recipes = [Path(word) for word in words if word.endswith((".yaml", ".yml"))]
    return [word for word in words if not word.endswith((".yaml", ".yml"))], recipes


class Progress:
    """Says on stderr how far a stage is and how fast: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage = ""
        self._started = self._shown = 0.0
        self._first = 0
        self._line = self._written = ""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self.end()
            self._stage, self._started, self._first, self._shown = stage, now, done, 0.0
        self._line = progress_line(stage, done, total, (done - self._first) / max(now - self._started, 1e-3))
        if now - self._shown < (0.2 if self._terminal else 5.0):
            return
        self._shown = now
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{self._line}")
        elif done > self._first:
            sys.stderr.write(f"{self._line}\n")
            self._written = self._line
        sys.stderr.flush()

    def end(self) -> None:
        """Finish the line of the stage that is over."""
        if self._stage and self._line != self._written:
            sys.stderr.write(f"\r\x1b[K{self._line}\n" if self._terminal else f"{self._line}\n")
            sys.stderr.flush()
        self._stage = ""


def progress_line(stage: str, done: int, total: int | None, rate: float) -> str:
    """One line about a stage.

    >>> progress_line("tokenise", 500, 2000, 1234.0)
    'tokenise           [#####---------------] 500 / 2,000 documents, 1,234/s'
    >>> progress_line("fingerprint", 0, None, 0.0)
    'fingerprint'
    """
    if total is None:
        counted = f" {done:,} documents, {rate:,.0f}/s" if done else ""
        return f"{stage:<18}{counted}".rstrip()
    filled = 20 * done // max(total, 1)
    bar = "#" * filled + "-" * (20 - filled)
    return f"{stage:<18} [{bar}] {done:,} / {total:,} documents, {rate:,.0f}/s"


def table(statistics: Mapping[str, Any]) -> str:
    """Counts per source and split, drops by reason, and how well the tokenizer fits."""
    rows: list[tuple[str, ...]] = [("source", "split", "documents", "tokens", "bytes", "bytes/token")]
    named = {**statistics["sources"], **({"all": statistics["splits"]} if len(statistics["sources"]) > 1 else {})}
    for name, splits in named.items():
        for split, sums in splits.items():
            if sums["documents"]:
                numbers = (f"{sums[key]:,}" for key in ("documents", "tokens", "bytes"))
                rows.append((name, split, *numbers, f"{sums.get('bytes_per_token', 0):.2f}"))
    cleaning = statistics["cleaning"]
    drops = [(name, count) for name, count in sorted(cleaning["dropped"].items(), key=lambda item: -item[1]) if count]
    lines = _columns(rows)
    lines.append(f"\nread {cleaning['read']:,} = kept {cleaning['kept']:,} + dropped {sum(n for _, n in drops):,}")
    lines += _columns([(f"  {name}", f"{count:,}") for name, count in drops])
    lines += [
        f"left out: {name} ({source['error']})" for name, source in cleaning["sources"].items() if source["error"]
    ]
    vocabulary = statistics["vocabulary"]
    lines.append(f"vocabulary {vocabulary['size']:,}, used {vocabulary['used']:,}")
    if links := statistics.get("knowledge"):
        train = links["train"]
        lines.append(
            f"links {train['links']:,} ({train['share_of_tokens']:.1%} of the training tokens), "
            f"to {train['linked_entries']:,} of the bank's {links['entries']:,} facts"
        )
    if not statistics["splits"]["validation"]["documents"]:
        lines.append(
            "no document is held out for validation: raise split.validation_fraction, or name validation sources"
        )
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = 2 if len(widths) > 2 else 1  # leading columns of words; numbers stand right
    return [
        "  ".join(
            cell.ljust(w) if i < text else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


if __name__ == "__main__":
    from lichen.scripts.command_line import run_module

    run_module(run, __file__)
