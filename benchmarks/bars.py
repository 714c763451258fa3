"""How every benchmark says what it found: a table for people, ``{bar: {value, bar, ok}}`` for programs.

bars = [Bar("utilisation", 0.997, at_least=0.995)]
raise SystemExit(report(bars))          # --json on the command line chooses the form
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One measured value and what it must reach; without a bound it is only shown."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    @property
    def bound(self) -> str:
        """The bar in words."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""

    @property
    def ok(self) -> bool:
        """Whether the value reaches it."""
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)


def report(bars: list[Bar], argv: list[str] | None = None) -> int:
    """Print the bars; 0 if all are reached, else 1."""
    if "--json" in (sys.argv if argv is None else argv):
        print(json.dumps({bar.name: {"value": bar.value, "bar": bar.bound, "ok": bar.ok} for bar in bars}))
    else:
        width = max(len(bar.name) for bar in bars)
        for bar in bars:
            verdict = "" if not bar.bound else "ok" if bar.ok else "MISSED"
            print(f"{bar.name:<{width}}  {bar.value:>14,.4g} {bar.unit:<10} {bar.bound:<10} {verdict}")
    return 0 if all(bar.ok for bar in bars) else 1
