"""``lichen knowledge COMMAND …``: build, search, look at and change the bank of facts that a model reads.

    lichen knowledge build SOURCE… --output BANK        lichen knowledge search BANK "words"
    lichen knowledge add BANK --subject … --relation … --object …

A bank is named by its folder, or by the run it belongs to (whose folder ``knowledge`` it is). Every change is a version of
its own and can be taken back.

>>> sorted(COMMANDS)[:4]
['add', 'build', 'compare', 'delete']
>>> print(columns([("entry", "text"), ("12", "moss")], right=1))
entry  text
   12  moss
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.config.errors import UsageError, nearest
from lichen.scripts.command_line import run_module

if TYPE_CHECKING:
    from lichen.dataset.tokenizer import Tokenizer

COMMANDS: dict[str, tuple[str, str, str]] = {
    "build": ("knowledge_build", "build", "make a bank of files of facts, triples, T-REx or sentences"),
    "search": ("knowledge_views", "search", "find facts by their words"),
    "show": ("knowledge_views", "show", "one fact, what else is said of its subject, and its history"),
    "add": ("knowledge_edits", "add", "add a fact, or the rows of a file"),
    "edit": ("knowledge_edits", "edit", "change a fact"),
    "delete": ("knowledge_edits", "delete", "remove facts"),
    "undo": ("knowledge_edits", "undo", "take the last changes back"),
    "trace": ("knowledge_trace", "trace", "which facts were read for every generated token"),
    "stats": ("knowledge_views", "stats", "relations, lengths, what is cut, what contradicts itself"),
    "texts": ("knowledge_texts", "texts", "running text that tells a bank's facts, for experiments"),
    "graph": ("knowledge_graph", "graph", "neighbours, paths, a picture, GraphML"),
    "compare": ("knowledge_compare", "compare", "kinds of models on facts: train and examine them all, one table"),
}
"""Command → (module below ``lichen.scripts``, its function, what it does)."""


def usage() -> str:
    """The text of ``lichen knowledge --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {COMMANDS[name][2]}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: lichen knowledge COMMAND [BANK_OR_RUN …] [--setting VALUE …]",
            "",
            "The bank of facts that a model reads: one line per fact, which a person can read, cite and change.",
            "",
            *lines,
            "",
            "lichen knowledge COMMAND --help shows every setting.",
        ]
    )


def run(argv: list[str]) -> int:
    """Run the command that ``argv`` names."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise UsageError(f"lichen knowledge: no such command {name!r}{nearest(name, COMMANDS)}")
    module, function, _ = COMMANDS[name]
    command: Callable[[list[str]], int] = getattr(importlib.import_module(f"lichen.scripts.{module}"), function)
    return command(rest)


# --- What the commands share ---


def target(positionals: Sequence[str], command: str, wants: str = "", least: int = 0, most: int = 0) -> Path:
    """The folder of the bank that the first positional names, with ``least`` to ``most`` further words (0: none).

    Raises UsageError with the form of the command.
    """
    form = f"lichen knowledge {command} BANK_OR_RUN{f' {wants}' if wants else ''}"
    if not 1 + least <= len(positionals) <= 1 + max(least, most):
        raise UsageError(f"the form is: {form}")
    from lichen.dataset.bank import bank_folder

    return bank_folder(positionals[0])


def tokenizer_for(folder: Path, given: str | None) -> "Tokenizer | None":
    """The tokenizer ``given`` (a folder or a run), else that of the run whose bank lies in ``folder``, else the one the bank was
    built with; None where there is none."""
    from lichen.core.runs import Run, is_run
    from lichen.dataset.bank import read_settings
    from lichen.dataset.tokenizer import Tokenizer

    if given is not None:
        return Tokenizer.load(tokenizer_folder(given))
    if is_run(folder.parent):
        found = [path for path in Run(folder.parent).checkpoint_folders() if _holds_tokenizer(path)]
        if found:
            return Tokenizer.load(found[-1])
    built = read_settings(folder).get("tokenizer")
    return Tokenizer.load(built) if built and _holds_tokenizer(Path(built)) else None


def tokenizer_folder(spec: str) -> Path:
    """The folder of a tokenizer: one that holds it, or a run's newest checkpoint."""
    from lichen.core.runs import resolve_checkpoint

    path = Path(spec)
    return path if _holds_tokenizer(path) or (not path.is_dir() and "@" not in spec) else resolve_checkpoint(spec)


def _holds_tokenizer(path: Path) -> bool:
    return any((folder / "tokenizer.json").is_file() for folder in (path, path / "tokenizer"))


def columns(rows: Sequence[Sequence[Any]], right: int = 0) -> str:
    """Rows, headings first, as aligned text; the first ``right`` columns stand right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if place < right else cell.ljust(w) for place, (cell, w) in enumerate(zip(row, widths)))  # noqa: B905
        for row in texts
    ]
    return "\n".join(line.rstrip() for line in lines)


def say(text: str) -> None:
    """Print what may hold a document's words; a terminal obeys none of them."""
    from lichen.inference.terminal import write

    write(text + "\n")


if __name__ == "__main__":
    run_module(run, __file__)
