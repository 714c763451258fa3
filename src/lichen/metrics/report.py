"""A report in one HTML file that needs nothing else: no network, no scripts, pictures inside.

A report is a title and sections in order; a section knows how to write itself. Everything that comes from outside is
escaped, and the page's own policy forbids scripts, forms and any request, so that a sample text or a run's name can not
do anything.

>>> print(Table("Scores", [{"model": "<dense>", "bits per byte": 2.11}]).html())
<h2>Scores</h2>
<table>
<thead><tr><th>model</th><th class="n">bits per byte</th></tr></thead>
<tbody>
<tr><td>&lt;dense&gt;</td><td class="n">2.11</td></tr>
</tbody>
</table>
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lichen.config.errors import LichenError, UsageError
from lichen.core.folders import write_file

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PICTURES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line) } table { border-collapse:
collapse; display: block; overflow-x: auto } th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line);
text-align: left } .n { text-align: right; font-variant-numeric: tabular-nums } figure { margin: 1rem 0 } img {
max-width: 100%; background: #fff; border-radius: .3rem } figcaption { opacity: .75 } pre, blockquote { background:
var(--soft); padding: .8rem 1rem; border-radius: .3rem; overflow-x: auto; margin: .5rem 0 } pre, .said { white-space:
pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: .85rem } .given { opacity: .6 }
@media print { body { max-width: none } }
"""


class Section(Protocol):
    """What a report is made of."""

    def html(self) -> str:
        """The section as HTML, everything from outside escaped."""
        ...


@dataclass(frozen=True)
class Text:
    """Paragraphs, divided by empty lines."""

    title: str
    text: str

    def html(self) -> str:
        """See Section."""
        paragraphs = [part.strip() for part in self.text.split("\n\n") if part.strip()]
        return "\n".join([_heading(self.title), *(f"<p>{_escape(part)}</p>" for part in paragraphs)])


@dataclass(frozen=True)
class Table:
    """Rows of equal keys; numbers are aligned to the right, floats shown with four digits."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    note: str = ""

    def html(self) -> str:
        """See Section."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        numeric = {
            name: all(_is_number(row.get(name)) for row in self.rows if row.get(name) is not None) for name in names
        }
        head = "".join(f"<th{_align(numeric[name])}>{_escape(name)}</th>" for name in names)
        lines = [
            "<tr>"
            + "".join(f"<td{_align(numeric[name])}>{_escape(_shown(row.get(name)))}</td>" for name in names)
            + "</tr>"
            for row in self.rows
        ]
        note = [f"<p>{_escape(self.note)}</p>"] if self.note else []
        body = ["<table>", f"<thead><tr>{head}</tr></thead>", "<tbody>", *lines, "</tbody>", "</table>"]
        return "\n".join([_heading(self.title), *body, *note])


@dataclass(frozen=True)
class Picture:
    """A .png, .svg or .jpg file, put into the page (a picture inside ``img`` can not run anything either)."""

    title: str
    path: Path
    caption: str = ""

    def html(self) -> str:
        """See Section. Raises UsageError for another kind of file and LichenError where it can not be read."""
        kind = _PICTURES.get(self.path.suffix.lower())
        if kind is None:
            raise UsageError(f"{self.path}: a report takes pictures that end in {', '.join(_PICTURES)}")
        try:
            data = base64.b64encode(self.path.read_bytes()).decode()
        except OSError as error:
            raise LichenError(f"{self.path}: can not be read ({error.strerror}); draw it again") from error
        caption = f"<figcaption>{_escape(self.caption)}</figcaption>" if self.caption else ""
        image = f'<img alt="{_escape(self.caption or self.title)}" src="data:{kind};base64,{data}">'
        return f"{_heading(self.title)}\n<figure>{image}{caption}</figure>"


@dataclass(frozen=True)
class Samples:
    """Texts a model wrote: (who, what it was given, what it wrote)."""

    title: str
    samples: Sequence[tuple[str, str, str]]

    def html(self) -> str:
        """See Section."""
        parts = [
            f'<blockquote><b>{_escape(who)}</b><div class="said"><span class="given">{_escape(given)}</span>'
            f"{_escape(written)}</div></blockquote>"
            for who, given, written in self.samples
        ]
        return "\n".join([_heading(self.title), *parts])


@dataclass(frozen=True)
class Details:
    """Long text or data (a configuration, the environment), folded away until wanted."""

    title: str
    content: str | Mapping[str, Any]

    def html(self) -> str:
        """See Section."""
        text = self.content if isinstance(self.content, str) else _json(self.content)
        return f"<details><summary>{_escape(self.title)}</summary><pre>{_escape(text)}</pre></details>"


def write_report(output: Path | str, title: str, *sections: Section, subtitle: str = "", language: str = "en") -> None:
    """Write one self-contained page; it appears whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(Path(folder) / "report.html", "A & B", Text("Why", "Because <b>."))
    ...     page = (Path(folder) / "report.html").read_text(encoding="utf-8")
    >>> "<title>A &amp; B</title>" in page, "Because &lt;b&gt;." in page
    (True, True)
    """
    head = [
        "<!doctype html>",
        f'<html lang="{_escape(language)}">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{_escape(title)}</h1>",
    ]
    below = [f"<p>{_escape(subtitle)}</p>"] if subtitle else []
    body = [section.html() for section in sections]
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    page = "\n".join([*head, *below, *body, "</body>", "</html>", ""])
    write_file(output, page.encode("utf-8", "backslashreplace"))


def _heading(title: str) -> str:
    return f"<h2>{_escape(title)}</h2>"


def _escape(text: str) -> str:
    """HTML-escaped, with control characters shown as their codes."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return html.escape(shown)


def _align(numeric: bool) -> str:
    return ' class="n"' if numeric else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A cell's text.

    >>> [_shown(value) for value in (None, 2200000, 0.00012345, 17012.3, "x", True)]
    ['–', '2,200,000', '0.0001234', '17,012', 'x', 'True']
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if _is_number(value) else str(value)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, default=str)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
