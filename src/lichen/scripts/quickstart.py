"""``lichen quickstart``: the whole road on this machine, offline: text, two models, curves, a report, first words.

Nothing here trains or draws by itself: each step is a verb anyone can call, with a recipe from ``recipes/quickstart``, and
is printed before it runs. The text is Python's own (``dataset/standard_library.py``), so every machine has it. Later
chapters add to it; ``--chapters`` selects.

>>> print(table([Outcome("dense", 2_200_000, 10_000, 2.0, 1.5)], {"gzip": 2.5}))
model  parameters  tokens  seconds  tokens/s  bits per byte
dense   2,200,000  10,000        2     5,000          1.500
gzip                                                  2.500
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import UsageError
from lichen.scripts.command_line import run_module
from lichen.scripts.narration import call, said_by, say
from lichen.scripts.quickstart_facts import facts_chapter

MODELS = ("dense", "none")
PROMPTS = ("Return a list of", "The function raises", "class Example:")
PROSE = ("topics", "docstrings")
"""The kinds of text that are held out and compared on; sources only serve as further reading."""


class QuickstartCommand(Config):
    """The whole road on this machine, offline, in a few minutes."""

    output: Path | None = None
    """Folder for everything; quickstart/DATE-TIME unless given."""
    chapters: tuple[Literal["text", "facts"], ...] = ("text", "facts")
    """Which chapters to go through."""
    recipes: Path | None = None
    """Folder of the quickstart's recipes; those of this clone unless given."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of each training; the recipes' unless given."""
    held_out: float = Field(default=0.025, gt=0, lt=1)
    """Share of the files whose text is held out."""
    library: Path | None = None
    """Folder of Python files to read; the standard library's unless given."""


def run(argv: list[str]) -> int:
    """Go through the chapters; exit status 0 if all they promise holds."""
    arguments = flags.parse(argv, QuickstartCommand, "lichen quickstart")
    if arguments.positionals:
        raise UsageError(f"lichen quickstart takes no {arguments.positionals[0]!r}; --output FOLDER says where to")
    command = load(QuickstartCommand, flags=arguments.settings)
    output = command.output or Path("quickstart") / time.strftime("%m%d-%H%M%S")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output}: is not empty; name another --output")
    recipes = command.recipes or recipes_folder()
    started = time.perf_counter()
    chapters = {"text": text_chapter, "facts": facts_chapter}
    held = [chapters[name](command, output, recipes) for name in dict.fromkeys(command.chapters)]
    say(f"Done in {time.perf_counter() - started:.0f} s; everything lies in {output}/")
    return 0 if all(held) or command.steps else 1  # a shortened training promises nothing


def recipes_folder() -> Path:
    """``recipes/quickstart`` of the clone this package is installed from. Raises UsageError where there is none."""
    folder = Path(__file__).resolve().parents[3] / "recipes" / "quickstart"
    if not folder.is_dir():
        raise UsageError(
            "the quickstart's recipes come with a clone of the repository: run it there, or name --recipes FOLDER"
        )
    return folder


@dataclass(frozen=True)
class Outcome:
    """What a training came to."""

    name: str
    parameters: int
    tokens: int
    seconds: float
    bits_per_byte: float


def text_chapter(command: QuickstartCommand, output: Path, recipes: Path) -> bool:
    """Prepare Python's own text, train two models of equal size on equally many tokens, compare them, let one speak.

    Whether the dense model beats both compressors by a fifth.
    """
    from lichen.dataset import standard_library

    say("1. Text: what Python's standard library says of itself")
    collected = standard_library.collect(output / "raw", command.held_out, command.library)
    print(f"{collected.characters:,} characters to learn from; some files are held out, with all their kinds of text")
    recipe = recipes / "prepare.yaml"
    call("prepare", recipe, "--output", output / "data", *_sources(recipe, output))
    train, validation = _texts(output / "data", "train"), _texts(output / "data", "validation")
    shared = standard_library.overlap([train], [validation])
    print(
        f"held out: {len(validation):,} characters; {shared:.1%} of their lines stand word for word in the training prose"
    )

    say("2. Two models of equal size: with a feed-forward part, and with attention alone")
    steps = ["--train.steps", command.steps] if command.steps else []
    for name in MODELS:
        call("train", recipes / f"{name}.yaml", "--data.path", output / "data", "--run.root", output / "runs", *steps)
    outcomes = [read_outcome(output / "runs" / name) for name in MODELS]
    yardsticks = _compress(train, validation)

    say("3. What they learnt")
    curves = output / "curves.png"
    call("plot", *(output / "runs" / name for name in MODELS), "--output", curves)
    print(table(outcomes, yardsticks))
    best = min(outcomes, key=lambda outcome: outcome.bits_per_byte)
    samples = _first_words(output / "runs" / best.name)
    _report(output, outcomes, yardsticks, shared, samples)
    return _verdict(outcomes, yardsticks)


