"""``lichen knowledge search | show | stats``: look into a bank.

>>> bar(3, 12)
'#####'
"""

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.scripts.knowledge import columns, say, target, tokenizer_for
from lichen.scripts.knowledge_edits import PARTS, changed

if TYPE_CHECKING:
    from lichen.dataset.bank import Bank
    from lichen.dataset.bank_arrays import BankArrays
    from lichen.dataset.bank_history import Entry

OTHERS = 12  # further facts of the same subject
BAR = 20  # characters of the longest bar


class SearchCommand(Config):
    """Find facts by their words: lichen knowledge search BANK "born in London"."""

    top: int = Field(default=10, ge=1)
    """How many to show."""
    json_output: bool = False
    """Print one JSON object per fact: entry, score and its fields. Short: --json."""


class ShowCommand(Config):
    """One fact: lichen knowledge show BANK ID (or an entry number)."""

    tokenizer: str | None = None
    """Folder or run whose tokenizer counts the tokens; unless given, that of the bank's run, or the one it was built with."""
    json_output: bool = False
    """Print JSON. Short: --json."""


class StatsCommand(Config):
    """What is in a bank: lichen knowledge stats BANK."""

    tokenizer: str | None = None
    """Folder or run whose tokenizer counts the tokens; unless given, that of the bank's run, or the one it was built with."""
    length: int | None = Field(default=None, gt=1, le=255)
    """Tokens of an entry; unless given, what the bank was built for."""
    top: int = Field(default=5, ge=0)
    """How many contradictions to name."""
    json_output: bool = False
    """Print JSON. Short: --json."""


_JSON = {"json": "json_output"}


def search(argv: list[str]) -> int:
    """Print the nearest facts; 0."""
    arguments = flags.parse(argv, SearchCommand, "lichen knowledge search", _JSON)
    command = load(SearchCommand, flags=arguments.settings, environment={})
    folder = target(arguments.positionals, "search", '"WORDS"', least=1, most=100)

    from lichen.dataset.bank import Bank
    from lichen.dataset.bank_search import TfIdf

    bank = Bank.open(folder)
    index = TfIdf(f"{fact.text} {fact.relation}" for fact in bank.facts)
    found = index.top(" ".join(arguments.positionals[1:]), command.top)
    if command.json_output:
        for number, score in found:
            print(json.dumps({"entry": number, "score": score, **bank.facts[number].to_data()}, ensure_ascii=False))
        return 0
    rows = [(number, f"{score:.3f}", bank.facts[number].id, bank.facts[number].text) for number, score in found]
    say(columns([("entry", "score", "id", "text"), *rows], right=2) if rows else "no fact holds any of these words")
    return 0


def show(argv: list[str]) -> int:
    """Print one fact; 0."""
    arguments = flags.parse(argv, ShowCommand, "lichen knowledge show", _JSON)
    command = load(ShowCommand, flags=arguments.settings, environment={})
    folder = target(arguments.positionals, "show", "ID", least=1)

    from lichen.dataset.bank import Bank

    bank = Bank.open(folder)
    number = bank.find(arguments.positionals[1])
    history = _history_of(bank, bank.facts[number].id)
    if command.json_output:
        changes = [{"version": e.version, "action": e.action, "time": e.time} for e in history]
        data = {"entry": number, **bank.facts[number].to_data(), "version": bank.version, "history": changes}
        print(json.dumps(data, ensure_ascii=False, indent=1))
        return 0
    lines = [f"entry {number:,} of {len(bank):,}, version {bank.version}", *_fields(bank, number)]
    lines += _tokens(bank, number, command.tokenizer)
    lines += _others(bank, number)
    for entry in history:
        lines.append(f"version {entry.version}: {entry.action} ({entry.time})")
        lines += _changes(entry, bank.facts[number].id)
    say("\n".join(lines))
    return 0


def stats(argv: list[str]) -> int:
    """Print what is in the bank; 0."""
    arguments = flags.parse(argv, StatsCommand, "lichen knowledge stats", _JSON)
    command = load(StatsCommand, flags=arguments.settings, environment={})
    folder = target(arguments.positionals, "stats")

    from lichen.dataset.bank import Bank
    from lichen.dataset.bank_arrays import BankArrays
    from lichen.dataset.bank_statistics import conflicts, relations_table

    bank = Bank.open(folder)
    length = command.length or int(bank.settings.get("knowledge_length") or 32)
    tokenizer = tokenizer_for(folder, command.tokenizer)
    arrays = None if tokenizer is None else BankArrays.of_bank(bank, tokenizer, length)
    relations, several = relations_table(bank.facts), conflicts(bank.facts)
    if command.json_output:
        facts: dict[str, Any] = {"entries": len(bank), "version": bank.version, "hash": bank.hash}
        facts["relations"] = [vars(row) for row in relations]
        facts["conflicts"] = len(several)
        if arrays is not None:
            cut = {"cut_entries": arrays.truncated_entries, "cut_keys": arrays.truncated_keys}
            facts["tokens"] = {"length": length, **cut, "objects_without_span": _without_span(bank, arrays)}
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return 0
    head = f"{folder}: {len(bank):,} facts, version {bank.version}, hash {bank.hash[:12]}"
    names = ("facts", "subjects", "objects", "several", "relation", "commonest object")
    rows = [
        (f"{r.facts:,}", f"{r.subjects:,}", f"{r.objects:,}", f"{r.several:,}", r.relation or "(none)", _commonest(r))
        for r in relations
    ]
    lines = [head, "", columns([names, *rows], right=4), "", *_contradictions(several, command.top), ""]
    lines += _lengths(bank, arrays) if arrays else ["tokens were not counted: give --tokenizer FOLDER"]
    say("\n".join(lines))
    return 0


