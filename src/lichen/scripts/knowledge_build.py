"""``lichen knowledge build SOURCE… --output BANK``: make a bank of facts.

    lichen knowledge build facts.jsonl sentences.txt --output bank --tokenizer runs/NAME
    lichen knowledge build RECIPE.yaml

>>> BuildCommand.from_data({"sources": ["facts.jsonl"], "output": "bank"}).bank.knowledge_length
32
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from lichen.config.base import Config, load
from lichen.config.flags import existing_files, parse
from lichen.config.knowledge import BankConfig
from lichen.scripts.knowledge import say, tokenizer_folder
from lichen.scripts.prepare import Progress, recipe_flags, sort_words

if TYPE_CHECKING:
    from lichen.dataset.bank_building import Built

SHOWN = 5  # bad rows printed; all are in the file


class BuildCommand(Config):
    """Make a bank of facts: lichen knowledge build SOURCE… --output BANK. A source is a file, a folder or a glob."""

    sources: tuple[Path, ...] = ()
    """What to read, in this order: facts, triples, T-REx, sentences. Of what is said twice the first is kept."""
    output: Path
    """The folder to make."""
    bank: BankConfig = BankConfig()
    """How facts become a bank. Short: --length."""
    json_output: bool = False
    """Print the counts as JSON. Short: --json."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.sources:
            raise ValueError("name at least one source: a file, a folder or a glob")
        return self


def build(argv: list[str]) -> int:
    """Make a bank; 0."""
    aliases = {"length": "bank.knowledge_length", "out": "output", "json": "json_output"}
    arguments = parse(recipe_flags(argv), BuildCommand, "lichen knowledge build", aliases)
    sources, recipes = sort_words(arguments.positionals)
    settings = dict(arguments.settings)
    if sources:
        settings["sources"] = sources
    if isinstance(given := settings.get("bank.tokenizer"), str):
        settings["bank.tokenizer"] = str(tokenizer_folder(given))
    command = load(BuildCommand, existing_files(map(str, recipes), "recipe"), flags=settings)

    from lichen.dataset.bank_building import build_bank

    progress = Progress()
    try:
        built = build_bank(command.sources, command.output, command.bank, progress)
    finally:
        progress.end()
    if command.json_output:
        data = {"bank": str(command.output), "hash": built.bank.hash, "cut": built.cut, **built.report.to_data()}
        print(json.dumps(data, ensure_ascii=False, indent=1))
        return 0
    say(table(built, command.bank))
    return 0


def table(built: "Built", config: BankConfig) -> str:
    """What became of every row, and what was peculiar."""
    from lichen.dataset.rejects import in_words

    report, bank = built.report, built.bank
    twice, bad = sum(report.duplicates.values()), sum(report.rejects.values())
    lines = [f"read {report.read:,} = kept {report.kept:,} + duplicates {twice:,} + rejected {bad:,}"]
    if len(report.sources) > 1:
        for name, counts in report.sources.items():
            lines.append(f"  {name}: read {counts['read']:,}, kept {counts['kept']:,}")
    for name, counts in (("duplicates", report.duplicates), ("rejected", report.rejects)):
        if counts:
            lines.append(f"  {name}: {in_words(counts)}")
    lines += [f"  left out, name it to read it: {name}" for name in report.left_out]
    if report.ignored_fields:
        lines.append(f"  fields without a meaning here: {in_words(report.ignored_fields)}")
    if report.unlabelled:
        lines.append(f"  relations without a label (name them in relations.json): {in_words(report.unlabelled)}")
    if report.respaced:
        lines.append(f"  white space made single spaces in {report.respaced:,} facts")
    if report.object_not_in_text:
        lines.append(f"  the text does not hold the object in {report.object_not_in_text:,} facts")
    lines += _cut(built, config)
    lines.append(f"{bank.folder}: {len(bank):,} facts, {len(bank.relations)} relations, hash {bank.hash[:12]}")
    lines.append(f"next: lichen knowledge stats {bank.folder}")
    return "\n".join(lines)


def _cut(built: "Built", config: BankConfig) -> list[str]:
    if built.cut is None:
        return ["  tokens were not counted: give --tokenizer FOLDER to know what is cut"]
    cut, length, key = built.cut, config.knowledge_length, config.key_length
    first = f" (first: {', '.join(cut['first'])})" if cut["first"] else ""
    return [
        f"  cut: {cut['entries']:,} texts of more than {length} tokens{first}, {cut['keys']:,} keys of more than {key}"
    ]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
