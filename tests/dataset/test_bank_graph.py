from pathlib import Path

import networkx
import pytest

from lichen.config.errors import UsageError
from lichen.dataset.bank_graph import (
    around,
    graph_of,
    neighbours,
    node_of,
    path_between,
    two_hop_questions,
    write_graphml,
)
from lichen.dataset.facts import Fact, made_fact

CAPITALS = {"London": "England", "Paris": "France", "Rome": "Italy", "Oslo": "Norway", "Lima": "Peru"}
FACTS = [
    *(made_fact(city, "capital of", country, id=city) for city, country in CAPITALS.items()),
    made_fact("Ada", "place of birth", "London", id="ada"),
    made_fact("Bo", "place of birth", "Oslo", id="bo"),
    made_fact("Bo", "place of death", "paris", id="bo2"),
    made_fact("Cleo", "lived in", "Rome", id="cleo1"),
    made_fact("Cleo", "lived in", "Oslo", id="cleo2"),
    made_fact("England", "capital", "London", id="back"),
    Fact("s", "Moss is green."),
    made_fact("杜甫", "出生地", "巩县", id="d"),
]


def test_every_fact_with_two_ends_is_an_edge() -> None:
    graph = graph_of(FACTS)
    assert graph.number_of_edges() == len(FACTS) - 1
    assert [str(step) for step in neighbours(graph, "London")] == [
        "London — capital of → England",
        "London ← place of birth — Ada",
        "London ← capital — England",
    ]


def test_the_shortest_way_follows_edges_either_way() -> None:
    graph = graph_of(FACTS)
    steps = path_between(graph, "Italy", "Norway")
    assert [step.id for step in steps] == ["Rome", "cleo1", "cleo2", "Oslo"]
    assert [step.forward for step in steps] == [False, False, True, True]
    assert path_between(graph, "Ada", "杜甫") == [] == path_between(graph, "Ada", "Ada")


def test_names_are_found_whatever_their_capitals() -> None:
    graph = graph_of(FACTS)
    assert (node_of(graph, "paris"), node_of(graph, "LONDON")) == ("paris", "London")
    with pytest.raises(UsageError, match=r"no fact is about 'Lodnon' \(nearest: London"):
        node_of(graph, "Lodnon")
    with pytest.raises(UsageError, match=r"no fact is about 'Zed'$"):
        node_of(graph, "Zed")


def test_what_is_near_is_no_more_than_asked_for() -> None:
    graph = graph_of(FACTS)
    assert set(around(graph, ["Bo"], 3)) == {"Bo", "Oslo", "paris"}
    assert set(around(graph, ["杜甫"], 60)) == {"杜甫", "巩县"}
    assert len(around(graph, [], 4)) == 4


def test_graphml_is_read_back(tmp_path: Path) -> None:
    graph = graph_of([*FACTS, made_fact("杜甫", "故乡", "巩县", id="d2")])
    write_graphml(graph, tmp_path / "deep" / "g.graphml")
    found = networkx.read_graphml(tmp_path / "deep" / "g.graphml")
    assert set(found) == set(graph)
    edges = [(edge["relation"], edge["id"]) for edge in found["杜甫"]["巩县"].values()]
    assert edges == [("出生地", "d"), ("故乡", "d2")]


def test_questions_of_two_hops_have_one_answer() -> None:
    questions = two_hop_questions(FACTS, seed=0, n=100)
    hops = {(question.first.id, question.second.id) for question in questions}
    # not: Cleo, who lived in two cities; Ada → London → … → London; a relation with fewer than four objects
    assert hops == {("ada", "London"), ("bo", "Oslo"), ("bo2", "Paris")}
    for question in questions:
        assert question.answer == question.second.object in question.candidates
        assert len(set(question.candidates)) == 4 and set(question.candidates) <= set(CAPITALS.values())


def test_questions_are_drawn_by_seed_and_answers_stand_anywhere() -> None:
    facts = [made_fact(f"p{n}", "born in", f"c{n}") for n in range(200)]
    facts += [made_fact(f"c{n}", "in", f"k{n % 9}") for n in range(200)]
    first, again, other = (two_hop_questions(facts, seed, 100) for seed in (1, 1, 2))
    assert first == again != other and len({question.first.id for question in first}) == 100
    places = [question.candidates.index(question.answer) for question in first]
    assert all(places.count(place) > 10 for place in range(4))
    assert two_hop_questions(facts[:200], 0, 5) == []
