"""Slow proofs that take the whole road: a real size killed and resumed, a new kind of layer trained through the verbs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from lichen.core.runs import Run
from lichen.dataset import standard_library
from lichen.scripts import prepare

sys.path.insert(0, str(Path(__file__).parent / "model"))
from test_plug_in import copy_with_plug_in  # pyright: ignore[reportMissingImports]

RECIPES = Path(__file__).parents[1] / "recipes"
pytestmark = pytest.mark.nightly


def train(*words: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lichen", "train", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, _ = process.communicate(timeout=900)
    assert process.returncode == status, out
    return out


def states(run: Path) -> dict[str, bytes]:
    """Weights, moments and averages of the newest checkpoint, bit for bit."""
    folder = Run(run).latest()
    return {
        f"{path.name}: {name}": tensor.tobytes()
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_the_26m_recipe_is_killed_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    collected = standard_library.collect(tmp_path / "raw")
    sources = [str(path) for path in collected.train.values()]
    assert prepare.run([*sources, "--output", str(tmp_path / "data"), "--clean.deduplicate.near", "false"]) == 0
    words = [RECIPES / "pretrain" / "dense-26m.yaml", "--data.path", tmp_path / "data", "--run.root", tmp_path / "runs"]
    words += ["--train.steps", 20, "--train.batch_size", 4, "--checkpoint.every", 5, "--evaluation.max_batches", 2]
    finish(train(*words, "--run.name", "whole"))
    killed = train(*words, "--run.name", "killed")
    run = tmp_path / "runs" / "killed"
    deadline = time.monotonic() + 600
    while not list(run.glob("checkpoints/*_step_0000010/MANIFEST.json")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert "from step" in finish(train(run))
    assert states(run) == states(tmp_path / "runs" / "whole")


LOADS = """
import sys, torch
import lichen.model.hf
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokens = AutoTokenizer.from_pretrained(sys.argv[1])("the moss grows", return_tensors="pt").input_ids
print("generated", model.generate(tokens, max_new_tokens=5, do_sample=False).shape[1] - tokens.shape[1])
"""


def test_a_plugged_in_kind_trains_resumes_and_loads(prepared: Path, tiny_flags: list[str], tmp_path: Path) -> None:
    path = {"PYTHONPATH": str(copy_with_plug_in(tmp_path / "copy"))}
    layers = ["--model.num_hidden_layers", 3, "--model.feed_forward_by_layer", "{'1-2': {kind: echo, entries: 7}}"]
    length = ["--train.steps", 6, "--checkpoint.every", 2, "--averages.enabled", "--train.accumulation", 2]
    finish(train(*tiny_flags, *layers, *length, "--run.root", tmp_path, "--run.name", "whole", **path))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    shutil.copytree(whole, cut)
    for folder in Run(cut).checkpoint_folders()[-1:]:
        shutil.rmtree(folder)
    assert "from step 4" in finish(train(cut, **path))
    assert states(cut) == states(whole)
    command = [sys.executable, "-c", LOADS, str(Run(cut).latest())]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True, check=False)
    assert "generated 5" in done.stdout, done.stderr
