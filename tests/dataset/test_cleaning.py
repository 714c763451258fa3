import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from lichen.config.cleaning import CleanConfig, DeduplicateConfig, SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.core import disk, folders
from lichen.dataset import cleaning
from lichen.dataset.cleaning import Cleaning, clean, clean_chunk, records_of
from lichen.dataset.records import read_chunks
from lichen.dataset.sources import SourceError, open_sources

LENIENT = CleanConfig(max_bad_fraction=1.0)
FAST = DeduplicateConfig(near=False)


def document(draw: random.Random) -> str:
    if draw.random() < 0.5:
        return " ".join(f"w{draw.randint(0, 999)}" for _ in range(draw.randint(1, 60)))
    return "".join(chr(draw.randint(0x4E00, 0x5500)) for _ in range(draw.randint(1, 90)))


def write_corpus(folder: Path, count: int = 300, seed: int = 0) -> list[Path]:
    """Three sources in three formats, with copies, empty documents, repetition and bad lines."""
    draw = random.Random(seed)
    folder.mkdir(exist_ok=True)
    lines: list[bytes] = []
    for number in range(count):
        text = ["", "buy now " * 60, document(draw)][min(2, draw.randrange(12))]
        if lines and number % 9 == 0:
            lines.append(draw.choice(lines))
        elif number % 40 == 5:
            lines.append(draw.choice([b"[1]", b'{"text": 1}', b"", b'{"text": "\xff"}']))
        else:
            lines.append(json.dumps({"text": text}, ensure_ascii=draw.random() < 0.5).encode())
    third = count // 3
    data = [b"\n".join(lines[start : start + third]) + b"\n" for start in (0, third, 2 * third)]
    paths = [folder / "a.jsonl", folder / "b.jsonl.gz", folder / "c.jsonl.zst"]
    for path, pack, part in zip(paths, (bytes, gzip.compress, zstandard.compress), data, strict=True):
        path.write_bytes(pack(part))
    return paths


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "MANIFEST.json"}


def assert_adds_up(report: cleaning.CleanReport) -> None:
    assert report.read == report.kept + sum(report.dropped.values())
    assert report.dropped.get("rejected", 0) == sum(report.rejects.values())
    for name in ("read", "kept"):
        assert getattr(report, name) == sum(source[name] for source in report.sources.values())
    for source in report.sources.values():
        assert source["read"] == source["kept"] + sum(source["dropped"].values())


