"""The report: one file, well-formed, nothing from outside obeyed."""

import html.parser
import re

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.metrics import plots
from lichen.metrics.report import Details, Picture, Samples, Table, Text, write_report

EVIL = "</style><script>alert('x')</script>\"'&\x1b[31m\ud800"


class Page(html.parser.HTMLParser):
    """Open tags, text and attributes of a page; fails where tags do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.words = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "bars.png"
    plots.plot_bars({"a": 1.0}, path, "t", "u")
    return path


def test_everything_from_outside_is_escaped(tmp_path, picture):
    output = tmp_path / "deep" / "report.html"
    write_report(
        output,
        EVIL,
        Text(EVIL, f"{EVIL}\n\nsecond"),
        Table(EVIL, [{EVIL: EVIL, "n": 1}, {"n": None}], note=EVIL),
        Picture(EVIL, picture, EVIL),
        Samples(EVIL, [(EVIL, EVIL, EVIL)]),
        Details(EVIL, {"key": EVIL}),
        Details(EVIL, EVIL),
        subtitle=EVIL,
        language=EVIL,
    )
    text = output.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "\x1b" not in text
    assert sum("alert('x')" in word for word in page.words) >= 12
    assert all(link.startswith("data:image/") for link in page.links) and page.links


def test_the_page_needs_no_network(tmp_path, picture):
    write_report(tmp_path / "r.html", "t", Picture("p", picture))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text


def test_numbers_are_aligned_and_missing_ones_shown():
    rows = [{"model": "dense", "tokens": 2200000, "score": 2.11}, {"model": "gzip", "score": 2.94}]
    found = Table("t", rows).html()
    assert '<td class="n">2,200,000</td>' in found and '<td class="n">–</td>' in found
    assert '<th class="n">tokens</th>' in found and "<th>model</th>" in found


def test_vector_pictures_are_embedded_too(tmp_path):
    plots.plot_bars({"a": 1.0}, tmp_path / "bars.svg", "t", "u")
    assert "data:image/svg+xml;base64," in Picture("p", tmp_path / "bars.svg").html()


def test_a_picture_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LichenError, match=r"gone\.png"):
        write_report(tmp_path / "r.html", "t", Picture("p", tmp_path / "gone.png"))
    with pytest.raises(UsageError, match=r"\.png"):
        Picture("p", tmp_path / "x.exe").html()
    assert not (tmp_path / "r.html").exists()
