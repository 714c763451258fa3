import hashlib
import json
from pathlib import Path

import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.config.knowledge import BankConfig
from lichen.dataset.bank import Bank
from lichen.dataset.bank_building import build_bank
from lichen.dataset.sources import SourceError
from lichen.dataset.tokenizer import Tokenizer


@pytest.fixture
def lama(tmp_path: Path) -> Path:
    folder = tmp_path / "lama"
    folder.mkdir()
    rows = [{"uuid": f"u{n}", "subject": f"Ada {n}", "predicate": "P19", "object": "London"} for n in range(50)]
    (folder / "P19.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    (folder / "P19.patterns.json").write_text('["[X] was born in [Y]."]')
    return folder


def test_a_bank_of_several_sources_accounts_for_every_row(lama: Path, tmp_path: Path) -> None:
    sentences = tmp_path / "more.txt"
    sentences.write_text("Moss is green.\nAda 3 — place of birth: London\n\n")
    built = build_bank([lama, sentences], tmp_path / "bank", BankConfig(knowledge_length=20))
    assert built.report.counts() == {
        "read": 54,
        "kept": 51,
        "duplicates": {"same_parts": 1, "same_text": 1},
        "rejects": {"empty_line": 1},
    }
    bank = Bank.open(tmp_path / "bank")
    assert bank.relations["place of birth"].patterns == ("[X] was born in [Y].",)
    assert bank.settings == {"knowledge_length": 20, "key_length": 16, "tokenizer": None} and built.cut is None
    rejects = [json.loads(line) for line in (bank.folder / "rejects.jsonl").read_text().splitlines()]
    assert [(row["file"], row["line"], row["cause"]) for row in rejects] == [(str(sentences), 3, "empty_line")]
    about = json.loads((bank.folder / "build.json").read_text())
    files = about["files"][0]["files"]
    assert files[str(lama / "P19.jsonl")]["sha256"] == hashlib.sha256((lama / "P19.jsonl").read_bytes()).hexdigest()
    assert about["report"]["read"] == 54


def test_what_is_cut_is_counted_and_named(lama: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["place of birth"] * 3, 330)
    tokenizer.save(tmp_path / "tokenizer")
    long = tmp_path / "long.txt"
    long.write_text("moss " * 60 + "\n")
    config = BankConfig(tokenizer=tmp_path / "tokenizer", knowledge_length=40, key_length=40)
    built = build_bank([lama, long], tmp_path / "bank", config)
    assert built.cut == {"entries": 1, "keys": 1, "first": [built.bank.facts[-1].id]}
    assert list(built.bank.folder.glob("arrays-*.npz"))


def test_the_same_sources_make_the_same_facts(lama: Path, tmp_path: Path) -> None:
    banks = [build_bank([lama], tmp_path / name, BankConfig()).bank for name in ("a", "b")]
    assert banks[0].hash == banks[1].hash
    rebuilt = build_bank([tmp_path / "a"], tmp_path / "c", BankConfig()).bank  # a bank is a source too
    assert rebuilt.facts == banks[0].facts


def test_bad_rows_are_listed_even_where_nothing_is_built(lama: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("moss\n" * 3 + '{"text": "a"}\n')
    with pytest.raises(SourceError, match=r"3 of 4 rows are bad.*all are in .*bank\.rejects\.jsonl"):
        build_bank([lama, bad], tmp_path / "out" / "bank", BankConfig())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bank.rejects.jsonl"]
    assert len((tmp_path / "out" / "bank.rejects.jsonl").read_text().splitlines()) == 3


def test_requests_that_can_not_be_met_are_refused_before_reading(lama: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source"):
        build_bank([], tmp_path / "bank", BankConfig())
    with pytest.raises(UsageError, match="exists already"):
        build_bank([lama], lama, BankConfig())
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        build_bank([lama], tmp_path / "bank", BankConfig(tokenizer=tmp_path))
    with pytest.raises(LichenError, match="no such file or folder"):
        build_bank([tmp_path / "nothing"], tmp_path / "bank", BankConfig())
    assert not (tmp_path / "bank").exists()
