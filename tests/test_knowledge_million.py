"""A slow proof at full size: the recipe with a million facts goes through the verbs, takes its step, and goes on from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lichen.config.base import load
from lichen.core.runs import Run
from lichen.dataset.bank import line_of
from lichen.dataset.fact_texts import tell
from lichen.dataset.facts import Fact
from lichen.dataset.made_facts import RELATIONS, made_facts
from lichen.scripts.train import TrainRecipe
from lichen.trainer.checkpoints import MODULE, read_tensors

RECIPE = Path(__file__).parents[1] / "recipes" / "pretrain" / "knowledge-512x8.yaml"
FACTS = 1 << 20
MOST = 24 << 20
"""KiB of memory that each verb may take at most."""
pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the facts, and a text that tells one of 256 of them, eight in a document."""
    folder = tmp_path_factory.mktemp("world")
    facts = made_facts(FACTS)
    with (folder / "facts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(map(line_of, facts))
    told = facts[::256]
    documents = [document(told[first : first + 8]) for first in range(0, len(told), 8)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    (folder / "texts.jsonl").write_text(lines, encoding="utf-8")
    return folder


def document(facts: list[Fact]) -> str:
    return " ".join(tell(fact, RELATIONS[fact.relation], number / 8) for number, fact in enumerate(facts))


def lichen(*words: object) -> str:
    """What a verb says, in a process of its own that takes no more memory than it may."""
    command = [sys.executable, "-m", "lichen", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    print(f"lichen {words[0]}: {usage.ru_utime + usage.ru_stime:.0f} s of computing, {usage.ru_maxrss / 2**20:.1f} GiB")
    assert usage.ru_maxrss <= MOST
    return said


def memory(run: Path) -> dict[str, torch.Tensor]:
    """What the newest checkpoint holds of the index."""
    tensors = read_tensors(Run(run).latest() / MODULE)
    return {name.removeprefix("knowledge/"): tensor for name, tensor in tensors.items()}


def steps(run: Path) -> list[dict[str, float]]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["type"] == "train"]


def test_the_recipe_with_a_million_facts_takes_its_step_and_goes_on(world: Path) -> None:
    assert "1,048,576 facts" in lichen("knowledge", "build", world / "facts.jsonl", "--output", world / "bank")
    words = ["--knowledge.bank", world / "bank", "--output", world / "data"]
    assert "links" in lichen("prepare", world / "texts.jsonl", *words)

    run = world / "runs" / "million"
    words = ["--data.path", world / "data", "--run.root", run.parent, "--run.name", run.name, "--log.every", 1]
    fewer = ["--train.batch_size", 8, "--train.epochs", "null", "--train.steps", 1]  # than a GPU takes at once
    assert "saving" in lichen("train", RECIPE, *words, *fewer)

    recipe, taken = (load(TrainRecipe, [path], environment={}) for path in (RECIPE, run / "run.yaml"))
    assert taken.model.with_vocabulary(1) == recipe.model.with_vocabulary(1)
    assert (taken.data.sequence_length, taken.optim, taken.train.precision) == (512, recipe.optim, "bf16")
    first = memory(run)
    assert first["index"].shape == (FACTS, 128)
    assert first["index"].dtype == torch.bfloat16
    assert first["first"].shape == (512, 64)  # the square root of 349 525 people, to a power of two
    assert first["second"].shape == (len(RELATIONS), 64)
    assert steps(run)[0]["aux_router"] > 0  # facts that the text tells were looked for

    assert "from step 1" in lichen("train", run, "--train.steps", 2)
    assert [row["step"] for row in steps(run)] == [1, 2]
    second = memory(run)
    assert second["index"].equal(first["index"])  # it is not time to refresh it
    assert all(second[name].equal(first[name]) for name in ("first", "second"))
    assert int(second["updates"][0]) == 2
