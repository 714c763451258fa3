import random
from pathlib import Path

import pytest

from lichen.config.cleaning import CleanConfig
from lichen.dataset.cleaning import clean
from lichen.dataset.normalising import apply_functions, normalise


def test_each_step_can_be_switched_off():
    text = "\n \n  e\u0301\r\n\u2028ﬁ \x07\n\n"
    assert normalise(text, CleanConfig()) == "  é\n\nﬁ"
    assert normalise(text, CleanConfig(normalisation="nfkc")) == "  é\n\nfi"
    plain = CleanConfig(normalisation="none", unify_newlines=False, strip_controls=False, strip=False)
    assert normalise(text, plain) == text


def test_what_a_reader_sees_stays():
    for text in (
        "床前明月光，疑是地上霜。",
        "\tdef f(x):\n\t\treturn x",
        "naïve café — “moss”",
        "👩‍🔬🏳️‍🌈",
        "नमस्ते",
        "ภาษาไทย",
    ):
        assert normalise(text, CleanConfig()) == text


def test_normalising_twice_changes_nothing():
    draw = random.Random(0)
    letters = "a \n\r\t\x00\x07\x85\u2028\ufeffe\u0301苔ﬁ½\u1100\u1161\u0344\u00c5\u212b　"
    for form in ("nfc", "nfkc", "none"):
        config = CleanConfig(normalisation=form)
        for _ in range(2000):
            once = normalise("".join(draw.choices(letters, k=draw.randint(0, 12))), config)
            assert normalise(once, config) == once


def test_steps_of_ones_own_change_and_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_steps_x.py").write_text(
        "def shout(text):\n    return text.upper()\n\n\ndef no_moss(text):\n    return None if 'MOSS' in text else text\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = CleanConfig(functions=("my_steps_x:shout", "my_steps_x:no_moss"))
    assert apply_functions("bark", config) == ("BARK", "")
    assert apply_functions("moss", config) == ("MOSS", "no_moss")
    source = tmp_path / "s.jsonl"
    source.write_text('{"text": "moss"}\n{"text": "bark"}\n')
    report = clean([source], config, tmp_path / "clean")
    assert (report.read, report.kept, report.dropped) == (2, 1, {"no_moss": 1})
    assert '"BARK"' in (tmp_path / "clean" / "s.jsonl").read_text()
