"""Bad, missing and changed data, from raw files to a continued training: named by file and line, before anything is built."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from lichen.core.folders import write_manifest
from lichen.core.runs import Run
from lichen.dataset.shards import Prepared
from lichen.model.language_model import LanguageModel
from lichen.scripts import prepare as prepare_verb

SMALL = ["--tokenizer.vocab-size", 330, "--workers", 1, "--clean.deduplicate.near", "false"]


def tales(path: Path, count: int = 60, name: str = "tale") -> Path:
    path.write_text("".join(json.dumps({"text": f"{name} number {n} of many"}) + "\n" for n in range(count)))
    return path


def no_model(*_, **__):
    raise AssertionError("a model was built")


# --- Nothing to learn from ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n\n", "no document"),
        ('{"text": ""}\n{"text": "  "}\n', "empty 2"),
        ('{"text": "moss"}\n' * 3, "too_short"),
        ('{"text": "the old moss"}\n{"title": "no text"}\n', "bad"),
    ],
)
def test_nothing_to_prepare_is_an_error(text, words, lichen, tmp_path):
    (tmp_path / "raw.jsonl").write_text(text)
    more = ["--clean.min_characters", 10] if "moss" in text else []
    said = lichen("prepare", tmp_path / "raw.jsonl", "--output", tmp_path / "out", *SMALL, *more)
    assert words in said.refused(said.status) and said.status in (1, 2), said.err
    assert not (tmp_path / "out").exists()
    tales(tmp_path / "raw.jsonl")  # repaired as told: the same command succeeds
    again = lichen("prepare", tmp_path / "raw.jsonl", "--output", tmp_path / "out", *SMALL)
    assert again.status == 0, again.err


def test_prepared_data_without_documents_is_refused_before_a_model_is_built(prepared, lichen, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    data = json.loads((folder / "dataset.json").read_text())
    for source in data["sources"]:
        source["train"] = []
    (folder / "dataset.json").write_text(json.dumps(data))
    write_manifest(folder)
    monkeypatch.setattr(LanguageModel, "__init__", no_model)
    error = lichen("train", "--data.path", folder, "--train.steps", 1, "--run.root", tmp_path / "runs").refused(1)
    assert f"{folder}: no training documents" in error and "rejects.jsonl" in error
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_refused_before_a_model_is_built(prepared, made_text, lichen, tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "__init__", no_model)
    for path, words in (
        (prepared.with_name("dta"), "nearest: data"),
        (made_text.parent, "not a prepared folder"),
        (made_text, "no such folder"),
    ):
        error = lichen("train", "--data.path", path, "--train.steps", 1, "--run.root", tmp_path / "runs").refused(2)
        assert str(path) in error and words in error and "lichen prepare" in error
    assert not (tmp_path / "runs").exists()


# --- Bad lines, bad sources ---


def test_bad_lines_are_listed_by_file_and_line_and_counts_add_up(lichen, tmp_path):
    bad = [
        '{"text": 7}',
        '{"txet": "moss"}',
        "[1]",
        "{",
        '{"text": "a\\u0000"}',
        '{"text": "a", "text": "b"}',
        "",
        "NaN",
    ]
    path = tales(tmp_path / "raw.jsonl")
    with path.open("a") as file:
        file.write("\n".join(bad) + "\n")
    words = ["prepare", path, "--output", tmp_path / "out", *SMALL]
    error = lichen(*words).refused(1)
    assert "raw.jsonl:61" in error and "max_bad_fraction" in error and not (tmp_path / "out").exists()
    assert lichen(*words, "--clean.max_bad_fraction", 0.2).status == 0
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == list(range(61, 69)) and all(reject["cause"] for reject in rejects)
    counts = Prepared.open(tmp_path / "out").statistics["cleaning"]
    assert counts["read"] == 68 == counts["kept"] + sum(counts["dropped"].values()) and counts["kept"] == 60


@pytest.mark.parametrize("harm", ["cut archive", "mostly bad lines", "empty"])
def test_one_bad_source_of_five_stops_or_is_left_out_with_the_new_mixture_stated(harm, lichen, tmp_path):
    paths = [tales(tmp_path / f"source{n}.jsonl", name=f"tale {n}") for n in range(5)]
    if harm == "cut archive":
        paths[2] = tmp_path / "source2.jsonl.gz"
        paths[2].write_bytes(gzip.compress((tmp_path / "source2.jsonl").read_bytes())[:-20])
    else:
        paths[2].write_text("{\n" * 50 if harm == "mostly bad lines" else "\n")
    words = [*paths, "--output", tmp_path / "out", *SMALL]
    stopped = lichen("prepare", *words)
    assert "source2" in stopped.refused(1) and not (tmp_path / "out").exists()
    skipped = lichen("prepare", *words, "--clean.bad_source", "skip")
    assert skipped.status == 0, skipped.err
    assert [part.name for part in Prepared.open(tmp_path / "out").documents("train")] == [
        f"source{n}" for n in (0, 1, 3, 4)
    ]
    assert "left out: source2" in skipped.out
    assert json.loads((tmp_path / "out" / "statistics.json").read_text())["cleaning"]["sources"]["source2"]["error"]


def test_a_bad_folder_of_a_mixture_stops_or_is_left_out_with_the_new_mixture_stated(
    prepared, lichen, tiny_flags, tmp_path, caplog
):
    bad = Path(shutil.copytree(prepared, tmp_path / "bad"))
    shard = next((bad / "train").rglob("*.tokens.bin"))
    shard.write_bytes(shard.read_bytes()[:-2])
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(json.dumps({"data": {"sources": [{"path": str(prepared)}, {"path": str(bad)}]}}))
    flags = [*tiny_flags[2:], "--train.steps", 1, "--run.root", tmp_path / "runs"]
    error = lichen("train", recipe, *flags).refused(1)
    assert shard.name in error and str(bad) in error and not (tmp_path / "runs").exists()
    skipped = lichen("train", recipe, *flags, "--data.skip_bad_sources")
    text = skipped.err + caplog.text
    assert skipped.status == 0 and "source left out: " in text and f"the mixture now consists of {prepared}" in text
    (run,) = (tmp_path / "runs").iterdir()
    sampling = json.loads((run / "environment.json").read_text())["sampling"]
    assert [source["documents"] for source in sampling["sources"]] == [210]


def test_settings_and_sources_may_be_mended_after_they_were_refused_but_not_after_an_interruption(lichen, tmp_path):
    path = tales(tmp_path / "raw.jsonl")
    words = ["prepare", path, "--output", tmp_path / "out", *SMALL]
    assert "nothing is left" in lichen(*words, "--clean.min_characters", 1000).refused(1)
    assert lichen(*words, "--clean.min_characters", 10).status == 0
    later = lichen(*words, "--clean.min_characters", 11)
    assert "prepared with other settings: clean.min_characters: 10 → 11" in later.refused(2)


# --- Sources and prepared data that change between two commands ---


def interrupted(words, lichen, monkeypatch):
    """Prepare, and press Ctrl-C while tokenising."""

    def stop(self, stage, done, total):
        if stage == "tokenise":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_verb.Progress, "__call__", stop)
        assert lichen("prepare", *words).status == 130


@pytest.mark.parametrize("change", ["edited", "deleted", "replaced by the same size", "one more file"])
def test_a_source_that_changes_before_the_preparation_is_continued_is_named(
    change, lichen, snapshot, tmp_path, monkeypatch
):
    raw = tmp_path / "raw"
    raw.mkdir()
    tales(raw / "a.jsonl")
    tales(raw / "b.jsonl", name="poem")
    before = (raw / "a.jsonl").read_bytes()
    words = [raw, "--output", tmp_path / "out", *SMALL]
    assert lichen("prepare", raw, "--output", tmp_path / "whole", *SMALL).status == 0
    interrupted(words, lichen, monkeypatch)
    begun = snapshot(tmp_path / "out.partial")
    path = raw / ("c.jsonl" if change == "one more file" else "a.jsonl")
    if change == "deleted":
        path.unlink()
    elif change == "one more file":
        tales(path)
    else:
        path.write_bytes(before + before[:20] if change == "edited" else before.replace(b"tale", b"tole"))
    said = lichen("prepare", *words)
    assert path.name in said.refused(1) and "restore" in said.error, said.error
    assert not (tmp_path / "out").exists() and snapshot(tmp_path / "out.partial") == begun
    path.unlink() if change == "one more file" else path.write_bytes(before)
    assert lichen("prepare", *words).status == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")
    path.write_bytes(before + b'{"text": "later"}\n')
    assert path.name in lichen("prepare", *words).refused(1)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_training_does_not_need_the_raw_files_any_more(made_text, lichen, tiny_flags, trained_run, tmp_path):
    raw = Path(shutil.copy(made_text, tmp_path / "made.jsonl"))
    words = ["--split.validation-fraction", 0.1, "--tokenizer.vocab-size", 320, "--clean.deduplicate.near", "false"]
    assert lichen("prepare", raw, "--output", tmp_path / "data", *words).status == 0
    raw.unlink()
    flags = ["--data.path", tmp_path / "data", *tiny_flags[2:], "--train.steps", 8]
    assert lichen("train", *flags, "--run.root", tmp_path / "runs", "--run.name", "run").status == 0
    found, expected = (
        Run(folder).latest() / "model.safetensors" for folder in (tmp_path / "runs" / "run", trained_run)
    )
    assert found.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "bytes.npy"])
def test_a_corrupt_shard_stops_the_continued_run_and_preparing_again_mends_it(
    name, made_text, run_copy, prepared, lichen, snapshot, tmp_path
):
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    assert lichen("train", run_copy, "--data.path", folder).status == 0
    shard = next((folder / "train").rglob(f"*.{name}"))
    whole = snapshot(folder)
    data = bytearray(shard.read_bytes())
    data[-5] ^= 4
    shard.write_bytes(data)
    before = snapshot(run_copy)
    words = ["train", run_copy, "--data.path", folder, "--train.steps", 10]
    error = lichen(*words).refused(1)
    assert shard.name in error and "checksum differs" in error and "lichen prepare" in error
    assert snapshot(run_copy) == before
    others = {path: path.stat().st_mtime_ns for path in folder.rglob("*.bin") if path != shard}
    flags = ["--split.validation-fraction", 0.1, "--tokenizer.vocab-size", 320, "--clean.deduplicate.near", "false"]
    mended = lichen("prepare", made_text, "--output", folder, *flags)
    assert mended.status == 0 and f"damaged, made again: train/made/{shard.name}" in mended.out
    assert snapshot(folder) == whole
    again = {path: path.stat().st_mtime_ns for path in others if not path.name.startswith(shard.name.split(".")[0])}
    assert again.items() <= others.items()
    assert lichen(*words).status == 0


def test_other_prepared_data_is_refused_on_continuing_and_the_run_stays(
    run_copy, made_text, prepared, lichen, snapshot, tmp_path
):
    lines = made_text.read_text().splitlines(keepends=True)
    (tmp_path / "made.jsonl").write_text("".join(lines[:-1]))
    flags = ["--split.validation-fraction", 0.1, "--tokenizer.path", prepared, "--clean.deduplicate.near", "false"]
    assert lichen("prepare", tmp_path / "made.jsonl", "--output", tmp_path / "data", *flags).status == 0
    before = snapshot(run_copy)
    error = lichen("train", run_copy, "--data.path", tmp_path / "data", "--train.steps", 10).refused(1)
    assert "the data differs from the checkpoint's" in error and "put back the prepared data" in error
    assert snapshot(run_copy) == before
    assert lichen("train", run_copy, "--train.steps", 9).status == 0
