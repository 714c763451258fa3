"""How the quickstart tells what it does: every verb it calls is printed as one would type it, then run.

>>> verb_line("train", ["a b.yaml", "--lr", "1"])
"$ lichen train 'a b.yaml' --lr 1"
"""

import contextlib
import importlib
import io
import shlex
import sys
from pathlib import Path
from typing import Any

from lichen.config.errors import LichenError
from lichen.scripts.command_line import VERBS


def say(text: str) -> None:
    """A line of narration."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def verb_line(verb: str, words: list[str]) -> str:
    """The command as one would type it."""
    return f"$ lichen {shlex.join([verb, *words])}"


def call(verb: str, *words: object) -> None:
    """Run a verb as the command line would. Raises LichenError where it does not succeed."""
    argv = [str(word) for word in words]
    print(verb_line(verb, argv), flush=True)
    status = importlib.import_module(f"lichen.scripts.{VERBS[verb][0]}").run(argv)
    if status:
        raise LichenError(f"lichen {verb} ended with status {status}; its log says why")


def said_by(run: Path, words: list[Any]) -> str:
    """What ``lichen generate`` prints for ``run``, which is shown too."""
    captured = io.StringIO()
    argv = [str(word) for word in (run, *words)]
    print(verb_line("generate", argv), flush=True)
    with contextlib.redirect_stdout(captured):
        importlib.import_module("lichen.scripts.generate").run(argv)
    print(captured.getvalue().rstrip(), flush=True)
    return captured.getvalue().strip()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
