"""Portions: they cover every kept document once, in order, and each reads alone."""

from pathlib import Path

import pytest

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.prepare import ShardConfig
from lichen.dataset.corpus import clean_sources, cut_portions, load_corpus, share
from lichen.dataset.sources import open_sources


def chunk(source: str, start: int, stop: int, kept: int, size: int = 10) -> dict[str, object]:
    return {"source": source, "start": {"number": start}, "stop": stop, "kept": kept, "bytes": size}


def test_portions_end_with_their_source_and_when_full() -> None:
    chunks = [
        chunk("a", 0, 5, 5),
        chunk("a", 5, 9, 0),
        chunk("a", 9, 12, 3),
        chunk("b", 12, 14, 0),
        chunk("c", 14, 15, 1),
    ]
    found = cut_portions(chunks, ShardConfig(max_bytes=20))
    assert [(p.source, p.shard, p.start["number"], p.stop, p.kept) for p in found] == [
        ("a", 0, 0, 9, 5),
        ("a", 1, 9, 12, 3),
        ("c", 0, 14, 15, 1),
    ]


@pytest.mark.parametrize("max_documents", [1, 7, 1000])
def test_every_kept_document_is_read_once(tmp_path: Path, max_documents: int) -> None:
    lines = [f'{{"text": "number {n % 40} of the tales"}}' if n % 9 else "[]" for n in range(60)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "b.txt").write_text("moss\nbark\nmoss\n")
    sources = open_sources(
        [SourceConfig(path=tmp_path / "a.jsonl"), SourceConfig(path=tmp_path / "b.txt", split="line")]
    )
    clean = CleanConfig.from_data({"max_bad_fraction": 0.5, "chunk_documents": 4, "deduplicate": {"near": False}})
    shards = ShardConfig(max_documents=max_documents)
    (tmp_path / "out").mkdir()
    assert load_corpus(tmp_path / "out", sources, clean) is None
    clean_sources(sources, clean, shards, tmp_path / "work", tmp_path / "out", 1, lambda *_: None)
    corpus = load_corpus(tmp_path / "out", sources, clean)
    assert corpus is not None
    texts = [text for portion in corpus.portions for text in corpus.texts(portion)]
    seen = dict.fromkeys(f"number {n % 40} of the tales" for n in range(60) if n % 9)
    assert texts == [*seen, "moss", "bark"]
    assert sum(portion.kept for portion in corpus.portions) == len(texts) == corpus.counts["kept"]
    assert list(corpus.texts(corpus.portions[-1]))[-1] == "bark"
    assert corpus.counts["read"] == corpus.counts["kept"] + sum(corpus.counts["dropped"].values()) == 63


def test_shares_are_even_and_depend_on_purpose_and_seed() -> None:
    texts = [str(n) for n in range(2000)]
    assert 150 < sum(share(text, "validation", 0) < 0.1 for text in texts) < 250
    assert share("a", "validation", 0) != share("a", "validation", 1) != share("a", "tokenizer", 1)
