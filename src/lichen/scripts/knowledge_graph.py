"""``lichen knowledge graph BANK``: the bank as a graph.

    lichen knowledge graph BANK --from Ada                    what is said of Ada, and of whom Ada is said
    lichen knowledge graph BANK --from Ada --to England       a shortest way
    lichen knowledge graph BANK --output graph.graphml        the whole graph, for Gephi, yEd, Cytoscape
    lichen knowledge graph BANK --from Ada --output ada.png   a picture of what is near

>>> kind_of(Path("a.graphml")), kind_of(Path("a.svg"))
('graphml', 'picture')
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import UsageError, nearest
from lichen.scripts.knowledge import columns, say, target

if TYPE_CHECKING:
    from networkx import MultiDiGraph

    from lichen.dataset.bank_graph import Step

PICTURES = (".png", ".svg", ".pdf")
SHOWN = 40  # neighbours printed
WORDS = 28  # characters of a name in a picture


class GraphCommand(Config):
    """The bank as a graph: lichen knowledge graph BANK [--from SUBJECT [--to OBJECT]] [--output FILE]."""

    start: str | None = None
    """Where to begin: a subject or an object. Short: --from."""
    end: str | None = None
    """Where to arrive. Short: --to."""
    output: Path | None = None
    """Write .graphml (all of it, or with --from what is near), or draw .png, .svg, .pdf."""
    most: int = Field(default=60, ge=2, le=500)
    """Nodes of a picture, or of a graph --from a node."""
    json_output: bool = False
    """Print the steps as JSON. Short: --json."""


def graph(argv: list[str]) -> int:
    """Print or draw; 0, and 1 where there is no way."""
    aliases = {"from": "start", "to": "end", "json": "json_output"}
    arguments = flags.parse(argv, GraphCommand, "lichen knowledge graph", aliases)
    command = load(GraphCommand, flags=arguments.settings, environment={})
    folder = target(arguments.positionals, "graph")
    if command.end is not None and command.start is None:
        raise UsageError("--to needs --from as well")
    kind = kind_of(command.output) if command.output else ""

    from lichen.dataset.bank import Bank
    from lichen.dataset.bank_graph import graph_of, node_of

    bank = Bank.open(folder)
    whole = graph_of(bank.facts)
    names = [node_of(whole, name) for name in (command.start, command.end) if name is not None]
    steps = _steps(whole, names)
    if command.output is not None:
        nodes = [*names, *(step.end for step in steps if len(names) == 2)]
        _write(whole, nodes, command.output, kind, command.most)
        return 0
    if command.json_output:
        print(json.dumps([vars_of(step) for step in steps], ensure_ascii=False, indent=1))
    elif not names:
        say(summary(whole))
    else:
        say("\n".join(_lines(steps, names)))
    return 1 if len(names) == 2 and not steps and names[0] != names[1] else 0


def _steps(whole: "MultiDiGraph[str]", names: list[str]) -> "list[Step]":
    from lichen.dataset.bank_graph import neighbours, path_between

    if len(names) == 2:
        return path_between(whole, *names)
    return neighbours(whole, names[0]) if names else []


def kind_of(output: Path) -> str:
    """What to write. Raises UsageError."""
    if output.suffix.lower() == ".graphml":
        return "graphml"
    if output.suffix.lower() in PICTURES:
        return "picture"
    raise UsageError(f"{output}: .graphml or a picture{nearest(output.suffix, ('.graphml', *PICTURES))}")


def vars_of(step: "Step") -> dict[str, object]:
    """Plain data."""
    return {name: getattr(step, name) for name in ("start", "relation", "end", "id", "forward")}


def summary(graph: "MultiDiGraph[str]") -> str:
    """Nodes, edges, parts, and the best connected nodes."""
    import networkx

    parts = sorted((len(part) for part in networkx.weakly_connected_components(graph)), reverse=True)
    degrees = sorted(((degree, node) for node, degree in graph.degree()), key=lambda pair: (-pair[0], pair[1]))
    largest = f", the largest of {parts[0]:,} nodes" if parts else ""
    head = f"{graph.number_of_nodes():,} nodes, {graph.number_of_edges():,} facts, {len(parts):,} parts{largest}"
    return f"{head}\n\n{columns([('facts', 'node'), *((f'{d:,}', node) for d, node in degrees[:10])], right=1)}"


def _lines(steps: "list[Step]", names: list[str]) -> list[str]:
    if not steps:
        return [f"no way leads from {names[0]} to {names[-1]}"]
    lines = [f"{step}  ({step.id})" for step in steps[:SHOWN]]
    return [*lines, f"and {len(steps) - SHOWN:,} more"] if len(steps) > SHOWN else lines


def _write(whole: "MultiDiGraph[str]", names: list[str], output: Path, kind: str, most: int) -> None:
    from lichen.dataset.bank_graph import around, write_graphml

    part = around(whole, names, most) if names or kind == "picture" else whole
    if kind == "graphml":
        write_graphml(part, output)
    else:
        draw(part, names, output)
    say(f"{output}: {part.number_of_nodes():,} nodes, {part.number_of_edges():,} facts")


def draw(graph: "MultiDiGraph[str]", names: list[str], output: Path) -> None:
    """A picture of a small graph; ``names`` are picked out."""
    import networkx

    from lichen.metrics import figures

    side = max(6.0, min(16.0, 1.4 * graph.number_of_nodes() ** 0.5 + 3))
    figure = figures.new_figure(side, side * 0.75)
    axes = figure.add_subplot()
    layout = networkx.spring_layout(networkx.Graph(graph), seed=0, k=2.2 / max(graph.number_of_nodes(), 1) ** 0.5)
    places = {node: (float(x), float(y)) for node, (x, y) in layout.items()}
    said: dict[tuple[str, str], list[str]] = {}  # by pair, so that several facts of one pair do not cover each other
    for start, end, edge in graph.edges(data=True):
        arrow = {"arrowstyle": "-|>", "color": "#999999", "shrinkA": 8, "shrinkB": 8, "linewidth": 0.8}
        axes.annotate("", xy=places[end], xytext=places[start], arrowprops=arrow)
        said.setdefault((min(start, end), max(start, end)), []).append(edge["relation"])
    for (start, end), relations in said.items():
        x, y = ((a + b) / 2 for a, b in zip(places[start], places[end], strict=True))
        words = figures.label(", ".join(dict.fromkeys(relations)))
        axes.text(x, y, words, fontsize=6, color=figures.BLUE, ha="center", va="center")
    for node, (x, y) in places.items():
        face = figures.ORANGE if node in names else "#EEEEEE"
        box = {"boxstyle": "round,pad=0.25", "facecolor": face, "edgecolor": "#666666", "linewidth": 0.6}
        name = node if len(node) <= WORDS else f"{node[: WORDS - 1]}…"
        axes.text(x, y, figures.label(name), fontsize=7, ha="center", va="center", bbox=box)
    axes.set_axis_off()
    axes.margins(0.12)
    axes.set_xlim(min(x for x, _ in places.values()) - 0.2, max(x for x, _ in places.values()) + 0.2)
    axes.set_ylim(min(y for _, y in places.values()) - 0.2, max(y for _, y in places.values()) + 0.2)
    figures.save(figure, output)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
