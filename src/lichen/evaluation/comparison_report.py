"""What a comparison of models found: as text, Markdown, HTML, JSON and pictures.

>>> from lichen.evaluation.knowledge_report import as_text
>>> def run(bits):
...     scores = [{"task": "object", "wording": "trained", "facts": list("abcd"), "chosen": bits, "written": bits}]
...     return {"groups": [{"name": "added", "scores": scores}]}
>>> arms = [ArmFound("knowledge", knowledge=[run("1111"), run("1101")]), ArmFound("dense", knowledge=[run("0100")])]
>>> found = Compared([SizeFound(100, arms=arms)], "knowledge", ("dense",))
>>> print(as_text(tables(found)[-1:]))
100 facts told: lead of knowledge, in points of percent
  task                        against  added                 excludes 0
  object prediction, written  dense    62.5 % [12.5, 100.0]  added
  Of ours − theirs, with 95 % intervals of a bootstrap in pairs over seeds and facts together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lichen.core.folders import make_folder, write_file
from lichen.evaluation import comparison_plot
from lichen.evaluation.comparison import Which
from lichen.evaluation.comparison_scores import (
    ArmFound,
    Compared,
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
    scored,
    title_of,
    yardstick,
)
from lichen.evaluation.intervals import Score
from lichen.evaluation.knowledge_report import as_markdown
from lichen.evaluation.yardsticks import YARDSTICKS
from lichen.metrics import report
from lichen.metrics.report import Table

HOW = (
    "Every arm has the same tokens, steps and questions. Shares of right answers are means over seeds; their 95 % intervals come "
    "from a bootstrap over seeds and facts together, those of a single seed from its facts (Wilson). Measures of language have "
    "Student's interval over seeds, a single seed that over documents or continuations. Yardsticks stand below the arms; they "
    "need no training."
)
_LANGUAGE = {"bits_per_byte": "bits per byte", "distinct_2": "distinct-2", "repetition": "repetition"}
_LAYER = ("effective_rank", "participation_ratio", "cosine_intra", "cosine_inter", "gradient_norm")


def tables(found: Compared) -> list[Table]:
    """Everything, as tables of text cells: by size the models, language, the tasks, the lead and the layers."""
    made = []
    for size in found.sizes:
        made += [_models(size), _language(size, found), *_tasks(size), _leads(size, found), _layers(size, found)]
    return [table for table in made if table.rows]


def _head(size: SizeFound) -> str:
    return f"{size.told:,} facts told"


def _models(size: SizeFound) -> Table:
    rows = []
    for arm in size.arms:
        tokens = [run["prompt_tokens"] for run in arm.knowledge if run.get("prompt_tokens") is not None]
        rows.append(
            {
                "arm": arm.name,
                **{heading: str(value) for heading, value in arm.about.items()},
                "parameters": _number(arm.measures.get("trainable")),
                "active": _number(arm.measures.get("active")),
                "FLOPs/token": _number(arm.measures.get("flops_per_token")),
                "bank bytes": _number(arm.measures.get("bank_bytes") or None),
                "prompt tokens": f"{np.mean(tokens):.1f}" if tokens else "–",
            }
        )
    note = "; ".join(f"{name} {_number(value)}" for name, value in size.about.items())
    return Table(f"{_head(size)}: models", rows, note)


def _language(size: SizeFound, found: Compared) -> Table:
    base = found.against[0] if found.against else ""
    rows = []
    for arm in size.arms:
        if not arm.language:
            continue
        scores = {heading: language(arm.language, name).short() for name, heading in _LANGUAGE.items()}
        row = {"arm": arm.name, "seeds": f"{len(arm.language)}", **scores}
        if base:
            same = arm.name == base
            row[f"bits, against {base}"] = "–" if same else bits_against(arm.language, size.arm(base).language).short()
        rows.append(row)
    documents = next((run["documents"] for arm in size.arms for run in arm.language if "documents" in run), None)
    return Table(
        f"{_head(size)}: language", rows, f"{documents:,} held-out documents without facts" if documents else ""
    )


def _tasks(size: SizeFound) -> list[Table]:
    made, names = [], groups(size)
    for which in questions(size):
        rows = [
            _row(arm.name, f"{len(arm.knowledge)}", _of_arm(arm, which, names)) for arm in size.arms if arm.knowledge
        ]
        rows += [_row(name, "–", _of_yardstick(size, name, which, names)) for name in YARDSTICKS]
        rows = rows if asked(size, which) else [{"arm": "nothing could be asked"}]
        made.append(Table(f"{_head(size)}: {title_of(which)}", rows, _about_questions(size, which)))
    return made


def _of_arm(arm: ArmFound, which: Which, names: Sequence[str]) -> dict[str, Score]:
    return {name: accuracy(arm.knowledge, in_group(which, name)) for name in names}


def _of_yardstick(size: SizeFound, yard: str, which: Which, names: Sequence[str]) -> dict[str, Score]:
    return {name: yardstick(size, yard, in_group(which, name)) for name in names}


def _row(name: str, seeds: str, scores: Mapping[str, Score]) -> dict[str, str]:
    return {"arm": name, "seeds": seeds, **_short(scores)}


def _about_questions(size: SizeFound, which: Which) -> str:
    """Chance, how many questions, and why not more, where there are none."""
    if not asked(size, which):
        return "; ".join(f"{count:,} {reason}" for reason, count in excluded(size, which).items())
    found = [one for run in size.runs for group in groups(size) for one in scored(run, in_group(which, group))]
    chance = {one["chance"][which.way] for one in found if "chance" in one}
    most = max(len(one["facts"]) for one in found)
    words = [f"By chance {100 * value:.0f} %" for value in chance]
    return "; ".join([*words, f"up to {most:,} questions per group and seed"]) + "."


def _leads(size: SizeFound, found: Compared) -> Table:
    names, rows = groups(size), []
    several = len({which.wording for which in questions(size)}) > 1
    for which in questions(size):
        for other in found.against:
            scores = {name: lead(size, found.reference, other, in_group(which, name)) for name in names}
            if any(score.n for score in scores.values()):
                clear = [name for name, score in scores.items() if excludes_zero(score)]
                row = {"task": title_of(which, several), "against": other, **_short(scores)}
                rows.append({**row, "excludes 0": ", ".join(clear) or "none"})
    note = "Of ours − theirs, with 95 % intervals of a bootstrap in pairs over seeds and facts together."
    return Table(f"{_head(size)}: lead of {found.reference}, in points of percent", rows, note)


def _layers(size: SizeFound, found: Compared) -> Table:
    rows = []
    for name in found.layers_of:
        looked = [run["layers"] for run in size.arm(name).language if run.get("layers")]
        for place, layer in enumerate(looked[0] if looked else []):
            values = {key: _mean([layers[place].get(key) for layers in looked]) for key in _LAYER}
            kind = {"kind": layer["kind"]} if "kind" in layer else {}
            rows.append(
                {
                    "arm": name,
                    "layer": f"{layer['layer']}",
                    **kind,
                    **{k.replace("_", " "): v for k, v in values.items()},
                }
            )
    return Table(
        f"{_head(size)}: layers", rows, "Means over seeds, on held-out text; the gradient is that of the language loss."
    )


def _short(scores: Mapping[str, Score]) -> dict[str, str]:
    return {name: score.short() for name, score in scores.items()}


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.3g}" if known else "–"


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


# --- Files ---


def as_data(found: Compared, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Plain data; ``about`` the comparison first. Scores that do not exist are left out."""
    return {
        "kind": "comparison",
        **(about or {}),
        "reference": found.reference,
        "against": list(found.against),
        "sizes": [_size_data(size, found) for size in found.sizes],
    }


