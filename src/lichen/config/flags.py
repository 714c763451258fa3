"""Flags of the command line: any setting by its dotted path, or by its last words where they are unique.

``--optim.lr 1e-3``, ``--optim.lr=1e-3`` and, where no other setting ends so, ``--lr 1e-3`` are one. Dashes and
underscores are the same. A boolean needs no value (``--train.compile``, ``--no-train.compile``); a flag given several
times fills a list. What is not a flag is a positional: a recipe, a run. Values stay text here; ``base.load`` reads
and validates them with everything else. Help and completion come from tyro, which is not trusted with more (it takes
unions for subcommands).

>>> from lichen.config.base import Config
>>> class Sampling(Config):
...     top_k: int = 0
...     greedy: bool = False
>>> class Command(Config):
...     sampling: Sampling = Sampling()
...     stop: tuple[str, ...] = ()
>>> arguments = parse(["run", "--top-k", "5", "--greedy", "--stop", "a", "--stop=b"], Command, "lichen generate")
>>> arguments.positionals, arguments.settings
(('run',), {'sampling.top_k': '5', 'sampling.greedy': 'true', 'stop': ['a', 'b']})
"""

import itertools
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lichen.config.base import annotations_at, leaves, members_of
from lichen.config.errors import UsageError, nearest


@dataclass(frozen=True)
class Arguments:
    """A command line taken apart."""

    positionals: tuple[str, ...] = ()
    settings: dict[str, str | list[str]] = field(default_factory=dict)
    """Dotted path → text, or texts for a list."""


def parse(
    argv: Sequence[str], cls: type[BaseModel], program: str, aliases: Mapping[str, str] | None = None
) -> Arguments:
    """Take ``argv`` apart into positionals and settings of ``cls``.

    ``aliases`` maps further flag names to dotted paths (``{"resume_from": "resume"}``). ``--help`` prints every setting
    with its help and ends the program; ``--tyro-print-completion bash|zsh`` prints a completion script. Raises UsageError
    for an unknown flag.
    """
    if {"-h", "--help"} & set(argv) or any(word.startswith("--tyro-") for word in argv):
        show_help(cls, program, [word for word in argv if word.startswith(("-h", "--help", "--tyro"))] + _shell(argv))
    names = _short_names(cls) | dict(aliases or {})
    positionals: list[str] = []
    settings: dict[str, str | list[str]] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            positionals += words
            break
        if not word.startswith("--"):
            positionals.append(word)
            continue
        name, equals, text = word[2:].partition("=")
        path, boolean, negated = _resolve(name, names, cls, program)
        if not equals:
            text = _value(words, boolean, word)
        if negated:
            text = {"true": "false", "false": "true"}.get(text.lower(), text)
        _add(settings, path, text, _takes_list(cls, path))
    return Arguments(tuple(positionals), settings)


def show_help(cls: type[BaseModel], program: str, argv: Sequence[str] = ("--help",)) -> None:
    """Print every setting of ``cls`` with its help, type and default, and end the program."""
    import tyro

    tyro.cli(cls, args=list(argv), prog=program, config=(tyro.conf.AvoidSubcommands,))
    sys.exit(0)


def _shell(argv: Sequence[str]) -> list[str]:
    return [after for word, after in itertools.pairwise(argv) if word == "--tyro-print-completion"]


def _short_names(cls: type[BaseModel]) -> dict[str, str]:
    """Every ending of a dotted path that belongs to one setting only, and every full path."""
    paths = list(dict.fromkeys(path for path, _ in leaves(cls)))
    endings: dict[str, set[str]] = {}
    for path in paths:
        parts = path.split(".")
        for start in range(len(parts)):
            endings.setdefault(".".join(parts[start:]), set()).add(path)
    unique = {ending: next(iter(found)) for ending, found in endings.items() if len(found) == 1}
    return unique | {path: path for path in paths}


def _resolve(name: str, names: Mapping[str, str], cls: type[BaseModel], program: str) -> tuple[str, bool, bool]:
    """Dotted path, whether it is a boolean, whether the flag negates it."""
    wanted = name.replace("-", "_")
    path = names.get(wanted)
    negated = path is None and wanted.startswith("no_")
    if negated:
        path = names.get(wanted[3:])
        if path is None or not _is_boolean(cls, path):
            path = None
    if path is None and "." in wanted and _sections(cls, wanted):
        path = wanted  # an unknown setting of a known section: validation says so together with all other problems
    if path is None:
        raise UsageError(f"{program}: no such flag --{name}{nearest(wanted, names)}; --help shows them all")
    return path, _is_boolean(cls, path), negated


def _sections(cls: type[BaseModel], path: str) -> bool:
    return path.split(".")[0] in cls.model_fields


def _is_boolean(cls: type[BaseModel], path: str) -> bool:
    return any(bool in members_of(annotation) for annotation in annotations_at(cls, tuple(path.split("."))))


def _takes_list(cls: type[BaseModel], path: str) -> bool:
    members = [m for annotation in annotations_at(cls, tuple(path.split("."))) for m in members_of(annotation)]
    return any(typing.get_origin(member) in (tuple, list) for member in members)


def _value(words: list[str], boolean: bool, flag: str) -> str:
    following = words[0] if words else None
    if boolean:
        return words.pop(0) if following is not None and following.lower() in ("true", "false") else "true"
    if following is None or (following.startswith("--") and len(following) > 2):
        raise UsageError(f"{flag} needs a value: {flag} VALUE (or {flag}=VALUE where the value itself starts with --)")
    return words.pop(0)


def _add(settings: dict[str, Any], path: str, text: str, takes_list: bool) -> None:
    if takes_list:
        settings.setdefault(path, []).append(text)
    else:
        settings[path] = text


def existing_files(paths: Iterable[str], what: str) -> list[Path]:
    """``paths`` as paths of files that exist. Raises UsageError with the nearest name in the same folder."""
    found = []
    for text in paths:
        path = Path(text)
        if not path.is_file():
            folder = path.parent
            names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
            raise UsageError(f"{path}: no such {what}{nearest(path.name, names)}")
        found.append(path)
    return found


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
