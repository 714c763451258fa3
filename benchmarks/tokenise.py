"""How fast documents become shards, beside what the bare engine does with the same text in the same run.

    python benchmarks/tokenise.py [--json] [--megabytes 8] [--rounds 5]

Ours reads JSON lines, divides them by hash, encodes, and writes both splits' shards to the disk, on all cores; the
engine's side is one ``encode_batch`` over texts that lie in memory already. Rounds alternate; medians are compared. The
bar is 80 %. Cleaning (parse, normalise, filter, near-duplicates) is timed once, in documents per second.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import tokenizers
from bars import Bar, report

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.prepare import ShardConfig, SplitConfig, TokenizerConfig
from lichen.core.folders import remove_folder
from lichen.dataset import standard_library
from lichen.dataset.corpus import Corpus, clean_sources, load_corpus
from lichen.dataset.preparation import keep_all
from lichen.dataset.sources import open_sources
from lichen.dataset.stages import Settings, Stages
from lichen.dataset.tokenising import available_cores
from lichen.dataset.tokenizer import Tokenizer

BAR = 0.8


def main() -> int:
    """Measure and print; the exit status says whether the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--megabytes", type=float, default=8.0, help="size of the text")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), int(arguments.megabytes * 1e6), arguments.rounds)
    ratio = found["lichen"] / found["encode_batch"]
    bars = [Bar("tokenise / encode_batch", round(ratio, 3), at_least=BAR), Bar("cores", available_cores())]
    bars += [Bar(f"{name} text", round(found[name], 2), unit="MB/s") for name in ("lichen", "encode_batch")]
    bars += [Bar("cleaning", round(found["cleaning"]), unit="documents/s")]
    return report(bars, ["--json"] if arguments.json else [])


def measure(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Medians over ``rounds`` of both sides, in megabytes of text per second, and cleaning once."""
    texts = made_texts(size)
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    (folder / "tokenizer").mkdir()
    tokenizer = Tokenizer.train(texts[::4], 6400)
    tokenizer.save(folder / "tokenizer")
    engine = tokenizers.Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    stages, corpus = scanned(folder, path)
    encoded = sum(len(text.encode()) for text in texts) / 1e6
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        stages._tokenise(folder / "result", corpus, tokenizer)
        ours.append(time.perf_counter() - start)
        for name in ("train", "validation", "portions"):
            remove_folder(folder / "result" / name)
        start = time.perf_counter()
        engine.encode_batch(texts, add_special_tokens=False)
        theirs.append(time.perf_counter() - start)
    return {
        "encode_batch": encoded / statistics.median(theirs),
        "lichen": encoded / statistics.median(ours),
        "cleaning": len(texts) / clean_seconds(folder, path),
    }


def made_texts(size: int) -> list[str]:
    """At least ``size`` characters of the standard library's documents, cut to a few thousand each."""
    texts: list[str] = []
    total = 0
    while total < size:
        for document in standard_library.documents():
            texts.append(document.text[:4000])
            total += len(texts[-1])
            if total >= size:
                break
    return texts


def scanned(folder: Path, path: Path) -> tuple[Stages, Corpus]:
    """The stages and the corpus of a preparation that keeps every document."""
    sources, clean, shards = (SourceConfig(path=path),), keep_all(), ShardConfig()
    settings = Settings(sources, (), clean, TokenizerConfig(), SplitConfig(), shards, 0)
    opened = open_sources(sources)
    (folder / "result").mkdir()
    clean_sources(opened, clean, shards, folder / "work", folder / "result", available_cores(), _silent)
    corpus = load_corpus(folder / "result", opened, clean)
    assert corpus is not None
    return Stages(settings, opened, folder / "work", None, _silent, None), corpus


def clean_seconds(folder: Path, path: Path) -> float:
    """Seconds to clean the documents with the defaults, near-duplicates included."""
    (folder / "cleaned").mkdir()
    start = time.perf_counter()
    opened = open_sources([SourceConfig(path=path)])
    clean = CleanConfig(max_bad_fraction=1.0)
    clean_sources(opened, clean, ShardConfig(), folder / "scan", folder / "cleaned", available_cores(), _silent)
    return time.perf_counter() - start


def _silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""


if __name__ == "__main__":
    raise SystemExit(main())
