"""Flags as people type them."""

import pytest

from lichen.config import flags
from lichen.config.base import Config, load
from lichen.config.errors import ConfigError, UsageError


class Optim(Config):
    lr: float = 1.0
    """Rate."""
    name: str = "adamw"


class Run(Config):
    name: str = "x"
    compile: bool = False
    limits: tuple[int, ...] = ()
    prompt: tuple[str, ...] = ()


class Command(Config):
    optim: Optim = Optim()
    run: Run = Run()


def read(*argv: str) -> Command:
    return load(Command, environment={}, flags=flags.parse(argv, Command, "lichen x").settings)


def test_a_unique_ending_is_enough_and_an_ambiguous_one_is_not() -> None:
    assert read("--lr", "1e-3").optim.lr == 1e-3
    assert read("--optim.name=adam").optim.name == "adam"
    with pytest.raises(UsageError, match=r"no such flag --name"):
        read("--name", "a")


def test_booleans_need_no_value() -> None:
    assert read("--compile", "--lr", "2").run.compile
    assert not read("--compile", "false").run.compile
    assert not read("--compile", "--no-compile").run.compile


def test_lists_by_repetition_or_in_brackets() -> None:
    assert read("--limits", "1", "--limits", "2").run.limits == (1, 2)
    assert read("--limits", "[1, 2]").run.limits == (1, 2)
    assert read("--prompt", "[a, b", "--prompt", "null void").run.prompt == ("[a, b", "null void")


def test_positionals_and_negative_numbers() -> None:
    arguments = flags.parse(["a.yaml", "--lr", "-1", "b.yaml", "--", "--lr"], Command, "lichen x")
    assert arguments.positionals == ("a.yaml", "b.yaml", "--lr")
    assert arguments.settings == {"optim.lr": "-1"}


def test_an_alias_leads_to_its_setting() -> None:
    assert flags.parse(["--rate", "3"], Command, "x", {"rate": "optim.lr"}).settings == {"optim.lr": "3"}


def test_wrong_flags_are_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no such flag --compille \(nearest: compile"):
        read("--compille")
    with pytest.raises(UsageError, match="--lr needs a value"):
        read("--lr", "--compile")
    with pytest.raises(ConfigError, match=r"optim.lrr = 3 \(from --optim.lrr\): no such setting \(nearest: lr"):
        read("--optim.lrr", "3")


def test_help_shows_settings_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    assert "--optim.lr" in capsys.readouterr().out
