"""What all pictures have in common: size, colours, fonts, and files that appear whole.

Colours are those of Okabe and Ito (2008), told apart with any kind of colour vision and in print; with more than eight
lines the dashes change as well. Pictures are made without a display and without pyplot's global state. A character that
no font on the machine has would be drawn as an empty box with a warning: it is written as its code instead.

>>> style(0), style(8)
(('#0072B2', '-'), ('#0072B2', '--'))
>>> label("cost in $"), common_shortening(["x_dense_bs64", "x_none_bs64"])
('cost in \\\\$', ['dense', 'none'])
"""

from __future__ import annotations

import functools
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from lichen.config.errors import UsageError, nearest
from lichen.core.folders import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Dashes = Literal["-", "--", ":", "-."]
BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, BLACK, YELLOW = PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7"),
    *("#D55E00", "#56B4E9", "#000000", "#F0E442"),
)
DASHES: tuple[Dashes, ...] = ("-", "--", ":", "-.")
A4_PORTRAIT, A4_LANDSCAPE = (8.27, 11.69), (11.69, 8.27)
"""In inches."""
FORMATS = ("png", "svg", "pdf")
_CJK = ("Noto Sans CJK", "Source Han Sans", "WenQuanYi", "Microsoft YaHei", "PingFang", "Hiragino Sans GB", "SimHei")


def style(number: int) -> tuple[str, Dashes]:
    """Colour and dashes of the ``number``-th line of a picture."""
    return PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    with drawing():
        return Figure(figsize=(width, height), layout="constrained")


def drawing() -> Any:
    """A context in which everything is drawn in the house's fonts and sizes."""
    import matplotlib as mpl

    return mpl.rc_context(cast(Any, _settings()))


def save(figure: Figure, output: Path | str) -> None:
    """Write ``figure`` as .png, .svg or .pdf; the file appears whole, and equal pictures are equal files."""
    output = Path(output)
    kind = output.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError(f"{output}: pictures end in .png, .svg or .pdf{nearest(kind, FORMATS)}")
    buffer = io.BytesIO()
    with drawing():
        metadata = {"Date": None} if kind == "svg" else {"CreationDate": None} if kind == "pdf" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, buffer.getvalue())


def label(text: str) -> str:
    """``text`` as matplotlib shall draw it: no formulas between dollars, no character that no font has."""
    shown = "".join(character if _drawable(character) else _code(character) for character in text)
    return shown.replace("$", r"\$")


def common_shortening(names: Sequence[str]) -> list[str]:
    """Names without the beginning and the end all of them share, cut at ``_`` so that words stay whole."""
    if len(set(names)) < 2:
        return list(names)
    parts = [re.split("(?<=_)", name) for name in names]
    start = _shared(parts)
    rest = [part[start:] for part in parts]
    end = _shared([[word.strip("_") for word in reversed(part)] for part in rest])
    short = ["".join(part[: len(part) - end]).strip("_") for part in rest]
    return short if all(short) and len(set(short)) == len(set(names)) else list(names)


def _shared(parts: Sequence[Sequence[str]]) -> int:
    """With how many equal elements all begin."""
    columns = zip(*parts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def _settings() -> dict[str, Any]:
    return {
        "font.family": [*_families()],
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "svg.hashsalt": "lichen",
        "path.simplify": True,
    }


@functools.cache
def _families() -> tuple[str, ...]:
    """DejaVu Sans, which matplotlib brings, then what the machine has for Chinese."""
    from matplotlib import font_manager

    there = sorted({font.name for font in font_manager.fontManager.ttflist})
    return ("DejaVu Sans", *(name for wanted in _CJK for name in there if name.startswith(wanted)))


@functools.cache
def _codes() -> frozenset[int]:
    """Every character some font of ours can draw."""
    from matplotlib import font_manager, ft2font

    found: set[int] = set()
    for family in _families():
        found |= set(ft2font.FT2Font(font_manager.findfont(family)).get_charmap())
    return frozenset(found)


def _drawable(character: str) -> bool:
    return character.isprintable() and (character.isascii() or ord(character) in _codes())


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
