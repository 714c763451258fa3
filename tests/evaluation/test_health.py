"""How a memory is looked at: every real position, every layer that reads, the index against brute force; what a training left."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from lichen.config.errors import LichenError
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation import health
from lichen.evaluation.health import MemoryHealth, training_health
from lichen.inference.completion import encode_prompt
from lichen.inference.memory import facts_instead, give_facts, memory_of
from lichen.metrics.records import Records
from lichen.model.knowledge import Knowledge, Retrieval
from lichen.model.knowledge_bank import KnowledgeBank
from lichen.model.knowledge_health import Usage
from lichen.model.language_model import LanguageModel, initialise
from lichen.trainer.checkpoints import MODULE

PROMPTS = ["Person 3 Smith was born in", "Person 11 Smith", "Person 7 Smith died in the town of"]


@pytest.fixture(scope="module")
def tokenizer(small):
    return Tokenizer.train([fact.text for fact in small.world()] + PROMPTS, vocab_size=400)


def make(tokenizer, small, **section):
    """Two layers that read; about half of the positions have an entry ahead of the null slot."""
    reading = {"kind": "knowledge", "knowledge_dim": 8, "top_k": 3, "router": "language-loss", **section}
    settings = {"vocab_size": tokenizer.vocab_size, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    by_layer = {"0": reading, "2": {**reading, "beside": {"kind": "dense"}}}
    model = initialise(LanguageModel(ModelConfig.from_data({**settings, "feed_forward_by_layer": by_layer})), seed=0)
    give_facts(model.eval(), small.world(subjects=10), tokenizer)
    with torch.no_grad():
        for number in (0, 2):
            null = retrieval_of(model, number).null
            null.weight.normal_(generator=torch.Generator().manual_seed(number))
            null.bias.fill_(12.0)
    return model


def retrieval_of(model: LanguageModel, number: int) -> Retrieval:
    layer = model.model.layers[number].mlp
    assert isinstance(layer, Knowledge)
    return layer.retrieval


def bank_of(model: LanguageModel) -> KnowledgeBank:
    bank = memory_of(model)
    assert bank is not None
    return bank


@pytest.fixture
def model(tokenizer, small):
    return make(tokenizer, small)


def heard_one_by_one(model, tokenizer):
    """What both layers found, prompt by prompt, nothing padded."""
    found = []
    hooks = [
        retrieval_of(model, n).register_forward_hook(lambda module, given, output: found.append(output)) for n in (0, 2)
    ]
    with torch.inference_mode():
        for prompt in PROMPTS:
            model(Batch.of_tokens(torch.tensor([encode_prompt(tokenizer, prompt)])), want="last")
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("rows", [1, 64])
def test_every_real_position_of_every_layer_counts_once(model, tokenizer, rows):
    found = heard_one_by_one(model, tokenizer)
    reading = MemoryHealth(model, tokenizer, None, rows).reading([*PROMPTS, PROMPTS[0]])
    positions = sum(len(part.where) for part in found)  # without labels every position looks
    assert reading.positions == positions == 2 * sum(len(encode_prompt(tokenizer, prompt)) for prompt in PROMPTS)
    ahead = [part.scores.max(dim=1).values > part.null for part in found]
    assert reading.reads.value == pytest.approx(float(torch.cat(ahead).float().mean()))
    assert 0 < reading.reads.value < 1
    assert reading.null == pytest.approx(float(torch.cat([part.weights()[:, -1] for part in found]).mean()), abs=1e-5)
    leaders = {
        int(part.numbers[row, part.scores[row].argmax()])
        for part, rows_ahead in zip(found, ahead, strict=True)
        for row in rows_ahead.nonzero()[:, 0].tolist()
    }
    assert reading.distinct == len(leaders) and reading.entries == 50
    shares = torch.zeros(50)
    for part in found:
        shares.index_add_(0, part.numbers.flatten(), part.weights()[:, :-1].flatten())
    shares /= shares.sum()
    entropy = -sum(p * math.log(p) for p in shares.tolist() if p > 0) / math.log(50)
    assert reading.entropy == pytest.approx(entropy, abs=1e-4) and reading.recall.value == 1


def test_a_search_that_misses_is_seen(model, tokenizer, monkeypatch):
    bank = bank_of(model)
    search = bank.search

    def short(queries, index, number, removed=None):
        """The best one is never found."""
        scores, numbers = search(queries, index, number + 1, removed)
        return scores[:, 1:], numbers[:, 1:]

    monkeypatch.setattr(bank, "search", short)
    assert MemoryHealth(model, tokenizer, None).reading(PROMPTS).recall.value < 0.7


def test_cells_are_compared_with_brute_force(tokenizer, small):
    model = make(tokenizer, small, search="product")
    recall = MemoryHealth(model, tokenizer, None).reading(PROMPTS).recall
    assert recall.n == 3 * 2 * sum(len(encode_prompt(tokenizer, prompt)) for prompt in PROMPTS) and recall.value > 0.9


def test_looking_changes_nothing(model, tokenizer):
    before = [part.scores for part in heard_one_by_one(model, tokenizer)]
    model.train()
    MemoryHealth(model, tokenizer, None).reading(PROMPTS)
    assert model.training and bank_of(model).usage.counts.numel() == 0
    model.eval()
    after = [part.scores for part in heard_one_by_one(model, tokenizer)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not retrieval_of(model, 0)._forward_hooks


def test_an_emptied_bank_and_few_prompts_are_no_fault(model, tokenizer):
    with facts_instead(model, [], tokenizer):
        found = MemoryHealth(model, tokenizer, None).reading(PROMPTS)
    assert (found.positions, found.entries, found.recall.n) == (0, 0, 0)
    data = health.as_data(health.Health(None, {"added": found}))
    assert json.loads(json.dumps(data, allow_nan=False))["reading"]["added"]["null"] is None
    [table] = health.tables(health.Health(None, {"added": found}))
    assert table.rows[0]["entries read"] == "0 of 0"


def test_long_examinations_are_sampled(model, tokenizer, monkeypatch):
    monkeypatch.setattr(health, "PROMPTS", 2)
    prompts = [f"Person {n} Smith" for n in range(9)]
    found = MemoryHealth(model, tokenizer, None).reading(prompts)
    assert found.positions == 2 * sum(len(encode_prompt(tokenizer, prompts[n])) for n in (0, 5))


def test_a_model_without_a_memory_has_no_health(tokenizer):
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    assert MemoryHealth.of(LanguageModel(config), tokenizer) is None


# --- What a training left ---


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "lichen_step_0000020"
    (folder / "training").mkdir(parents=True)
    return folder


def left(checkpoint, updates, **tensors):
    state = {"updates": torch.tensor(updates), "index": torch.zeros(4, 2), **tensors}
    save_file({f"knowledge/{name}": tensor for name, tensor in state.items()}, checkpoint / health.TRAINING_STATE)


def test_the_counters_of_a_checkpoint_and_the_last_row_before_it_are_said(model, checkpoint):
    assert health.TRAINING_STATE == MODULE
    usage = Usage(4)
    usage.add(linked=[0, 1, 1], found=[1], read=[1, 3])
    usage.updated()
    left(checkpoint, [20, 0, 15], **usage.state())
    with Records(checkpoint.parent.parent / "metrics.jsonl") as rows:
        for step, norm in ((10, 3.0), (20, 2.0), (30, 1.0)):
            rows.append("train", step, knowledge_router_gradient_norm=norm, knowledge_ranks_agree=1.0)
            rows.append("train", step + 1, loss=1.0)
    found = training_health(checkpoint, bank_of(model))
    assert found is not None and found.usage == usage.report()
    assert (found.updates, found.refreshed, found.gradient_norm, found.ranks_agree) == (20, 15, 2.0, True)
    [table] = health.tables(health.Health(found, {}))
    shown = {row["measure"]: row["value"] for row in table.rows}
    assert shown["dead entries, of those linked of late"].startswith("50.0 % [")
    assert (shown["router gradient norm"], shown["ranks agree"]) == ("2", "yes")


def test_what_an_older_checkpoint_does_not_say_is_left_open(model, checkpoint):
    assert training_health(checkpoint, bank_of(model)) is None  # weights alone
    left(checkpoint, [20, 1])
    found = training_health(checkpoint, bank_of(model))
    assert found is not None and found.usage is found.refreshed is found.gradient_norm is found.ranks_agree is None
    data = health.as_data(health.Health(found, {}))
    assert data["training"]["dead"]["n"] == 0
    assert "dead" not in str(health.tables(health.Health(found, {}))[0].rows)


def test_a_damaged_state_is_named(model, checkpoint):
    (checkpoint / health.TRAINING_STATE).write_bytes(b"cut")
    with pytest.raises(LichenError, match=r"module\.safetensors: not a safetensors file"):
        training_health(checkpoint, bank_of(model))
