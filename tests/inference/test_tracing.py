"""A trace tells what the generation saw: the same tokens, the same entries, and what an empty bank would have given."""

import pytest
import torch

from lichen.config.errors import UsageError
from lichen.config.generation import SamplingConfig
from lichen.config.model import ModelConfig
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import complete
from lichen.inference.engine import Engine
from lichen.inference.memory import facts_instead, give_facts
from lichen.inference.tracing import trace
from lichen.model.knowledge import Reader
from lichen.model.language_model import LanguageModel, initialise

FACTS = [made_fact(f"name {n}", "place of birth", f"town {n * n}") for n in range(6)]
TOKENIZER = Tokenizer.train([fact.text for fact in FACTS] * 4, vocab_size=360)


def model(kind: str = "knowledge", gate: float = 1.0) -> LanguageModel:
    part = {"kind": "knowledge", "knowledge_dim": 8, "heads": 2, "top_k": 2, "router": "language-loss"}
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": TOKENIZER.vocab_size}
    layers = {"feed_forward_by_layer": {"1-2": part}} if kind == "knowledge" else {}
    made = initialise(LanguageModel(ModelConfig.from_data({**size, **layers})), seed=0).eval()
    if kind == "knowledge":
        for module in made.modules():
            if isinstance(module, Reader):
                torch.nn.init.constant_(module.gate.values, gate)
        give_facts(made, FACTS, TOKENIZER)
    return made


def test_a_trace_has_the_tokens_of_the_generation_and_shares_that_add_up():
    made = model()
    prompt = "name 3 was born in"
    [answer] = complete(
        Engine(made, TOKENIZER.stop_ids), TOKENIZER, [prompt], SamplingConfig(temperature=0.0, max_new_tokens=8)
    )
    traced = trace(made, TOKENIZER, FACTS, prompt, max_new_tokens=8, least=0.0)
    assert "".join(token.text for token in traced) == answer.text
    for token in traced:
        for layer in (1, 2):
            own = [read.weight for read in token.reads if read.layer == layer]
            assert len(own) == 2 and 0 < sum(own) <= 1 + 1e-6
        assert [read.weight for read in token.reads] == sorted((r.weight for r in token.reads), reverse=True)


def test_without_is_what_an_empty_bank_gives():
    made = model()
    [first] = trace(made, TOKENIZER, FACTS, "name 3 was born in", max_new_tokens=1)
    with facts_instead(made, [], TOKENIZER):
        config = SamplingConfig(temperature=0.0, max_new_tokens=1)
        [answer] = complete(Engine(made, TOKENIZER.stop_ids), TOKENIZER, ["name 3 was born in"], config)
    assert first.without == answer.text
    assert first.changed == (first.text != first.without)


def test_a_memory_behind_a_closed_gate_changes_nothing():
    for token in trace(model(gate=0.0), TOKENIZER, FACTS, "name 3", max_new_tokens=6):
        assert not token.changed
        assert token.probability == pytest.approx(token.probability_without)


def test_there_is_nothing_to_trace_without_a_memory():
    with pytest.raises(UsageError, match="nothing to trace"):
        trace(model("dense"), TOKENIZER, [], "name 3")
