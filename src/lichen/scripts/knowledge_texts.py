"""``lichen knowledge texts BANK [RECIPE.yaml …] --output DIR``: running text that tells facts, and the bank that goes with it.

    lichen knowledge build data/trex --output bank
    lichen knowledge texts bank recipes/knowledge/texts.yaml --output texts
    lichen prepare texts/texts.jsonl --knowledge.bank texts/bank --output data

>>> TextsCommand.from_data({"output": "texts"}).texts.kind
'combined'
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import UsageError
from lichen.config.prepare import FactTextsConfig
from lichen.scripts.knowledge import say, target
from lichen.scripts.prepare import recipe_flags, sort_words

if TYPE_CHECKING:
    from lichen.dataset.facts import Fact

STANDARD_LIBRARY = "standard-library"


class TextsCommand(Config):
    """Text for experiments: lichen knowledge texts BANK [RECIPE.yaml …] --general SOURCE --output DIR."""

    general: tuple[str, ...] = ()
    """Files, folders or globs of general text, or the word standard-library for Python's own (its held-out files left out)."""
    reserved: Path | None = None
    """A bank, or a file of facts, that is added later: what contradicts it is set aside, nothing is invented about its
    subjects."""
    output: Path
    """The folder to make."""
    tokenizer: str | None = None
    """Folder or run whose tokenizer measures the general text's share; unless given, characters are counted."""
    texts: FactTextsConfig = FactTextsConfig()
    """What is told, how often, among how much general text."""
    json_output: bool = False
    """Print the counts as JSON. Short: --json."""


def texts(argv: list[str]) -> int:
    """Write the texts; 0."""
    aliases = {"out": "output", "json": "json_output"}
    arguments = flags.parse(recipe_flags(argv), TextsCommand, "lichen knowledge texts", aliases)
    words, named = sort_words(arguments.positionals)
    recipes = flags.existing_files(map(str, named), "recipe")
    command = load(TextsCommand, recipes, flags=arguments.settings, environment={})
    folder = target(words, "texts", "[RECIPE.yaml]")

    from lichen.dataset.bank import Bank
    from lichen.dataset.fact_texts import write_fact_texts
    from lichen.dataset.tokenizer import Tokenizer
    from lichen.scripts.knowledge import tokenizer_folder

    bank = Bank.open(folder)
    measure = len
    if command.tokenizer is not None:
        tokenizer = Tokenizer.load(tokenizer_folder(command.tokenizer))
        measure = lambda text: len(tokenizer.encode(text))  # noqa: E731
    general = [] if command.texts.kind == "trex" else list(general_texts(command.general))
    counts = write_fact_texts(
        command.output,
        bank.facts,
        bank.relations,
        general,
        command.texts,
        reserved=() if command.reserved is None else facts_of(command.reserved),
        measure=measure,
    )
    if command.json_output:
        print(json.dumps(counts, ensure_ascii=False, indent=1))
    else:
        say("\n".join(f"{name}: {value}" for name, value in counts.items()))
        say(f"next: lichen prepare {command.output}/texts.jsonl --knowledge.bank {command.output}/bank --output DATA")
    return 0


def general_texts(names: tuple[str, ...]) -> Iterator[str]:
    """The documents of every source. Raises UsageError where none is named."""
    from lichen.config.cleaning import CleanConfig, SourceConfig
    from lichen.dataset import standard_library
    from lichen.dataset.records import Record, read_records
    from lichen.dataset.sources import open_sources

    if not names:
        raise UsageError(f"--general: name files of general text, or {STANDARD_LIBRARY}")
    for name in names:
        if name == STANDARD_LIBRARY:
            found = standard_library.documents()
            yield from (document.text for document in found if not standard_library.held_out(document.name, HELD_OUT))
        else:
            sources = open_sources([SourceConfig(path=Path(name))])
            yield from (item.text for item in read_records(sources, CleanConfig()) if isinstance(item, Record))


HELD_OUT = 0.03
"""The share of Python's library that the quickstart validates on."""


def facts_of(path: Path) -> "list[Fact]":
    """The facts of a bank, or of a file that makes one."""
    import tempfile

    from lichen.config.knowledge import BankConfig
    from lichen.dataset.bank import Bank
    from lichen.dataset.bank_building import build_bank

    if path.is_dir() and (path / "bank.json").is_file():
        return Bank.open(path).facts
    with tempfile.TemporaryDirectory() as folder:
        return build_bank([path], Path(folder) / "bank", BankConfig()).bank.facts


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
