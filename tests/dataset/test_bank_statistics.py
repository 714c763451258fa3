import numpy as np

from lichen.dataset.bank_statistics import Relationship, conflicts, histogram, relations_table
from lichen.dataset.facts import Fact, made_fact

FACTS = [
    made_fact("Ada", "job", "poet"),
    made_fact("ada", "Job", "Poet"),  # the same, otherwise spelt
    made_fact("Ada", "job", "baker"),
    made_fact("Bo", "job", "poet"),
    made_fact("Bo", "born in", "Oslo"),
    Fact("s", "Moss."),
]


def test_relations_are_counted() -> None:
    table = {row.relation: row for row in relations_table(FACTS)}
    assert table["job"] == Relationship("job", 3, 2, 2, 1, "poet", 2 / 3)
    assert table[""] == Relationship("", 1, 0, 0, 0, "", 0.0)
    assert next(iter(table)) == "job"


def test_only_differing_objects_are_several() -> None:
    assert conflicts(FACTS) == [("Ada", "job", ("poet", "baker"))]
    assert conflicts(FACTS[:2]) == []


def test_the_histogram_counts_everything_once() -> None:
    lengths = np.array([4, 5, 8, 9, 32], np.uint8)
    bins = histogram(lengths)
    assert bins[0] == (1, 4, 1) and bins[1] == (5, 8, 2) and bins[-1] == (29, 32, 1)
    assert sum(count for _, _, count in bins) == 5
    assert histogram(np.zeros(0)) == []
