"""The record beside a run, without secrets."""

import json
from pathlib import Path

import pytest

from lichen.core import environment


def test_the_record_names_versions_and_redacts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-123456")
    monkeypatch.setattr("sys.argv", ["lichen", "--key=canary-123456"])
    record = environment.record(seed=3)
    assert "canary" not in json.dumps(record)
    assert record["seed"] == 3 and {"python", "torch"} <= set(record["versions"])


def test_git_state_outside_a_repository_is_unknown(tmp_path: Path) -> None:
    assert environment.git_state(tmp_path) == {"commit": None, "dirty": None}


def test_launchers_are_recognised() -> None:
    assert environment.is_launched({"WORLD_SIZE": "2", "MASTER_ADDR": "localhost"})
    assert not environment.is_launched({"WORLD_SIZE": "2"})
    assert (environment.rank({"RANK": "3"}), environment.local_rank({})) == (3, 0)


def test_only_what_forks_keeps_the_tokenizer_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    environment.prepare_process()
    assert environment.variable("TOKENIZERS_PARALLELISM") is None
    environment.prepare_forking()
    assert environment.variable("TOKENIZERS_PARALLELISM") == "false"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    environment.prepare_forking()
    assert environment.variable("TOKENIZERS_PARALLELISM") == "true"
