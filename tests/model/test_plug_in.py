"""Adding a feed-forward kind takes its module, its section and its case: everything else then just works.

Proven on a copy of the package that differs in these places; each edit must find its place in the sources exactly once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lichen.config.errors

SECTION = '''
class EchoConfig(Config):
    """A throwaway kind: every token picks a row of a bank that all echo layers share."""

    kind: Literal["echo"] = "echo"
    """Echo."""
    entries: int = 5
    """Rows of the bank."""


FeedForwardConfig = Annotated[
    EchoConfig | '''

CASE = """        case EchoConfig():
            from lichen.model.echo import Echo

            return Echo(config.hidden_size, chosen.entries, shared)
        case _:
"""

MODULE = '''
"""Throwaway: a softmax over a shared bank, a loss that wants even use, a count of it, and a bias that follows the counts."""

import torch
from torch import nn

from lichen.model.feed_forward import FeedForward


class Bank(nn.Module):
    def __init__(self, entries, size):
        super().__init__()
        self.values = nn.Parameter(torch.empty(entries, size))

    def initialise(self, name, parameter, generator):
        parameter.copy_(torch.rand(parameter.shape, generator=generator))
        return True


class Echo(FeedForward):
    def __init__(self, size, entries, shared):
        super().__init__()
        self.router = nn.Linear(size, entries, bias=False)
        self.register_buffer("bias", torch.zeros(entries))
        if "echo" not in shared:
            shared["echo"] = Bank(entries, size)

    def forward(self, x, layout):
        scores = (self.router(x).float() + self.bias).softmax(-1)
        real = layout.real[..., None].float()
        used = (scores * real).sum((0, 1))
        y = scores.to(x.dtype) @ layout.shared["echo"].values.to(x.dtype)
        return y, {"evenness": (used.square().sum(), real.sum()), "used": used}

    def after_step(self, counts):
        self.bias -= 0.1 * (counts["used"] - counts["used"].mean()).sign()
'''


PROOF = """
import sys, pathlib, torch
from transformers import AutoModelForCausalLM
import lichen.model.hf
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.size import count
from lichen.model.weights import read_model, write_model

folder = pathlib.Path(sys.argv[1])
assert folder.parent / "copy" in pathlib.Path(lichen.model.hf.__file__).parents
config = ModelConfig.from_data({
    "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "feed_forward_by_layer": {"1-2": {"kind": "echo", "entries": 7}},
})
model = initialise(LanguageModel(config), seed=0)
tokens = torch.arange(12).view(2, 6)
batch = Batch.of_tokens(tokens)
batch.segments[1, 4:] = -1
batch.targets[1, 3:] = -100
batch.lengths = ((6,), (4,))

output = model(batch)
loss, weight = output.aux["evenness"]
assert weight.item() == 2 * 10, "two layers, ten real tokens each"
assert sorted(output.meters) == ["layers.1.used", "layers.2.used"]
assert abs(output.meters["layers.1.used"].sum().item() - 10) < 1e-4
(output.nll.sum() + loss / weight).backward()
assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
model.after_step(output.meters)
assert model.model.layers[1].mlp.bias.abs().sum() > 0

assert "shared.echo.values" in model.state_dict() and count(config).by_part["shared"] == 7 * 16
write_model(model, folder)
expected = model(batch, want="logits").logits
again = read_model(folder)
assert again.state_dict().keys() == model.state_dict().keys()
assert torch.equal(again(batch, want="logits").logits, expected)
wrapped = AutoModelForCausalLM.from_pretrained(folder)
mask = (batch.segments >= 0).long()
assert torch.allclose(wrapped(tokens, attention_mask=mask).logits[0], expected[0], atol=1e-6)
print("plugged in")
"""


def copy_with_plug_in(folder: Path) -> Path:
    """Copy the package below ``folder`` and plug the kind in; returns what goes on the path."""
    source = Path(lichen.config.errors.__file__).parents[1]
    package = folder / "lichen"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "model" / "echo.py").write_text(MODULE)
    _replace(package / "config" / "feed_forward.py", "\nFeedForwardConfig = Annotated[\n    ", SECTION)
    _replace(package / "model" / "feed_forward.py", "        case _:\n", CASE)
    _replace(
        package / "model" / "feed_forward.py",
        "    DenseConfig,\n",
        "    DenseConfig,\n    EchoConfig,\n",
    )
    return folder


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new))


def test_a_new_kind_needs_three_places(tmp_path: Path) -> None:
    path = copy_with_plug_in(tmp_path / "copy")
    (tmp_path / "model").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-W", "error", "-c", PROOF]
    done = subprocess.run(
        [*command, str(tmp_path / "model")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "plugged in", done.stderr
