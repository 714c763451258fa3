"""What an examination of knowledge found: as text, Markdown, HTML, JSON and a picture.

All of them say the same tables: per group of facts the tasks with yardsticks beside them, then what other banks did, then edits;
then questions of two hops and the memory's health.
Every score comes with its interval and n; what could not be asked is said under the table with its reason.

>>> print(as_text([Table("Scores", [{"who": "model", "written": "93.0 %"}, {"who": "majority", "written": "4.1 %"}], "n 200")]))
Scores
  who       written
  model     93.0 %
  majority  4.1 %
  n 200
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lichen.core.folders import make_folder, write_file
from lichen.evaluation import health, two_hop
from lichen.evaluation.intervals import Score
from lichen.evaluation.prompting import PromptTokens
from lichen.evaluation.yardsticks import YARDSTICKS
from lichen.metrics import figures, report
from lichen.metrics.report import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lichen.config.evaluation import KnowledgeEvaluation
    from lichen.evaluation.causality import Battery
    from lichen.evaluation.editing import Editing
    from lichen.evaluation.knowledge import Examination, GroupResult, Scored, Shares

TASK_NAMES = {"object": "object prediction", "relation": "relation reasoning", "verification": "fact verification"}
_NOT_MEASURED = "–"
_SERIES = ("model, trained wording", "model, unseen wording", *YARDSTICKS)
_OTHER_OBJECTS = ("permuted", "random", "counterfactual")


def tables(found: Examination) -> list[Table]:
    """Everything, as tables of text cells."""
    result = []
    for group in found.groups:
        result.append(_score_table(group, found.settings))
        if group.battery is not None:
            result.append(_battery_table(group.name, group.battery))
        if group.editing is not None and group.editing.edits:
            result.append(_editing_table(group.name, group.editing))
    result += [two_hop.table(found.two_hop)] if found.two_hop is not None else []
    return result + (health.tables(found.health) if found.health is not None else [])


def verdict_of(found: Examination) -> str:
    """The verdict in a sentence."""
    if found.verdict is None:
        return "no bank was read: there is nothing to say about whether answers follow it"
    return found.verdict.sentence


def as_text(found: Sequence[Table]) -> str:
    """Aligned columns for the terminal."""
    return "\n\n".join("\n".join(_text_lines(table)) for table in found)


def as_markdown(found: Sequence[Table], level: int = 3) -> str:
    """A section for a page of documentation."""
    parts = []
    for table in found:
        names = list(table.rows[0])
        lines = [[_cell(row.get(name, "")) for name in names] for row in table.rows]
        body = [names, ["---"] * len(names), *lines]
        parts += [f"{'#' * level} {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in body)]
        parts += [table.note] if table.note else []
    return "\n\n".join(parts) + "\n"


def as_data(found: Examination, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain data, with every question's outcome: strings of 0 and 1 in the order of ``facts``; ``about`` the model first."""
    tokens = PromptTokens.over([group.prompt_tokens for group in found.groups])
    return {
        "kind": "knowledge",
        **(about or {}),
        "settings": found.settings.to_data(),
        "prompting": found.settings.prompting,
        "prompt_tokens": round(tokens.asked, 2),
        "prompt_tokens_without_entries": round(tokens.alone, 2),
        "verdict": None if found.verdict is None else {"word": found.verdict.word, "sentence": found.verdict.sentence},
        "groups": [_group_data(group) for group in found.groups],
        "two_hop": None if found.two_hop is None else two_hop.as_data(found.two_hop),
        "health": None if found.health is None else health.as_data(found.health),
    }


def write(found: Examination, folder: Path, title: str, about: Mapping[str, Any] | None = None) -> list[Path]:
    """``knowledge.json``, ``knowledge.md``, ``knowledge.html`` and ``knowledge.png`` in ``folder``; their paths."""
    make_folder(folder)
    paths = [folder / f"knowledge.{kind}" for kind in ("json", "md", "html", "png")]
    made = tables(found)
    write_file(paths[0], json.dumps(as_data(found, about), ensure_ascii=False, indent=1) + "\n")
    write_file(paths[1], f"# {title}\n\n{verdict_of(found)}\n\n{as_markdown(made)}")
    plot(found, paths[3], title)
    picture = report.Picture("Scores", paths[3], "shares of right answers with 95 % intervals")
    report.write_report(paths[2], title, report.Text("Verdict", verdict_of(found)), picture, *made)
    return paths


