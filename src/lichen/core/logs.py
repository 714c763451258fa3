"""What a run says while it goes: to the terminal in colour when it can, to a time-stamped file, from rank 0 only.

Control characters in a message (a document's text may hold them) are escaped, so that data can not steer a terminal; values of
secret-looking environment variables are blotted out. Every error message ends with the path of the current log.

>>> escape_control("red \\x1b[31m")
'red \\\\x1b[31m'
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from pathlib import Path

from lichen.config.errors import LichenError
from lichen.core import environment

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_log_path: Path | None = None


def escape_control(text: str) -> str:
    """``text`` with control characters other than tab and newline written as ``\\xNN``."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class _Clean(logging.Filter):
    """Escapes and redacts a message once, before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = environment.redact(escape_control(record.getMessage())), ()
        return True


def get_logger(name: str = "lichen") -> logging.Logger:
    """The logger of a part; all hang below ``lichen``."""
    return logging.getLogger(name if name.startswith("lichen") else f"lichen.{name}")


def current_log() -> Path | None:
    """The file this process logs to, if any."""
    return _log_path


def start(folder: Path | None = None, verb: str = "train", level: int = logging.INFO) -> Path | None:
    """Log to the terminal and, given a folder, to ``folder/VERB_YYYYMMDD-HHMMSS.log``; ranks above 0 only warn.

    Returns the file. Calling it again replaces the handlers, so that a process never logs twice.
    """
    global _log_path
    logger = logging.getLogger("lichen")
    stop()
    main_rank = environment.rank() == 0
    logger.setLevel(level if main_rank else logging.WARNING)
    logger.propagate = False
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(_terminal_formatter())
    handlers: list[logging.Handler] = [terminal]
    if folder is not None and main_rank:
        folder.mkdir(parents=True, exist_ok=True)
        _log_path = folder / f"{verb}_{time.strftime('%Y%m%d-%H%M%S')}.log"
        file = logging.FileHandler(_log_path, encoding="utf-8")
        file.setFormatter(logging.Formatter(_FORMAT))
        handlers.append(file)
    for handler in handlers:
        handler.addFilter(_Clean())
        logger.addHandler(handler)
    return _log_path


def stop_after(kind: object, error: BaseException | None, trace: object) -> None:
    """End a block as ``__exit__`` does: an error that ended it goes into the file (the terminal gets its line from the command),
    a defect with its traceback, and `current_log` still names that file for the message."""
    path = _log_path
    if isinstance(error, Exception):
        defect = not isinstance(error, LichenError)
        _to_file("".join(traceback.format_exception(error)) if defect else str(error))
    stop()
    if isinstance(error, Exception):
        _remember(path)


def _to_file(text: str) -> None:
    logger = logging.getLogger("lichen")
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, text, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _remember(path: Path | None) -> None:
    global _log_path
    _log_path = path


def stop() -> None:
    """Close and remove the handlers; messages go where they went before `start`."""
    global _log_path
    logger = logging.getLogger("lichen")
    logger.propagate = True
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    _log_path = None


def _terminal_formatter() -> logging.Formatter:
    if sys.stderr.isatty():
        try:
            import colorlog
        except ModuleNotFoundError:
            pass
        else:
            return colorlog.ColoredFormatter(f"%(log_color)s{_FORMAT}%(reset)s", datefmt="%H:%M:%S")
    return logging.Formatter(_FORMAT, datefmt="%H:%M:%S")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
