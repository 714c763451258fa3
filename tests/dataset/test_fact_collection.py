import json
from pathlib import Path

import pytest

from lichen.config.knowledge import BankConfig
from lichen.dataset.fact_collection import Collector, Duplicates
from lichen.dataset.facts import Fact, made_fact
from lichen.dataset.sources import SourceError


def collector(path: Path, *rows: object, **settings: object) -> Collector:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    made = Collector(BankConfig.from_data(settings))
    made.add(path)
    return made


def triple(object: str, id: str = "", **more: str) -> dict[str, str]:
    return {"subject": "Ada", "relation": "job", "object": object, **({"id": id} if id else {}), **more}


def test_every_row_is_kept_a_duplicate_or_rejected(tmp_path: Path) -> None:
    made = collector(
        tmp_path / "a.jsonl",
        triple("poet", "1"),
        triple("POET", "2"),  # the same parts
        triple("poet", "3", text="Ada wrote poems."),  # the same parts in other words
        triple("baker", "1"),  # an id that stands for something else
        {"text": "Moss.", "id": "4"},
        {"text": " Moss. "},  # the same text
        {"text": "Moss.", "subject": "Moss", "relation": "is", "object": "green"},  # says more than the sentence
        "moss",
        "",
        max_bad_fraction=0.3,
    )
    report = made.report()
    assert report.counts() == {
        "read": 9,
        "kept": 3,
        "duplicates": {"same_parts": 2, "same_text": 1},
        "rejects": {"empty_line": 1, "id_used_twice": 1, "not_json": 1},
    }
    assert [(reject.line, reject.cause) for reject in made.rejects] == [
        (4, "id_used_twice"),
        (8, "not_json"),
        (9, "empty_line"),
    ]
    assert "Ada — job: poet" in made.rejects[0].detail
    assert report.object_not_in_text == 1


def test_sources_are_counted_apart_and_duplicates_found_across_them(tmp_path: Path) -> None:
    made = collector(tmp_path / "a.jsonl", triple("poet"))
    (tmp_path / "b.txt").write_text("Ada — job: poet\nRain.\n")
    made.add(tmp_path / "b.txt")
    sources = list(made.report().sources.values())
    assert [source["read"] for source in sources] == [1, 2]
    assert sources[1]["kept"] == 1 and sources[1]["duplicates"] == {"same_text": 1}
    assert list(made.relations) == ["job"]


def test_too_many_bad_rows_stop_and_all_are_listed(tmp_path: Path) -> None:
    made = Collector(BankConfig())
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(["moss"] * 2 + [json.dumps(triple(str(n))) for n in range(98)]) + "\n")
    with pytest.raises(SourceError, match=r"2 of 100 rows are bad \(not_json 2\).*0\.01.*first .*a\.jsonl:1: no JSON"):
        made.add(path)
    assert len(made.rejects) == 2
    Collector(BankConfig(max_bad_fraction=0.02)).add(path)


def test_empty_lines_stop_nothing_but_a_source_of_them(tmp_path: Path) -> None:
    assert collector(tmp_path / "a.jsonl", "", "", triple("poet"), max_bad_fraction=0.0).report().kept == 1
    with pytest.raises(SourceError, match="holds no fact"):
        collector(tmp_path / "a.jsonl", "", "")


def test_equal_hashes_are_not_equal_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.dataset.fact_collection.hash", lambda _: 1, raising=False)
    known = Duplicates([made_fact("Ada", "job", "poet", id="1")])
    assert known.earlier(made_fact("Ada", "job", "baker", id="2")) is None
    assert known.earlier(Fact("3", "Moss.")) is None


def test_composed_and_decomposed_letters_are_one_text() -> None:
    known = Duplicates([Fact("1", "caf\u00e9")])
    assert known.earlier(Fact("2", "cafe\u0301")) == ("same_text", Fact("1", "caf\u00e9"))