def plot(found: Examination, output: Path, title: str = "") -> None:
    """Scores with intervals by group, beside the yardsticks: a row per task, options on the left, written on the right."""
    tasks = list(dict.fromkeys(scored.task for group in found.groups for scored in group.scores))
    with figures.drawing():
        figure = figures.new_figure(figures.A4_LANDSCAPE[0], 0.9 + 2.6 * max(1, len(tasks)))
        axes = figure.subplots(max(1, len(tasks)), 2, sharey=True, squeeze=False)
        lines: dict[str, Any] = {}
        for row, task in enumerate(tasks):
            for column, way in enumerate(("chosen", "written")):
                lines |= _panel(axes[row, column], found.groups, task, way)
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines) or 1, fontsize=9)
        figure.suptitle(figures.label(title or "What the model knows"), fontsize=12)
        figures.save(figure, output)


# --- Tables ---


def _score_table(group: GroupResult, settings: KnowledgeEvaluation) -> Table:
    rows = []
    for scored in group.scores:
        examinees: dict[str, Shares] = {"model": scored.model, **scored.yardsticks}
        for who, reached in examinees.items():
            rows.append(
                {
                    "task": TASK_NAMES[scored.task],
                    "wording": scored.wording,
                    "who": who,
                    "options": reached.chosen.short(),
                    "written": reached.written.short(),
                    "n": f"{scored.n:,}",
                }
            )
    title = f"{group.name}: {group.facts:,} facts, asked with a bank of {group.bank:,}{_prompting(group, settings)}"
    return Table(title, rows or [{"task": "nothing could be asked"}], _score_note(group))


def _prompting(group: GroupResult, settings: KnowledgeEvaluation) -> str:
    if settings.prompting == "none":
        return ""
    found = "nearest" if settings.prompting == "tfidf" else "right one among the nearest"
    entries = f"up to {settings.prompted_entries} entries in the prompt ({found})"
    return f", {entries}: {group.prompt_tokens.asked:.1f} tokens instead of {group.prompt_tokens.alone:.1f}"


def _score_note(group: GroupResult) -> str:
    chances = {TASK_NAMES[s.task]: f"{100 * s.chance[0]:.0f} % and {100 * s.chance[1]:.0f} %" for s in group.scores}
    parts = [f"By chance (options, written): {', '.join(f'{task} {chance}' for task, chance in chances.items())}."]
    left_out = {}
    for scored in group.scores:
        for reason, count in scored.excluded.items():
            left_out.setdefault(f"{count:,} {reason} ({scored.wording})", None)
    parts += [f"Not asked: {'; '.join(left_out)}."] if left_out else []
    if group.set_aside:
        parts.append(f"{group.set_aside:,} facts left the bank, since they answer the same questions otherwise.")
    return " ".join(parts)


def _battery_table(name: str, battery: Battery) -> Table:
    rows = []
    for row in battery.rows:
        n = row.chosen.n
        coincidence = row.coincidence.short() if row.name in _OTHER_OBJECTS else _NOT_MEASURED
        rows.append(
            {
                "bank": row.name,
                "true, options": row.chosen.short(),
                "true, written": row.written.short(),
                "as shown, options": _with_own_n(row.chosen_shown, n),
                "as shown, written": _with_own_n(row.written_shown, n),
                "coincidence": coincidence,
                "n": f"{n:,}",
            }
        )
    reading = battery.reading
    named = {
        "hits of right answers": reading.hits_of_right,
        "hits of wrong answers": reading.hits_of_wrong,
        "false reads": reading.false_reads,
        "absent facts read above null": reading.above_null,
    }
    said = [f"{label} {score}" for label, score in named.items() if score.n]
    return Table(f"{name}: other banks", rows, f"{battery.verdict.sentence}. {'; '.join(said)}")


def _with_own_n(score: Score, n: int) -> str:
    """The score, with its n where that is not the row's."""
    return score.short() if score.n in (0, n) else str(score)


def _editing_table(name: str, found: Editing) -> Table:
    named = {
        "before (the old object)": found.before,
        "efficacy": found.efficacy,
        "paraphrase": found.paraphrase,
        "new object likelier": found.likelier,
        "locality, same subject": found.same_subject,
        "locality, same relation": found.same_relation,
        "locality": found.locality,
        "rollback": found.rollback,
    }
    rows = [{"measure": label, "share": score.short(), "n": f"{score.n:,}"} for label, score in named.items()]
    return Table(f"{name}: {found.edits:,} edits", rows)


