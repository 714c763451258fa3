"""Being asked to stop: SIGTERM and Ctrl-C are noted, the loop looks at the note between steps and ends in order.

The step in progress is finished, a checkpoint is written and the process ends with 128 + the signal's number (143, 130), which
batch systems and shells understand. A second Ctrl-C ends the process at once; checkpoints appear whole or not at all, so even
that is safe. A launcher passes a terminal's Ctrl-C on to processes that had it already: what comes within a second of the first
counts as the same. A second SIGTERM is ignored: batch systems repeat themselves.

>>> with Interruption() as interruption:
...     before = interruption.exit_code
...     signal.raise_signal(signal.SIGTERM)
>>> before, interruption.exit_code, interruption.reason
(None, 143, 'SIGTERM')
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAME_PRESS = 1.0


class Interruption:
    """Context manager that notes the signals; outside the main thread, where handlers cannot be set, it notes nothing."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._first = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number, or None."""
        return None if self.signal is None else 128 + self.signal

    @property
    def reason(self) -> str:
        """The signal's name, or ``requested`` where it came from another rank."""
        return "requested" if self.signal is None else self.signal.name

    def note(self, number: int) -> None:
        """As if the signal had come: another rank got it."""
        self.signal = self.signal or signal.Signals(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGINT and self.signal is not None and now - self._first > _SAME_PRESS:
            os.write(2, b"\nstopped at once; the latest checkpoint is whole\n")
            os._exit(128 + signal.SIGINT)
        if self.signal is None:
            self._first = now
            self.signal = signal.Signals(number)
            os.write(2, f"\n{self.signal.name}: finishing the step and saving; Ctrl-C stops at once\n".encode())

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
