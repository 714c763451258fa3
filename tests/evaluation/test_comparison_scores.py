"""Scores of a comparison: over seeds and facts, only of what was asked, and language beside it."""

from typing import Any

import pytest

from lichen.evaluation.comparison import Which
from lichen.evaluation.comparison_scores import (
    ArmFound,
    SizeFound,
    accuracy,
    asked,
    bits_against,
    excluded,
    excludes_zero,
    groups,
    in_group,
    language,
    lead,
    questions,
    yardstick,
)

ADDED = Which("added", "object", "trained", "written")


def run(
    written: str | None, chosen: str = "", group: str = "added", task: str = "object", **more: Any
) -> dict[str, Any]:
    """An examination's data with one task in one group."""
    facts = [f"f{n}" for n in range(len(written or chosen))]
    one = {"task": task, "wording": "trained", "facts": facts, "chosen": chosen or written, "written": written, **more}
    return {"groups": [{"name": group, "scores": [one]}]}


def words(nats: list[float], value: float) -> dict[str, Any]:
    score = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": len(nats)}
    return {"bits_per_byte": score, "distinct_2": {**score, "value": None}, "per_document": {"nats": nats}}


def test_one_seed_has_wilsons_interval_and_several_that_of_seeds_and_facts() -> None:
    single = accuracy([run("1" * 30 + "0" * 10)], ADDED)
    assert (single.value, single.n) == (0.75, 40) and 0.59 < single.low < 0.6
    several = accuracy([run("1" * 30 + "0" * 10), run("1" * 10 + "0" * 30)], ADDED)
    assert several.value == 0.5 and several.low < 0.25 and several.high > 0.75  # the seeds differ more than the facts
    alike = accuracy([run("1" * 40), run("1" * 40)], ADDED)
    assert alike.high == 1 and 0.9 < alike.low < 1  # never without a width


def test_a_lead_is_paired_and_may_be_none() -> None:
    size = SizeFound(
        1, arms=[ArmFound("a", knowledge=[run("11110000" * 8)]), ArmFound("b", knowledge=[run("11100000" * 8)])]
    )
    found = lead(size, "a", "b", ADDED)
    assert found.value == 1 / 8 and found.low > 0 and excludes_zero(found)  # unpaired it would be lost among the facts
    assert not excludes_zero(lead(size, "b", "b", ADDED))
    nothing = lead(size, "a", "c", ADDED)
    assert nothing.n == 0 and not excludes_zero(nothing)


def test_what_was_asked_and_what_could_not_be() -> None:
    runs = [
        run("10", group="seen"),
        run(None, "10"),
        run("", task="relation", excluded={"no other relation has this object": 7}),
        run("10", task="verification"),
    ]
    size = SizeFound(1, arms=[ArmFound("a", knowledge=runs)])
    assert groups(size) == ["seen", "added"]
    ways = [(which.task, which.way) for which in questions(size)]
    assert ways == [("object", "written"), ("object", "chosen"), ("relation", "chosen"), ("verification", "chosen")]
    assert [asked(size, which) for which in questions(size)] == [True, True, False, True]
    assert excluded(size, questions(size)[2]) == {"no other relation has this object": 7}
    assert accuracy(runs, Which("collisions", "object", "trained")).n == 0


def test_yardsticks_are_those_of_the_same_questions() -> None:
    share = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    more: dict[str, Any] = {"yardsticks": {"majority": {"written": share, "chosen": {**share, "value": 0.25}}}}
    size = SizeFound(1, arms=[ArmFound("a", knowledge=[run("10"), run("11", **more)])])
    assert yardstick(size, "majority", ADDED).value == 0.5
    assert yardstick(size, "majority", in_group(questions(size)[0], "seen")).n == 0


def test_language_over_seeds() -> None:
    one, two = words([1.0, 2.0, 3.0], 2.0), words([1.0, 2.0, 3.2], 2.2)
    assert language([one], "bits_per_byte").low == 1.9
    both = language([one, two], "bits_per_byte")
    assert both.value == pytest.approx(2.1) and both.n == 2 and both.low < 1.9
    assert language([one], "distinct_2").n == 0 and language([{}], "repetition").n == 0


def test_bits_are_compared_document_by_document() -> None:
    ours, theirs = [words([1.01, 10.1, 101.0], 2.0)], [words([1.0, 10.0, 100.0], 2.0), words([1.0, 10.0, 100.0], 2.0)]
    found = bits_against(ours, theirs)
    assert found.value == pytest.approx(0.01) and found.low == pytest.approx(0.01) and found.unit == "%"
    assert bits_against(ours, [words([1.0], 1.0)]).n == 0 and bits_against([], theirs).n == 0