def _text_lines(table: Table) -> list[str]:
    names = list(table.rows[0])
    cells = [names, *([str(row.get(name, "")) for name in names] for row in table.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in _without_repeats(cells)
    ]
    return [table.title, *(f"  {line}" for line in lines), *([f"  {table.note}"] if table.note else [])]


def _without_repeats(cells: list[list[str]]) -> list[list[str]]:
    """Leading cells that repeat the line above are left empty."""
    shown = [cells[0]]
    for before, line in itertools.pairwise(cells):
        same = 0
        while same < len(line) - 1 and line[same] == before[same]:
            same += 1
        shown.append([""] * min(same, 2) + line[min(same, 2) :])
    return shown


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


# --- Data ---


def _group_data(group: GroupResult) -> dict[str, Any]:
    return {
        "name": group.name,
        "facts": group.facts,
        "bank": group.bank,
        "set_aside": group.set_aside,
        "scores": [_scored_data(scored) for scored in group.scores],
        "battery": None if group.battery is None else _battery_data(group.battery),
        "editing": None if group.editing is None else _plain(asdict(group.editing), group.editing),
    }


def _scored_data(scored: Scored) -> dict[str, Any]:
    return {
        "task": scored.task,
        "wording": scored.wording,
        "n": scored.n,
        "chance": {"chosen": scored.chance[0], "written": scored.chance[1]},
        "model": _shares_data(scored.model),
        "yardsticks": {name: _shares_data(shares) for name, shares in scored.yardsticks.items()},
        "excluded": dict(scored.excluded),
        "facts": scored.facts,
        "chosen": _bits(scored.marks.chosen),
        "written": _bits(scored.marks.written),
    }


def _battery_data(battery: Battery) -> dict[str, Any]:
    rows = [{name: _score_or_plain(getattr(row, name)) for name in row.__dataclass_fields__} for row in battery.rows]
    reading = {name: getattr(battery.reading, name).as_dict() for name in battery.reading.__dataclass_fields__}
    verdict = battery.verdict
    return {
        "rows": rows,
        "reading": reading,
        "verdict": {"word": verdict.word, "difference": verdict.difference.as_dict(), "sentence": verdict.sentence},
        "outcomes": {name: _bits(found) for name, found in battery.marks.items()},
    }


def _shares_data(shares: Shares) -> dict[str, Any]:
    return {"chosen": shares.chosen.as_dict(), "written": shares.written.as_dict()}


def _plain(data: dict[str, Any], found: Any) -> dict[str, Any]:
    return {name: _score_or_plain(getattr(found, name)) for name in data}


def _score_or_plain(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Score) else value


def _bits(outcomes: np.ndarray | None) -> str | None:
    return None if outcomes is None else "".join("1" if hit else "0" for hit in outcomes)


# --- Picture ---


def _panel(panel: Axes, groups: Sequence[GroupResult], task: str, way: str) -> dict[str, Any]:
    """One task's scores by group; the handles of the legend by name."""
    handles: dict[str, Any] = {}
    series = _series(groups, task, way)
    for number, name in enumerate(_SERIES):
        points = series.get(name, [])
        if not points:
            continue
        shift = 0.13 * (number - (len(_SERIES) - 1) / 2)
        places = [place + shift for place, _ in points]
        scores = [score for _, score in points]
        below = [100 * max(0.0, score.value - score.low) for score in scores]
        above = [100 * max(0.0, score.high - score.value) for score in scores]
        color, _ = figures.style(number)
        model = name.startswith("model")
        handles[name] = panel.errorbar(
            places,
            [100 * score.value for score in scores],
            yerr=[below, above],
            fmt="o" if model else "_",
            color=color,
            markersize=6 if model else 9,
            capsize=2,
            linewidth=1.2,
        )
    chance = next((s.chance for group in groups for s in group.scores if s.task == task), (0.0, 0.0))
    panel.axhline(100 * chance[0 if way == "chosen" else 1], color="#777777", linestyle=":", linewidth=1)
    panel.set_title(f"{TASK_NAMES[task]}, {'options' if way == 'chosen' else 'written'}, in % (··· chance)", loc="left")
    panel.set_xticks(range(len(groups)), [figures.label(group.name) for group in groups])
    panel.set_xlim(-0.6, len(groups) - 0.4)
    panel.set_ylim(-3, 103)
    return handles


def _series(groups: Sequence[GroupResult], task: str, way: str) -> dict[str, list[tuple[int, Score]]]:
    """Name → (place of the group, score). Yardsticks are drawn for the first wording asked."""
    found: dict[str, list[tuple[int, Score]]] = {}
    for place, group in enumerate(groups):
        asked = [scored for scored in group.scores if scored.task == task]
        for scored in asked:
            _add(found, f"model, {scored.wording} wording", place, getattr(scored.model, way))
        for name, shares in asked[0].yardsticks.items() if asked else []:
            _add(found, name, place, getattr(shares, way))
    return found


def _add(found: dict[str, list[tuple[int, Score]]], name: str, place: int, score: Score) -> None:
    if score.n:
        found.setdefault(name, []).append((place, score))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
