"""Sampling: equal to transformers' processors, a function of the row alone, and strict about nonsense."""

import math

import pytest
import torch

from lichen.config.errors import ConfigError, UsageError
from lichen.config.generation import SamplingConfig
from lichen.inference.sampling import (
    MASKED,
    Ngrams,
    apply_temperature,
    choose,
    forbid,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    uniform,
)

ROWS, VOCABULARY = 5, 60


@pytest.fixture
def logits():
    return torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def history():
    return torch.randint(0, 8, (ROWS, 30), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_temperature_equals_transformers(logits, history, temperature):
    from transformers import TemperatureLogitsWarper

    expected = TemperatureLogitsWarper(temperature)(history, logits)
    torch.testing.assert_close(apply_temperature(logits, temperature), expected, rtol=0, atol=0)


@pytest.mark.parametrize("k", [1, 2, 17, VOCABULARY, 10 * VOCABULARY])
def test_top_k_equals_transformers(logits, history, k):
    from transformers import TopKLogitsWarper

    logits[:, 5] = logits[:, 7]  # a tie
    torch.testing.assert_close(keep_top_k(logits, k), TopKLogitsWarper(k)(history, logits), rtol=0, atol=0)


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9, 0.999])
def test_top_p_equals_transformers(logits, history, p):
    from transformers import TopPLogitsWarper

    torch.testing.assert_close(keep_top_p(logits, p), TopPLogitsWarper(p)(history, logits), rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0])
def test_top_p_of_a_large_vocabulary_equals_transformers_whether_the_tail_is_needed_or_not(scale):
    from transformers import TopPLogitsWarper

    logits = torch.randn(3, 3000, generator=torch.Generator().manual_seed(3)) * scale
    found, expected = keep_top_p(logits, 0.9), TopPLogitsWarper(0.9)(torch.LongTensor(3, 0), logits)
    different = (found == MASKED) != (expected == MASKED)
    assert int(different.sum()) <= 1, "at most the token on the border, where sums in another order round differently"
    assert torch.equal(found[~different], expected[~different])


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.8])
def test_repetition_penalty_equals_transformers(logits, history, penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    seen = torch.zeros(ROWS, VOCABULARY, dtype=torch.bool).scatter(1, history, True)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(history, logits.clone())
    torch.testing.assert_close(penalize_repetition(logits, seen, penalty), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_repeat_ngrams_equal_transformers(logits, history, size):
    from transformers import NoRepeatNGramLogitsProcessor

    for length in (1, size, history.shape[1]):
        rows = history[:, :length]
        expected = NoRepeatNGramLogitsProcessor(size)(rows, logits.clone())
        banned = [sorted(Ngrams(size, row).banned()) for row in rows.tolist()]
        torch.testing.assert_close(forbid(logits, banned), expected, rtol=0, atol=0)


def test_growing_ngrams_equal_ngrams_of_the_whole():
    tokens = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(2)).tolist()
    growing = Ngrams(3)
    for end, token in enumerate(tokens, start=1):
        growing.append(token)
        assert growing.banned() == Ngrams(3, tokens[:end]).banned()


def test_a_row_that_may_choose_nothing_is_left_alone(logits):
    found = forbid(logits[:2], [range(VOCABULARY), [3]])
    assert torch.equal(found[0], logits[0]) and found[1, 3] == MASKED


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.0, math.log(2), math.log(3), math.log(4), MASKED]])
    config = SamplingConfig(temperature=1.0, top_p=1.0)
    draws = 4000
    tokens = choose(logits.expand(draws, -1), config, [uniform(7, index) for index in range(draws)])
    found = torch.bincount(tokens, minlength=5) / draws
    torch.testing.assert_close(found, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0]), rtol=0, atol=0.03)


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_ends_of_the_interval_choose_tokens_that_have_a_probability(number):
    logits = torch.tensor([[MASKED, 0.0, 0.0, MASKED, MASKED]])
    assert choose(logits, SamplingConfig(top_p=1.0), [number]).item() in (1, 2)


def test_a_row_s_draw_does_not_depend_on_its_neighbours(logits):
    config = SamplingConfig(top_k=20, top_p=0.9)
    uniforms = [uniform(seed, 3) for seed in range(ROWS)]
    together = choose(logits, config, uniforms)
    alone = [choose(logits[row : row + 1], config, uniforms[row : row + 1]).item() for row in range(ROWS)]
    assert together.tolist() == alone
    assert uniform(0, 3) != uniform(1, 3) != uniform(1, 4)


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -1.0, 0.0])
def test_nonsense_temperatures_are_refused(logits, temperature):
    with pytest.raises(UsageError, match="temperature"):
        apply_temperature(logits, temperature)


@pytest.mark.parametrize("field", ["temperature", "top_p", "repetition_penalty"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5])
def test_nonsense_settings_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=field):
        SamplingConfig.from_data({field: value})


def test_nonsense_filters_are_refused(logits):
    for call in (
        lambda: keep_top_p(logits, math.nan),
        lambda: keep_top_p(logits, 0.0),
        lambda: keep_top_k(logits, -1),
        lambda: penalize_repetition(logits, logits > 0, math.nan),
        lambda: penalize_repetition(logits, logits > 0, 0.0),
    ):
        with pytest.raises(UsageError):
            call()


def test_an_empty_stop_text_is_refused():
    with pytest.raises(ConfigError, match="stop"):
        SamplingConfig.from_data({"stop": ["end", ""]})


def test_temperature_zero_is_greedy(logits):
    assert choose(logits, SamplingConfig(temperature=0), []).tolist() == logits.argmax(-1).tolist()
