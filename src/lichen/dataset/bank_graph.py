"""The bank as a graph: subjects and objects are nodes, every fact is an edge from one to the other.

Paths may follow an edge either way ("London ← place of birth ← Ada"). A question of two hops joins two facts at the entity
they share, the object of one and the subject of the other: it has one answer in the bank, and candidates that stand as objects
of the second relation elsewhere, so that only following both facts tells them apart.

>>> from lichen.dataset.facts import made_fact
>>> facts = [made_fact("Ada", "place of birth", "London", "a"), made_fact("London", "capital of", "England", "b"),
...          made_fact("Paris", "capital of", "France", "c")]
>>> graph = graph_of(facts)
>>> [str(step) for step in path_between(graph, "Ada", "England")]
['Ada — place of birth → London', 'London — capital of → England']
>>> question, = two_hop_questions(facts, seed=0, n=5, candidates=2)
>>> question.first.id, question.second.id, question.answer, sorted(question.candidates)
('a', 'b', 'England', ['England', 'France'])
"""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lichen.config.errors import UsageError, nearest, require
from lichen.core.folders import write_file
from lichen.core.streams import Stream
from lichen.dataset.facts import Fact

if TYPE_CHECKING:
    from networkx import MultiDiGraph


@dataclass(frozen=True)
class Step:
    """One edge as it is walked: ``forward`` from subject to object."""

    start: str
    relation: str
    end: str
    id: str
    """Of the fact."""
    forward: bool = True

    def __str__(self) -> str:
        left, right = ("—", "→") if self.forward else ("←", "—")
        return f"{self.start} {left} {self.relation} {right} {self.end}"


@dataclass(frozen=True)
class TwoHop:
    """``first`` leads to the subject of ``second``; the answer is its object."""

    first: Fact
    second: Fact
    answer: str
    candidates: tuple[str, ...]
    """Objects of the second relation, the answer among them, in random order."""


def graph_of(facts: Iterable[Fact]) -> MultiDiGraph[str]:
    """A ``networkx.MultiDiGraph`` of all facts with subject and object; edges have ``relation`` and ``id``."""
    graph = require("networkx", "knowledge").MultiDiGraph()
    for fact in facts:
        if fact.subject and fact.object:
            graph.add_edge(fact.subject, fact.object, relation=fact.relation, id=fact.id)
    return graph


def node_of(graph: MultiDiGraph[str], name: str) -> str:
    """The node called ``name``, capitals aside. Raises UsageError with the nearest."""
    if name in graph:
        return name
    folded = name.casefold()
    for node in graph:
        if node.casefold() == folded:
            return node
    alike = [node for node in graph if node[:1].casefold() == folded[:1]]
    raise UsageError(f"no fact is about {name!r}{nearest(name, alike[:20_000], most=6) if alike else ''}")


def neighbours(graph: MultiDiGraph[str], name: str) -> list[Step]:
    """Every fact that ``name`` is subject or object of, those it is subject of first."""
    out = [Step(name, edge["relation"], end, edge["id"]) for _, end, edge in graph.out_edges(name, data=True)]
    into = [
        Step(name, edge["relation"], start, edge["id"], False) for start, _, edge in graph.in_edges(name, data=True)
    ]
    return out + into


def path_between(graph: MultiDiGraph[str], start: str, end: str) -> list[Step]:
    """A shortest way from one node to another, edges taken either way; empty where there is none, or it is no way at all."""
    networkx = require("networkx", "knowledge")
    try:
        nodes = networkx.bidirectional_shortest_path(graph.to_undirected(as_view=True), start, end)
    except networkx.NetworkXNoPath:
        return []
    return [_step(graph, a, b) for a, b in itertools.pairwise(nodes)]


def around(graph: MultiDiGraph[str], names: Sequence[str], most: int = 60) -> MultiDiGraph[str]:
    """The part of the graph nearest to ``names`` (or to its best connected nodes), of ``most`` nodes at most."""
    if not names:
        names = [node for node, _ in sorted(graph.degree(), key=lambda pair: (-pair[1], pair[0]))[:3]]
    chosen = dict.fromkeys(names)
    frontier = list(chosen)
    while frontier and len(chosen) < most:
        steps = [step for name in frontier for step in neighbours(graph, name)]
        frontier = [end for end in dict.fromkeys(step.end for step in steps) if end not in chosen]
        chosen.update(dict.fromkeys(frontier[: most - len(chosen)]))
    return graph.subgraph(list(chosen)).copy()


def write_graphml(graph: MultiDiGraph[str], path: Path) -> None:
    """Write the graph in the form that Gephi, yEd and Cytoscape read."""
    buffer = io.BytesIO()
    require("networkx", "knowledge").write_graphml(graph, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())


def two_hop_questions(facts: Sequence[Fact], seed: int, n: int, candidates: int = 4) -> list[TwoHop]:
    """At most ``n`` questions, drawn without replacement, with ``candidates`` answers each to choose from.

    Both facts are the only ones with their subject and relation, so that the answer is the only right one, and it is neither
    end of the first fact.
    """
    alone = _only_objects(facts)
    by_subject: dict[str, list[Fact]] = defaultdict(list)
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    for fact in facts:
        if fact.is_triple:
            objects[fact.relation.casefold()].setdefault(fact.object.casefold(), fact.object)
            if _pair(fact) in alone:
                by_subject[fact.subject.casefold()].append(fact)
    hops = [
        (first, second)
        for first in facts
        if _pair(first) in alone
        for second in by_subject.get(first.object.casefold(), ())
        if second.object.casefold() not in (first.subject.casefold(), first.object.casefold())
        and len(objects[second.relation.casefold()]) >= candidates
    ]
    stream = Stream(seed, "two-hop questions")
    drawn = stream.permutation(len(hops)).take(np.arange(min(n, len(hops)))).tolist() if hops else []
    questions: list[TwoHop] = []
    for number, place in enumerate(drawn):
        first, second = hops[place]
        others = objects[second.relation.casefold()]
        choices = _choices(second.object, others, candidates, stream.numpy(number))
        questions.append(TwoHop(first, second, second.object, choices))
    return questions


def _choices(answer: str, objects: dict[str, str], count: int, draw: np.random.Generator) -> tuple[str, ...]:
    """``answer`` and ``count - 1`` other objects, shuffled."""
    others = [object for folded, object in objects.items() if folded != answer.casefold()]
    choices = [answer, *(others[place] for place in draw.permutation(len(others))[: count - 1].tolist())]
    return tuple(choices[place] for place in draw.permutation(len(choices)).tolist())


def _pair(fact: Fact) -> tuple[str, str]:
    return fact.subject.casefold(), fact.relation.casefold()


def _only_objects(facts: Iterable[Fact]) -> set[tuple[str, str]]:
    """Subjects and relations that one fact alone has."""
    count: dict[tuple[str, str], int] = defaultdict(int)
    for fact in facts:
        if fact.is_triple:
            count[_pair(fact)] += 1
    return {pair for pair, times in count.items() if times == 1}


def _step(graph: Any, start: str, end: str) -> Step:
    if graph.has_edge(start, end):
        edge = next(iter(graph[start][end].values()))
        return Step(start, edge["relation"], end, edge["id"])
    edge = next(iter(graph[end][start].values()))
    return Step(start, edge["relation"], end, edge["id"], False)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
