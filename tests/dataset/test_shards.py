"""Shards give back what was written; what is damaged is named."""

from pathlib import Path

import numpy as np
import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.dataset.linking import LINK, NO_LINKS
from lichen.dataset.shards import Documents, Prepared, token_type, write_shard


def random_documents(count: int, seed: int = 0, vocab_size: int = 6400) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [draw.integers(0, vocab_size, size=draw.integers(1, 30)) for _ in range(count)]


@pytest.mark.parametrize("vocab_size", [6400, 151_936])
def test_documents_come_back_over_shard_borders(tmp_path: Path, vocab_size: int) -> None:
    dtype = token_type(vocab_size)
    parts = [random_documents(7, 1, vocab_size), random_documents(1, 2, vocab_size), random_documents(5, 3, vocab_size)]
    for number, part in enumerate(parts):
        write_shard(tmp_path, number, part, [10 * len(document) for document in part], dtype)
    documents = Documents("d", None, [tmp_path / f"shard_{n:05d}" for n in range(3)], dtype)
    expected = [document for part in parts for document in part]
    assert len(documents) == 13
    assert documents.lengths.dtype == np.int32 and documents.lengths.tolist() == [len(d) for d in expected]
    assert documents.bytes.tolist() == [10 * len(d) for d in expected]
    assert documents.num_tokens == sum(map(len, expected))
    for number, document in enumerate(expected):
        assert documents.tokens(number).tolist() == document.tolist()
        assert documents.tokens(number, 2, 5).tolist() == document[2:5].tolist()
        assert documents.tokens(number, 50).size == 0
    with pytest.raises(IndexError):
        documents.tokens(13)


def test_parallel_columns_follow_the_tokens(tmp_path: Path) -> None:
    parts = random_documents(4)
    total = sum(map(len, parts))
    loss = np.arange(total) % 3 == 0
    write_shard(tmp_path, 0, parts, [1] * 4, np.dtype("<u2"), columns={"loss": loss})
    documents = Documents("d", 1.0, [tmp_path / "shard_00000"], np.dtype("<u2"))
    start = len(parts[0]) + len(parts[1])
    assert documents.column("loss", 2).tolist() == loss[start : start + len(parts[2])].tolist()
    with pytest.raises(LichenError, match="one row per token"):
        write_shard(tmp_path, 1, parts, [1] * 4, np.dtype("<u2"), columns={"loss": loss[1:]})


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, 0, random_documents(9), [3] * 9, np.dtype("<u2"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "bytes.npy"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_damaged_shard_is_named(tmp_path: Path, name: str, how: str) -> None:
    write_shard(tmp_path, 0, random_documents(9), [3] * 9, np.dtype("<u2"))
    path = tmp_path / f"shard_00000.{name}"
    data = path.read_bytes()
    path.unlink()
    if how == "cut":
        path.write_bytes(data[:-3])
    with pytest.raises(LichenError, match=f"shard_00000.{name}"):
        documents = Documents("d", 1.0, [tmp_path / "shard_00000"], np.dtype("<u2"))
        documents.bytes  # noqa: B018 - read on demand
        documents.tokens(0)


def test_opening_the_wrong_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "prepared").mkdir()
    with pytest.raises(UsageError, match=r"preparde: no such folder \(nearest: prepared"):
        Prepared.open(tmp_path / "preparde")
    with pytest.raises(UsageError, match="not a prepared folder"):
        Prepared.open(tmp_path / "prepared")


def links_at(*starts: int) -> np.ndarray:
    links = np.zeros(len(starts), LINK)
    links["start"], links["entries"], links["count"] = starts, np.array(starts)[:, None] * 10, 1
    return links


def test_links_come_back_with_their_documents_over_shard_borders(tmp_path: Path) -> None:
    parts = [[NO_LINKS, links_at(3, 5), NO_LINKS, links_at(1)], [NO_LINKS], [links_at(2), NO_LINKS]]
    for number, part in enumerate(parts):
        write_shard(tmp_path, number, random_documents(len(part)), [1] * len(part), np.dtype("<u2"), links=part)
    stems = [tmp_path / f"shard_{n:05d}" for n in range(3)]
    documents = Documents("d", None, stems, np.dtype("<u2"), linked=True)
    found = [documents.links(number)["start"].tolist() for number in range(7)]
    assert found == [[], [3, 5], [], [1], [], [2], []]
    assert documents.links(1)["entries"][:, 0].tolist() == [30, 50]
    assert documents.all_links(0)["document"].tolist() == [1, 1, 3]
    with pytest.raises(IndexError):
        documents.links(7)


def test_text_without_a_bank_has_no_links_and_no_file_of_them(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, random_documents(3), [1] * 3, np.dtype("<u2"))
    documents = Documents("d", None, [tmp_path / "shard_00000"], np.dtype("<u2"))
    assert not documents.linked and len(documents.links(2)) == 0
    assert not list(tmp_path.glob("*links*"))


def test_a_damaged_links_column_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, random_documents(1), [1], np.dtype("<u2"), links=[links_at(3)])
    path = tmp_path / "shard_00000.links.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LichenError, match=r"shard_00000.links.npy: damaged"):
        Documents("d", None, [tmp_path / "shard_00000"], np.dtype("<u2"), linked=True).links(0)
    np.save(path, np.zeros(4))
    with pytest.raises(LichenError, match=r"shard_00000.links.npy: not a links column"):
        Documents("d", None, [tmp_path / "shard_00000"], np.dtype("<u2"), linked=True).links(0)
