import gzip
from pathlib import Path

import pytest

from lichen.config.cleaning import SourceConfig
from lichen.config.errors import UsageError
from lichen.dataset.sources import SourceError, check_fingerprint, open_source, open_sources, source_names


def write(path: Path, text: str = '{"text": "moss"}\n') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(path: Path, **settings: str) -> list[str]:
    source = open_source(SourceConfig.from_data({"path": path, **settings}))
    return [f"{file.path.name}:{file.format}" for file in source.files]


def test_folders_are_read_in_sorted_order_without_hidden_and_unknown_files(tmp_path):
    for name in ("b/z.jsonl", "b/a.parquet", "a.txt", ".git/x.jsonl", "b/.DS_Store", "picture.png", "c.JSONL.gz"):
        write(tmp_path / name)
    assert names(tmp_path) == ["a.txt:text", "a.parquet:parquet", "z.jsonl:jsonl", "c.JSONL.gz:jsonl"]


def test_an_explicit_format_takes_every_file(tmp_path):
    write(tmp_path / "a.py")
    assert names(tmp_path, format="text") == ["a.py:text"]
    with pytest.raises(SourceError, match="no file of a known kind"):
        names(tmp_path)


def test_globs_reach_into_folders(tmp_path):
    for name in ("b/x.jsonl.zst", "a/x.jsonl", "a/x.txt"):
        write(tmp_path / name)
    assert names(tmp_path / "**" / "*.jsonl*") == ["x.jsonl:jsonl", "x.jsonl.zst:jsonl"]
    with pytest.raises(UsageError, match="matches no file"):
        names(tmp_path / "*.csv")


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    assert names(write(tmp_path / "poems[1].jsonl")) == ["poems[1].jsonl:jsonl"]


def test_a_missing_path_is_named_with_the_nearest(tmp_path):
    write(tmp_path / "poems.jsonl")
    with pytest.raises(UsageError, match=r"peoms\.jsonl: no such file or folder \(nearest: poems\.jsonl"):
        names(tmp_path / "peoms.jsonl")
    with pytest.raises(UsageError, match=r"nearest: poems\.jsonl"):
        names(tmp_path / "poems.json" / "below" / "x.txt")


def test_an_unknown_kind_of_file_and_no_source_at_all(tmp_path):
    with pytest.raises(UsageError, match=r"unknown kind of file"):
        names(write(tmp_path / "poems.csv"))
    with pytest.raises(UsageError, match="no source"):
        open_sources([])


def test_empty_sources_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(SourceError, match="is empty"):
        names(write(tmp_path / "a.jsonl", ""))
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceError, match="no file of a known kind"):
        names(tmp_path / "folder")


def test_a_folder_of_text_files_holds_a_document_per_file(tmp_path):
    one = write(tmp_path / "a.txt", "x")
    assert open_source(SourceConfig(path=one)).split == "paragraph"
    write(tmp_path / "b.txt", "x")
    assert open_source(SourceConfig(path=tmp_path)).split == "file"


def test_names_are_unique_and_valid_as_folders():
    paths = ("x/data.jsonl", "y/data.jsonl.gz", "唐诗.txt", "*.txt", "a b/c d.parquet")
    assert source_names([SourceConfig(path=Path(path)) for path in paths]) == ("data", "data-2", "source", "txt", "c_d")
    with pytest.raises(UsageError, match="two sources are called 'x'"):
        source_names([SourceConfig(path=Path("a"), name="x"), SourceConfig(path=Path("b"), name="x")])


def test_a_given_name_wins_over_a_made_one():
    configs = [SourceConfig(path=Path("a/data.txt")), SourceConfig(path=Path("b.txt"), name="data")]
    assert source_names(configs) == ("data-2", "data")


def test_changed_missing_and_added_files_are_named(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name)
    config = SourceConfig(path=tmp_path, name="poems")
    before = [open_source(config).fingerprint()]
    check_fingerprint(before, [open_source(config).fingerprint()])
    write(tmp_path / "a.jsonl", '{"text": "mosS"}\n')
    with pytest.raises(SourceError, match=r"a\.jsonl: changed since preparing \(source poems\)"):
        check_fingerprint(before, [open_source(config).fingerprint()])
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(SourceError, match=r"a\.jsonl: missing since"):
        check_fingerprint(before, [open_source(config).fingerprint()])
    write(tmp_path / "a.jsonl")
    write(tmp_path / "c.jsonl")
    with pytest.raises(SourceError, match=r"c\.jsonl: added since"):
        check_fingerprint(before, [open_source(config).fingerprint()])


def test_a_source_read_otherwise_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl")
    before = [open_source(SourceConfig(path=path)).fingerprint()]
    with pytest.raises(SourceError, match="read otherwise"):
        check_fingerprint(before, [open_source(SourceConfig(path=path, field="body")).fingerprint()])
    with pytest.raises(SourceError, match="sources changed"):
        check_fingerprint(before, [])


def test_a_datasets_folder_is_one_file_and_its_splits_must_be_chosen(tmp_path):
    import datasets

    table = datasets.Dataset.from_dict({"text": ["moss", "bark"]})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "d"))
    assert names(tmp_path / "d" / "train") == ["train:datasets"]
    with pytest.raises(UsageError, match=r"several splits; name one \(nearest: train; available: test, train\)"):
        names(tmp_path / "d")
    files = open_source(SourceConfig(path=tmp_path / "d" / "train")).fingerprint()["files"]
    assert any(name.endswith(".arrow") for name in files)


def test_gzip_is_recognised_below_its_own_suffix(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"moss"))
    source = open_source(SourceConfig(path=tmp_path / "a.txt.gz"))
    assert source.files[0].compression == ".gz" and source.files[0].format == "text" and source.name == "a"
