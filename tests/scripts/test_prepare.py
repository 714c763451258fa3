"""``lichen prepare`` from the command line: recipes, the short form, what it says, and how it fails."""

import json
import re
from pathlib import Path

import pytest

from lichen.config.base import load
from lichen.config.errors import ConfigError, LichenError, UsageError
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.dataset.shards import Prepared
from lichen.scripts.command_line import main
from lichen.scripts.prepare import PrepareRecipe, Progress, run

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "prepare").glob("*.yaml"))
SMALL = ["--tokenizer.vocab-size", "330", "--workers", "1"]


@pytest.fixture
def tales(tmp_path: Path) -> Path:
    path = tmp_path / "tales.jsonl"
    path.write_text("".join(f'{{"text": "tale number {n} of many"}}\n' for n in range(60)) + "{\n" + '{"text": ""}\n')
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid(path: Path) -> None:
    assert load(PrepareRecipe, [path], environment={}).sources


def test_the_short_form_prepares_and_says_what_came_out(
    tales: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out"
    arguments = [
        str(tales),
        "--output",
        str(output),
        "--clean.max-bad-fraction",
        "0.1",
        "--no-clean.deduplicate.near",
        *SMALL,
    ]
    assert run(arguments) == 0
    said = capsys.readouterr()
    assert "read 62 = kept 60 + dropped 2" in said.out
    assert "rejected" in said.out and "empty" in said.out
    assert f"next: lichen train recipes/smoke.yaml --data.path {output}" in said.out
    assert "tokenise" in said.err and "60 / 60 documents" in said.err
    assert {path.name for path in (output / "plots").iterdir()} == {"drops.png", "lengths.png", "token_frequency.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (output / "plots").iterdir())
    assert sum(len(part) for part in Prepared.open(output).documents("train")) >= 50
    assert run(arguments) == 0
    assert "finished and whole: nothing to do" in capsys.readouterr().out
    (output / "plots" / "drops.png").write_bytes(b"")
    assert run(arguments) == 0
    assert "damaged, made again: plots/drops.png" in capsys.readouterr().out
    Prepared.open(output)


def test_recipes_flags_and_its_own_recipe(tales: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    data = {"sources": [{"path": str(tales)}], "output": str(tmp_path / "a"), "clean": {"max_bad_fraction": 0.1}}
    recipe.write_text(json.dumps(data))
    more = tmp_path / "more.yaml"
    more.write_text("clean: {min_characters: 5}\nseed: 3\n")
    assert run(["--config", str(recipe), str(more), "--seed", "4", *SMALL]) == 0
    again = ["--output", str(tmp_path / "b"), "--workers", "1"]
    assert run([str(tmp_path / "a" / "prepare.yaml"), *again]) == 0
    first, second = Prepared.open(tmp_path / "a"), Prepared.open(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert (tmp_path / "a" / "prepare.yaml").read_bytes() == (tmp_path / "b" / "prepare.yaml").read_bytes()
    assert "seed: 4" in (tmp_path / "a" / "prepare.yaml").read_text()


def test_wrong_requests_end_with_2_and_faults_with_1(
    tales: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert main(["prepare", str(tmp_path / "tale.jsonl"), *output]) == 2
    assert "nearest: tales.jsonl" in capsys.readouterr().err
    assert main(["prepare", str(tales), *output, "--tokenizer.vocab_size", "many"]) == 2
    assert "tokenizer.vocab_size" in capsys.readouterr().err
    assert main(["prepare", str(tales), *output, "--clean.max-bad-fraction", "0", *SMALL]) == 1
    assert "tales.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_all_problems_of_a_recipe_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("sources: [{path: a, feild: b}]\ntokenizer: {vocab_size: 3}\nseeed: 1\n")
    with pytest.raises(ConfigError) as caught:
        run([str(recipe)])
    for words in ("feild", "nearest: field", "vocab_size", "seeed", "output: must be given"):
        assert words in str(caught.value)
    with pytest.raises(LichenError, match="no such recipe"):
        run([str(tmp_path / "none.yaml")])
    with pytest.raises(UsageError, match="no such flag --outptu"):
        run(["a.txt", "--outptu", "b"])


def test_help_shows_the_settings(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        run(["--help"])
    assert left.value.code == 0
    assert "--tokenizer.vocab-size" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="name at least one source"):
        run(["--output", "out"])


def test_weights_are_given_to_all_sources_or_none() -> None:
    data = {"sources": [{"path": "a", "weight": 1.0}, {"path": "b"}], "output": "out"}
    with pytest.raises(ConfigError, match="give a weight to every source or to none; without one: b"):
        PrepareRecipe.from_data(data)


def test_ctrl_c_says_how_to_go_on(
    tales: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Progress, stage: str, done: int, total: int | None) -> None:
        if stage == "tokenise":
            raise KeyboardInterrupt

    arguments = [str(tales), "--output", str(tmp_path / "out"), "--clean.max-bad-fraction", "0.1", *SMALL]
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "__call__", interrupt)
        assert run(arguments) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert (tmp_path / "out.partial").is_dir() and not (tmp_path / "out").exists()
    assert run(arguments) == 0


def test_a_bank_is_linked_with_and_its_links_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    texts = [json.dumps({"text": f"Person {n} lives in Town {n % 3}."}) + "\n" for n in range(30)]
    (tmp_path / "tales.jsonl").write_text("".join(texts))
    write_bank(tmp_path / "bank", [made_fact(f"Person {n}", "home", f"Town {n % 3}") for n in range(40)])
    arguments = [
        str(tmp_path / "tales.jsonl"),
        "--output",
        str(tmp_path / "out"),
        *SMALL,
        "--split.validation-fraction",
        "0",
    ]
    arguments += ["--no-clean.deduplicate.near"]
    assert run([*arguments, "--knowledge.bank", str(tmp_path / "bank")]) == 0
    assert re.search(
        r"links 30 \(\d+\.\d% of the training tokens\), to 30 of the bank's 40 facts", capsys.readouterr().out
    )
    again = [str(tmp_path / "out" / "prepare.yaml"), "--output", str(tmp_path / "again"), "--workers", "1"]
    assert run(again) == 0
    assert Prepared.open(tmp_path / "again").fingerprint == Prepared.open(tmp_path / "out").fingerprint
    arguments[2] = str(tmp_path / "other")
    assert main(["prepare", *arguments, "--knowledge.bank", str(tmp_path / "bnak")]) == 2
    assert "nearest: bank" in capsys.readouterr().err
