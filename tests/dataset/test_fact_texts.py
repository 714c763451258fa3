"""Texts that tell facts: what is told and what never, shares, places, and that preparing them links them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lichen.config.cleaning import SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.prepare import FactTextsConfig, LinkingConfig, SplitConfig, TokenizerConfig
from lichen.dataset.bank import Bank
from lichen.dataset.fact_split import part_of
from lichen.dataset.fact_texts import interspersed, passages, sentences, tell, write_fact_texts
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.preparation import keep_all, prepare
from lichen.dataset.relations import Relation

RELATIONS = {
    "occupation": Relation(
        "P106", "occupation", ("[X] works as [Y]", "[X] is a [Y].", "[X] is an [Y].", "LAST [X] [Y].")
    ),
    "place of death": Relation(
        "P20", "place of death", ("[X] died in [Y] .", "[Y] is where [X] died.", "LAST [X] [Y].")
    ),
    "place of birth": Relation("P19", "place of birth", ("[X] was born in [Y].", "LAST [X] [Y].")),
    "has part": Relation("P527", "has part", ()),
}
JOBS, TOWNS = ("poet", "actor", "judge", "artist"), ("Rome", "Oslo", "Lima", "New York")
FACTS = [
    *(made_fact(f"Person {n}", "occupation", JOBS[n % 4], id=f"job {n}") for n in range(120)),
    *(made_fact(f"Person {n}", "place of death", TOWNS[n % 4], id=f"death {n}") for n in range(60, 160)),
    *(made_fact(f"Person {n}", "place of birth", TOWNS[n % 4], id=f"birth {n}") for n in range(30)),
    *(made_fact(f"Thing {n}", "has part", "atom", id=f"part {n}") for n in range(20)),
]
GENERAL = [
    "\n\n".join(
        f"Here is paragraph {p} of text {n}. It goes on for a while! Does it? It does, as moss does." for p in range(40)
    )
    for n in range(12)
]


def written(folder: Path, **config: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    counts = write_fact_texts(folder, FACTS, RELATIONS, GENERAL, FactTextsConfig.from_data(config))
    return counts, [json.loads(line) for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()]


def told_sentences(documents: list[dict[str, Any]]) -> Counter[str]:
    return Counter(id for document in documents for id in document["facts"])


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("texts") / "out"
    return folder, *written(folder, repeats=3, general_share=0.6, passage_characters=400)


def test_what_is_told_and_what_is_not(combined: Any) -> None:
    _, counts, documents = combined
    told = told_sentences(documents)
    assert set(told.values()) == {3} and counts["told"] == len(told)
    assert {part_of(id) for id in told} == set(range(6)) and {id.split()[0] for id in told} == {"job", "death"}
    whole = "\n".join(document["text"] for document in documents)
    assert "LAST" not in whole and "was born in" not in whole
    facts = {fact.id: fact for fact in FACTS}
    for document in documents:
        assert len(set(document["facts"])) == len(document["facts"]) >= 2  # several, and no fact twice
        for id in document["facts"]:
            assert facts[id].subject in document["text"] and facts[id].object in document["text"]
    for fact in FACTS:
        if fact.id not in told and fact.relation != "has part":
            assert f"{fact.subject} died in {fact.object}" not in whole or fact.relation != "place of death"


def test_the_files_beside_the_text(combined: Any) -> None:
    folder, counts, _ = combined
    named = {
        name: [Fact(**json.loads(line)) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("told", "bank_only", "added", "unseen_relations")
    }
    assert {name: len(facts) for name, facts in named.items()} == {name: counts[name] for name in named}
    assert {part_of(fact.id) for fact in named["added"]} == {8, 9}
    assert {fact.relation for fact in named["unseen_relations"]} == {"place of birth"}
    bank = Bank.open(folder / "bank")
    in_bank = {fact.id for fact in bank.facts}
    assert in_bank >= {fact.id for fact in (*named["told"], *named["bank_only"])}
    assert not in_bank & {fact.id for fact in (*named["added"], *named["unseen_relations"])}
    assert bank.relations["occupation"].patterns == RELATIONS["occupation"].patterns
    assert json.loads((folder / "counts.json").read_text()) == counts


def test_general_text_keeps_its_share_and_its_words(combined: Any) -> None:
    _, counts, documents = combined
    assert 0.6 <= counts["general_share"] < 0.64
    general = " ".join(" ".join(GENERAL).split())
    facts = {fact.id: fact for fact in FACTS}
    for document in documents:
        text = document["text"]
        for id in document["facts"]:
            for choice in (0.0, 0.4, 0.7, 0.99):
                text = text.replace(tell(facts[id], RELATIONS[facts[id].relation], choice), "")
        assert all(sentence in general for sentence in (" ".join(part.split()) for part in sentences(text)) if sentence)


def test_sizes_may_be_counted_otherwise(tmp_path: Path) -> None:
    counts = write_fact_texts(tmp_path / "out", FACTS, RELATIONS, GENERAL, measure=lambda text: len(text.split()))
    assert 0.5 <= counts["general_share"] < 0.54
    lines = (tmp_path / "out" / "texts.jsonl").read_text().splitlines()
    assert counts["size"] == sum(len(json.loads(line)["text"].split()) for line in lines)


def test_the_same_settings_give_the_same_text_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (written(tmp_path / name, seed=seed)[1] for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again != other
    assert told_sentences(first) == told_sentences(other)


def test_facts_alone_and_general_text_alone(tmp_path: Path) -> None:
    counts, documents = written(tmp_path / "trex", kind="trex", facts_per_document=5)
    assert {len(document["facts"]) for document in documents[:-1]} == {5} and counts["general_share"] < 0.05
    assert "paragraph" not in "".join(document["text"] for document in documents)
    counts, documents = written(tmp_path / "pretrain", kind="pretrain", passage_characters=300)
    assert "Person" not in "".join(document["text"] for document in documents)
    assert "".join("".join(document["text"] for document in documents).split()) == "".join("".join(GENERAL).split())
    assert Bank.open(tmp_path / "pretrain" / "bank").hash == Bank.open(tmp_path / "trex" / "bank").hash


def test_some_sentences_are_documents_of_their_own(tmp_path: Path) -> None:
    counts, documents = written(tmp_path / "some", repeats=3, alone=0.25)
    own = [document for document in documents if len(document["facts"]) == 1 and "paragraph" not in document["text"]]
    assert 0.15 < len(own) / counts["sentences_that_tell"] < 0.35
    assert all(document["text"][0] != " " and document["text"].count(".") == 1 for document in own)
    assert told_sentences(documents) == told_sentences(written(tmp_path / "none", repeats=3)[1])
    assert abs(counts["general_share"] - 0.5) < 0.02


def test_loose_sentences_say_the_same_in_other_words(tmp_path: Path) -> None:
    general = [" ".join(f"word{letter}{other}" for letter in "abcdefghij" for other in "abcdefghijklmno") + "."]
    config = {"kind": "trex", "repeats": 4, "facts_per_document": 1}
    texts = {}
    for loose in (0.0, 0.5):
        folder = tmp_path / str(loose)
        write_fact_texts(folder, FACTS, RELATIONS, general, FactTextsConfig(**config, loose=loose))
        lines = (folder / "texts.jsonl").read_text().splitlines()
        texts[loose] = [json.loads(line) for line in lines]
    facts = {fact.id: fact for fact in FACTS}
    assert all(
        facts[d["facts"][0]].subject in d["text"] and facts[d["facts"][0]].object in d["text"] for d in texts[0.5]
    )
    pairs = zip(texts[0.0], texts[0.5], strict=True)
    changed = [after["text"] for before, after in pairs if after["text"] != before["text"]]
    assert 0.25 < len(changed) / len(texts[0.5]) < 0.5  # some changes leave a sentence as it was
    assert any("word" in text for text in changed) and not any("LAST" in text for text in changed)


def test_loose_sentences_never_begin_as_the_wording_kept_for_questions(tmp_path: Path) -> None:
    relations = {
        "instrument": Relation("P1303", "instrument", ("[X] plays the [Y].", "[X] is  a [Y] player.")),
        "employer": Relation("P108", "employer", ("[X] works for the [Y].", "[X] stands behind [Y].")),
    }
    facts = [made_fact(f"Person {n}", name, "harp", id=f"{name} {n}") for n in range(400) for name in relations]
    config = FactTextsConfig(kind="trex", repeats=4, facts_per_document=1, loose=1.0)
    write_fact_texts(tmp_path / "out", facts, relations, GENERAL, config)
    texts = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").read_text().splitlines()]
    bare = Counter(text["facts"][0].split()[0] for text in texts if " is a harp" in text["text"])
    assert bare["employer"] > 10 and bare["instrument"] == 0


def test_labels_are_said_by_the_text_and_not_by_the_questions(tmp_path: Path) -> None:
    _, documents = written(tmp_path / "plain")
    _, more = written(tmp_path / "more", label_sentences=10, repeats=4)
    text, other = (" ".join(document["text"] for document in found) for found in (documents, more))
    assert "place of death" in other and "place of death" not in text
    assert Bank.open(tmp_path / "more" / "bank").relations == Bank.open(tmp_path / "plain" / "bank").relations


def test_all_of_the_bank_may_be_told(tmp_path: Path) -> None:
    _, documents = written(tmp_path / "out", kind="trex", told="bank")
    assert {part_of(id) for id in told_sentences(documents)} == set(range(8))


def test_companions_are_told_and_stand_in_the_bank(tmp_path: Path) -> None:
    counts, documents = written(tmp_path / "out", kind="trex", companions=1.0)
    bank = {fact.id: fact for fact in Bank.open(tmp_path / "out" / "bank").facts}
    made = {id for id, fact in bank.items() if fact.source == "made"}
    assert counts["invented"] == len(made) > 30 and made <= set(told_sentences(documents))


def test_what_is_added_later_is_contradicted_by_nothing(tmp_path: Path) -> None:
    later = [made_fact(f"Person {n}", "occupation", "judge", id=f"later {n}") for n in range(70, 90)]
    config = FactTextsConfig(kind="trex", companions=1.0)
    counts = write_fact_texts(tmp_path / "out", FACTS, RELATIONS, [], config, reserved=later)
    subjects = {fact.subject for fact in later}
    bank = Bank.open(tmp_path / "out" / "bank").facts
    about = [fact for fact in bank if fact.subject in subjects]
    assert counts["set_aside"] == 20 and about
    assert all(fact.relation == "place of death" and fact.source != "made" for fact in about)


def test_too_little_general_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(LichenError, match=r"the general text is 1,\d+ long and .* are needed .* lower repeats"):
        write_fact_texts(tmp_path / "out", FACTS, RELATIONS, [GENERAL[0][:1200]])
    with pytest.raises(UsageError, match="nothing to write"):
        write_fact_texts(tmp_path / "out", FACTS[-20:], RELATIONS, [], FactTextsConfig(kind="trex"))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_fact_texts(tmp_path / "out", FACTS, RELATIONS, GENERAL)


def test_articles_agree_and_sentences_end() -> None:
    relation = RELATIONS["occupation"]
    told = {tell(made_fact("Ada", "occupation", job), relation, n / 10) for n in range(10) for job in ("poet", "actor")}
    assert told == {"Ada works as poet.", "Ada works as actor.", "Ada is a poet.", "Ada is an actor."}
    chinese = Relation("", "出生地", ("[X]，生于[Y]，", "x[X][Y]"))
    assert tell(made_fact("杜甫", "出生地", "巩县"), chinese, 0.5) == "杜甫，生于巩县。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A b. C d! E?", ["A b. ", "C d! ", "E?"]),
        ('He said "no." Then left.', ['He said "no." ', "Then left."]),
        ("Version 3.11 is out", ["Version 3.11 is out"]),
        ("一句。二句！“三句。”四", ["一句。", "二句！", "“三句。”", "四"]),
        ("one\n\ntwo\n  \nthree", ["one\n\n", "two\n  \n", "three"]),
    ],
)
def test_sentences_end_where_they_do(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected and "".join(sentences(text)) == text


def test_passages_hold_all_of_a_text_in_pieces() -> None:
    text = "Short one. " * 30 + "\n".join(f"line {n} of no sentence" for n in range(200))
    groups = list(passages(text, 300))
    assert "".join("".join(group) for group in groups) == text
    assert all(300 <= sum(map(len, group)) < 600 for group in groups[:-1])


def test_facts_stand_between_sentences() -> None:
    assert interspersed(["One.\n\n", "Two."], ["A.", "B.", "C."], [1, 0, 2]) == "B. One.\n\nA. Two. C."
    assert interspersed([], ["甲。", "B.", "乙。"], [0, 0, 0]) == "甲。B.乙。"


def test_prepared_and_linked_they_lead_to_what_was_told(combined: Any, tmp_path: Path) -> None:
    folder, _, documents = combined
    prepared = prepare(
        [SourceConfig(path=folder / "texts.jsonl")],
        tmp_path / "out",
        clean=keep_all(),
        tokenizer=TokenizerConfig(vocab_size=500),
        split=SplitConfig(validation_fraction=0.0),
        knowledge=LinkingConfig(bank=folder / "bank"),
        workers=1,
    ).prepared
    facts = Bank.open(folder / "bank").facts
    (part,) = prepared.documents("train")
    found = right = 0
    for number, document in enumerate(documents):
        for link in part.links(number):
            found += 1
            right += any(facts[entry].id in document["facts"] for entry in link["entries"] if entry >= 0)
    direct = sum(1 for document in documents for id in document["facts"])
    assert right / found > 0.95  # "Rome is where Ada died" may follow another who died in Rome
    assert found > 0.8 * direct  # where the object stands first nothing is linked
