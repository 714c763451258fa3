import numpy as np
import pytest

from lichen.config.cleaning import CleanConfig
from lichen.dataset.rejects import EARLY, Tally
from lichen.dataset.sources import SourceError


def summary(source: str = "poems", read: int = 100, bad: int = 0, **more: object) -> dict[str, object]:
    first = {"file": "a.jsonl", "line": 7, "detail": "no JSON at column 3"} if bad else None
    counts = {
        "read": read,
        "kept": read - bad,
        "bytes": read,
        "dropped": {},
        "rejects": {"not_json": bad} if bad else {},
    }
    return {"source": source, **counts, "first_reject": first, "last": True, "error": "", **more}


def test_bad_lines_up_to_the_limit_stop_nothing():
    tally = Tally([], CleanConfig())
    tally.add(summary(read=100, bad=1))
    tally.decide("poems", np.zeros(99, int))
    report = tally.report()
    assert (report.read, report.kept, report.dropped, report.rejects) == (100, 99, {"rejected": 1}, {"not_json": 1})


def test_more_bad_lines_stop_with_the_count_the_first_place_and_the_remedy():
    with pytest.raises(
        SourceError, match=r"poems: 2 of 100 lines are bad \(not_json 2\).*0\.01.*a\.jsonl:7: no JSON.*raise"
    ):
        Tally([], CleanConfig()).add(summary(bad=2))


def test_the_fraction_is_judged_at_the_end_of_the_source():
    tally = Tally([], CleanConfig())
    tally.add(summary(read=100, bad=50, last=False))
    tally.add(summary(read=9900, bad=50))
    tally.decide("poems", np.zeros(9900, int))
    assert tally.report().kept == 9900


def test_a_source_that_is_mostly_bad_is_given_up_early():
    tally = Tally([], CleanConfig())
    with pytest.raises(SourceError, match="lines are bad"):
        tally.add(summary(read=EARLY, bad=EARLY // 2 + 1, last=False))
    Tally([], CleanConfig(max_bad_fraction=1.0)).add(summary(read=EARLY, bad=EARLY, last=False))


def test_one_bad_source_does_not_hide_behind_a_large_one():
    tally = Tally([], CleanConfig())
    tally.add(summary("large", read=100_000))
    with pytest.raises(SourceError, match="source small"):
        tally.add(summary("small", read=10, bad=1))


def test_damaged_and_empty_sources_stop():
    with pytest.raises(SourceError, match="cut short"):
        Tally([], CleanConfig()).add(summary(error="a.gz: cut short"))
    with pytest.raises(SourceError, match="holds no document"):
        Tally([], CleanConfig()).add(summary(read=0))


def test_a_skipped_source_is_dropped_whole_and_explained():
    tally = Tally([], CleanConfig(bad_source="skip"))
    tally.add(summary("good"))
    tally.add(summary("bad", read=10, bad=5))
    tally.decide("good", np.array([0] * 98 + [1, 2]))
    tally.decide("bad", np.zeros(5, int))
    report = tally.report()
    assert report.dropped == {"exact_duplicate": 1, "near_duplicate": 1, "rejected": 5, "bad_source": 5}
    assert report.sources["bad"]["kept"] == 0 and "5 of 10" in report.sources["bad"]["error"]
    assert report.sources["good"]["error"] == "" and tally.error("bad") and not tally.error("good")


def test_empty_lines_are_counted_but_not_held_against_the_source():
    tally = Tally([], CleanConfig())
    tally.add(summary(read=4, rejects={"empty_line": 2}, kept=2))
    tally.decide("poems", np.zeros(2, int))
    assert tally.report().dropped == {"rejected": 2}
