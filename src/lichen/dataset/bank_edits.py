"""Changing a bank: add, edit, delete, undo; each checked before, whole or not at all, and a version of its own.

`BankEditor` holds the folder's lock from reading to writing, so that two editors can not overwrite each other. What is wrong
with a change is said before anything is written: an id used twice, control characters, a text of more tokens than an entry
has, tokens the vocabulary does not know. Rows of a file are checked one by one: the good ones are taken and the bad ones
named with their line, or (``strict``) nothing is taken. Ids never change; entry numbers of later facts do when one is deleted.

>>> import tempfile
>>> from lichen.dataset.bank import write_bank
>>> from lichen.dataset.facts import made_fact
>>> folder = write_bank(Path(tempfile.mkdtemp()) / "bank", [made_fact("Ada", "place of birth", "London", id="a")]).folder
>>> with BankEditor(folder) as editor:
...     before, after = editor.edit("a", object="Paris")
...     print(after.text, editor.bank.version)
...     undone = editor.undo()
...     print(editor.bank.facts[0].text, editor.bank.version)
Ada — place of birth: Paris 2
Ada — place of birth: London 3
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.config.flags import existing_files
from lichen.config.knowledge import BankConfig
from lichen.core.folders import write_file
from lichen.core.locks import FolderLock
from lichen.dataset import bank_history
from lichen.dataset.bank import FACTS, SUMMARY, Bank, bank_folder, data_of, relations_of
from lichen.dataset.bank_history import BY_HAND, Change, Entry
from lichen.dataset.fact_checks import Checker
from lichen.dataset.fact_collection import Duplicates
from lichen.dataset.fact_formats import FactReader
from lichen.dataset.facts import FIELDS, Fact, fact_id, made_text, rewritten, tidy
from lichen.dataset.json_lines import BadLine, Line, checked_text, lines_of, value_of_line
from lichen.dataset.records import Reject
from lichen.dataset.tokenizer import Tokenizer


@dataclass(frozen=True)
class Outcome:
    """What became of the rows of a file."""

    read: int
    changed: int
    duplicates: int
    """Rows that the bank says already."""
    rejects: tuple[Reject, ...]
    """Bad rows, with file, line and cause."""


SAID = {"same_parts": "the bank says that already:", "same_text": "the bank has that text already:"}
"""What a row that adds nothing is told; such rows of a file are duplicates, not faults."""


class BankEditor:
    """Edits the bank in ``folder`` (or of a run); a context manager that holds its lock. ``bank`` is the version reached.

    Args:
        folder: a bank, or a run that has one.
        tokenizer: to check texts with; without one their length is not checked.
        length: tokens of an entry; unless given, what the bank was built for.

    Raises:
        LichenError: someone else edits it, or it is damaged.
    """

    def __init__(self, folder: str | Path, tokenizer: Tokenizer | None = None, length: int | None = None):
        self._folder = bank_folder(folder)
        self._known: Duplicates | None = None
        self._broken = False
        self._lock = FolderLock(self._folder, "editing the bank")
        self._lock.acquire()
        try:
            self.bank = Bank.open(self._folder)
            self._settle()
        except BaseException:
            self._lock.release()
            raise
        length = length or int(self.bank.settings.get("knowledge_length") or BankConfig().knowledge_length)
        self._checker = Checker(tokenizer, length)

    def __enter__(self) -> BankEditor:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def checks_tokens(self) -> bool:
        """Whether there is a tokenizer to check texts with."""
        return self._checker.tokenizer is not None

    # Single facts

    def add(self, fact: Fact) -> Fact:
        """Append a fact; an empty id or text is made by rule. Raises UsageError where it can not be added."""
        fact = completed(fact)
        if problem := self._problem(fact, self._duplicates()):
            raise UsageError(f"{fact.text[:60]!r}: {problem[1]}")
        self._commit("add", [Change(len(self.bank), None, fact.to_data())])
        return fact

    def edit(self, key: str, **changes: str) -> tuple[Fact, Fact]:
        """Change fields of the fact with this id (or entry number); before and after. See `facts.rewritten` for its text."""
        number = self.bank.find(key)
        before = self.bank.facts[number]
        after = self._edited(before, changes)
        if after == before:
            raise UsageError(f"{key}: that is what entry {number} says already")
        self._commit("edit", [Change(number, before.to_data(), after.to_data())])
        return before, after

    def delete(self, keys: Sequence[str]) -> list[Fact]:
        """Remove facts, in one version; later ones move up, ids stay. What was removed."""
        numbers = sorted({self.bank.find(key) for key in keys}, reverse=True)
        if len(numbers) >= len(self.bank):
            raise UsageError(f"{self._folder}: a bank needs at least one fact; keep one")
        facts = [self.bank.facts[number] for number in numbers]
        self._commit("delete", [Change(n, fact.to_data(), None) for n, fact in zip(numbers, facts, strict=True)])
        return facts[::-1]

    def undo(self, steps: int = 1) -> list[Entry]:
        """Take back the last ``steps`` versions that can be taken back, as one new version; those taken back."""
        history = bank_history.read_history(self._folder, self.bank.version)
        versions = bank_history.undoable(history)[:steps]
        if len(versions) < steps:
            barrier = next((entry for entry in reversed(history) if entry.action == BY_HAND), None)
            why = f"; what stood there before version {barrier.version}, made by hand, is not known" if barrier else ""
            raise UsageError(f"{self._folder}: {len(versions)} changes can be taken back, not {steps}{why}")
        entries = [entry for entry in reversed(history) if entry.version in versions]
        changes = [Change(c.entry, c.after, c.before) for entry in entries for c in reversed(entry.changes)]
        self._commit("undo", changes, tuple(versions))
        return entries

    # Files

    def add_file(self, path: Path, strict: bool = False) -> Outcome:
        """Add every good row of a file, in any shape `fact_formats` knows, as one version.

        Raises LichenError where all are bad, or (``strict``) any is: nothing is changed then.
        """
        reader = FactReader(BankConfig())
        known = self._duplicates()
        self._known = None  # until they are in the bank
        changes: list[Change] = []
        rejects: list[Reject] = []
        read = 0
        for read, item in enumerate(reader.read(reader.find(path)), start=1):
            problem = None if isinstance(item, Reject) else self._problem(item, known)
            if isinstance(item, Reject):
                rejects.append(item)
            elif problem is None:
                known.add(item)
                changes.append(Change(len(self.bank) + len(changes), None, item.to_data()))
            elif problem[0] not in SAID:
                rejects.append(_reject(reader.place, problem, item.text, read))
        outcome = Outcome(read, len(changes), read - len(changes) - len(rejects), tuple(rejects))
        return self._take("add", path, changes, outcome, strict)

    def edit_file(self, path: Path, strict: bool = False) -> Outcome:
        """Edit the fact that every good row names by ``id``, with the row's other fields, as one version.

        Raises as `add_file` does.
        """
        (path,) = existing_files([str(path)], "file of edits")
        facts: dict[int, Fact] = {}
        changes: list[Change] = []
        rejects: list[Reject] = []
        read = 0
        for read, line in enumerate(lines_of(path, "", BankConfig().max_line_bytes), start=1):
            try:
                number, row = self._edit_of(line)
                before = facts.get(number, self.bank.facts[number])
                after = self._edited(before, row)
            except (BadLine, UsageError) as error:
                problem = getattr(error, "cause", "bad_edit"), str(error)
                excerpt = (line.data or b"")[:80].decode(errors="backslashreplace")
                rejects.append(_reject((str(path), read), problem, excerpt, read))
                continue
            if after != before:
                facts[number] = after
                changes.append(Change(number, before.to_data(), after.to_data()))
        outcome = Outcome(read, len(changes), read - len(changes) - len(rejects), tuple(rejects))
        return self._take("edit", path, changes, outcome, strict)

    def _edit_of(self, line: Line) -> tuple[int, dict[str, str]]:
        """The entry that a row of edits names, and what shall change."""
        if line.data is None:
            raise BadLine("too_long_line", "the line is too long for an edit")
        row = value_of_line(line.data, whole=line.whole)
        if not isinstance(row, dict):
            raise BadLine("not_an_object", "no object with an id and the fields to change")
        for name, value in row.items():
            if name not in FIELDS:
                raise BadLine("unknown_field", f"no such field {name!r}{nearest(name, FIELDS)}")
            checked_text(value, name)
        if len(row) < 2 or "id" not in row:
            raise BadLine("missing_field", "an id and the fields to change are needed")
        return self.bank.index_of(row.pop("id")), row

    def _take(self, action: str, path: Path, changes: list[Change], outcome: Outcome, strict: bool) -> Outcome:
        bad = [reject for reject in outcome.rejects if reject.cause != "empty_line"]
        if bad and (strict or not changes):
            first = f"first {bad[0].file}:{bad[0].line}: {bad[0].detail}"
            raise LichenError(f"{path}: {len(bad)} of {outcome.read} rows are bad, nothing was changed; {first}")
        if changes:
            self._commit(action, changes)
        return outcome

    # Checking

    def _duplicates(self) -> Duplicates:
        self._known = self._known or Duplicates(self.bank.facts)
        return self._known

    def _problem(self, fact: Fact, known: Duplicates) -> tuple[str, str] | None:
        """Why a fact can not be added, as (cause, words)."""
        if earlier := known.earlier(fact):
            return earlier[0], f"{SAID.get(earlier[0], 'its id is that of')} {earlier[1].id} ({earlier[1].text[:60]!r})"
        return self._checker.problem(fact)

    def _edited(self, before: Fact, changes: Mapping[str, str]) -> Fact:
        after = rewritten(before, **{name: tidy(value) for name, value in changes.items()})
        if problem := self._checker.problem(after):
            raise UsageError(f"{after.text[:60]!r}: {problem[1]}")
        return after

    # Writing

    def _commit(self, action: str, changes: Sequence[Change], of: tuple[int, ...] = ()) -> None:
        """One version: its line in the history, the facts, the summary, in this order."""
        facts = list(self.bank.facts)
        for change in changes:
            _apply(facts, change)
        data = data_of(facts)
        digest = hashlib.sha256(data).hexdigest()
        relations = relations_of(facts, self.bank.relations)
        if action != "add" or self._known is None:
            self._known = None
        else:
            for fact in facts[len(self.bank) :]:
                self._known.add(fact)
        bank = replace(self.bank, facts=facts, version=self.bank.version + 1, hash=digest, relations=relations)
        self._write(bank, Entry(bank.version, action, digest, tuple(changes), of), data)

    def _write(self, bank: Bank, entry: Entry, data: bytes) -> None:
        if self._broken:
            raise LichenError(f"{self._folder}: the last change failed halfway; open the bank again")
        self._broken = True
        bank_history.append(self._folder, entry)
        write_file(self._folder / FACTS, data)
        self.bank = bank
        write_file(self._folder / SUMMARY, bank.to_summary())
        self._broken = False

    def _settle(self) -> None:
        """Finish what a crash interrupted, and make a change by hand a version."""
        if self.bank.state == "by hand":
            bank_history.settle(self._folder, self.bank.version - 1)
            entry = Entry(self.bank.version, BY_HAND, self.bank.hash)
            self._write(replace(self.bank, state="stored"), entry, data_of(self.bank.facts))
            return
        bank_history.settle(self._folder, self.bank.version)
        if self.bank.state != "stored":
            self.bank = replace(self.bank, state="stored")
            write_file(self._folder / SUMMARY, self.bank.to_summary())


def completed(fact: Fact) -> Fact:
    """``fact`` with single spaces, and a text and an id made by rule where it has none. Raises UsageError without a text."""
    parts = {name: tidy(getattr(fact, name)) for name in FIELDS}
    if not parts["text"]:
        if missing := [name for name in ("subject", "relation", "object") if not parts[name]]:
            raise UsageError(f"a fact needs a text, or subject, relation and object: no {', '.join(missing)} is given")
        parts["text"] = made_text(parts["subject"], parts["relation"], parts["object"])
    parts["id"] = parts["id"] or fact_id(parts["text"], parts["subject"], parts["relation"], parts["object"])
    return Fact(**parts)


def _apply(facts: list[Fact], change: Change) -> None:
    """One change; what stands there must be what the change says."""
    if change.before is None:
        assert change.after is not None and change.entry <= len(facts)
        facts.insert(change.entry, Fact(**change.after))
        return
    assert facts[change.entry].to_data() == change.before, "the history fits the facts"
    if change.after is None:
        del facts[change.entry]
    else:
        facts[change.entry] = Fact(**change.after)


def _reject(place: tuple[str, int], problem: tuple[str, str], excerpt: str, number: int) -> Reject:
    return Reject(*place, *problem, excerpt[:80], place[0], number - 1)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
