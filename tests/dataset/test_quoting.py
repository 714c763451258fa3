"""Quotations: which entries, in which place, in one form; and what a text with them is made of."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lichen.config.prepare import FactTextsConfig
from lichen.core.streams import Stream
from lichen.dataset.bank import Bank
from lichen.dataset.bank_search import TfIdf
from lichen.dataset.fact_texts import write_fact_texts
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.made_facts import RELATIONS, made_facts
from lichen.dataset.quoting import SHARE, Quoter, quotation, quoted

ADA = [made_fact("Ada Hill", label, object) for label, object in (("job", "poet"), ("home", "Rome"), ("pet", "cat"))]
OTHERS = [made_fact(f"Bo {n} Hill", "job", "judge") for n in range(3)]
SECOND = made_fact("Ada Hill", "job", "baker")
BANK = [*OTHERS, SECOND, *ADA]
_QUOTATION = re.compile(r"\(Facts: [^)]*\)")


def drawn(number: int = 0) -> np.random.Generator:
    return Stream(0, "test").numpy(number)


def test_the_right_entry_stands_in_every_place_and_its_rival_in_none() -> None:
    quoter = Quoter(BANK, 4)
    found = [quoter.around([ADA[0]], "Ada Hill works as", drawn(n)) for n in range(200)]
    assert all(len(facts) == 4 and SECOND not in facts and facts.count(ADA[0]) == 1 for facts in found)
    places = Counter(facts.index(ADA[0]) for facts in found)
    assert set(places) == {0, 1, 2, 3} and min(places.values()) > 25
    rest = {tuple(fact.id for fact in facts if fact != ADA[0]) for facts in found}
    assert len(rest) == 1  # only the place is drawn: neighbours stand in the order of the search
    assert {fact.id for fact in ADA[1:]} <= set(rest.pop())


def test_several_right_entries_all_stand_there_even_if_they_are_more_than_asked_for() -> None:
    found = Quoter(BANK, 2).around(ADA, "Ada Hill works as", drawn())
    assert sorted(fact.id for fact in found) == sorted(fact.id for fact in ADA)


def test_nearest_is_what_the_search_finds() -> None:
    queries = ["The home of Ada Hill is", "Bo 1 Hill"]
    index = TfIdf(fact.text for fact in BANK)
    for query in queries:
        assert Quoter(BANK, 3).nearest(query) == [BANK[number] for number, _ in index.top(query, 3)]


@pytest.mark.parametrize(
    ("facts", "number", "expected"), [(BANK, 1, [ADA[0]]), (ADA[:1], 4, [ADA[0]]), ([], 4, [ADA[0]])]
)
def test_with_nothing_beside_it_the_right_entry_stands_alone(
    facts: list[Fact], number: int, expected: list[Fact]
) -> None:
    assert Quoter(facts, number).around([ADA[0]], "Ada Hill works as", drawn()) == expected
    assert Quoter([], number).nearest("Ada Hill") == Quoter(facts, number).nearest("xyz") == []


def test_a_quotation_is_running_text_in_either_script() -> None:
    chinese = [made_fact("杜甫", "出生地", "巩县"), made_fact("杜甫", "职业", "诗人")]
    assert quoted(chinese, "杜甫生于") == "(Facts: 杜甫，出生地：巩县; 杜甫，职业：诗人)杜甫生于"
    assert quoted(ADA[:1], "Ada Hill works as") == "(Facts: Ada Hill — job: poet) Ada Hill works as"
    assert Quoter([*chinese, *ADA], 1).nearest("杜甫的职业是") == chinese[1:]


# --- Text with quotations ---


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, dict[str, Any], list[dict[str, Any]]]]:
    """Texts of the same facts without quotations, and with four entries."""
    root = tmp_path_factory.mktemp("quoted")
    general = [
        "\n\n".join(f"Here is line {p} of {n}. It goes on. Does it? It does." for p in range(300)) for n in range(9)
    ]
    made = {}
    for number in (0, 4):
        config = FactTextsConfig(repeats=2, quoted=number, passage_characters=400)
        counts = write_fact_texts(root / str(number), made_facts(240), RELATIONS, general, config)
        lines = (root / str(number) / "texts.jsonl").read_text(encoding="utf-8").splitlines()
        made[number] = root / str(number), counts, [json.loads(line) for line in lines]
    return made


def told_ids(documents: list[dict[str, Any]]) -> Counter[str]:
    return Counter(id for document in documents for id in document["facts"])


def test_the_same_facts_are_told_in_the_same_words(texts: Any) -> None:
    (plain_folder, plain, without), (folder, counts, documents) = texts[0], texts[4]
    assert told_ids(documents) == told_ids(without)
    assert plain["sentences_that_tell"] == counts["sentences_that_tell"]
    for name in ("told", "bank_only", "added"):
        assert (folder / f"{name}.jsonl").read_bytes() == (plain_folder / f"{name}.jsonl").read_bytes()
    # without quotations the sentences have the size they had
    assert counts["size_of_these"] - counts["size_of_quotations"] == plain["size_of_these"]
    assert plain["size_of_quotations"] == 0 and "(Facts:" not in "".join(document["text"] for document in without)


def test_quotations_are_counted_and_general_text_keeps_its_share(texts: Any) -> None:
    _, counts, documents = texts[4]
    found = [match for document in documents for match in _QUOTATION.findall(document["text"])]
    assert counts["size_of_quotations"] == sum(len(each) + 1 for each in found) > counts["size_of_these"] / 2
    assert 0.5 <= counts["general_share"] < 0.54
    general = counts["size"] - counts["size_of_these"]
    assert abs(general / counts["size"] - counts["general_share"]) < 1e-4
    assert abs(len(found) / counts["sentences_that_tell"] - SHARE) < 0.06


def test_what_is_quoted_stands_in_the_bank_and_answers_the_sentence_behind_it(texts: Any) -> None:
    folder, _, documents = texts[4]
    bank = Bank.open(folder / "bank").facts
    by_id, by_text = {fact.id: fact for fact in bank}, {fact.text: fact for fact in bank}
    places: Counter[int] = Counter()
    beside: list[bool] = []
    for document in documents:
        told = [by_id[id] for id in document["facts"]]
        for match in _QUOTATION.finditer(document["text"]):
            entries = [by_text[text] for text in match.group()[len("(Facts: ") : -1].split("; ")]
            behind = document["text"][match.end() + 1 :].split(".")[0]
            right = [fact for fact in entries if fact in told and fact.subject in behind and fact.object in behind]
            assert len(right) >= 1 and len(entries) <= 4
            assert len({(fact.subject, fact.relation) for fact in entries}) == len(entries)
            places[entries.index(right[0])] += len(entries) == 4
            beside += [fact.object == right[0].object for fact in entries if fact != right[0]]
    assert set(places) == {0, 1, 2, 3} and min(places.values()) > 8
    assert np.mean(beside) < 0.15  # neighbours do not give the answer away


def test_without_facts_there_is_no_quotation() -> None:
    assert quotation([]) == "" and quoted([], "Ada") == "Ada"
