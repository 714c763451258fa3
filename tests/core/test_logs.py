"""Logs that data cannot steer and secrets do not reach."""

from pathlib import Path

import pytest

from lichen.config.errors import LichenError
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


def test_an_error_that_ends_the_block_is_in_the_file_and_the_file_is_still_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.start(tmp_path)
    assert path is not None
    logs.stop_after(LichenError, LichenError("disk full; free some"), None)
    assert "ERROR disk full; free some" in path.read_text() and logs.current_log() == path
    assert "Traceback" not in path.read_text() and capsys.readouterr().err == ""
    path = logs.start(tmp_path / "other")
    assert path is not None
    try:
        raise KeyError("boom")
    except KeyError as error:
        logs.stop_after(KeyError, error, None)
    assert "Traceback" in path.read_text() and "KeyError: 'boom'" in path.read_text()
    logs.start(tmp_path / "third")
    logs.stop_after(None, None, None)
    assert logs.current_log() is None
