"""Statistics say what is in the shards."""

from pathlib import Path

import numpy as np
import pytest

from lichen.config.cleaning import SourceConfig
from lichen.config.errors import LichenError
from lichen.config.prepare import TokenizerConfig
from lichen.dataset.describe import length_histogram, of_prepared, statistics, totals
from lichen.dataset.preparation import keep_all, prepare
from lichen.dataset.shards import Prepared


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("describe")
    (folder / "a.txt").write_text("a cat\na hat\n苔藓\n" + "moss " * 40 + "\n")
    source = SourceConfig(path=folder / "a.txt", split="line")
    prepare([source], folder / "out", clean=keep_all(), tokenizer=TokenizerConfig(vocab_size=330), workers=1)
    return folder / "out"


def test_the_statistics_equal_a_count_by_hand(output: Path) -> None:
    found = statistics(output)
    prepared = Prepared.open(output)
    parts = [part for split in ("train", "validation") for part in prepared.documents(split)]
    tokens = np.concatenate([part.tokens(n) for part in parts for n in range(len(part))])
    counts = np.bincount(tokens)
    assert found["vocabulary"]["used"] == int((counts > 0).sum())
    top = found["vocabulary"]["top"]
    assert [entry["count"] for entry in top] == sorted(counts[counts > 0].tolist(), reverse=True)[: len(top)]
    assert {entry["text"]: entry["count"] for entry in top}["<|endoftext|>"] == 4
    assert found["lengths"]["longest"] == max(int(part.lengths.max()) for part in parts)
    sums = found["splits"]["train"]
    assert (sums["documents"], sums["tokens"], sums["characters"]) == (4, len(tokens), 5 + 5 + 2 + 200)
    assert sums["bytes"] == 5 + 5 + 6 + 200
    assert sums["bytes_per_token"] == round(216 / (len(tokens) - 4), 4)
    assert {key: found[key] for key in ("lengths", "length_histogram", "vocabulary")} == of_prepared(prepared)


def test_coverage_counts_the_most_frequent_tokens(output: Path) -> None:
    coverage = statistics(output)["vocabulary"]["coverage"]
    assert 1 <= coverage["50%"] <= coverage["90%"] <= coverage["99%"] <= statistics(output)["vocabulary"]["used"]


def test_raw_files_can_be_described(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "moss"}\n{"text": "苔藓"}\n')
    found = statistics(tmp_path / "a.jsonl")
    assert (found["documents"], found["bytes"], found["characters"]) == (2, 10, 6)
    assert found["bytes_histogram"] == [{"from": 4, "to": 7, "documents": 2}]


def test_damaged_statistics_are_named(tmp_path: Path) -> None:
    (tmp_path / "statistics.json").write_text("{")
    with pytest.raises(LichenError, match=r"statistics.json: damaged"):
        statistics(tmp_path)


def test_histograms_hold_every_document() -> None:
    lengths = np.random.default_rng(0).integers(1, 5000, 1000)
    bins = length_histogram(lengths)
    assert sum(bin["documents"] for bin in bins) == 1000
    for bin in bins:
        assert bin["documents"] == int(((lengths >= bin["from"]) & (lengths <= bin["to"])).sum())
    assert length_histogram(lengths[:0]) == []
    assert "bytes_per_token" not in totals([])
