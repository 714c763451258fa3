"""One way to write the same text: Unicode normal form, newlines, no control characters, no blank edges.

NFC is the default: it changes nothing a reader sees. NFKC also folds full-width letters and punctuation, which Chinese text
uses on purpose. Normalising twice changes nothing more.

>>> normalise("\\ufeffcafe\\u0301\\r\\n\\x07moss \\n\\n", CleanConfig())
'café\\nmoss'
>>> normalise("苔藓，ＡＢＣ", CleanConfig(normalisation="nfkc"))
'苔藓,ABC'
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from lichen.config.cleaning import CleanConfig
from lichen.config.errors import UsageError
from lichen.core.importing import find_function

# C0 and C1 but tab, newline, carriage return and next line; delete; byte order mark; noncharacters
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufdd0-\ufdef\ufffe\uffff]")
ASCII_CONTROLS = bytes(code for code in range(128) if CONTROLS.match(chr(code)))
NEWLINES = re.compile("\r\n|[\r\x85\u2028\u2029]")
EDGES = re.compile(r"\A(?:[^\S\n]*\n)+")


def normalise(text: str, config: CleanConfig) -> str:
    """``text`` in the form that ``config`` asks for."""
    text = _normalise_ascii(text, config) if text.isascii() else _normalise_unicode(text, config)
    if config.strip:
        text = EDGES.sub("", text.rstrip())
    return text


def _normalise_ascii(text: str, config: CleanConfig) -> str:
    """The same as for other text, without looking at characters one by one."""
    if config.unify_newlines and "\r" in text:
        text = NEWLINES.sub("\n", text)
    return text.encode().translate(None, ASCII_CONTROLS).decode() if config.strip_controls else text


def _normalise_unicode(text: str, config: CleanConfig) -> str:
    if config.unify_newlines:
        text = NEWLINES.sub("\n", text)
    if config.strip_controls:
        text = CONTROLS.sub("", text)
    if config.normalisation == "none":
        return text
    return unicodedata.normalize("NFC" if config.normalisation == "nfc" else "NFKC", text)


def apply_functions(text: str, config: CleanConfig) -> tuple[str, str]:
    """Run the steps of one's own in their order: the text, and the name of the one that dropped the document, or ''.

    >>> apply_functions(" moss ", CleanConfig(functions=("builtins:repr",)))
    ("' moss '", '')
    """
    for path in config.functions:
        changed = _function(path)(text)
        if changed is None:
            return text, path.partition(":")[2]
        if not isinstance(changed, str):
            raise UsageError(
                f"clean.functions: {path} gave {type(changed).__name__}; it must give text, or None to drop"
            )
        text = changed
    return text, ""


@functools.cache
def _function(path: str) -> Callable[[str], str | None]:
    return find_function(path, "clean.functions")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
