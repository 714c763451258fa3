"""A real model's bank under intervention: what is held, what is read, and that it comes back."""

import pytest
import torch

from lichen.config.model import ModelConfig
from lichen.dataset.facts import made_fact
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.continuation import ModelContinuations
from lichen.evaluation.interventions import ShowsReads
from lichen.evaluation.model_memory import ModelMemory
from lichen.inference.memory import give_facts, memory_of
from lichen.model.language_model import LanguageModel, initialise

PROMPTS = ["Person 3 Smith was born in", "Person 11 Smith", "Person 7 Smith died in the town of"]


@pytest.fixture(scope="module")
def tokenizer(small):
    return Tokenizer.train([fact.text for fact in small.world()] + PROMPTS, vocab_size=400)


@pytest.fixture
def model(tokenizer, small):
    reading = {"kind": "knowledge", "knowledge_dim": 8, "top_k": 3, "router": "language-loss"}
    settings = {"vocab_size": tokenizer.vocab_size, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    by_layer = {"0": reading, "2": {**reading, "beside": {"kind": "dense"}}}
    model = LanguageModel(ModelConfig.from_data({**settings, "feed_forward_by_layer": by_layer}))
    give_facts(initialise(model, seed=0).eval(), small.world(subjects=10), tokenizer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "reader" in name and "gate" in name:
                parameter.fill_(1.0)  # closed at first
    return model


def found_at_end(model, tokenizer, prompt):
    """What the layers find at the last token of one prompt alone."""
    heard = []
    hooks = [
        model.model.layers[n].mlp.retrieval.register_forward_hook(lambda m, a, found: heard.append(found))
        for n in (0, 2)
    ]
    from lichen.core.batch import Batch

    ids = tokenizer.encode(prompt)
    with torch.inference_mode():
        model(Batch.of_tokens(torch.tensor([ids])), want="last")
    for hook in hooks:
        hook.remove()
    return [(found.numbers[-1].tolist(), found.weights()[-1].tolist()) for found in heard]


def test_reads_are_those_of_the_last_token_however_prompts_are_batched(model, tokenizer):
    memory = ModelMemory(model, tokenizer, rows=2)
    assert isinstance(memory, ShowsReads)
    for prompt, reads in zip(PROMPTS, memory.reads(PROMPTS), strict=True):
        layers = found_at_end(model, tokenizer, prompt)
        leads = [max(weights[:-1]) - weights[-1] for _, weights in layers]
        numbers, weights = layers[leads.index(max(leads))]
        shown = {read.entry: read.weight for read in reads}
        assert shown == pytest.approx(dict(zip([*numbers, None], weights, strict=True)), abs=1e-5)
        assert [read.weight for read in reads] == sorted((read.weight for read in reads), reverse=True)


def test_other_facts_are_read_for_a_while_and_the_answers_come_back(model, tokenizer, small):
    memory, answerer = ModelMemory(model, tokenizer), ModelContinuations(model, tokenizer)
    pairs = [(prompt, " Rome") for prompt in PROMPTS]
    bank = memory_of(model)
    assert bank is not None
    before, count = answerer.log_likelihoods(pairs), len(bank)
    with memory.with_facts([made_fact("Person 3 Smith", "home town", "Oslo")]):
        assert not (answerer.log_likelihoods(pairs) == before).all()
        assert all(read.entry in (0, None) for reads in memory.reads(PROMPTS) for read in reads)
    assert len(bank) == count == 50
    assert (answerer.log_likelihoods(pairs) == before).all()


def test_an_emptied_bank_is_read_from_without_fault_and_gives_nothing(model, tokenizer):
    memory, answerer = ModelMemory(model, tokenizer), ModelContinuations(model, tokenizer)
    with memory.with_facts([]):
        assert all([read.entry for read in reads] == [None] for reads in memory.reads(PROMPTS))
        assert len(answerer.generate(PROMPTS, 4)) == 3


def test_a_model_without_a_bank_has_no_memory(tokenizer):
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    assert ModelMemory.of(LanguageModel(config), tokenizer) is None


def test_the_mode_of_the_model_is_put_back(model, tokenizer):
    model.train()
    ModelMemory(model, tokenizer).reads(PROMPTS)
    ModelContinuations(model, tokenizer).log_likelihoods([("a", " b")])
    assert model.training
