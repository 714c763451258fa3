"""What reaches a terminal can not steer it."""

import io

from lichen.inference.terminal import printable, write


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_control_character_is_escaped_but_line_break_and_tab():
    controls = [chr(code) for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"]
    for control in controls:
        assert control not in printable(f"a{control}b")
    assert printable("a\n\tb") == "a\n\tb"


def test_text_of_people_stays_as_it_is():
    text = "Grüße, 苔藓, 👩‍🔬, नमस्ते, עברית\n"
    assert printable(text) == text


def test_direction_marks_and_lone_surrogates_are_escaped():
    assert printable("\u202e\ud800") == "\\u202e\\ud800"


def test_only_a_terminal_is_protected():
    terminal, pipe = Terminal(), io.StringIO()
    write("\x1b[2J", terminal)
    write("\x1b[2J", pipe)
    assert terminal.getvalue() == "\\x1b[2J" and pipe.getvalue() == "\x1b[2J"


def test_what_the_encoding_lacks_is_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write("苔", stream)
    assert stream.buffer.getvalue() == b"\\u82d4"  # type: ignore[attr-defined]
