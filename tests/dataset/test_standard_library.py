"""Python's own text, with held-out files held out wholly."""

import json
from pathlib import Path

from lichen.dataset import standard_library


def make_library(folder: Path, files: int = 40) -> None:
    for number in range(files):
        lines = "\n".join(f"value_{number}_{line} = {line}  # a line that only this file has" for line in range(20))
        (folder / f"module_{number}.py").write_text(f'"""Module {number}: {"words " * 60}"""\n{lines}\n')
    (folder / "test").mkdir()
    (folder / "test" / "test_x.py").write_text("x = 1\n" * 100)
    (folder / "broken.py").write_bytes(b"\xff" * 300)


def test_a_file_is_held_out_with_all_its_kinds(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    make_library(library)
    collected = standard_library.collect(tmp_path / "raw", 0.3, library)
    names = {
        side: {json.loads(line)["name"] for path in paths.values() for line in path.read_text().splitlines()}
        for side, paths in (("train", collected.train), ("validation", collected.validation))
    }
    assert names["train"] and names["validation"] and not names["train"] & names["validation"]
    assert not any("test" in name or "broken" in name for name in names["train"] | names["validation"])
    assert set(collected.train) == set(standard_library.KINDS)


def test_what_is_held_out_depends_on_the_name_alone() -> None:
    held = [standard_library.held_out(f"m{number}.py", 0.25) for number in range(4000)]
    assert 0.22 < sum(held) / len(held) < 0.28
