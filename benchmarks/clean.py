"""Cleaning with near-duplicate removal: documents per second, peak memory, and whether planted duplicates are found.

    python benchmarks/clean.py                       64 MB of made text, a table
    python benchmarks/clean.py --gigabytes 1 --json  1 GB, {bar: {value, bar, ok}}

The corpus is made here: documents of about 1.3 kB (lognormal) from sentences of made words and of Chinese characters; 5 %
repeat an earlier document and 5 % repeat a long one but for one sentence. The process that cleans is a new one; its memory is the
operating system's peak of resident pages, workers included.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import Bar, report

POOL = 200_000  # sentences
RECENT = 5000  # documents that later ones may repeat
MEMORY_BAR = 2.0  # GB


def main() -> int:
    """Make the corpus, clean it in another process, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.064, help="size of the corpus in 10^9 bytes")
    parser.add_argument("--workers", type=int, default=1, help="processes that clean")
    parser.add_argument("--folder", type=Path, help="where to make the corpus (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print {bar: {value, bar, ok}}")
    parser.add_argument("--measure", nargs=2, metavar=("CORPUS", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), Path(options.measure[1]), options.workers)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        corpus = Path(folder) / "corpus.jsonl"
        exact, near = make(corpus, int(options.gigabytes * 1e9))
        command = [sys.executable, __file__, "--measure", str(corpus), str(Path(folder) / "work")]
        command += ["--workers", str(options.workers)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        size = corpus.stat().st_size / 1e6
    dropped = found["dropped"]
    clean_seconds = found["scan_seconds"] + found["decide_seconds"]
    bars = [
        Bar("clean_peak_rss", found["peak"] / 1e9, at_most=MEMORY_BAR, unit="GB"),
        Bar("clean_documents_per_second", found["read"] / clean_seconds, unit="documents"),
        Bar("clean_megabytes_per_second", size / clean_seconds, unit="MB"),
        Bar("scan_seconds", found["scan_seconds"], unit="s"),
        Bar("deduplicate_seconds", found["decide_seconds"], unit="s"),
        Bar("documents", found["read"]),
        Bar("exact_duplicates_found", dropped.get("exact_duplicate", 0) / exact, at_least=0.999),
        Bar("near_duplicates_found", dropped.get("near_duplicate", 0) / near, at_least=0.9),
        Bar("near_duplicates_wrongly_found", max(0.0, dropped.get("near_duplicate", 0) / near - 1), at_most=0.01),
    ]
    return report(bars)


def make(path: Path, size: int) -> tuple[int, int]:
    """Write a corpus of about ``size`` bytes; how many documents repeat another one exactly, and nearly."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(2, 9))) for _ in range(30_000)]
    pool = [" ".join(draw.choices(words, k=draw.randint(5, 20))) + ". " for _ in range(POOL)]
    letters = [chr(code) for code in range(0x4E00, 0x5E00)]
    pool += ["".join(draw.choices(letters, k=draw.randint(8, 24))) + "。" for _ in range(POOL)]
    recent: list[list[str]] = []
    written = exact = near = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            kind = draw.random() if len(recent) == RECENT else 1.0
            half = POOL * draw.randrange(2)
            sentences = [pool[half + draw.randrange(POOL)] for _ in range(max(3, int(draw.lognormvariate(2.7, 0.6))))]
            if kind < 0.05:
                sentences, exact = draw.choice(recent), exact + 1
            elif kind < 0.10:
                sentences, near = list(max(draw.choices(recent, k=3), key=len)), near + 1
                sentences[draw.randrange(len(sentences))] = pool[draw.randrange(2 * POOL)]
            elif len(recent) < RECENT:
                recent.append(sentences)
            else:
                recent[draw.randrange(RECENT)] = sentences
            line = json.dumps({"text": "".join(sentences)}, ensure_ascii=False) + "\n"
            written += len(line.encode())
            file.write(line)
    return exact, near


def measure(corpus: Path, work: Path, workers: int) -> dict[str, object]:
    """Both steps of cleaning, timed, in this process."""
    from lichen.config.cleaning import CleanConfig, SourceConfig
    from lichen.dataset.cleaning import Cleaning
    from lichen.dataset.sources import open_sources

    cleaning = Cleaning(open_sources([SourceConfig(path=corpus)]), CleanConfig(), work)
    start = time.perf_counter()
    cleaning.scan(workers)
    middle = time.perf_counter()
    found = cleaning.decide()
    end = time.perf_counter()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if workers > 1:
        peak += workers * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    seconds = {"scan_seconds": middle - start, "decide_seconds": end - middle}
    return {"read": found.read, "kept": found.kept, "dropped": found.dropped, "peak": peak * unit, **seconds}


if __name__ == "__main__":
    raise SystemExit(main())
