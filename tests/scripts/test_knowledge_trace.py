"""``lichen knowledge trace`` shows the generation and what was read for it, in the terminal and as a page."""

import pytest
import torch

from lichen.config.errors import UsageError
from lichen.config.model import ModelConfig
from lichen.dataset.bank import write_bank
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.model.knowledge import Reader
from lichen.model.language_model import LanguageModel, initialise
from lichen.model.weights import write_model
from lichen.scripts import knowledge

FACTS = [made_fact(f"name {n}", "place of birth", f"<b>town {n}") for n in range(4)]


@pytest.fixture
def run(tmp_path):
    tokenizer = Tokenizer.train([fact.text for fact in FACTS] * 4, vocab_size=360)
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": tokenizer.vocab_size}
    part = {"kind": "knowledge", "knowledge_dim": 8, "heads": 2, "router": "language-loss"}
    model = initialise(LanguageModel(ModelConfig.from_data({**size, "feed_forward_by_layer": {"1": part}})), seed=0)
    for module in model.modules():
        if isinstance(module, Reader):
            torch.nn.init.constant_(module.gate.values, 1.0)
    folder = tmp_path / "run" / "checkpoints" / "lichen_step_0000001"
    folder.mkdir(parents=True)
    write_model(model, folder)
    tokenizer.save(folder)
    write_bank(tmp_path / "run" / "knowledge", FACTS)
    return folder


def test_the_trace_names_entries_with_layer_and_weight(run, tmp_path, capsys):
    page = tmp_path / "trace.html"
    words = [
        "trace",
        str(run),
        "name 2 was",
        "--max-new-tokens",
        "3",
        "--least",
        "0",
        "--device",
        "cpu",
        "--output",
        str(page),
    ]
    assert knowledge.run(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("name 2 was")
    assert "place of birth: <b>town" in out
    assert "of 3 tokens would have been others with an empty bank" in out
    html = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;town" in html and "<b>town" not in html


def test_a_prompt_is_needed(run):
    with pytest.raises(UsageError, match="the form is"):
        knowledge.run(["trace", str(run)])
