"""``lichen knowledge compare``: what would be done, and small, all of it; nightly with every arm of the recipe."""

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from lichen.config import yaml12
from lichen.config.base import load
from lichen.config.comparison import ComparisonConfig
from lichen.config.errors import ConfigError, LichenError, UsageError
from lichen.core.runs import Best, Run
from lichen.experiments.processes import Job, Runner
from lichen.scripts import knowledge
from lichen.scripts.knowledge_compare import CompareCommand, default_recipe, rates_of, read

TINY = {
    "sizes": [{"told": 120}],
    "against": ["dense"],
    "arms": {
        "dense": {},
        "knowledge": {
            "feed_forward_by_layer": {
                "1": {
                    "kind": "knowledge",
                    "beside": {"kind": "dense"},
                    "knowledge_dim": 16,
                    "knowledge_length": 16,
                    "heads": 2,
                }
            }
        },
    },
    "model": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    },
    "steps": 2,
    "batch_size": 4,
    "sequence_length": 64,
    "vocab_size": 600,
    "validation_fraction": 0.2,
    "validation_batches": 1,
    "texts": {"passage_characters": 300},
    "examination": {
        "groups": ["seen", "added"],
        "wordings": ["trained"],
        "questions": 6,
        "battery_questions": 0,
        "edits": 0,
    },
    "examine_language": False,
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A comparison that takes seconds, on text that is at hand."""
    text = tmp_path / "general.jsonl"
    documents = (json.dumps({"text": topics[name]}) for name in sorted(topics)[:24])
    text.write_text("".join(line + "\n" for line in documents), encoding="utf-8")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml12.write({**TINY, "general": [str(text)], "language": {"text": [str(text)]}}), encoding="utf-8")
    return path


def test_everything_once_and_then_only_what_changed(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "made", str(recipe), "--output", str(tmp_path / "out")]
    assert knowledge.run(words) == 0
    out = capsys.readouterr().out
    assert "[7/7]  120-" in out and "  120-knowledge-s0-knowledge: " in out and "gone, about 0:00:00 left" in out
    assert "120 facts told: models" in out and "tf-idf + copy" in out and "FLOPs of knowledge" in out
    data = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    arms = {arm["name"]: arm for arm in data["sizes"][0]["arms"]}
    assert {(score["group"], score["task"]) for score in arms["knowledge"]["scores"]} == {
        (group, task) for group in ("seen", "added") for task in ("object", "verification")
    }
    assert arms["knowledge"]["measures"]["bank_bytes"] > 0 and arms["knowledge"]["seeds"] == arms["dense"]["seeds"] == 1
    assert (tmp_path / "out" / "comparison.png").read_bytes()[1:4] == b"PNG"

    again = [*words[:2], str(tmp_path / "out" / "compare.yaml"), *words[3:]]  # what was settled is a recipe too
    assert knowledge.run(again) == 0
    assert "[" not in capsys.readouterr().out.split("facts told")[0]

    assert knowledge.run([*words, "--only", "knowledge", "--questions", "5", "--dry-run"]) == 0
    assert "5 jobs: 1 bank, 1 texts, 1 preparation, 1 training, 1 knowledge; 4 done already" in capsys.readouterr().out


def test_failures_are_listed_with_their_logs_and_the_rest_is_done(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "made", str(recipe), "--output", str(tmp_path / "out"), "--only", "dense"]
    with pytest.raises(LichenError, match="nothing was examined"):
        knowledge.run([*words, "--texts.general_share", "0.99"])  # more general text than there is
    found = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(found) == 1 and "120-seen-texts" in found[0]
    log = Path(found[0].partition("see ")[2].split(" · ")[0])
    assert "are needed beside" in log.read_text(encoding="utf-8")


def test_a_dry_run_says_everything_and_touches_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "made", str(recipe), "--output", str(tmp_path / "out"), "--dry-run", "--sizes"]
    assert knowledge.run([*words, "[{told: 120}, {told: 900, seeds: 3}]", "--made", "400"]) == 0
    out = capsys.readouterr().out
    assert "900 facts told: made 2" in out and "as there are no more" in out
    for words_of_it in (
        "parameters",
        "FLOPs/token",
        "bank bytes",
        "tokens of every training 512",
        "8 training, 8 knowledge",
    ):
        assert words_of_it in out
    assert not (tmp_path / "out").exists()


def test_wrong_requests_are_said(recipe: Path, tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "out")]
    with pytest.raises(UsageError, match="the form is: lichen knowledge compare FACTS"):
        knowledge.run(["compare", *output, str(recipe)])
    with pytest.raises(UsageError, match="no such folder of facts"):
        knowledge.run(["compare", str(tmp_path / "nowhere"), *output, str(recipe)])
    with pytest.raises(ConfigError, match=r"there is no arm 'mow'.*dense"):
        knowledge.run(["compare", "made", *output, str(recipe), "--only", "mow"])
    with pytest.raises(UsageError, match=r"arm dense: .*arms\.dense\.equal"):
        knowledge.run(["compare", "made", *output, str(recipe), "--model.hidden_size", "512", "--arms.dense.equal", "parameters",
                       "--arms.dense.feed_forward", "{kind: product_key, num_keys: 2048, key_dim: 512, heads: 8}"])  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_every_arm_takes_the_rate_that_served_it_best(tmp_path: Path) -> None:
    runner = Runner(tmp_path, say=lambda text: None)
    trials: dict[str, list[tuple[float, Job]]] = {"dense": [], "moe": []}
    for arm, rate, loss in (("dense", 1e-3, 2.0), ("dense", 2e-3, 1.0), ("moe", 1e-3, 3.0), ("moe", 2e-3, None)):
        job = Job(f"{arm}{rate}", arm, "trial", (), tmp_path / f"{arm}{rate}")
        trials[arm].append((rate, job))
        if loss is not None:
            run = Run(job.output)
            run.make_folders()
            run.write_best(Best("lichen_step_0000001", 1, "loss", loss))
            (tmp_path / "records").mkdir(exist_ok=True)
            (tmp_path / "records" / f"{job.id}.json").touch()
    assert rates_of(trials, runner) == {"dense": 2e-3, "moe": 1e-3}
    assert rates_of({"moe": trials["moe"][1:]}, runner) == {}
    Run(trials["dense"][0][1].output).best_json.unlink()
    with pytest.raises(LichenError, match="raise validation_fraction"):
        rates_of(trials, runner)


def test_the_recipe_has_every_arm_at_every_size(tmp_path: Path) -> None:
    settings = load(ComparisonConfig, [default_recipe()], environment={})
    assert list(settings.arms) == [
        *("dense", "dense-parameters", "dense-information", "none", "moe", "product_key", "knowledge"),
        *("knowledge-replacing", "prompt-tfidf", "prompt-oracle"),
    ]
    assert [size.told for size in settings.sizes] == [10_000, 25_000, 50_000]
    first, *others = settings.sizes
    many = {name: settings.seeds_of(first, name) for name in settings.arms}
    assert {name for name, seeds in many.items() if seeds == 5} == {
        "knowledge",
        "dense-parameters",
        "dense-information",
    }
    assert all(settings.seeds_of(size, name) == 1 for size in others for name in settings.arms)
    command = CompareCommand.from_data({**settings.to_data(), "output": str(tmp_path)})
    assert read(command, "made").notes == []  # there are as many made people as the largest size needs


@pytest.mark.nightly
def test_every_arm_of_the_recipe_is_trained_and_examined(tmp_path: Path) -> None:
    small = ["--sizes", "[{told: 300, seeds: 1}, {told: 600, seeds: 1}]", "--steps", "4", "--questions", "10"]
    small += ["--language.documents", "6", "--language.samples", "4", "--learning-rates", "[3e-3, 6e-3]"]
    assert knowledge.run(["compare", "made", "--output", str(tmp_path / "out"), *small]) == 0
    data = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    for size in data["sizes"]:
        assert len(size["arms"]) == 10 and all(arm["scores"] and arm["language"] for arm in size["arms"])
        assert {lead["against"] for lead in size["leads"]} == {"dense", "dense-parameters", "dense-information"}
        flops = [
            arm["measures"]["flops_per_token"] for arm in size["arms"] if arm["about"]["equal in"].startswith("FLOPs")
        ]
        assert max(flops) < 1.05 * min(flops)
