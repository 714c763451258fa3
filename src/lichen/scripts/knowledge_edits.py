"""``lichen knowledge add | edit | delete | undo``: change a bank, a version at a time.

Everything is checked before anything is written; with a tokenizer (the run's own, or ``--tokenizer``) also that the text fits.

>>> print(changed("object", "London", "Paris", 8))
  object    London → Paris
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import UsageError, nearest
from lichen.scripts.knowledge import say, target, tokenizer_for

if TYPE_CHECKING:
    from lichen.dataset.bank_edits import BankEditor, Outcome
    from lichen.dataset.facts import Fact

SHOWN = 20  # bad rows printed
PARTS = ("text", "subject", "relation", "object", "source")


class ChangeCommand(Config):
    """What every change may be told."""

    tokenizer: str | None = None
    """Folder or run whose tokenizer checks the texts; unless given, that of the bank's run, or the one it was built with."""
    length: int | None = Field(default=None, gt=1, le=255)
    """Tokens of an entry; unless given, what the bank was built for."""


class AddCommand(ChangeCommand):
    """Add a fact (lichen knowledge add BANK --subject Ada --relation "place of birth" --object London), or a file of them."""

    subject: str = ""
    """What the fact is about."""
    relation: str = ""
    """The relation, in words."""
    object: str = ""
    """What it is said to be."""
    text: str = ""
    """The text of the entry; unless given, made of the three parts."""
    id: str = ""
    """The fact's id; unless given, made of its content."""
    source: str = ""
    """Where it comes from."""
    file: Path | None = None
    """Add every row of this file, in any shape that build reads: good rows are added, bad ones named."""
    strict: bool = False
    """Add nothing from a file with a bad row."""


class EditCommand(ChangeCommand):
    """Change a fact: lichen knowledge edit BANK ID --object Paris. The text follows, where it is clear how."""

    subject: str | None = None
    """The new subject."""
    relation: str | None = None
    """The new relation."""
    object: str | None = None
    """The new object."""
    text: str | None = None
    """The new text."""
    source: str | None = None
    """The new source."""
    file: Path | None = None
    """Rows with an id and the fields to change, all in one version."""
    strict: bool = False
    """Change nothing where a row of the file is bad."""


class DeleteCommand(Config):
    """Remove facts: lichen knowledge delete BANK ID …"""


class UndoCommand(Config):
    """Take changes back: lichen knowledge undo BANK."""

    steps: int = Field(default=1, ge=1)
    """How many, the last first."""


def add(argv: list[str]) -> int:
    """Add a fact or a file; 1 where a row was bad."""
    arguments = flags.parse(argv, AddCommand, "lichen knowledge add")
    command = load(AddCommand, flags=arguments.settings, environment={})
    folder = target(arguments.positionals, "add", "--subject S --relation R --object O (or --file FILE)")
    given = [name for name in (*PARTS, "id") if getattr(command, name)]
    if command.file is not None and given:
        raise UsageError(f"give --file or a fact, not both (--{given[0]})")

    from lichen.dataset.facts import Fact

    with _editor(folder, command) as editor:
        if command.file is not None:
            return _said("added", editor.add_file(command.file, command.strict), editor)
        known = set(editor.bank.relations)
        fact = Fact(**{name: getattr(command, name) for name in (*PARTS, "id")})
        fact = editor.add(fact)
        say(f"entry {len(editor.bank) - 1} ({fact.id}), {_version(editor)}\n  {fact.text}")
        _note(fact, editor, known)
    return 0


