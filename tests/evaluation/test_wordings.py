"""Prompts in running text: cut where they must be, unambiguous, and answers recognised as words."""

import pytest

from lichen.dataset.relations import Relation
from lichen.evaluation.wordings import Wording, Wordings, begins_with


@pytest.mark.parametrize(
    ("pattern", "prompt", "continuation"),
    [
        ("[X] was born in [Y] .", "Ada was born in", " Rome."),
        ("[X] is an [Y]-born person.", "Ada is an", " Rome-born person."),
        ("the occupation of [X] is [Y].", "the occupation of Ada is", " Rome."),
        ("[X],  a type of [Y].", "Ada, a type of", " Rome."),
        ("[X]出生于[Y]。", "Ada出生于", "Rome。"),
    ],
)
def test_a_pattern_is_cut_before_its_object_and_nothing_is_lost(pattern, prompt, continuation):
    wording = Wording.of(pattern)
    assert wording is not None
    assert (wording.prompt("Ada"), wording.continuation("Ada", "Rome")) == (prompt, continuation)
    assert wording.continuation("Ada", "Rome", with_rest=False) == continuation[: continuation.index("Rome") + 4]


@pytest.mark.parametrize("pattern", ["[Y] is the birthplace of [X].", "[X] [Y]", "[X], [Y]", "[X] only"])
def test_patterns_that_ask_nothing_are_none(pattern):
    assert Wording.of(pattern) is None


def test_the_last_pattern_is_never_a_trained_one():
    wordings = Wordings(
        {"r": Relation("", "r", ("[X] a [Y]", "[Y] b [X]", "[X] c [Y]")), "s": Relation("", "s", ("[X] d [Y]",))}
    )
    assert [w.pattern for w in wordings.of("r", "trained")] == ["[X] a [Y]"]
    assert [w.pattern for w in wordings.of("r", "unseen")] == ["[X] c [Y]"]
    assert [w.pattern for w in wordings.of("r", "unseen", any_is_unseen=True)] == ["[X] a [Y]", "[X] c [Y]"]
    assert [w.pattern for w in wordings.of("s", "unseen")] == ["[X] d [Y]"] and not wordings.of("s", "trained")


def test_an_opening_that_other_sentences_share_is_found_as_whole_words_only():
    sentences = {
        "instrument": ("[X] is a [Y] player.", "[X] plays the [Y]."),
        "occupation": ("[X] is a [Y] by profession.",),
        "citizenship": ("[X] is an [Y] citizen.",),
        "part": ("[X] is a part of [Y].", "[Y] holds [X]."),
    }
    wordings = Wordings({label: Relation("", label, patterns) for label, patterns in sentences.items()})
    opening = wordings.of("instrument", "trained")[0]
    assert wordings.rivals("instrument", opening) == {"occupation", "part"}
    part = wordings.of("part", "trained")[0]
    assert wordings.rivals("part", part) == frozenset()  # "is a part of" is not opened by "is a"


def test_equal_sentences_of_two_relations_are_noticed_however_they_are_spaced():
    one, other = Relation("", "a", ("[X] is located in [Y] .",)), Relation("", "b", ("[X]  is located in [Y].",))
    assert Wordings({"a": one, "b": other}).share_a_sentence("a", "b")


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (" Rome. It", "Rome", True),
        (" ROME", "rome", True),
        (" Romeo", "Rome", False),
        (" the Rome", "Rome", True),
        (" The", "the", False),
        (" another Rome", "Rome", False),
        (" Rome-born person", "Rome", True),
        (" New  York", "New York", True),
        (" Zürich", "Zu\u0308rich", True),
        ("巩县人", "巩县", True),
        ("巩", "巩县", False),
        ("iPhone 12", "iPhone 1", False),
        (" anything", "", False),
    ],
)
def test_answers_begin_as_whole_words(text, answer, right):
    assert begins_with(text, answer) is right
