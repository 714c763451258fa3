"""From sources to a bank, with an account of every row.

Beside the facts the folder holds ``rejects.jsonl`` (every bad row with file, line and cause) and ``build.json`` (settings, files
with their SHA-256, what became of the rows). Where too many rows are bad nothing is made, but they are listed beside the place.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = (folder / "facts.txt").write_text("Moss is green.\\nRain is wet.\\nMoss is green.\\n")
>>> built = build_bank([folder / "facts.txt"], folder / "bank", BankConfig())
>>> len(built.bank), built.report.duplicates, sorted(path.name for path in built.bank.folder.iterdir())
(2, {'same_text': 1}, ['bank.json', 'build.json', 'facts.jsonl', 'history.jsonl', 'rejects.jsonl'])
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.config.errors import LichenError, UsageError
from lichen.config.knowledge import BankConfig
from lichen.core.folders import make_folder, write_file
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.fact_collection import CollectionReport, Collector, Report
from lichen.dataset.records import Reject
from lichen.dataset.sources import SourceError
from lichen.dataset.tokenizer import Tokenizer

REJECTS, BUILD = "rejects.jsonl", "build.json"
NAMED = 5  # ids of entries whose text is cut


@dataclass(frozen=True)
class Built:
    """A new bank, and what it was made from."""

    bank: Bank
    report: CollectionReport
    cut: dict[str, Any] | None
    """Entries and keys with more tokens than fit, and the first ids; None where no tokenizer was given to count with."""


def build_bank(sources: Sequence[Path], output: Path, config: BankConfig, report: Report = lambda *_: None) -> Built:
    """Read ``sources`` in order and write a bank of what is new in each.

    Raises:
        UsageError: a source does not exist or is of no known kind; ``output`` is taken.
        LichenError: a source is damaged or has too many bad rows; no fact is left.
    """
    if not sources:
        raise UsageError("no source of facts is given: name a file, a folder or a glob")
    if output.exists():
        raise UsageError(f"{output}: exists already; choose another output, or remove it")
    tokenizer = None if config.tokenizer is None else Tokenizer.load(config.tokenizer)
    collector = _collect(sources, output, config, report)
    counts = collector.report()
    settings = {
        "knowledge_length": config.knowledge_length,
        "key_length": config.key_length,
        "tokenizer": str(config.tokenizer.absolute()) if config.tokenizer else None,
    }
    about = {"settings": config.to_data(), "files": collector.fingerprints, "report": counts.to_data()}
    more = {REJECTS: lines_of_rejects(collector.rejects), BUILD: json.dumps(about, ensure_ascii=False, indent=1) + "\n"}
    bank = write_bank(output, collector.facts, collector.relations, settings, more)
    return Built(bank, counts, None if tokenizer is None else _cut(bank, tokenizer, config))


def _collect(sources: Sequence[Path], output: Path, config: BankConfig, report: Report) -> Collector:
    collector = Collector(config, report)
    try:
        for path in sources:
            collector.add(path)
    except SourceError as error:
        if not collector.rejects:
            raise
        place = output.with_name(f"{output.name}.{REJECTS}")
        make_folder(place.parent)
        write_file(place, lines_of_rejects(collector.rejects))
        raise SourceError(f"{error}; all are in {place}", error.source) from None
    if not collector.facts:
        raise LichenError(f"{', '.join(map(str, sources))}: no fact is left; give a source with facts")
    return collector


def lines_of_rejects(rejects: Sequence[Reject]) -> str:
    """One JSON object per bad row."""
    return "".join(json.dumps(reject.to_data(), ensure_ascii=False) + "\n" for reject in rejects)


def _cut(bank: Bank, tokenizer: Tokenizer, config: BankConfig) -> dict[str, Any]:
    arrays = BankArrays.of_bank(bank, tokenizer, config.knowledge_length, config.key_length)
    first = [bank.facts[number].id for number in arrays.cut_entries.nonzero()[0][:NAMED].tolist()]
    return {"entries": arrays.truncated_entries, "keys": arrays.truncated_keys, "first": first}


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
