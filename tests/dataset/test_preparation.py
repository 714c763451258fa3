"""Preparing: counts add up, any interruption ends in the same bytes, damage is mended, changes are refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.config.prepare import LinkingConfig, ShardConfig, SplitConfig, TokenizerConfig
from lichen.core import folders
from lichen.core.locks import FolderLock
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.bank_arrays import BankArrays
from lichen.dataset.facts import made_fact
from lichen.dataset.preparation import Outcome, prepare, tokenise
from lichen.dataset.shards import Prepared
from lichen.dataset.tokenizer import Tokenizer

CLEAN = CleanConfig.from_data({"deduplicate": {"near": False}, "chunk_documents": 16, "max_bad_fraction": 0.1})


def write_sources(folder: Path) -> list[SourceConfig]:
    """Two sources, Chinese and English, with bad lines and duplicates."""
    folder.mkdir(parents=True, exist_ok=True)
    poems = [f"秦川雄帝宅，函谷壯皇居。第{n}首 <|im_end|>" for n in range(40)]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in [*poems, poems[3]]]
    lines[7:7] = ["{", "[1]"]
    (folder / "poems.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tales = "\n".join(f"Once upon a time there were {n} cats and <|endoftext|> hats." for n in range(30))
    (folder / "tales.txt").write_text(tales + "\n\n")
    return [
        SourceConfig(path=folder / "poems.jsonl"),
        SourceConfig(path=folder / "tales.txt", split="line"),
    ]


def run(sources: list[SourceConfig], output: Path, **more: Any) -> Outcome:
    options: dict[str, Any] = {
        "clean": CLEAN,
        "tokenizer": TokenizerConfig(vocab_size=340),
        "split": SplitConfig(validation_fraction=0.2),
        "shards": ShardConfig(max_documents=16),
        "workers": 1,
    }
    return prepare(sources, output, **{**options, **more})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SourceConfig], Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("made")
    sources = write_sources(folder / "raw")
    run(sources, folder / "out")
    return sources, folder / "out", contents(folder / "out")


def all_texts(prepared: Prepared, split: Any) -> list[str]:
    tokenizer = Tokenizer.load(prepared.tokenizer_folder)
    parts = prepared.documents(split)
    return [tokenizer.decode(part.tokens(n)) for part in parts for n in range(len(part))]


def test_every_document_is_there_once_and_ends(made: Any) -> None:
    _, output, _ = made
    prepared = Prepared.open(output)
    texts = all_texts(prepared, "train") + all_texts(prepared, "validation")
    poems = [f"秦川雄帝宅，函谷壯皇居。第{n}首 <|im_end|>" for n in range(40)]
    tales = [f"Once upon a time there were {n} cats and <|endoftext|> hats." for n in range(30)]
    assert sorted(texts) == sorted(poems + tales)
    for split in ("train", "validation"):
        for part in prepared.documents(split):
            for number in range(len(part)):
                tokens = part.tokens(number)
                assert tokens[-1] == prepared.end_of_text_id == 0
                assert tokens[:-1].min() >= 64  # no control token came out of the text
    assert [part.name for part in prepared.documents("train")] == ["poems", "tales"]
    assert len(all_texts(prepared, "validation")) in range(4, 30)


def test_counts_add_up(made: Any) -> None:
    _, output, _ = made
    prepared = Prepared.open(output)
    statistics = prepared.statistics
    cleaning = statistics["cleaning"]
    assert cleaning["read"] == 73 == cleaning["kept"] + sum(cleaning["dropped"].values())
    assert cleaning["dropped"] == {"rejected": 2, "exact_duplicate": 1}
    rejects = [json.loads(line) for line in (output / "rejects.jsonl").read_text().splitlines()]
    assert [(Path(r["file"]).name, r["line"]) for r in rejects] == [("poems.jsonl", 8), ("poems.jsonl", 9)]
    for split in ("train", "validation"):
        parts = prepared.documents(split)
        sums = statistics["splits"][split]
        assert sums["documents"] == sum(map(len, parts))
        assert sums["tokens"] == sum(part.num_tokens for part in parts)
        assert sums["bytes"] == sum(int(part.bytes.sum()) for part in parts)
    both = [part for split in ("train", "validation") for part in prepared.documents(split)]
    assert sum(bin["documents"] for bin in statistics["length_histogram"]) == sum(map(len, both)) == cleaning["kept"]


def test_workers_and_batches_change_no_byte(made: Any, tmp_path: Path) -> None:
    sources, _, expected = made
    shards = ShardConfig(max_documents=16, batch_size=3)
    run(sources, tmp_path / "out", workers=2, shards=shards)
    found = contents(tmp_path / "out")
    settings = {"prepare.yaml", "MANIFEST.json"}  # they tell the batch size
    assert {n: d for n, d in found.items() if n not in settings} == {
        n: d for n, d in expected.items() if n not in settings
    }


def test_rerunning_a_finished_preparation_does_nothing(made: Any) -> None:
    sources, output, expected = made
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert run(sources, output).state == "whole"
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert contents(output) == expected
    assert not output.with_name("out.partial").exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Raise before the ``number``-th write, sync, rename or removal, of whomever; returns how many there were."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                raise Killed
            return function(*arguments, **options)

        return call

    for name in ("write", "fsync", "rename", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: calls


def test_an_interruption_anywhere_ends_in_the_same_bytes(made: Any, tmp_path: Path) -> None:
    sources, _, expected = made
    with pytest.MonkeyPatch.context() as patch:
        count = crash_at(patch, -1)
        run(sources, tmp_path / "counted")
        total = count()
    assert total > 100
    points = sorted({*range(1, total + 1, max(1, total // 12)), *range(total - 12, total + 1, 6)})
    for point in points:
        output = tmp_path / f"at-{point}"
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, point)
            with pytest.raises(Killed):
                run(sources, output)
        assert not output.exists() or contents(output) == expected
        run(sources, output)
        assert contents(output) == expected, point
        assert not output.with_name(output.name + ".partial").exists()


def test_many_interruptions_of_one_preparation(made: Any, tmp_path: Path) -> None:
    sources, _, expected = made
    interruptions = 0
    while not (tmp_path / "out").exists():
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, 60)
            try:
                run(sources, tmp_path / "out")
            except Killed:
                interruptions += 1
        assert interruptions < 100
    assert interruptions > 3
    run(sources, tmp_path / "out")
    assert contents(tmp_path / "out") == expected


DAMAGES = [
    "train/poems/shard_00001.tokens.bin",
    "train/tales/shard_00000.offsets.npy",
    "validation/poems/shard_00000.bytes.npy",
    "portions/poems/shard_00001.json",
    "tokenizer/tokenizer.json",
    "tokenizer/chat_template.jinja",
    "statistics.json",
    "dataset.json",
    "cleaned.json",
    "kept.npy",
    "rejects.jsonl",
    "prepare.yaml",
]


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_damage_is_named_and_only_it_is_made_again(made: Any, tmp_path: Path, name: str, how: str) -> None:
    sources, _, expected = made
    output = tmp_path / "out"
    for path, data in expected.items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(data)
    (output / name).unlink()
    if how == "flipped":
        (output / name).write_bytes(bytes([expected[name][0] ^ 1]) + expected[name][1:])
    others = {path: path.stat().st_mtime_ns for path in output.rglob("shard_*.tokens.bin") if path != output / name}
    with pytest.raises(LichenError, match=f"{name}: .*lichen prepare"):
        Prepared.open(output)
    outcome = run(sources, output)
    assert outcome.state == "mended" and len(outcome.damaged) == 1 and name in outcome.damaged[0]
    assert contents(output) == expected
    touched = [path for path, time in others.items() if path.stat().st_mtime_ns != time]
    assert all(path.name.split(".")[0] == Path(name).name.split(".")[0] for path in touched)


def test_changed_or_missing_sources_are_refused(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "raw")
    interrupt = {"report": _interrupt_at("tokenise")}
    with pytest.raises(Killed):
        run(sources, tmp_path / "begun", **interrupt)
    run(sources, tmp_path / "done")
    expected = contents(tmp_path / "done")
    with sources[0].path.open("a") as file:
        file.write('{"text": "new"}\n')
    for name in ("begun", "done"):
        with pytest.raises(LichenError, match=r"poems.jsonl: changed since preparing .*restore it"):
            run(sources, tmp_path / name)
    sources[0].path.unlink()
    with pytest.raises(LichenError, match=r"poems.jsonl: no such file"):
        run(sources, tmp_path / "begun")
    assert contents(tmp_path / "done") == expected
    write_sources(tmp_path / "raw")
    assert run(sources, tmp_path / "begun").state == "made"
    assert contents(tmp_path / "begun") == expected


def _interrupt_at(wanted: str) -> Callable[..., None]:
    def report(stage: str, done: int, total: int | None) -> None:
        if stage == wanted:
            raise Killed

    return report


def test_changed_settings_are_shown(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "raw")
    with pytest.raises(Killed):
        run(sources, tmp_path / "out", report=_interrupt_at("train tokenizer"))
    with pytest.raises(UsageError, match=r"begun with other settings: tokenizer.vocab_size: 340 → 360; seed: 0 → 1"):
        run(sources, tmp_path / "out", tokenizer=TokenizerConfig(vocab_size=360), seed=1)
    run(sources, tmp_path / "out")
    with pytest.raises(UsageError, match=r"was prepared with other settings: seed: 0 → 1"):
        run(sources, tmp_path / "out", seed=1)


def test_a_second_preparation_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "raw")
    with (
        FolderLock(tmp_path / "out.partial", "preparing"),
        pytest.raises(LichenError, match=r"in use by process .*preparing"),
    ):
        run(sources, tmp_path / "out")
    assert run(sources, tmp_path / "out").state == "made"


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "raw")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no prepared folder"):
        run(sources, tmp_path / "out")
    assert contents(tmp_path).keys() == {"out/precious.txt", "raw/poems.jsonl", "raw/tales.txt"}


def test_an_extra_file_is_named_not_removed(made: Any, tmp_path: Path) -> None:
    sources, output, expected = made
    (output / "notes.txt").write_text("mine")
    with pytest.raises(LichenError, match=r"notes\.txt: extra"):
        run(sources, output)
    (output / "notes.txt").unlink()
    assert contents(output) == expected


def test_a_full_disk_is_one_line_and_a_rerun_succeeds(made: Any, tmp_path: Path) -> None:
    sources, _, expected = made
    written = 0

    def full(descriptor: int, data: Any) -> None:
        nonlocal written
        written += len(data)
        if written > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "write_all", full)
        with pytest.raises(LichenError, match="no space left"):
            run(sources, tmp_path / "out")
    run(sources, tmp_path / "out")
    assert contents(tmp_path / "out") == expected


def test_a_place_that_can_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "raw")
    (tmp_path / "file").write_text("")
    with pytest.raises(LichenError):
        run(sources, tmp_path / "file" / "out")


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "raw")
    with pytest.raises(LichenError, match="left of 73"):
        run(sources, tmp_path / "out", clean=CleanConfig(min_characters=10_000, max_bad_fraction=0.5))
    assert not (tmp_path / "out").exists()


def test_named_validation_sources_are_held_out_whole(tmp_path: Path) -> None:
    poems, tales = write_sources(tmp_path / "raw")
    first = poems.path.read_text().splitlines()[0]
    (tmp_path / "raw" / "held.jsonl").write_text(first + "\n" + '{"text": "held out"}\n')
    held = SourceConfig(path=tmp_path / "raw" / "held.jsonl")
    prepared = run([poems, tales], tmp_path / "out", validation=[held]).prepared
    assert all_texts(prepared, "validation") == ["秦川雄帝宅，函谷壯皇居。第0首 <|im_end|>", "held out"]
    train = all_texts(prepared, "train")
    assert len(train) == 69 and "秦川雄帝宅，函谷壯皇居。第0首 <|im_end|>" not in train


def test_a_document_keeps_its_side_when_others_come(made: Any, tmp_path: Path) -> None:
    _, output, _ = made
    (tmp_path / "raw").mkdir()
    sources = write_sources(tmp_path / "raw")
    with sources[0].path.open("a") as file:
        file.write("".join(f'{{"text": "another {n}"}}\n' for n in range(20)))
    more = run(sources, tmp_path / "out").prepared
    assert set(all_texts(Prepared.open(output), "validation")) <= set(all_texts(more, "validation"))


def test_a_loaded_tokenizer_is_used_and_watched(made: Any, tmp_path: Path) -> None:
    sources, output, _ = made
    own = Tokenizer.load(output)
    own.save(tmp_path / "tokenizer")
    prepared = run(sources, tmp_path / "out", tokenizer=TokenizerConfig(path=tmp_path / "tokenizer")).prepared
    assert prepared.tokenizer_fingerprint == own.fingerprint == Prepared.open(output).tokenizer_fingerprint
    Tokenizer.train(["other"], 330).save(tmp_path / "tokenizer")
    with pytest.raises(LichenError, match="the tokenizer changed since"):
        run(sources, tmp_path / "out", tokenizer=TokenizerConfig(path=tmp_path / "tokenizer"))


def test_weights_reach_the_documents(tmp_path: Path) -> None:
    poems, tales = write_sources(tmp_path / "raw")
    weighted = [poems.model_copy(update={"weight": 2.0}), tales.model_copy(update={"weight": 0.5})]
    prepared = run(weighted, tmp_path / "out").prepared
    assert [part.weight for part in prepared.documents("train")] == [2.0, 0.5]


def test_the_fingerprint_is_that_of_the_data(made: Any, tmp_path: Path) -> None:
    sources, output, _ = made
    same = run(sources, tmp_path / "same").prepared.fingerprint
    other = run(sources, tmp_path / "other", seed=1).prepared.fingerprint
    assert same == Prepared.open(output).fingerprint != other


def test_tokenise_keeps_all_and_continues(tmp_path: Path) -> None:
    (tmp_path / "clean.jsonl").write_text("".join(f'{{"text": " tale {n % 5}\\r\\n"}}\n' for n in range(30)))
    Tokenizer.train(["tale 12345"], 330).save(tmp_path / "tokenizer")
    prepared = tokenise(
        tmp_path / "clean.jsonl",
        tmp_path / "tokenizer",
        tmp_path / "out",
        max_length=4,
        chunk_size=4,
        save_interval=2,
        workers=1,
    )
    (part,) = prepared.documents("train")
    assert len(part) == 30 and len(part.stems) == 4
    assert int(part.lengths.max()) == 4
    sums = prepared.statistics["splits"]["train"]
    assert sums["cut_documents"] == 30 and sums["cut_tokens"] > 0
    whole = tokenise(tmp_path / "clean.jsonl", tmp_path / "tokenizer", tmp_path / "whole", workers=1)
    assert all_texts(whole, "train")[:2] == [" tale 0\r\n", " tale 1\r\n"]


def test_a_killed_process_is_continued(made: Any, tmp_path: Path) -> None:
    """A real SIGKILL, with threads at work."""
    sources, _, expected = made
    script = (
        "import os, signal, sys, runpy\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_preparation as t\n"
        "from pathlib import Path\n"
        "def report(stage, done, total):\n"
        "    if stage == 'tokenise' and done >= 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sources = t.write_sources(Path(sys.argv[2]))\n"
        "t.run(sources, Path(sys.argv[3]), report=report, workers=2)\n"
    )
    raw = sources[0].path.parent
    arguments = [sys.executable, "-c", script, str(Path(__file__).parent), str(raw), str(tmp_path / "out")]
    assert subprocess.run(arguments).returncode == -9
    assert not (tmp_path / "out").exists()
    run(sources, tmp_path / "out")
    assert contents(tmp_path / "out") == expected


def test_token_columns_have_the_small_type(made: Any) -> None:
    _, output, _ = made
    (part, _) = Prepared.open(output).documents("train")
    assert part.tokens(0).dtype == np.uint16


# --- With a bank ---


def write_linked_sources(folder: Path) -> tuple[list[SourceConfig], LinkingConfig]:
    """Texts that tell facts, some of them, and the bank."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = [made_fact(f"Person {n}", "home", f"Town {n % 7}", id=str(n)) for n in range(40)]
    facts.append(made_fact("杜甫", "出生地", "巩县", id="du"))
    texts = [f"Once Person {n} lived in Town {n % 7}. There were {n} cats." for n in range(60)] + ["杜甫生于巩县。"]
    (folder / "tales.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    if not (folder / "bank").exists():
        write_bank(folder / "bank", facts)
    return [SourceConfig(path=folder / "tales.jsonl")], LinkingConfig(bank=folder / "bank", window=50)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[SourceConfig], LinkingConfig, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("linked")
    sources, knowledge = write_linked_sources(folder / "raw")
    run(sources, folder / "out", knowledge=knowledge)
    return sources, knowledge, contents(folder / "out")


def test_links_lead_from_the_text_to_the_copy_of_the_bank(linked: Any, tmp_path: Path) -> None:
    sources, knowledge, expected = linked
    prepared = run(sources, tmp_path / "out", knowledge=knowledge, workers=2).prepared
    assert contents(tmp_path / "out") == expected
    assert prepared.knowledge_folder == tmp_path / "out" / "knowledge"
    bank = Bank.open(tmp_path / "out" / "knowledge")
    assert bank.hash == prepared.bank_hash == Bank.open(knowledge.bank).hash
    tokenizer = Tokenizer.load(prepared.tokenizer_folder)
    linked_entries: list[int] = []
    for split in ("train", "validation"):
        for part in prepared.documents(split):
            assert part.linked
            for number in range(len(part)):
                for link in part.links(number):
                    fact = bank.facts[link["entries"][0]]
                    spelt = part.tokens(number, link["start"], link["start"] + link["count"])
                    assert fact.object in tokenizer.decode(spelt)
                    assert fact.subject in tokenizer.decode(part.tokens(number, link["subject"], link["start"]))
                    linked_entries.append(link["entries"][0])
    assert sorted(linked_entries) == list(range(41))
    counts = prepared.statistics["knowledge"]
    assert counts["entries"] == 41
    assert sum(counts[split]["links"] for split in ("train", "validation")) == 41
    assert sum(counts[split]["linked_entries"] for split in ("train", "validation")) == 41
    assert 0 < counts["train"]["share_of_tokens"] < 0.5


def test_text_without_a_bank_is_prepared_as_ever(made: Any) -> None:
    _, output, expected = made
    assert not any("knowledge" in name or "links" in name for name in expected)
    assert b"knowledge" not in expected["prepare.yaml"] + expected["dataset.json"] + expected["statistics.json"]
    prepared = Prepared.open(output)
    assert prepared.bank_hash is None and prepared.knowledge_folder is None
    assert not prepared.documents("train")[0].linked


def test_an_interruption_anywhere_ends_in_the_same_bytes_with_a_bank(linked: Any, tmp_path: Path) -> None:
    sources, knowledge, expected = linked
    with pytest.MonkeyPatch.context() as patch:
        count = crash_at(patch, -1)
        run(sources, tmp_path / "counted", knowledge=knowledge)
        total = count()
    for point in sorted({*range(24, 36, 3), *range(60, total + 1, max(1, total // 5))}):
        output = tmp_path / f"at-{point}"
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, point)
            with pytest.raises(Killed):
                run(sources, output, knowledge=knowledge)
        run(sources, output, knowledge=knowledge)
        assert contents(output) == expected, point


@pytest.mark.parametrize(
    "name",
    [
        "train/tales/shard_00001.links.npy",
        "validation/tales/shard_00000.links.npy",
        "knowledge/facts.jsonl",
        "knowledge/bank.json",
        "knowledge/history.jsonl",
    ],
)
def test_damaged_links_and_banks_are_made_again(linked: Any, tmp_path: Path, name: str) -> None:
    sources, knowledge, expected = linked
    output = tmp_path / "out"
    for path, data in expected.items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(data)
    (output / name).write_bytes(expected[name][:-1] + b"?")
    with pytest.raises(LichenError, match=f"{name}: .*lichen prepare"):
        Prepared.open(output)
    assert run(sources, output, knowledge=knowledge).damaged == (f"{name}: checksum differs",)
    assert contents(output) == expected


def test_tokens_kept_beside_the_copy_of_the_bank_are_no_damage(linked: Any, tmp_path: Path) -> None:
    sources, knowledge, expected = linked
    prepared = run(sources, tmp_path / "out", knowledge=knowledge).prepared
    folder = prepared.knowledge_folder
    assert folder is not None
    BankArrays.of_bank(Bank.open(folder), Tokenizer.load(prepared.tokenizer_folder))
    assert list(folder.glob("arrays-*"))
    Prepared.open(tmp_path / "out")
    assert run(sources, tmp_path / "out", knowledge=knowledge).state == "whole"
    (tmp_path / "out" / "dataset.json").unlink()
    assert run(sources, tmp_path / "out", knowledge=knowledge).state == "mended"
    assert contents(tmp_path / "out") == expected


def test_a_half_copied_bank_of_a_killed_process_does_not_stay(linked: Any, tmp_path: Path) -> None:
    sources, knowledge, expected = linked
    for place in (tmp_path / "out.partial" / "result", tmp_path / "out"):
        left = place / ".knowledge.partial"
        left.mkdir(parents=True)
        (left / "facts.jsonl").write_bytes(b"half")
        assert run(sources, tmp_path / "out", knowledge=knowledge).state == (
            "made" if place.name == "result" else "whole"
        )
        assert contents(tmp_path / "out") == expected and not left.exists()


def test_a_changed_or_another_bank_is_refused(tmp_path: Path) -> None:
    sources, knowledge = write_linked_sources(tmp_path / "raw")
    with pytest.raises(Killed):
        run(sources, tmp_path / "begun", knowledge=knowledge, report=_interrupt_at("tokenise"))
    run(sources, tmp_path / "done", knowledge=knowledge)
    assert knowledge.bank is not None
    shutil.rmtree(knowledge.bank)
    write_bank(knowledge.bank, [made_fact("Person 1", "home", "Town 3", id="1")])
    for name in ("begun", "done"):
        with pytest.raises(LichenError, match=r"bank: the bank changed since; take the changes back"):
            run(sources, tmp_path / name, knowledge=knowledge)
    with pytest.raises(UsageError, match=r"other settings: knowledge: .*window.* → null"):
        run(sources, tmp_path / "done")
    assert len(Bank.open(tmp_path / "done" / "knowledge")) == 41
    with pytest.raises(UsageError, match="nowhere"):
        run(sources, tmp_path / "new", knowledge=LinkingConfig(bank=tmp_path / "nowhere"))
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.partial").exists()
