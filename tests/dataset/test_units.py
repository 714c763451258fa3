import numpy as np
import pytest

from lichen.dataset.units import Units


def words(text: str, **settings: bool) -> int:
    return int(Units.of([text], **settings).counts[0])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("  .,!? —", 0),
        ("one two-three", 3),
        ("it's 42", 3),
        ("苔藓", 2),
        ("苔moss藓42", 4),
        ("ひらカタ", 4),
        ("ไทย", 3),
        ("한국어 말", 2),
        ("𠀀𠀁", 2),
    ],
)
def test_units_per_script(text, count):
    assert words(text) == count


def test_characters_as_units():
    assert words("one two", characters=True) == 6


def test_the_hash_depends_on_letters_and_order_not_on_place_or_case():
    units = Units.of(["ab ba AB abc", "x ab"])
    first, second, third, fourth = units.hashes[:4]
    assert first == third == units.hashes[5]
    assert len({int(first), int(second), int(fourth)}) == 3


def test_n_grams_never_span_documents():
    alone = [Units.of([text]).n_grams(3)[0] for text in ("a b c d", "e f", "g h i")]
    hashes, documents = Units.of(["a b c d", "e f", "", "g h i"]).n_grams(3)
    assert np.array_equal(hashes, np.concatenate(alone)) and documents.tolist() == [0, 0, 3]


def test_lower_case_that_is_longer_keeps_documents_apart():
    units = Units.of(["İİİ one", "two"])
    assert units.counts.tolist()[1] == 1 and units.hashes[-1] == Units.of(["two"]).hashes[0]


def test_nothing_at_all():
    units = Units.of([])
    assert len(units.hashes) == 0 and len(units.counts) == 0
    assert len(Units.of(["", "."]).n_grams(2)[0]) == 0
