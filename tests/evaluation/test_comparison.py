"""Comparisons in pairs: by fact, not by place, and only of what all were asked."""

import pytest

from lichen.config.errors import LichenError
from lichen.evaluation.comparison import Which, difference, outcomes, over_seeds

WHICH = Which("added", "object", "trained")


def run(right, asked="abcdefgh", written=True):
    bits = "".join("1" if id in right else "0" for id in asked)
    score = {"task": "object", "wording": "trained", "facts": list(asked), "chosen": bits}
    return {
        "checkpoint": "c",
        "groups": [{"name": "added", "scores": [{**score, "written": bits if written else None}]}],
    }


def test_facts_are_paired_by_their_ids_whatever_their_order():
    assert difference([run("abcd")], [run("dcba", asked="hgfedcba")], WHICH).value == 0
    score = difference([run("abcdef")], [run("ab", asked="hgfedcba")], WHICH)
    assert score.value == 0.5 and score.n == 8 and score.low > 0


def test_only_facts_that_everybody_was_asked_count():
    score = difference([run("ab", asked="abxy")], [run("", asked="abcd")], WHICH)
    assert score.value == 1 and score.n == 2
    with pytest.raises(LichenError, match="no fact"):
        difference([run("a", asked="a")], [run("b", asked="b")], WHICH)


def test_unequal_numbers_of_seeds_are_compared_too():
    score = difference([run("abcd"), run("abcde"), run("abc")], [run("a"), run("b")], WHICH)
    assert score.value == pytest.approx(4 / 8 - 1 / 8)
    assert over_seeds([run("abcd"), run("abcde"), run("abc")], WHICH).n == 3


def test_what_was_not_examined_is_named():
    with pytest.raises(LichenError, match="c: added, object, trained, written"):
        outcomes(run("a", written=False), WHICH)
    with pytest.raises(LichenError, match="collisions"):
        outcomes(run("a"), Which("collisions", "object", "trained"))
