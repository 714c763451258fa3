"""The stages on their own: what is refused, and what a killed process left is cleared away."""

from pathlib import Path

import pytest

from lichen.config.cleaning import SourceConfig
from lichen.config.errors import LichenError
from lichen.config.prepare import SplitConfig, TokenizerConfig
from lichen.dataset.preparation import keep_all, prepare
from lichen.dataset.stages import differences


def write_tales(folder: Path, count: int) -> SourceConfig:
    (folder / "tales.txt").write_text("".join(f"tale {n}\n" for n in range(count)))
    return SourceConfig(path=folder / "tales.txt", split="line")


def test_nothing_left_to_train_on_is_an_error(tmp_path: Path) -> None:
    source = write_tales(tmp_path, 2)
    options = {"clean": keep_all(), "tokenizer": TokenizerConfig(vocab_size=320), "workers": 1}
    with pytest.raises(LichenError, match=r"lower split\.validation_fraction"):
        prepare([source], tmp_path / "out", split=SplitConfig(validation_fraction=0.999999), **options)
    assert not (tmp_path / "out").exists()


def test_half_written_files_of_a_killed_process_do_not_stay(tmp_path: Path) -> None:
    source = write_tales(tmp_path, 30)
    options = {"clean": keep_all(), "tokenizer": TokenizerConfig(vocab_size=320), "workers": 1}
    prepare([source], tmp_path / "out", **options)
    left = tmp_path / "out" / "train" / "tales" / ".shard_00000.tokens.bin.partial"
    left.write_bytes(b"half")
    assert prepare([source], tmp_path / "out", **options).state == "whole"
    assert not left.exists()


def test_a_mended_file_that_came_out_otherwise_is_not_taken(tmp_path: Path) -> None:
    source = write_tales(tmp_path, 30)
    options = {"clean": keep_all(), "tokenizer": TokenizerConfig(vocab_size=320), "workers": 1}

    def draw(text: str):
        def write(statistics: object, folder: Path) -> None:
            folder.mkdir(exist_ok=True)
            (folder / "a.png").write_text(text)

        return write

    prepare([source], tmp_path / "out", draw=draw("old library"), **options)
    (tmp_path / "out" / "plots" / "a.png").unlink()
    for _ in range(2):
        with pytest.raises(LichenError, match="other versions of the libraries"):
            prepare([source], tmp_path / "out", draw=draw("new library"), **options)
    assert prepare([source], tmp_path / "out", draw=draw("old library"), **options).state == "mended"


def test_differences_name_the_setting() -> None:
    before = {"sources": [{"path": "a"}], "seed": 0, "clean": {"strip": True}}
    after = {"sources": [{"path": "b"}], "seed": 0, "clean": {"strip": False}}
    assert differences(before, after) == ['sources.0.path: "a" → "b"', "clean.strip: true → false"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: [1] → [1, 2]"]
