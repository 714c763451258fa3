"""``lichen evaluate knowledge``: from a run to tables, files and an exit status."""

import json

import pytest

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.core.folders import whole_folder
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model
from lichen.scripts.evaluate import run

CITIES = ["Rome", "Oslo", "Bonn", "Lyon", "Bern"]
FEW = ["--device", "cpu", "--questions", "12", "--battery-questions", "6", "--edits", "4", "--answer-tokens", "3"]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    sentences = {
        "P20": ["[X] died in [Y].", "[X] passed away in [Y]."],
        "P27": ["[X] is a citizen of [Y].", "[X] holds a passport of [Y]."],
        "P106": ["[X] works as [Y].", "the profession of [X] is [Y]."],
    }
    for id, patterns in sentences.items():
        rows = [
            {"uuid": f"{id}-{n}", "subject": f"Person {n}", "predicate": id, "object": CITIES[(n + len(id)) % 5]}
            for n in range(30)
        ]
        (folder / f"{id}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / f"{id}.patterns.json").write_text(json.dumps(patterns), encoding="utf-8")
    return folder


def make_run(root, kind):
    tokenizer = Tokenizer.train([f"Person died in {city}, a citizen of {city}." for city in CITIES] * 8, vocab_size=360)
    settings: dict[str, object] = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    if kind == "knowledge":
        settings["feed_forward"] = {"kind": "knowledge", "knowledge_dim": 8, "router": "language-loss"}
    model = initialise(LanguageModel(ModelConfig.from_data(settings)), seed=0)
    folder = root / kind / "checkpoints" / f"lichen-7k_{kind}_step_0000003"
    folder.parent.mkdir(parents=True)
    with whole_folder(folder, {"tokenizer": tokenizer.fingerprint}) as partial:
        write_model(model, partial)
        tokenizer.save(partial)
    if kind == "knowledge":
        write_bank(root / kind / "knowledge", [made_fact("Person 1", "citizenship", "Rome")])
    return root / kind


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return {kind: make_run(root, kind) for kind in ("dense", "knowledge")}


def test_a_model_with_a_bank_is_examined_and_the_untrained_one_is_decorative(runs, facts, capsys):
    assert run(["knowledge", str(runs["knowledge"]), "--facts", str(facts), *FEW, "--require-causal"]) == 1
    out, err = capsys.readouterr()
    assert "decorative" in out and "other banks" in out and "… seen:" in err
    folder = runs["knowledge"] / "evaluation" / "lichen-7k_knowledge_step_0000003"
    data = json.loads((folder / "knowledge.json").read_text(encoding="utf-8"))
    assert [group["name"] for group in data["groups"]] == ["seen", "bank only", "added"]
    assert data["verdict"]["word"] == "decorative" and data["settings"]["questions"] == 12
    assert all(group["battery"]["reading"]["hits_of_wrong"]["n"] for group in data["groups"])
    assert (folder / "knowledge.png").is_file() and (folder / "knowledge.html").is_file()
    assert run(["knowledge", str(runs["knowledge"]), "--facts", str(facts), *FEW, "--quiet"]) == 0
    assert json.loads((folder / "knowledge.json").read_text(encoding="utf-8"))["groups"] == data["groups"]


def test_a_model_without_a_bank_is_asked_the_same_questions(runs, facts, tmp_path, capsys):
    words = ["knowledge", str(runs["dense"]), "--facts", str(facts), *FEW, "--quiet", "--output", str(tmp_path / "out")]
    (tmp_path / "context.txt").write_text("It rained all day.\n\nMoss grows.\n", encoding="utf-8")
    assert run([*words, "--context", str(tmp_path / "context.txt"), "--normalise", "mean"]) == 0
    assert "no bank" in capsys.readouterr().out
    data = json.loads((tmp_path / "out" / "knowledge.json").read_text(encoding="utf-8"))
    assert data["groups"][0]["battery"] is None and data["groups"][0]["scores"][0]["n"] == 12
    assert run([*words, "--require-causal"]) == 1


@pytest.mark.parametrize("kind", ["dense", "knowledge"])
def test_entries_may_be_put_into_the_prompt_with_a_bank_and_without(runs, facts, tmp_path, capsys, kind):
    words = ["knowledge", str(runs[kind]), "--facts", str(facts), *FEW, "--groups", "added", "--output", str(tmp_path)]
    assert run([*words, "--prompting", "oracle", "--prompted-entries", "2"]) == 0
    assert "up to 2 entries in the prompt (right one among the nearest)" in capsys.readouterr().out
    data = json.loads((tmp_path / "knowledge.json").read_text(encoding="utf-8"))
    assert data["prompting"] == "oracle" and data["prompt_tokens"] > data["prompt_tokens_without_entries"] > 0
    [group] = data["groups"]  # the entries are a bank that can be exchanged and edited
    assert data["verdict"]["word"] == "decorative" and group["editing"]["edits"] == 4
    assert bool(group["battery"]["reading"]["hits_of_wrong"]["n"]) == (kind == "knowledge")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["knowlege", "x"], "nearest: knowledge"),
        (["knowledge", "--facts", "x"], "takes one run"),
        (["knowledge", "x"], "--facts FOLDER"),
        (["knowledge", "x", "--facts", "nowhere"], "no such"),
        (["knowledge", "x", "--facts", ".", "--context", "nowhere.txt"], "no such file of running text"),
        (["knowledge", "x", "--qestions", "4"], "questions"),
    ],
)
def test_wrong_requests_are_said(words, message):
    with pytest.raises(UsageError, match=message):
        run(words)


def test_help_names_the_kinds(capsys):
    assert run([]) == 0 and "knowledge" in capsys.readouterr().out
