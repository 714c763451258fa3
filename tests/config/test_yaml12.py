"""YAML that means what it says, and harmful YAML refused with its line."""

from pathlib import Path

import pytest

from lichen.config import yaml12
from lichen.config.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), (".5", 0.5), ("-2", -2), ("0o17", 15), ("0x1F", 31), ("no", "no"), ("on", "on"),
     ("12:30", "12:30"), ("2026-01-01", "2026-01-01"), ("true", True), ("", None), ("1_000", "1_000"), ("5.", 5.0)],
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert yaml12.parse(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f line 3: the key 'a' stands twice"),
        ("a: !!python/object/apply:os.system ['touch owned']", "f line 1: could not determine a constructor"),
        ("a: [1,\nb: 2", "f line 2"),
        ("a: *nowhere", "f line 1: found undefined alias"),
        ("? [1]\n: 2", "f line 1: a key must be a plain scalar"),
        ("&a [*a]", "aliases expand"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="f") as caught:
        yaml12.parse(text, "f")
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_alias_bomb_is_refused_quickly() -> None:
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    with pytest.raises(ConfigError, match="aliases expand"):
        yaml12.parse(f"a0: &a0 [x]\n{levels}", "f")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        yaml12.read(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="byte 6 is not UTF-8"):
        yaml12.read(tmp_path / "latin.yaml")
