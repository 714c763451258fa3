"""The examination of language as a whole: on a model that knows the text and on one that does not."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from lichen.config.errors import UsageError
from lichen.config.evaluation import LanguageEvaluation
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.language import bits_per_byte, examine
from lichen.model.language_model import LanguageModel, initialise

SENTENCE = "moss grows on the north side of stones"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([SENTENCE] * 4, vocab_size=340)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("held") / "held.jsonl"
    path.write_text(f'{{"text": "{SENTENCE}"}}\n' * 6, encoding="utf-8")
    return path


def made(tokenizer):
    size: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 64,
    }
    return initialise(LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, **size)), seed=0)


@pytest.fixture(scope="module")
def trained(tokenizer):
    """Knows the sentence by heart."""
    model = made(tokenizer)
    batch = Batch.of_tokens(torch.tensor([[*tokenizer.encode(SENTENCE), tokenizer.end_of_text_id]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        model(batch).nll.mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def test_what_is_known_by_heart_costs_little_and_is_written_down(trained, tokenizer, text):
    settings = LanguageEvaluation(text=(text,), prompt_tokens=5, new_tokens=50, samples=4)
    found, strange = (examine(model, tokenizer, settings) for model in (trained, made(tokenizer)))
    assert found.bits_per_byte.value < 0.6 < 2 < strange.bits_per_byte.value
    assert found.bits_per_byte.n == found.documents == 6 and found.context == 64
    greedy = found.writing["greedy"]
    assert [text.written for text in greedy.texts] == [text.true for text in greedy.texts]
    assert greedy.ended.value == 1 and greedy.loops.value == 0 and greedy.distinct[2].value == 1
    assert greedy.pooled[2].value == pytest.approx(1 / 4)
    assert found.look is not None and len(found.look.layers) == 2
    assert found.look.loss == pytest.approx(found.nats.sum() / found.targets, rel=1e-5)
    assert found.yardsticks.keys() == {"gzip", "xz"}


def test_the_model_is_left_alone_and_answers_alike_again(trained, tokenizer, text):
    settings = LanguageEvaluation(text=(text,), prompt_tokens=5, new_tokens=8, samples=2)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    trained.train()
    once, again = examine(trained, tokenizer, settings), examine(trained, tokenizer, settings)
    assert trained.training and all(parameter.grad is None for parameter in trained.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())
    assert np.array_equal(once.nats, again.nats) and once.writing == again.writing and once.look == again.look


def test_what_is_not_asked_for_is_not_done(trained, tokenizer, text):
    settings = LanguageEvaluation(text=(text,), samples=0, layer_tokens=0, context=4, documents=2)
    found = examine(trained, tokenizer, settings, context=32)
    assert (found.writing, found.look, found.context, found.documents) == ({}, None, 4, 2)
    with pytest.raises(UsageError, match="--text FILE"):
        examine(trained, tokenizer, LanguageEvaluation())


def test_bits_per_byte_weigh_documents_by_their_bytes():
    found = bits_per_byte([10 * math.log(2), math.log(2)], [10, 1])
    assert found.value == pytest.approx(1.0) and found.low == pytest.approx(1.0) and found.n == 2
    uneven = bits_per_byte([30 * math.log(2), math.log(2)], [10, 1])
    assert uneven.value == pytest.approx(31 / 11) and (uneven.low, uneven.high) == pytest.approx((1.0, 3.0))
