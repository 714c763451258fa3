"""The report says everything everywhere: tables with intervals, outcomes in JSON, a page that holds, a picture."""

import json
import math
from dataclasses import replace

import pytest

from lichen.config.evaluation import KnowledgeEvaluation
from lichen.dataset.fact_split import split_facts
from lichen.evaluation import knowledge_report as report
from lichen.evaluation.fact_groups import fact_groups
from lichen.evaluation.health import Health, Reading, TrainingHealth
from lichen.evaluation.intervals import NOTHING, proportion
from lichen.evaluation.knowledge import examine
from lichen.model.knowledge_health import UsageReport


@pytest.fixture(scope="module")
def found(small):
    groups = fact_groups(split_facts(small.world(), small.RELATIONS), small.world(subjects=20, seed=4))
    model = small.ShowingReader([fact for group in groups for fact in group.bank])
    return examine(
        model, model, groups, small.RELATIONS, KnowledgeEvaluation(questions=30, battery_questions=20, edits=8)
    )


def test_every_score_has_its_interval_and_n(found):
    for table in report.tables(found):
        assert all(row["n"] for row in table.rows)
        if table.title.startswith("two hops"):  # nobody's city is anybody's subject in this world
            assert "no path of two hops" in table.note
            continue
        shares = [cell for row in table.rows for name, cell in row.items() if "%" in str(cell) and name != "n"]
        assert shares and all("[" in cell for cell in shares)


def test_groups_yardsticks_banks_and_edits_are_all_there(found):
    text = report.as_text(report.tables(found))
    for group in ("seen", "bank only", "added", "collisions"):
        assert f"{group}: other banks" in text and f"{group}: 8 edits" in text
    for words in (
        "tf-idf + copy",
        "subject only",
        "counterfactual",
        "rollback",
        "false reads",
        "By chance",
        "Not asked",
    ):
        assert words in text
    assert max(map(len, text.splitlines()[:12])) < 140


def test_markdown_is_one_table_per_heading_and_well_formed(found):
    made = report.tables(found)
    page = report.as_markdown(made)
    assert page.count("### ") == len(made)
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_outcomes_are_kept_question_by_question(found):
    data = json.loads(json.dumps(report.as_data(found, {"checkpoint": "c"})))
    assert data["checkpoint"] == "c" and data["verdict"]["word"] == "follows"
    for group in data["groups"]:
        for scored in group["scores"]:
            assert len(scored["chosen"]) == len(scored["written"]) == len(scored["facts"]) == scored["n"]
            assert scored["n"] and scored["model"]["chosen"]["value"] == pytest.approx(
                scored["chosen"].count("1") / scored["n"]
            )
        assert set(group["battery"]["outcomes"]) >= {"normal", "permuted", "emptied"}
        assert group["editing"]["efficacy"]["n"] == group["editing"]["edits"]


def test_all_files_are_written_and_written_again_alike(found, tmp_path):
    paths = report.write(found, tmp_path / "out", "Knowledge of <x>")
    assert [path.name for path in paths] == [f"knowledge.{kind}" for kind in ("json", "md", "html", "png")]
    first = [path.read_bytes() for path in paths]
    assert b"&lt;x&gt;" in first[2] and b"<x>" not in first[2] and first[3][1:4] == b"PNG"
    assert [path.read_bytes() for path in report.write(found, tmp_path / "out", "Knowledge of <x>")] == first


def test_two_hops_and_health_are_said_after_the_groups(small, found):
    data = report.as_data(found)
    assert data["two_hop"]["n"] == 0 and data["health"] is None  # nobody watches a model that is none
    reading = Reading(40, proportion(10, 40), 0.75, 300, 9, math.nan, NOTHING)
    usage = UsageReport(300, 200, 20, 0.8)
    training = TrainingHealth(50, 40, usage, 0.0, 1.25, None)
    watched = replace(found, health=Health(training, {"added": reading}))
    titles = [table.title for table in report.tables(watched)]
    assert titles[-2:] == ["health of the memory in training", "health of the memory in reading"]
    assert "two hops in the bank of added" in titles[-3]
    text = report.as_text(report.tables(watched))
    for words in ("10.0 % [6.6, 14.9]", "9 of 300", "25.0 % [", "1.25"):
        assert words in text
    data = json.loads(json.dumps(report.as_data(watched), allow_nan=False))["health"]
    assert data["training"]["usage"]["dead"] == 20 and data["training"]["dead"]["value"] == 0.1
    assert data["reading"]["added"]["entropy"] is None and data["reading"]["added"]["reads"]["value"] == 0.25


def test_without_generation_and_bank_there_are_still_tables_and_a_picture(small, tmp_path):
    groups = fact_groups(split_facts(small.world(subjects=20), small.RELATIONS))
    model = small.Reader(groups[0].bank)
    settings = KnowledgeEvaluation(generate=False, tasks=("object",))
    found = examine(model, None, groups, small.RELATIONS, settings)
    report.write(found, tmp_path, "x")
    assert "no bank" in (tmp_path / "knowledge.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "knowledge.json").read_text(encoding="utf-8"))["verdict"] is None
