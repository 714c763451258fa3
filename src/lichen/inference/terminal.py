"""What a model writes, made safe for a terminal.

A terminal obeys control sequences: text from a model (or from whatever it was trained on) could clear the screen,
rename the window or answer for the person. Everything but line breaks and tabs is shown as an escape instead, as in the
logs; so are the characters that turn the direction of writing, which can make a line read as something it is not
(Boucher and Anderson, 2021, "Trojan Source"). Text that goes into a file or a pipe is left as it is.

>>> print(printable("red \\x1b[31m"))
red \\x1b[31m
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

from lichen.core.logs import escape_control

_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""``text`` with control characters (but line break and tab), direction marks and lone surrogates escaped.

    >>> printable("多语\u202e\x9b\n")
    '多语\\u202e\\x9b\n'
    """
    return _DIRECTIONS.sub(lambda found: f"\\u{ord(found.group()):04x}", escape_control(text))


def write(text: str, file: TextIO | None = None) -> None:
    """Write ``text`` at once; escaped if ``file`` (standard output unless given) is a terminal."""
    target = file or sys.stdout
    assert target is not None
    shown = printable(text) if target.isatty() else text
    encoding = target.encoding or "utf-8"
    target.write(shown.encode(encoding, "backslashreplace").decode(encoding))
    target.flush()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