def test_from_mixed_sources_to_clean_files_whose_counts_add_up(tmp_path):
    paths = write_corpus(tmp_path / "raw")
    report = clean(paths, LENIENT, tmp_path / "out")
    assert_adds_up(report)
    assert report.read == 300 and {"empty", "top_2_gram", "exact_duplicate", "rejected"} <= set(report.dropped)
    assert [*report.sources] == ["a", "b", "c"]
    kept = [
        json.loads(line)
        for name in "abc"
        for line in (tmp_path / "out" / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(kept) == report.kept == len({row["text"] for row in kept})
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert len(rejects) == report.dropped["rejected"]
    assert all(reject["file"] in map(str, paths) and reject["line"] > 0 and reject["cause"] for reject in rejects)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report.to_data()
    assert not (tmp_path / ".out.cleaning").exists()


def test_chunks_workers_and_format_change_no_document(tmp_path):
    paths = write_corpus(tmp_path / "raw")
    clean(paths, LENIENT, tmp_path / "one")
    small = LENIENT.model_copy(update={"chunk_documents": 37, "chunk_bytes": 3000})
    clean(paths, small, tmp_path / "two", workers=2)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    clean(paths, LENIENT, tmp_path / "three", format="parquet")
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(tmp_path / "three" / "b.parquet").to_pylist()
    assert rows == [json.loads(line) for line in (tmp_path / "one" / "b.jsonl").read_text("utf-8").splitlines()]


def test_an_interrupted_scan_continues_and_ends_the_same(tmp_path):
    paths = write_corpus(tmp_path / "raw")
    config = LENIENT.model_copy(update={"chunk_documents": 25, "deduplicate": FAST})
    clean(paths, config, tmp_path / "one")
    for stop in (1, 5, 11):
        seen: list[int] = []

        def interrupt(summary, stop=stop, seen=seen):
            seen.append(summary["index"])
            if len(seen) == stop:
                raise KeyboardInterrupt

        work = tmp_path / f".out{stop}.cleaning"
        with pytest.raises(KeyboardInterrupt):
            Cleaning(open_sources([SourceConfig(path=path) for path in paths]), config, work).scan(progress=interrupt)
        again: list[int] = []
        Cleaning(open_sources([SourceConfig(path=path) for path in paths]), config, work).scan(
            progress=lambda summary, again=again: again.append(summary["index"])
        )
        assert again[0] == stop, "what was done is not done again"
        clean(paths, config, tmp_path / f"out{stop}")
        assert outputs(tmp_path / "one") == outputs(tmp_path / f"out{stop}")


def test_an_interruption_at_any_change_of_the_disk_harms_nothing(tmp_path, monkeypatch):
    paths = write_corpus(tmp_path / "raw", 60)
    sources = open_sources([SourceConfig(path=path) for path in paths])
    config = LENIENT.model_copy(update={"deduplicate": FAST})

    def run(work: Path) -> dict[str, bytes]:
        work_on = Cleaning(sources, config, work)
        work_on.scan()
        work_on.decide()
        return {name: (work / name).read_bytes() for name in ("kept.numbers", "rejects.jsonl", "report.json")}

    expected = run(tmp_path / "whole")
    calls = stop = 0

    def interrupted_rename(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        disk.rename(source, target)
        if calls == -stop:
            raise KeyboardInterrupt

    for module in (folders, cleaning):
        monkeypatch.setattr(module, "rename", interrupted_rename)
    assert run(tmp_path / "counted") == expected
    for stop in [sign * place for place in range(1, calls + 1) for sign in (1, -1)]:  # before each change, and after it
        calls = 0
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"work{stop}")
        assert run(tmp_path / f"work{stop}") == expected


def test_the_second_pass_starts_at_any_chunk(tmp_path):
    paths = write_corpus(tmp_path / "raw", 120)
    config = LENIENT.model_copy(update={"chunk_documents": 25, "deduplicate": FAST})
    work = Cleaning(open_sources([SourceConfig(path=path) for path in paths]), config, tmp_path / "work")
    work.scan()
    report = work.decide()
    assert work.report == report
    records = [records_of(kept, config) for kept in work.kept_chunks()]
    assert sum(map(len, records)) == report.kept
    for start in range(len(records)):
        assert [records_of(kept, config) for kept in work.kept_chunks(start)] == records[start:]


def test_kept_dropped_and_rejected_of_a_chunk_are_all_of_it(tmp_path):
    (chunk, *_) = read_chunks(open_sources([SourceConfig(path=write_corpus(tmp_path)[0])]), LENIENT)
    cleaned = clean_chunk(chunk, LENIENT)
    numbers = [record.number for record in cleaned.kept] + [number for number, _ in cleaned.drops]
    assert sorted(numbers + [reject.number for reject in cleaned.rejects]) == [raw.number for raw in chunk.items]


def test_too_many_bad_lines_stop_with_the_rejects_written_and_can_be_allowed(tmp_path):
    path = tmp_path / "poems.jsonl"
    path.write_text('{"text": "moss"}\n' * 50 + "[1]\n")
    with pytest.raises(SourceError, match=r"1 of 51 lines are bad.*poems\.jsonl:51: an array") as caught:
        clean([path], CleanConfig(), tmp_path / "out")
    assert caught.value.exit_status == 1 and not (tmp_path / "out").exists()
    rejects = (tmp_path / ".out.cleaning" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(rejects[0])["line"] == 51
    assert clean([path], CleanConfig(max_bad_fraction=0.05), tmp_path / "out").kept == 1


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n{"text": "moss"}\n')
    with pytest.raises(LichenError, match=r"nothing is left of 2 documents \(empty 1, too_short 1\)"):
        clean([path], CleanConfig(min_characters=100), tmp_path / "out")


def test_a_source_without_documents_is_an_error(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(SourceError, match="holds no document"):
        clean([tmp_path / "a.jsonl.gz"], CleanConfig(), tmp_path / "out")


def test_a_bad_source_among_others_stops_or_is_left_out(tmp_path):
    paths = write_corpus(tmp_path / "raw")
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"b\.jsonl\.gz: the compressed data is damaged") as caught:
        clean(paths, LENIENT, tmp_path / "out")
    assert caught.value.source == "b"
    skip = LENIENT.model_copy(update={"bad_source": "skip"})
    report = clean(paths, skip, tmp_path / "out")
    assert_adds_up(report)
    assert report.sources["b"]["kept"] == 0 and "damaged" in report.sources["b"]["error"]
    assert clean([paths[0], paths[2]], LENIENT, tmp_path / "two").kept == report.kept, "its documents hide no others"


def test_work_belongs_to_its_sources_and_settings(tmp_path):
    paths = write_corpus(tmp_path / "raw", 30)
    sources = open_sources([SourceConfig(path=path) for path in paths])
    Cleaning(sources, LENIENT, tmp_path / "work").scan()
    Cleaning(sources, LENIENT.model_copy(update={"max_bad_fraction": 0.5}), tmp_path / "work")
    with pytest.raises(SourceError, match=r"other settings \(clean\.min_characters\)"):
        Cleaning(sources, LENIENT.model_copy(update={"min_characters": 5}), tmp_path / "work")
    paths[0].write_text('{"text": "changed"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl: changed since"):
        Cleaning(sources, LENIENT, tmp_path / "work")


def test_an_existing_folder_is_replaced_only_when_told(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "moss"}\n')
    clean([path], CleanConfig(), tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        clean([path], CleanConfig(), tmp_path / "out")
    path.write_text('{"text": "bark"}\n')
    clean([path], CleanConfig(), tmp_path / "out", replace=True)
    assert "bark" in (tmp_path / "out" / "a.jsonl").read_text()


def test_random_damage_is_counted_and_never_an_unexpected_error(tmp_path):
    draw = random.Random(0)
    whole = "".join(json.dumps({"text": document(draw), "meta": {"n": n}}) + "\n" for n in range(30)).encode()
    config = LENIENT.model_copy(update={"max_line_bytes": 2000, "chunk_documents": 11, "deduplicate": FAST})
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 30)):
            place = draw.randrange(len(data))
            kind = draw.random()
            if kind < 0.5:
                data[place] = draw.randrange(256)
            elif kind < 0.7:
                del data[place : place + draw.randint(1, 200)]
            else:
                data[place:place] = draw.choice(
                    [b"\n", b"\r", b"\x00", b"{", b'"', b"\\ud800", b"NaN", b"\xff\xfe", b"[" * 99]
                )
        (tmp_path / "a.jsonl").write_bytes(bytes(data))
        read = kept = dropped = rejected = 0
        for chunk in read_chunks(open_sources([SourceConfig(path=tmp_path / "a.jsonl")]), config):
            cleaned = clean_chunk(chunk, config)
            read += len(chunk.items)
            kept, dropped = kept + len(cleaned.kept), dropped + len(cleaned.drops)
            rejected += len(cleaned.rejects)
        assert read == kept + dropped + rejected == data.count(b"\n") + (data[-1:] != b"\n")


SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]), int(sys.argv[3])))
from lichen.config.cleaning import CleanConfig, DeduplicateConfig
from lichen.dataset.cleaning import clean
config = CleanConfig(max_bad_fraction=1.0, deduplicate=DeduplicateConfig(near=False), max_line_bytes=int(sys.argv[4]))
report = clean([sys.argv[1]], config, sys.argv[2])
print(report.read, report.kept, report.rejects)
"""


def clean_in_little_memory(tmp_path: Path, mebibytes: int, limit: int, most: int) -> str:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(mebibytes):
            file.write(b"moss" * (1 << 18))
        file.write(b'"}\n{"text": "behind"}\n')
    command = [sys.executable, "-c", SCRIPT, str(path), str(tmp_path / "out"), str(most), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_line_larger_than_memory_is_rejected_and_reading_goes_on(tmp_path):
    # the interpreter and numpy alone take some hundred mebibytes of addresses; the line is as large as all that is allowed
    result = clean_in_little_memory(tmp_path, 200, 1 << 20, 400 << 20)
    assert result == "3 2 {'too_long_line': 1}"


@pytest.mark.nightly
def test_a_200_megabyte_line_with_the_default_limit(tmp_path):
    assert clean_in_little_memory(tmp_path, 200, CleanConfig().max_line_bytes, 600 << 20) == "3 2 {'too_long_line': 1}"


def test_memory_does_not_grow_with_the_documents(tmp_path):
    """Of ten thousand documents the texts and signatures alone would be 8 MB: the peak grows by far less."""
    path = tmp_path / "a.jsonl"
    draw = random.Random(0)
    config = CleanConfig(chunk_documents=1000, deduplicate=DeduplicateConfig(memory_mebibytes=1))

    def peak(count: int) -> int:
        with path.open("w") as file:
            for _ in range(count):
                file.write(json.dumps({"text": f"{draw.random()} moss {draw.random()} stone"}) + "\n")
        code = "import sys, resource; from lichen.dataset.cleaning import *; from lichen.config.cleaning import *;"
        code += "clean([sys.argv[1]], CleanConfig.from_data(eval(sys.argv[2])), sys.argv[3], replace=True);"
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        command = [sys.executable, "-c", code, str(path), repr(config.to_data()), str(tmp_path / "out")]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    assert peak(10_000) - peak(1000) < 4000, "kilobytes"
