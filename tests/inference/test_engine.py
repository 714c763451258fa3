"""The engine: the cache changes nothing, the batch changes nothing, and rows end when they should."""

import itertools
from typing import Any

import pytest
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.config.generation import SamplingConfig
from lichen.config.model import ModelConfig
from lichen.core.batch import Batch
from lichen.inference import sampling
from lichen.inference.engine import Engine
from lichen.model.language_model import LanguageModel, initialise

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3], [5, 8, 9, 7, 9], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8]]
GREEDY = SamplingConfig(greedy=True, max_new_tokens=12)
SAMPLED = SamplingConfig(temperature=1.3, top_k=30, top_p=0.95, max_new_tokens=12, seed=5)
STRICT = SamplingConfig(repetition_penalty=1.3, no_repeat_ngram_size=2, max_new_tokens=12, temperature=1.1)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        vocab_size=40,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    return initialise(LanguageModel(config), seed=0).eval()


def generate_without_cache(model, prompt, config, seed):
    """Read the whole text again for every token: the definition of what the engine must do."""
    tokens = list(prompt)
    for index in range(min(config.max_new_tokens, model.config.max_position_embeddings - len(prompt))):
        with torch.inference_mode():
            logits = model(Batch.of_tokens(torch.tensor([tokens])), want="last").logits.float()
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[0, tokens] = True
        logits = sampling.penalize_repetition(logits, seen, config.repetition_penalty)
        if config.no_repeat_ngram_size:
            logits = sampling.forbid(logits, [sorted(sampling.Ngrams(config.no_repeat_ngram_size, tokens).banned())])
        tokens.append(sampling.choose(logits, config, [sampling.uniform(seed, index)]).item())
    return tokens[len(prompt) :]


@pytest.mark.parametrize("config", [GREEDY, SAMPLED, STRICT], ids=["greedy", "sampled", "strict"])
def test_the_cache_and_the_batch_change_nothing(model, config):
    engine = Engine(model)
    seeds = [11, 12, 13, 14]
    together = engine.generate(PROMPTS, config, seeds)
    for prompt, seed, found in zip(PROMPTS, seeds, together, strict=True):
        assert found == engine.generate([prompt], config, [seed])[0], "batch equals single"
        assert found == generate_without_cache(model, prompt, config, seed), "cache equals no cache"


def test_rows_that_leave_do_not_change_the_others(model):
    whole = Engine(model).generate(PROMPTS, SAMPLED)
    stop = whole[0][3]
    ended = Engine(model, stop_ids=[stop]).generate(PROMPTS, SAMPLED)
    for before, after in zip(whole, ended, strict=True):
        assert after == (before[: before.index(stop)] if stop in before else before)
    assert any(stop not in row for row in whole), "some row must outlive the others for this to test anything"


def test_cancelled_rows_get_no_more_tokens_and_the_others_go_on(model):
    whole = Engine(model).generate(PROMPTS, SAMPLED)
    generation = Engine(model).start(PROMPTS, SAMPLED)
    found = [[] for _ in PROMPTS]
    for step, new_tokens in enumerate(generation):
        for new in new_tokens:
            found[new.row].append(new.token)
        if step == 2:
            generation.cancel(1)
            generation.cancel(3)
            assert generation.running == 2
    assert [len(row) for row in found] == [12, 3, 12, 3]
    assert found[0] == whole[0] and found[2] == whole[2]


def test_tokens_are_given_out_step_by_step_with_the_reason_of_the_end(model):
    generation = Engine(model).start([[1], [2, 3]], GREEDY.model_copy(update={"max_new_tokens": 3}))
    steps = list(generation)
    assert [[new.row for new in step] for step in steps] == [[0, 1]] * 3
    assert [new.finish for step in steps for new in step] == ["", "", "", "", "length", "length"]
    assert next(generation, None) is None


def test_the_answer_ends_where_the_context_ends(model):
    engine = Engine(model)
    found = engine.generate([[1] * 30, [2] * 5], GREEDY)
    assert [len(row) for row in found] == [2, 12]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [([1] * 32, "shorten the prompt"), ([], "empty"), ([40], "another tokenizer"), ([-1], "another tokenizer")],
)
def test_a_prompt_that_can_not_be_answered_is_named(model, prompt, words):
    with pytest.raises(UsageError, match=f"prompt 2 .*{words}"):
        Engine(model).generate([[1], prompt], GREEDY)


def test_no_prompts_and_a_wrong_number_of_seeds_are_refused(model):
    with pytest.raises(UsageError, match="no prompt"):
        Engine(model).generate([], GREEDY)
    with pytest.raises(UsageError, match="one each"):
        Engine(model).generate([[1]], GREEDY, [1, 2])


def test_seeds_make_texts_differ_and_repeat(model):
    engine = Engine(model)
    texts = engine.generate([[1, 2]] * 3, SAMPLED, [0, 1, 0])
    assert texts[0] == texts[2] != texts[1]


def test_no_ngram_repeats(model):
    config = SamplingConfig(no_repeat_ngram_size=2, greedy=True, max_new_tokens=25)
    prompt = [1, 2, 1]
    tokens = prompt + Engine(model).generate([prompt], config)[0]
    pairs = list(itertools.pairwise(tokens))
    assert len(set(pairs)) == len(pairs)


def test_a_model_in_training_stays_in_training(model):
    model.train()
    try:
        generation = Engine(model).start([[1]], GREEDY)
        next(generation)
        assert model.training
    finally:
        model.eval()


def test_a_model_that_diverged_is_named(model):
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.norm.weight[3] = float("nan")
    for config in (GREEDY, SAMPLED):
        with pytest.raises(LichenError, match="not finite"):
            Engine(broken).generate([[1, 2]], config)


def test_lower_precision_generates_too(model):
    import copy

    half = copy.deepcopy(model).to(torch.bfloat16)
    found = Engine(half).generate(PROMPTS, SAMPLED)
    assert [len(row) for row in found] == [12] * 4


def test_generation_equals_transformers_greedy(model):
    from transformers import LlamaForCausalLM
    from transformers.models.llama import LlamaConfig

    size = model.config.dense_intermediate_size(model.config.feed_forward)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=size,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=32,
        rms_norm_eps=model.config.rms_norm_eps,
        tie_word_embeddings=True,
        eos_token_id=None,
    )
    reference: Any = LlamaForCausalLM(config).eval()
    reference.load_state_dict({**model.state_dict(), "lm_head.weight": model.head_weight})
    for prompt in PROMPTS:
        expected = reference.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=12
        )
        assert Engine(model).generate([prompt], GREEDY)[0] == expected[0, len(prompt) :].tolist()
