"""Logs that data cannot steer and secrets do not reach."""

from pathlib import Path

import pytest

from lichen.core import logs


@pytest.fixture(autouse=True)
def closed():
    yield
    logs.stop()


def test_messages_are_escaped_and_redacted_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-123456")
    path = logs.start(tmp_path, "train")
    logs.get_logger("trainer").info("text %s and %s", "\x1b[31mred\r", "canary-123456")
    text = path.read_text() if path else ""
    assert "\\x1b[31mred\\x0d" in text
    assert "canary" not in text
    assert path is not None and path.name.startswith("train_") and logs.current_log() == path


def test_only_the_first_rank_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert logs.start(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_starting_twice_logs_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.start(tmp_path)
    logs.start(tmp_path)
    logs.get_logger().warning("once")
    assert capsys.readouterr().err.count("once") == 1