def edit(argv: list[str]) -> int:
    """Change a fact, or those a file names; 1 where a row was bad."""
    arguments = flags.parse(argv, EditCommand, "lichen knowledge edit")
    command = load(EditCommand, flags=arguments.settings, environment={})
    single = command.file is None
    folder = target(arguments.positionals, "edit", "ID --object O (or --file FILE)", least=int(single))
    changes = {name: value for name in PARTS if (value := getattr(command, name)) is not None}
    if single != bool(changes):
        raise UsageError(f"give {'a field to change, such as --object' if single else '--file or fields, not both'}")
    with _editor(folder, command) as editor:
        if command.file is not None:
            return _said("changed", editor.edit_file(command.file, command.strict), editor)
        known = set(editor.bank.relations)
        before, after = editor.edit(arguments.positionals[1], **changes)
        say(f"entry {editor.bank.index_of(after.id)} ({after.id}), {_version(editor)}")
        for name in PARTS:
            if getattr(before, name) != getattr(after, name):
                say(changed(name, getattr(before, name), getattr(after, name), 8))
        _note(after, editor, known)
    return 0


def delete(argv: list[str]) -> int:
    """Remove facts; 0."""
    arguments = flags.parse(argv, DeleteCommand, "lichen knowledge delete")
    folder = target(arguments.positionals, "delete", "ID …", least=1, most=len(arguments.positionals))

    from lichen.dataset.bank_edits import BankEditor

    with BankEditor(folder) as editor:
        for fact in editor.delete(arguments.positionals[1:]):
            say(f"removed {fact.id}: {fact.text}")
        say(f"{_version(editor)}, {len(editor.bank):,} facts")
    return 0


def undo(argv: list[str]) -> int:
    """Take changes back; 0."""
    arguments = flags.parse(argv, UndoCommand, "lichen knowledge undo")
    command = load(UndoCommand, flags=arguments.settings, environment={})
    folder = target(arguments.positionals, "undo")

    from lichen.dataset.bank_edits import BankEditor

    with BankEditor(folder) as editor:
        for entry in editor.undo(command.steps):
            count = f"{len(entry.changes):,} fact{'s' if len(entry.changes) > 1 else ''}"
            say(f"taken back: version {entry.version}, {entry.action} of {count} ({entry.time})")
        say(f"{_version(editor)}, {len(editor.bank):,} facts")
    return 0


def changed(name: str, before: str, after: str, width: int) -> str:
    """One line about a field."""
    return f"  {name:<{width}}  {before or '(none)'} → {after or '(none)'}"


def _editor(folder: Path, command: ChangeCommand) -> "BankEditor":
    from lichen.dataset.bank_edits import BankEditor

    return BankEditor(folder, tokenizer_for(folder, command.tokenizer), command.length)


def _version(editor: "BankEditor") -> str:
    return f"version {editor.bank.version - 1} → {editor.bank.version}"


def _said(done: str, outcome: "Outcome", editor: "BankEditor") -> int:
    bad = [reject for reject in outcome.rejects if reject.cause != "empty_line"]
    counts = f"{done} {outcome.changed:,}, said already {outcome.duplicates:,}, bad {len(bad):,}"
    say(f"read {outcome.read:,}: {counts}; {_version(editor) if outcome.changed else 'nothing was changed'}")
    for reject in bad[:SHOWN]:
        say(f"  {reject.file}:{reject.line}: {reject.detail} ({reject.cause})")
    if len(bad) > SHOWN:
        say(f"  and {len(bad) - SHOWN:,} more")
    return 1 if bad else 0


def _note(fact: "Fact", editor: "BankEditor", known: Sequence[str] | set[str]) -> None:
    """Say what a person may not have meant: a new relation, a second object, a length nobody checked."""
    if fact.relation and fact.relation not in known:
        say(f"  note: {fact.relation!r} is a new relation{nearest(fact.relation, known, most=4)}")
    pair = fact.subject.casefold(), fact.relation.casefold()
    others = [
        other.object
        for other in editor.bank.facts
        if other.id != fact.id and fact.is_triple and (other.subject.casefold(), other.relation.casefold()) == pair
    ]
    if others:
        say(f"  note: the bank also says of {fact.subject}, {fact.relation}: {', '.join(others[:5])}")
    if not editor.checks_tokens:
        say("  note: its length in tokens was not checked; give --tokenizer FOLDER")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