def _size_data(size: SizeFound, found: Compared) -> dict[str, Any]:
    every = [in_group(which, group) for which in questions(size) for group in groups(size)]
    leads = [(other, which, lead(size, found.reference, other, which)) for other in found.against for which in every]
    return {
        "told": size.told,
        "about": dict(size.about),
        "arms": [_arm_data(arm, every) for arm in size.arms],
        "yardsticks": [
            {"name": name, **vars(which), "score": score.as_dict()}
            for name in YARDSTICKS
            for which in every
            if (score := yardstick(size, name, which)).n
        ],
        "leads": [
            {"against": other, **vars(which), "difference": score.as_dict(), "excludes_0": excludes_zero(score)}
            for other, which, score in leads
            if score.n
        ],
        "layers": {name: [run.get("layers", []) for run in size.arm(name).language] for name in found.layers_of},
    }


def _arm_data(arm: ArmFound, every: Sequence[Which]) -> dict[str, Any]:
    return {
        "name": arm.name,
        "about": dict(arm.about),
        "measures": dict(arm.measures),
        "seeds": len(arm.knowledge),
        "runs": [run.get("checkpoint") for run in arm.knowledge],
        "prompt_tokens": [run.get("prompt_tokens") for run in arm.knowledge],
        "language": {name: s.as_dict() for name in _LANGUAGE if (s := language(arm.language, name)).n},
        "scores": [{**vars(w), "score": s.as_dict()} for w in every if (s := accuracy(arm.knowledge, w)).n],
    }


def write(found: Compared, folder: Path, title: str, about: Mapping[str, Any] | None = None) -> list[Path]:
    """``comparison.json``, ``.md``, ``.html`` and ``.png``, and ``comparison-sizes.png`` where there are several; their paths."""
    make_folder(folder)
    data, page, web, picture, sizes = (
        folder / f"comparison{end}" for end in (".json", ".md", ".html", ".png", "-sizes.png")
    )
    made = tables(found)
    write_file(data, json.dumps(as_data(found, about), ensure_ascii=False, indent=1) + "\n")
    write_file(page, f"# {title}\n\n{HOW}\n\n{as_markdown(made)}")
    comparison_plot.plot(found, picture, title)
    pictures = [report.Picture("Scores", picture, "shares of right answers with 95 % intervals")]
    if len(found.sizes) > 1:
        comparison_plot.plot_sizes(found, sizes, title)
        pictures.append(report.Picture("Against the number of examples", sizes))
    report.write_report(web, title, report.Text("How to read it", HOW), *pictures, *made)
    return [data, page, web, *(picture.path for picture in pictures)]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