def bar(count: int, most: int) -> str:
    """A bar whose longest has 20 characters; any count has one at least."""
    return "#" * (max(1, round(BAR * count / most)) if count else 0)


# --- Parts of show ---


def _history_of(bank: "Bank", id: str) -> "list[Entry]":
    from lichen.dataset.bank_history import read_history

    return [entry for entry in read_history(bank.folder, bank.version) if _about(entry, id)]


def _about(entry: "Entry", id: str) -> list[tuple[dict[str, str], dict[str, str]]]:
    pairs = [(change.before or {}, change.after or {}) for change in entry.changes]
    return [(before, after) for before, after in pairs if id in (before.get("id"), after.get("id"))]


def _changes(entry: "Entry", id: str) -> list[str]:
    return [
        changed(name, before.get(name, ""), after.get(name, ""), 8)
        for before, after in _about(entry, id)
        for name in PARTS
        if before.get(name, "") != after.get(name, "")
    ]


def _fields(bank: "Bank", number: int) -> list[str]:
    fact = bank.facts[number]
    relation = bank.relations.get(fact.relation)
    about = [relation.id] if relation and relation.id else []
    about += [f"{len(relation.patterns)} patterns"] if relation and relation.patterns else []
    more = {"relation": f" ({', '.join(about)})" if about else ""}
    return [f"  {name:<8}  {value}{more.get(name, '')}" for name, value in fact.to_data().items()]


def _tokens(bank: "Bank", number: int, given: str | None) -> list[str]:
    from lichen.dataset.bank_arrays import BankArrays

    tokenizer = tokenizer_for(bank.folder, given)
    if tokenizer is None:
        return []
    length = int(bank.settings.get("knowledge_length") or 32)
    key_length = int(bank.settings.get("key_length") or 16)
    arrays = BankArrays.of([bank.facts[number]], tokenizer, length, key_length)
    start, stop = int(arrays.object_start[0]), int(arrays.object_stop[0])
    span = f"the object is {start} to {stop - 1}" if stop else "the object's own tokens are not to be had"
    cut = " (cut)" if arrays.cut_entries[0] else ""
    words = f"{arrays.lengths[0]} of {length}{cut}, key {arrays.key_lengths[0]} of {key_length}"
    return [f"  {'tokens':<8}  {words}{f'; {span}' if bank.facts[number].object else ''}"]


def _others(bank: "Bank", number: int) -> list[str]:
    fact = bank.facts[number]
    if not fact.subject:
        return []
    name = fact.subject.casefold()
    found = [(n, other) for n, other in enumerate(bank.facts) if n != number and other.subject.casefold() == name]
    if not found:
        return []
    lines = [f"also of {fact.subject}"]
    lines += [f"  {n:>8,}  {other.relation}: {other.object}" for n, other in found[:OTHERS]]
    return [*lines, f"  and {len(found) - OTHERS:,} more"] if len(found) > OTHERS else lines


# --- Parts of stats ---


def _commonest(row: Any) -> str:
    return f"{row.commonest} ({row.share:.1%})" if row.commonest else ""


def _contradictions(several: list[tuple[str, str, tuple[str, ...]]], top: int) -> list[str]:
    lines = [f"{len(several):,} times a subject has several objects for a relation"]
    for subject, relation, objects in several[:top]:
        more = f", … ({len(objects)})" if len(objects) > 4 else ""
        lines.append(f"  {subject}, {relation}: {', '.join(objects[:4])}{more}")
    return lines


def _lengths(bank: "Bank", arrays: "BankArrays") -> list[str]:
    from lichen.dataset.bank_statistics import histogram

    bins = histogram(arrays.lengths)
    most = max((count for _, _, count in bins), default=1)
    rows = [(f"{first}-{last}", f"{count:,}", bar(count, most)) for first, last, count in bins]
    return [
        columns([("tokens", "facts", ""), *rows], right=2),
        f"cut: {arrays.truncated_entries:,} texts of more than {arrays.length} tokens,"
        f" {arrays.truncated_keys:,} keys of more than {arrays.key_length}",
        f"objects whose own tokens are not to be had: {_without_span(bank, arrays):,}",
    ]


def _without_span(bank: "Bank", arrays: "BankArrays") -> int:
    return sum(
        1 for fact, stop in zip(bank.facts, arrays.object_stop.tolist(), strict=True) if fact.object and not stop
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
