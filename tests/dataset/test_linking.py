"""Links: names as a reader sees them, the nearest subject, and nothing before it was named."""

import unicodedata

import numpy as np
import pytest

from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.linking import MOST_ENTRIES, Linker, checksums


def facts(*triples: tuple[str, str, str]) -> list[Fact]:
    return [made_fact(*triple, id=str(number)) for number, triple in enumerate(triples)]


def found(linker: Linker, text: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """(text from the subject to the object's end, object, entries) of every link."""
    return [(text[link.subject : link.stop], text[link.start : link.stop], link.entries) for link in linker.find(text)]


LINKER = Linker(
    facts(
        ("Ada", "born in", "Rome"),
        ("Ada", "died in", "Rome"),
        ("Ada", "field", "logic"),
        ("Ada", "field", "mathematics"),
        ("New York", "in", "America"),
        ("New York City", "in", "New York"),
        ("Turkey", "in", "Asia"),
        ("杜甫", "出生地", "巩县"),
        ("北京", "国家", "中国"),
        ("北京大学", "位于", "北京"),
    )
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada did logic.", [("Ada did logic", "logic", (2,))]),
        ("Rome is old. Ada came from there.", []),
        ("Adam did logic, Ada's was logical, Romeo and Ada.", []),
        ("Ada-born logic", [("Ada-born logic", "logic", (2,))]),
        (
            "Ada did logic and mathematics",
            [("Ada did logic", "logic", (2,)), ("Ada did logic and mathematics", "mathematics", (3,))],
        ),
        ("Ada died in Rome", [("Ada died in Rome", "Rome", (0, 1))]),
        ("Logic is what Ada did. Logic!", [("Ada did. Logic", "Logic", (2,))]),
        ("I ate a turkey in Asia", []),
        ("ada did logic", []),
        ("New York City is in America", []),
        ("New York City lies in New York", [("New York City lies in New York", "New York", (5,))]),
        ("New York lies in America", [("New York lies in America", "America", (4,))]),
        ("杜甫生于巩县。", [("杜甫生于巩县", "巩县", (7,))]),
        ("唐代诗人杜甫是巩县人", [("杜甫是巩县", "巩县", (7,))]),
        ("北京大学在北京，不说中国", [("北京大学在北京", "北京", (9,)), ("北京，不说中国", "中国", (8,))]),
        ("北京是中国的首都", [("北京是中国", "中国", (8,))]),
        ("在Rome的Ada喜欢logic和Rome", [("Ada喜欢logic", "logic", (2,)), ("Ada喜欢logic和Rome", "Rome", (0, 1))]),
        ("", []),
    ],
)
def test_what_is_linked(text: str, expected: list[tuple[str, str, tuple[int, ...]]]) -> None:
    assert found(LINKER, text) == expected


def test_the_nearest_subject_with_that_object_counts() -> None:
    linker = Linker(facts(("Ada", "in", "Rome"), ("Bob", "in", "Rome"), ("Cy", "in", "Oslo")))
    assert found(linker, "Ada, Bob and Cy were in Rome") == [("Bob and Cy were in Rome", "Rome", (1,))]
    assert found(linker, "Bob, Ada: Rome. Bob: Rome") == [("Ada: Rome", "Rome", (0,)), ("Bob: Rome", "Rome", (1,))]


def test_the_window_ends_at_so_many_characters() -> None:
    linker = Linker(facts(("Ada", "in", "Rome")), window=10)
    assert len(linker.find("Ada" + "." * 10 + "Rome")) == 1
    assert linker.find("Ada" + "." * 11 + "Rome") == []
    assert len(linker.find("Ada" + "." * 30 + "Ada Rome")) == 1


def test_one_text_knows_nothing_of_another() -> None:
    linker = Linker(facts(("Ada", "in", "Rome")))
    assert linker.find("This is Ada.") == [] == linker.find("That is Rome.")


def test_a_name_that_is_subject_and_object_can_be_both() -> None:
    linker = Linker(facts(("Paris", "in", "France"), ("France", "in", "Europe"), ("self", "is", "self")))
    text = "Paris is in France, which is in Europe."
    assert found(linker, text) == [
        ("Paris is in France", "France", (0,)),
        ("France, which is in Europe", "Europe", (1,)),
    ]
    assert found(linker, "self") == []  # a mention is no subject of itself


def test_spellings_of_one_name_are_one() -> None:
    composed, apart = unicodedata.normalize("NFC", "São Paulo"), unicodedata.normalize("NFD", "São Paulo")
    linker = Linker(facts((apart, "in", "Brazil"), (composed, "has", "Brazil")))
    assert found(linker, f"{composed} in Brazil") == [(f"{composed} in Brazil", "Brazil", (0, 1))]
    full_width = Linker(facts(("Ａda", "in", "Rome")), normalisation="nfkc")
    assert len(full_width.find("Ada in Rome")) == 1
    assert Linker(facts(("Ａda", "in", "Rome"))).find("Ada in Rome") == []


@pytest.mark.parametrize("name", ["C++", "'Allo 'Allo!", ".hack//Sign", "St. John's", "M*A*S*H", "हिन्दी", "ไทย", "A"])
def test_names_of_any_shape_are_whole(name: str) -> None:
    linker = Linker(facts((name, "is", "good")))
    assert found(linker, f"we say {name} is good") == [(f"{name} is good", "good", (0,))]
    assert linker.find(f"we say x{name}x is good") == [] or name in ("C++", "'Allo 'Allo!", ".hack//Sign", "ไทย")


def test_a_sign_goes_on_with_its_word() -> None:
    linker = Linker(facts(("हिन", "is", "good")))
    assert linker.find("हिन is good") and not linker.find("हिन्दी is good")


def test_sentences_and_names_without_letters_are_never_found() -> None:
    linker = Linker([Fact("a", "Moss is green."), *facts(("!!!", "from", "Sacramento"))])
    assert linker.find("Moss is green. !!! are from Sacramento.") == []


def test_only_so_many_entries_answer() -> None:
    linker = Linker(facts(*(("Ada", f"relation {n}", "Rome") for n in range(7))))
    assert linker.find("Ada Rome")[0].entries == tuple(range(MOST_ENTRIES))


def test_checksums_differ_with_any_token_and_not_with_the_padding() -> None:
    rows = np.array([[1, 2, 3], [1, 2, 4], [1, 2, -1], [2, 1, -1], [0, 0, -1], [0, -1, -1], [1, 2, 3]])
    sums = checksums(rows)
    assert len(set(sums[:6].tolist())) == 6 and sums[0] == sums[6] and (sums > 0).all()
    assert checksums(np.pad(rows, ((0, 0), (0, 5)), constant_values=-1)).tolist() == sums.tolist()


def test_a_link_ends_within_its_text() -> None:
    """Although a longer name begins with the text's last word."""
    text = "New York City lies in New York"
    assert [link.stop for link in LINKER.find(text)] == [len(text)]