def _texts(data: Path, split: Literal["train", "validation"]) -> str:
    """The prose of one side as the models see it: what cleaning kept, decoded."""
    from lichen.dataset.shards import Prepared
    from lichen.dataset.tokenizer import Tokenizer

    prepared = Prepared.open(data, verify=False)
    tokenizer = Tokenizer.load(prepared.tokenizer_folder)
    sides = [documents for documents in prepared.documents(split) if documents.name.endswith(PROSE)]
    texts = (tokenizer.decode(side.tokens(number).tolist()) for side in sides for number in range(len(side)))
    return "\n\n".join(texts)


def _sources(recipe: Path, output: Path) -> list[str]:
    """The recipe's sources, which lie below ``quickstart/``, as they lie below ``output``."""
    from lichen.scripts.prepare import PrepareRecipe

    prepared = load(PrepareRecipe, [recipe], environment={})
    words = []
    for flag, sources in (("--sources", prepared.sources), ("--validation", prepared.validation)):
        for source in sources:
            path = output / source.path.relative_to("quickstart")
            data = source.model_dump(mode="json", exclude_defaults=True) | {"path": str(path)}
            words += [flag, json.dumps(data, ensure_ascii=False)]
    return words


def _compress(train: str, validation: str) -> dict[str, float]:
    from lichen.metrics.compression import compressors

    return compressors(validation.encode(), given=train.encode())


def read_outcome(run: Path) -> Outcome:
    """From a finished run's own records."""
    from lichen.config.model import ModelConfig
    from lichen.core.runs import Run
    from lichen.metrics import records
    from lichen.model.size import count
    from lichen.model.weights import from_hf_config

    checkpoint = Run(run).latest()
    config: ModelConfig = from_hf_config(json.loads((checkpoint / "config.json").read_text(encoding="utf-8")))
    rows = records.read(run / "metrics.jsonl")
    train = [row for row in rows if row["type"] == "train"]
    validation = [row for row in rows if row["type"] == "validation"]
    before = [0, *(row["tokens"] for row in train)]
    seconds = sum((row["tokens"] - seen) / row["tokens_per_second"] for row, seen in zip(train, before, strict=False))
    return Outcome(
        run.name, count(config).total, int(train[-1]["tokens"]), seconds, float(validation[-1]["bits_per_byte"])
    )


def table(outcomes: list[Outcome], yardsticks: dict[str, float]) -> str:
    """The comparison as text."""
    names = ["model", "parameters", "tokens", "seconds", "tokens/s", "bits per byte"]
    formats = dict(zip(names, ("{}", "{:,}", "{:,}", "{:.0f}", "{:,.0f}", "{:.3f}"), strict=True))
    lines = [
        {name: formats[name].format(row[name]) if name in row else "" for name in names}
        for row in rows(outcomes, yardsticks)
    ]
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}
    cells = [names, *([line[name] for name in names] for line in lines)]
    return "\n".join(
        "  ".join(
            cell.rjust(widths[name]) if name != "model" else cell.ljust(widths[name])
            for name, cell in zip(names, row, strict=True)
        )
        for row in cells
    )


def rows(outcomes: list[Outcome], yardsticks: dict[str, float]) -> list[dict[str, Any]]:
    """The comparison as rows of named values; a compressor has a score only."""
    models = [
        {
            "model": one.name,
            "parameters": one.parameters,
            "tokens": one.tokens,
            "seconds": one.seconds,
            "tokens/s": one.tokens / one.seconds,
            "bits per byte": one.bits_per_byte,
        }
        for one in outcomes
    ]
    return models + [{"model": name, "bits per byte": score} for name, score in yardsticks.items()]


def _first_words(run: Path) -> list[tuple[str, str, str]]:
    """Three prompts, continued by ``lichen generate``; as (label, prompt, continuation)."""
    say(f"4. First words of {run.name}")
    samples = []
    for prompt in PROMPTS:
        words = ["--prompt", prompt, "--max-new-tokens", 48, "--temperature", 0.7, "--top-p", 0.9, "--seed", 1]
        samples.append((run.name, prompt, said_by(run, words).removeprefix(prompt)))
    return samples


def _report(
    output: Path,
    outcomes: list[Outcome],
    yardsticks: dict[str, float],
    shared: float,
    samples: list[tuple[str, str, str]],
) -> None:
    from lichen.metrics import report

    report.write_report(
        output / "report.html",
        "Lichen quickstart",
        report.Table(
            "What they learnt",
            rows(outcomes, yardsticks),
            note=f"{shared:.1%} of the held-out lines stand in the training text",
        ),
        report.Picture("Curves", output / "curves.png"),
        report.Samples("First words", samples),
        subtitle="two models of equal size on equally many tokens of Python's own documentation",
    )
    print(f"\nreport: {output / 'report.html'}    curves: {output / 'curves.png'}")


def _verdict(outcomes: list[Outcome], yardsticks: dict[str, float]) -> bool:
    """Say whether the dense model beats both compressors by a fifth, with the numbers."""
    dense = next(outcome for outcome in outcomes if outcome.name == "dense")
    goal = 0.8 * min(yardsticks["gzip"], yardsticks["xz"])
    held = dense.bits_per_byte <= goal
    words = "beats" if held else "does NOT beat"
    print(f"dense {words} gzip and xz by a fifth: {dense.bits_per_byte:.3f} against {goal:.3f} bits per byte")
    return held


if __name__ == "__main__":
    run_module(run, __file__)
