from collections import Counter

import numpy as np
import pytest

from lichen.config.cleaning import CleanConfig, RepetitionConfig
from lichen.dataset.filters import REASONS, duplicate_line_fraction, find_reasons, n_gram_fractions
from lichen.dataset.units import Units

ENGLISH = " ".join(f"word{number} and other{number} stand" for number in range(40))
CHINESE = "".join(chr(0x4E00 + number) for number in range(200))


def reason(text: str, **settings: object) -> str:
    return find_reasons([text], CleanConfig.from_data(settings))[0]


def test_lengths_are_counted_in_characters():
    assert reason("苔藓", min_characters=2) == ""
    assert reason("苔藓", min_characters=3) == "too_short"
    assert reason("苔藓", max_characters=1) == "too_long"
    assert reason(" \n\t　") == "empty"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, ""),
        (CHINESE, ""),
        ("buy now " * 60, "top_2_gram"),
        ("哈哈" * 60, "top_2_gram"),
        ("".join(f"苔藓地{chr(0x5000 + number)}{chr(0x6000 + number)}" for number in range(40)), "top_2_gram"),
        (CHINESE + "\n" + CHINESE, "duplicate_10_gram"),
        ((CHINESE[:40] + "\n") * 5, "duplicate_lines"),
        (ENGLISH + ENGLISH, "duplicate_10_gram"),
    ],
)
def test_repetition_in_words_and_in_characters(text, expected):
    assert reason(text) == expected


def test_short_documents_are_not_judged():
    assert reason("ha ha ha ha") == "" and reason("ha " * 120) == "top_2_gram"


def test_limits_of_one_switch_everything_off():
    off = {name: 1 for name in RepetitionConfig.model_fields if name != "min_units"}
    assert reason("buy now " * 100, repetition=off) == ""


def test_long_documents_are_judged_by_their_beginning():
    assert reason("moss " * 300_000) == "top_2_gram"


def test_a_document_is_judged_alike_alone_and_among_others():
    texts = [ENGLISH, "buy now " * 30, "", CHINESE, "哈" * 99, "x\n" * 100] * 40
    alone = [find_reasons([text], CleanConfig())[0] for text in texts[:6]]
    assert find_reasons(texts, CleanConfig()) == alone * 40
    assert set(alone) <= {"", *REASONS}


def test_fractions_equal_counting_by_hand():
    draw = np.random.default_rng(0)
    texts = [" ".join(map(str, draw.integers(0, 5, draw.integers(0, 40)))) for _ in range(50)]
    for size in (2, 3, 10):
        top, repeated = n_gram_fractions(Units.of(texts), size)
        for place, text in enumerate(texts):
            words = text.split()
            grams = Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
            most = max(grams.values(), default=0)
            assert top[place] == pytest.approx(min(1, most * size / len(words)) if most >= 4 else 0)
            assert repeated[place] == pytest.approx(1 - len(grams) / grams.total() if grams else 0)


def test_lines_are_compared_without_their_edges():
    assert duplicate_line_fraction("moss\n  moss \nbark\n\nash!") == 0.25
    assert duplicate_line_fraction("moss\nmoss\nmoss") == 0
