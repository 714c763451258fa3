"""The report of a comparison says everything of everybody, and holds together where arms are missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from lichen.evaluation.comparison_report import as_data, tables, write
from lichen.evaluation.comparison_scores import ArmFound, Compared, SizeFound
from lichen.evaluation.knowledge_report import as_markdown, as_text
from lichen.evaluation.yardsticks import YARDSTICKS

MEASURES = {"trainable": 1200, "active": 1100, "flops_per_token": 2400, "bank_bytes": 0}
FACTS = [f"f{n}" for n in range(40)]


def examined(share: int, tokens: float = 11.5) -> dict[str, Any]:
    bits = "".join("1" if n % 4 < share else "0" for n in range(40))
    known = {"written": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 40}}
    yards = {name: known | {"chosen": known["written"]} for name in YARDSTICKS}
    each = {"wording": "trained", "facts": FACTS, "chosen": bits, "written": bits, "yardsticks": yards}
    scores = [
        {**each, "task": "object", "chance": {"chosen": 0.25, "written": 0.0}},
        {
            "task": "relation",
            "wording": "trained",
            "facts": [],
            "chosen": "",
            "written": "",
            "excluded": {"no other has it": 7},
        },
        {**each, "task": "verification", "chance": {"chosen": 0.5, "written": 0.5}},
    ]
    return {
        "checkpoint": "runs/x",
        "prompt_tokens": tokens,
        "groups": [{"name": g, "scores": scores} for g in ("seen", "added")],
    }


def wrote(bits: float) -> dict[str, Any]:
    score = {"value": bits, "low": bits - 0.1, "high": bits + 0.1, "n": 3}
    layer = {
        "kind": "dense",
        "effective_rank": 12.0,
        "participation_ratio": 9.0,
        "cosine_intra": 0.1,
        "cosine_inter": None,
    }
    return {
        "bits_per_byte": score,
        "distinct_2": {"value": 0.8, "low": 0.7, "high": 0.9, "n": 3},
        "repetition": {"value": 0.1, "low": 0.05, "high": 0.2, "n": 3},
        "documents": 3,
        "per_document": {"nats": [bits, 2 * bits, 3 * bits]},
        "layers": [{**layer, "layer": n, "gradient_norm": 0.5 * bits} for n in range(2)],
    }


@pytest.fixture
def found() -> Compared:
    def size(told: int) -> SizeFound:
        about = {"text": "facts seen", "equal in": "FLOPs of knowledge", "learning rate": "0.006"}
        arms = [
            ArmFound("dense", about, MEASURES, [examined(1)], [wrote(2.0)]),
            ArmFound("moe", about, MEASURES),
            ArmFound(
                "knowledge",
                about,
                MEASURES | {"bank_bytes": 123456},
                [examined(4), examined(3)],
                [wrote(2.02), wrote(2.02)],
            ),
        ]
        return SizeFound(told, {"told": f"{told:,}", "bank": "130 entries"}, arms)

    return Compared([size(1000), size(25000)], "knowledge", ("dense",), ("dense", "knowledge"))


def test_every_arm_every_yardstick_and_every_measure_is_in_the_tables(found: Compared) -> None:
    made = {table.title: table for table in tables(found)}
    assert len(made) == len(tables(found)) == 14
    models = made["1,000 facts told: models"].rows
    assert [row["arm"] for row in models] == ["dense", "moe", "knowledge"]
    assert (
        models[2]["bank bytes"] == "123,456"
        and models[0]["prompt tokens"] == "11.5"
        and models[1]["prompt tokens"] == "–"
    )
    written = made["1,000 facts told: object prediction, written, trained wording"]
    assert [row["arm"] for row in written.rows] == ["dense", "knowledge", *YARDSTICKS]
    assert written.rows[0]["seen"].startswith("25.0 % [") and written.rows[1]["added"].startswith("87.5 % [")
    assert written.rows[1]["seeds"] == "2" and "By chance 0 %" in written.note and "40 questions" in written.note
    words = made["25,000 facts told: language"].rows
    assert words[1]["bits, against dense"].startswith("1.0 % [1.0, 1.0]") and words[0]["bits, against dense"] == "–"
    layers = made["1,000 facts told: layers"].rows
    assert [(row["arm"], row["layer"], row["gradient norm"]) for row in layers[2:]] == [
        ("knowledge", "0", "1.01"),
        ("knowledge", "1", "1.01"),
    ]
    assert layers[0]["cosine inter"] == "–"


def test_leads_say_where_their_interval_excludes_0(found: Compared) -> None:
    rows = next(table for table in tables(found) if "lead" in table.title).rows
    assert [row["task"] for row in rows] == ["object prediction, written", "fact verification, options"]
    assert rows[0]["seen"].startswith("62.5 % [") and rows[0]["excludes 0"] == "seen, added"
    data = as_data(found)["sizes"][0]["leads"]
    assert all(one["excludes_0"] and one["difference"]["low"] > 0 for one in data) and len(data) == 4


def test_what_could_not_be_asked_is_said(found: Compared) -> None:
    text = as_text(tables(found))
    assert "relation reasoning, options, trained wording\n  arm\n  nothing could be asked\n  7 no other has it" in text


def test_all_files_are_written_and_alike_again(found: Compared, tmp_path: Path) -> None:
    paths = write(found, tmp_path, "Kinds <x>", {"facts": "made"})
    names = ["comparison.json", "comparison.md", "comparison.html", "comparison.png", "comparison-sizes.png"]
    assert [path.name for path in paths] == names
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write(found, tmp_path, "Kinds <x>", {"facts": "made"})] == first
    assert b"&lt;x&gt;" in first[2] and first[3][1:4] == first[4][1:4] == b"PNG"
    data = json.loads(first[0])
    assert (data["kind"], data["facts"], data["sizes"][1]["told"]) == ("comparison", "made", 25000)
    assert data["sizes"][0]["arms"][2]["measures"]["bank_bytes"] == 123456
    for block in as_markdown(tables(found)).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_arms_that_are_missing_leave_the_rest(tmp_path: Path) -> None:
    one = Compared(
        [SizeFound(10, arms=[ArmFound("knowledge"), ArmFound("dense", knowledge=[examined(2)])])],
        "knowledge",
        ("dense",),
    )
    assert [path.name for path in write(one, tmp_path, "x")][-1] == "comparison.png"
    titles = [table.title for table in tables(one)]
    assert not any("lead" in title or "language" in title or "layers" in title for title in titles) and len(titles) == 4
