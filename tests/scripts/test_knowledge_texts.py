"""``lichen knowledge texts`` writes text that prepare takes, linked with the bank beside it."""

import json
from pathlib import Path

import pytest

from lichen.config.errors import UsageError
from lichen.dataset.made_facts import write_world
from lichen.dataset.shards import Prepared
from lichen.scripts import knowledge, prepare


@pytest.fixture
def bank(tmp_path, capsys):
    write_world(tmp_path / "world", 120)
    assert knowledge.run(["build", str(tmp_path / "world"), "--output", str(tmp_path / "bank")]) == 0
    capsys.readouterr()
    return tmp_path / "bank"


@pytest.fixture
def general(tmp_path):
    path = tmp_path / "general.jsonl"
    text = " ".join(f"Sentence {n} of a text that has little to say about stone {n % 7}." for n in range(400))
    path.write_text(json.dumps({"text": text}) + "\n")
    return path


def test_the_texts_are_prepared_with_their_links(bank, general, tmp_path, capsys):
    texts = tmp_path / "texts"
    words = ["texts", str(bank), "--general", str(general), "--output", str(texts), "--texts.invented_relations", "5"]
    assert knowledge.run([*words, "--texts.companions", "1.0", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["told"] > counts["invented"] > 0
    words = [str(texts / "texts.jsonl"), "--knowledge.bank", str(texts / "bank"), "--output", str(tmp_path / "data")]
    words += ["--tokenizer.vocab_size", "400", "--clean.repetition.min_units", "9999"]
    assert prepare.run(words) == 0
    assert Prepared.open(tmp_path / "data").statistics["knowledge"]["train"]["links"] > 0.9 * counts["told"]


def test_general_text_is_needed_unless_facts_alone_are_wanted(bank, tmp_path):
    with pytest.raises(UsageError, match="--general: name files"):
        knowledge.run(["texts", str(bank), "--output", str(tmp_path / "texts")])
    assert knowledge.run(["texts", str(bank), "--output", str(tmp_path / "texts"), "--texts.kind", "trex"]) == 0


def test_what_is_added_later_is_not_contradicted(bank, general, tmp_path, capsys):
    fact = json.loads((bank / "facts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    reserved = tmp_path / "reserved.jsonl"
    reserved.write_text(json.dumps({**fact, "id": "later", "text": "", "object": "something else"}) + "\n")
    words = ["texts", str(bank), "--general", str(general), "--output", str(tmp_path / "texts"), "--json"]
    assert knowledge.run([*words, "--reserved", str(reserved)]) == 0
    assert json.loads(capsys.readouterr().out)["set_aside"] == 1


def test_the_recipe_holds_and_flags_come_after_it(bank, general, tmp_path, capsys):
    recipe = Path(__file__).parents[2] / "recipes" / "knowledge" / "texts.yaml"
    words = ["texts", str(bank), str(recipe), "--general", str(general), "--output", str(tmp_path / "texts"), "--json"]
    assert knowledge.run([*words, "--texts.repeats", "1", "--texts.invented_relations", "20"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["sentences_that_tell"] <= counts["told"] and counts["invented"] > 50
    with pytest.raises(UsageError, match=r"nothing\.yaml: no such recipe"):
        knowledge.run(["texts", str(bank), "nothing.yaml", "--output", str(tmp_path / "other")])
