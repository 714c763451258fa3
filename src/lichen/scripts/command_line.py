"""``lichen VERB …``: which verbs there are, and how a failure is said.

A verb's module is imported only when the verb is called, so that ``lichen --help`` answers at once. A fault the user can mend
is one line and an exit status (2 for a wrong request, 1 for a fault); a traceback only comes with ``--debug``.

>>> main(["trian"])
2
>>> describe("train")
'train a model; continue, extend or branch a run'
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from lichen.config.errors import LichenError, nearest

VERBS: dict[str, tuple[str, str]] = {
    "prepare": ("prepare", "clean, deduplicate, tokenise raw text into a folder a training reads"),
    "train": ("train", "train a model; continue, extend or branch a run"),
    "generate": ("generate", "continue prompts with a trained model"),
    "chat": ("chat", "talk with a trained model in the terminal"),
    "evaluate": ("evaluate", "examine a model: what it knows, and whether it reads it"),
    "plot": ("plot", "draw the curves of one or several runs"),
    "quickstart": ("quickstart", "the whole road on this machine, offline, in a few minutes"),
    "knowledge": ("knowledge", "build, search, look at and change the facts a model reads"),
    "inspect": ("inspection", "show a data set, shard, run, checkpoint or recipe"),
    "doctor": ("doctor", "check a recipe, this machine and the paths, and make a short trial"),
}
"""Verb → (module below ``lichen.scripts``, what it does)."""


def describe(verb: str) -> str:
    """What ``verb`` does, in a line."""
    return VERBS[verb][1]


def usage() -> str:
    """The text of ``lichen --help``."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {describe(verb)}" for verb in VERBS]
    return "\n".join(
        [
            "usage: lichen VERB [ARGUMENT …] [--setting VALUE …]",
            "",
            "Grow a small language model from raw text, and look inside it.",
            "",
            *lines,
            "",
            "lichen VERB --help shows every setting; --debug, anywhere, shows where an error came from.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` names; the process's exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    escape_what_does_not_fit()
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"lichen {version('lichen')}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        print(f"lichen: no such verb {verb!r}{nearest(verb, VERBS)}", file=sys.stderr)
        return 2
    return guarded(lambda rest: importlib.import_module(f"lichen.scripts.{VERBS[verb][0]}").run(rest), words[1:])


def guarded(run: Callable[[list[str]], int], argv: Sequence[str]) -> int:
    """Call ``run`` and turn an error into one line and an exit status."""
    debug = "--debug" in argv
    words = [word for word in argv if word != "--debug"]
    try:
        return run(words)
    except LichenError as error:
        return _say(error, str(error), error.exit_status, debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # the reader went away; nothing is left to say
        return 141
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if type(error).__name__ in ("MemoryError", "OutOfMemoryError"):
            text = f"out of memory ({text[:200]}); take smaller batches, shorter texts or a smaller model"
            return _say(error, text, 1, debug)
        return _say(error, f"{text}; this is a defect of lichen: --debug shows where", 1, debug)


def escape_what_does_not_fit() -> None:
    """Write characters that the terminal's encoding lacks as escapes, instead of ending the program over them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(error: Exception, text: str, status: int, debug: bool) -> int:
    from lichen.core.logs import current_log

    if debug:
        import traceback

        traceback.print_exception(error)
    log = current_log()
    print(f"error: {text}{f' (log: {log})' if log else ''}", file=sys.stderr)
    return status


def run_module(run: Callable[[list[str]], int], file: str) -> None:
    """What ``python -m lichen.scripts.VERB …`` does: the verb, or with ``--self-test`` the module's self-test."""
    if sys.argv[1:] == ["--self-test"]:
        from lichen.selftest import main as self_test

        self_test(file)
    escape_what_does_not_fit()
    raise SystemExit(guarded(run, sys.argv[1:]))


if __name__ == "__main__":
    from lichen.selftest import main as self_test

    self_test(__file__)
