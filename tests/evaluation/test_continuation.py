"""Likelihoods as the model itself gives them, comparable whatever the borders of tokens; texts as the engine writes them."""

import numpy as np
import pytest
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.config.generation import SamplingConfig
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.continuation import ModelContinuations
from lichen.inference.completion import complete
from lichen.inference.engine import Engine
from lichen.model.language_model import LanguageModel, initialise

TEXTS = ["the cat sat on the mat", "a hat is not a cat", "New York is not York", "杜甫出生于巩县", "李白出生于碎叶"]
PAIRS = [
    ("the cat sat", " on the mat."),
    ("the cat sat", " on"),
    ("a hat", " is"),
    ("杜甫 is not", " a 李白."),
    ("a", " cat sat on a hat and is not a cat"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS * 8, vocab_size=380)


@pytest.fixture(scope="module")
def model(tokenizer):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=48,
    )
    model = initialise(LanguageModel(config), seed=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(4.0)  # opinions strong enough to tell rows apart
        model.head_weight[:64] -= 1.0  # control tokens are improbable, as in a trained model
    return model


def by_hand(model, tokenizer, text, continuation):
    """The sum of log-probabilities of the tokens after ``text``."""
    ids = [*tokenizer.document_prefix, *tokenizer.encode(text + continuation)]
    start = len(tokenizer.document_prefix) + len(tokenizer.encode(text))
    with torch.inference_mode():
        logits = model(Batch.of_tokens(torch.tensor([ids])), want="logits").logits[0].log_softmax(-1)
    return sum(logits[place - 1, ids[place]].item() for place in range(start, len(ids))), len(ids) - start


@pytest.mark.parametrize("budget", [1, 16, 4096])
def test_likelihoods_are_the_models_own_however_rows_are_batched(model, tokenizer, budget):
    sums = ModelContinuations(model, tokenizer, tokens_per_batch=budget).log_likelihoods(PAIRS)
    means = ModelContinuations(model, tokenizer, tokens_per_batch=budget, normalise="mean").log_likelihoods(PAIRS)
    for pair, total, mean in zip(PAIRS, sums, means, strict=True):
        expected, count = by_hand(model, tokenizer, *pair)
        assert total == pytest.approx(expected, rel=1e-4) and mean == pytest.approx(expected / count, rel=1e-4)


def test_a_token_over_the_border_does_not_make_options_incomparable(model, tokenizer):
    # one more merge would join the end of the text with one of the options
    joined = Tokenizer.train(["x出生于巩县"] * 50 + TEXTS, vocab_size=400)
    alone, whole = joined.encode("x出生于"), joined.encode("x出生于巩县")
    assert whole[: len(alone)] != alone, "the test needs a tokenizer that merges over the border"
    config = ModelConfig(vocab_size=joined.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    found = ModelContinuations(initialise(LanguageModel(config), seed=0), joined).log_likelihoods(
        [("x出生于", "巩县"), ("x出生于", "碎叶")]
    )
    shared = 1  # "x" is all that both and the text begin with
    for value, text in zip(found, ("x出生于巩县", "x出生于碎叶"), strict=True):
        ids = joined.encode(text)
        model = initialise(LanguageModel(config), seed=0)
        with torch.inference_mode():
            logits = model(Batch.of_tokens(torch.tensor([ids])), want="logits").logits[0].log_softmax(-1)
        expected = sum(logits[place - 1, ids[place]].item() for place in range(shared, len(ids)))
        assert value == pytest.approx(expected, rel=1e-4)


def test_texts_are_those_of_the_engine_whatever_the_company(model, tokenizer):
    prompts = [text for text, _ in PAIRS]
    config = SamplingConfig(max_new_tokens=7, greedy=True)
    expected = [complete(Engine(model, tokenizer.stop_ids), tokenizer, [prompt], config)[0].text for prompt in prompts]
    for rows in (1, 2, 256):
        assert ModelContinuations(model, tokenizer, rows=rows).generate(prompts, 7) == expected


def test_a_settled_text_ends_early_and_the_others_go_on(model, tokenizer):
    answerer = ModelContinuations(model, tokenizer)
    whole = answerer.generate(["a hat", "a cat"], 8)
    asked = []

    def settled(prompt, text):
        asked.append(prompt)
        return prompt == "a hat" and len(text) >= 2

    found = answerer.generate(["a hat", "a cat"], 8, settled)
    assert whole[0].startswith(found[0]) and 2 <= len(found[0]) < len(whole[0])
    assert found[1] == whole[1] and set(asked) == {"a hat", "a cat"}


def test_no_gradient_and_no_mode_is_left_behind(model, tokenizer):
    model.train()
    ModelContinuations(model, tokenizer).log_likelihoods(PAIRS[:1])
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_what_does_not_fit_is_refused_not_cut(model, tokenizer):
    with pytest.raises(UsageError, match="context 48"):
        ModelContinuations(model, tokenizer).log_likelihoods([("a hat " * 60, " is")])


def test_a_diverged_model_is_no_score(model, tokenizer):
    import copy

    broken = copy.deepcopy(model)
    broken.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(LichenError, match="not finite"):
        ModelContinuations(broken, tokenizer).log_likelihoods(PAIRS)


def test_nothing_asked_is_nothing_answered(model, tokenizer):
    answerer = ModelContinuations(model, tokenizer)
    assert answerer.log_likelihoods([]).shape == (0,) and answerer.generate([], 3) == []
    assert np.isfinite(answerer.log_likelihoods([("a", " b")])).all()
