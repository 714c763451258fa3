"""The quickstart's chapter on facts: a model that has to know them by heart, one that reads them, and an edit while you watch.

The people do not exist (``dataset/made_facts.py``), so that nobody can know them beforehand.

>>> print(table({"reads": {"seen": "9 %", "added": "8 %"}, "dense": {"seen": "2 %", "added": "1 %"}}))
model  seen  added
reads  9 %   8 %
dense  2 %   1 %
"""

import json
from pathlib import Path
from typing import Any, Protocol

from lichen.scripts.narration import call, said_by, say

FACTS = 3600
GENERAL = ("topics", "docstrings")
MODELS = ("facts-knowledge", "facts-dense")
GROUPS = ("seen", "bank only", "added")
QUESTIONS = 300
TRIED = 5
"""Facts asked for until one is continued rightly, to be changed."""
PROMISED = 0.8
"""Share of the facts added after training that the reading model has to continue rightly."""


class Command(Protocol):
    """The settings of `lichen quickstart` that matter here."""

    @property
    def steps(self) -> int | None: ...
    @property
    def held_out(self) -> float: ...
    @property
    def library(self) -> Path | None: ...


def facts_chapter(command: Command, output: Path, recipes: Path) -> bool:
    """Make facts and text, train both models, add facts to the bank, ask, and change one. Whether the model reads added facts."""
    from lichen.dataset import standard_library
    from lichen.dataset.made_facts import write_world

    say("Facts, 1. People who do not exist: most told in a text, some in the bank only, some not there yet")
    raw = output / "raw" / "train"
    if not raw.is_dir():
        standard_library.collect(output / "raw", command.held_out, command.library)
    write_world(output / "world", FACTS)
    call("knowledge", "build", output / "world", "--output", output / "facts")
    texts, data = output / "facts-texts", output / "facts-data"
    general = [word for kind in GENERAL for word in ("--general", raw / f"{kind}.jsonl")]
    told = ["--texts.repeats", 4, "--texts.passage_characters", 600, "--texts.alone", 0.2]
    call("knowledge", "texts", output / "facts", *general, "--output", texts, *told)
    words = ["--knowledge.bank", texts / "bank", "--tokenizer.vocab_size", 4096]
    call("prepare", texts / "texts.jsonl", *words, "--output", data)

    say("Facts, 2. Two models: one that reads the bank, and one that has to know by heart")
    steps = ["--train.steps", command.steps] if command.steps else []
    for name in MODELS:
        call("train", recipes / f"{name}.yaml", "--data.path", data, "--run.root", output / "runs", *steps)

    say("Facts, 3. New facts come into the bank; nobody trains any more")
    reading = output / "runs" / MODELS[0]
    call("knowledge", "add", reading, "--file", texts / "added.jsonl")
    shares = {name: asked(output / "runs" / name, texts, output / "evaluation" / name) for name in MODELS}
    print()
    print(table({name: {group: f"{one[group]:.1%}" for group in one} for name, one in shares.items()}))

    say("Facts, 4. One of them is changed")
    changed = edit_one(reading, texts)
    print("the new answer follows the bank" if changed else "the answer did not follow the bank")
    return shares[MODELS[0]]["added"] >= PROMISED and changed


def asked(run: Path, texts: Path, output: Path) -> dict[str, float]:
    """By group of facts, the share of questions that the model answered rightly in its own words."""
    words = [
        "--tasks",
        "object",
        "--wordings",
        "trained",
        "--questions",
        QUESTIONS,
        "--battery_questions",
        0,
        "--edits",
        0,
        "--two_hop_questions",
        0,
    ]
    groups = [word for group in GROUPS for word in ("--groups", group)]
    call("evaluate", "knowledge", run, "--facts", texts, "--output", output, *words, *groups, "--quiet")
    return written(json.loads((output / "knowledge.json").read_text(encoding="utf-8")))


def written(data: dict[str, Any]) -> dict[str, float]:
    """The shares in an examination's file."""
    return {
        group["name"]: score["model"]["written"]["value"] for group in data["groups"] for score in group["scores"][:1]
    }


def edit_one(run: Path, texts: Path) -> bool:
    """Change an added fact that the model continues rightly, and ask again; whether the second answer is the new one."""
    facts = [json.loads(line) for line in (texts / "added.jsonl").read_text(encoding="utf-8").splitlines()]
    known = [fact for fact in facts if fact["relation"] == "instrument"]
    for fact in known[:TRIED]:
        prompt = ["--prompt", f"{fact['subject']} plays the", "--max-new-tokens", 6, "--temperature", 0]
        if fact["object"] in said_by(run, prompt):
            other = next(each["object"] for each in known if each["object"] != fact["object"])
            call("knowledge", "edit", run, fact["id"], "--object", other)
            return other in said_by(run, prompt)
    return False


def table(rows: dict[str, dict[str, str]]) -> str:
    """Models as rows, groups as columns."""
    names = ["model", *dict.fromkeys(group for row in rows.values() for group in row)]
    lines = [names, *([name, *(row.get(group, "") for group in names[1:])] for name, row in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
