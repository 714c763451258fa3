"""Completions: stop texts end a row at once, streaming and batches give the same text, text stays text."""

import pytest
import torch

from lichen.config.errors import UsageError
from lichen.config.generation import SamplingConfig
from lichen.config.model import ModelConfig
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import complete, encode_prompt, stream
from lichen.inference.engine import Engine
from lichen.model.language_model import LanguageModel, initialise

CONFIG = SamplingConfig(max_new_tokens=30, temperature=1.0, top_p=1.0, seed=3)
PROMPTS = ["the cat", "a hat is", "苔"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["the cat sat on the mat", "a hat is not a cat"] * 8, vocab_size=340)


@pytest.fixture(scope="module")
def engine(tokenizer):
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
    model = initialise(LanguageModel(config), seed=0)
    with torch.no_grad():
        model.head_weight[:64] -= 1.0  # control tokens are improbable, as in a trained model
        model.model.norm.weight.fill_(1.0)
    return Engine(model, tokenizer.stop_ids)


def test_streaming_single_and_batch_give_the_same_text(engine, tokenizer):
    together = complete(engine, tokenizer, PROMPTS, CONFIG)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        assert complete(engine, tokenizer, [prompt], CONFIG)[0] == answer
        pieces = list(stream(engine, tokenizer, [encode_prompt(tokenizer, prompt)], CONFIG))
        assert "".join(piece.text for piece in pieces) == answer.text
        assert pieces[-1].finish == answer.finish != ""
        assert answer.text == tokenizer.decode(answer.tokens)


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_a_stop_text_ends_a_row_wherever_the_borders_of_tokens_are(engine, tokenizer, length):
    whole = complete(engine, tokenizer, PROMPTS[:1], CONFIG)[0]
    for start in range(0, 20, 3):
        stop = whole.text[start : start + length]
        config = CONFIG.model_copy(update={"stop": (stop,)})
        answer = complete(engine, tokenizer, PROMPTS, config)[0]
        assert answer.text == whole.text[: whole.text.find(stop)]
        assert answer.finish == "stop" and len(answer.tokens) <= len(whole.tokens)


def test_generation_stops_with_the_step_that_completes_the_stop_text(engine, tokenizer):
    whole = complete(engine, tokenizer, PROMPTS[:1], CONFIG)[0]
    config = CONFIG.model_copy(update={"stop": (tokenizer.decode(whole.tokens[:6])[-3:],)})
    steps = list(stream(engine, tokenizer, [encode_prompt(tokenizer, PROMPTS[0])], config))
    assert len(steps) <= 6 and steps[-1].finish == "stop"


def test_control_tokens_in_a_prompt_stay_text(tokenizer):
    ids = encode_prompt(tokenizer, "a <|im_end|> b <|endoftext|>")
    assert not set(ids) & set(tokenizer.control.values())


def test_a_begin_token_stands_once_before_a_prompt_and_before_a_chat(tokenizer):
    import json

    from tokenizers import processors

    from lichen.dataset.template import encode_chat

    begin = tokenizer.control["<|reserved_0|>"]
    data = json.loads(json.dumps(tokenizer.data))
    template = processors.TemplateProcessing("<|reserved_0|> $A", special_tokens=[("<|reserved_0|>", begin)])
    data["post_processor"] = json.loads(template.__getstate__())
    with_begin = Tokenizer(data, {**tokenizer.names, "bos_token": "<|reserved_0|>"})
    assert encode_prompt(with_begin, "the cat") == [begin, *tokenizer.encode("the cat")]
    ids, _ = encode_chat(with_begin, [{"role": "user", "content": "the cat"}], add_generation_prompt=True)
    assert ids[0] == begin and ids.count(begin) == 1


def test_an_empty_prompt_is_refused(engine, tokenizer):
    with pytest.raises(UsageError, match="empty"):
        complete(engine, tokenizer, [""], CONFIG)


def test_the_stop_token_is_neither_text_nor_token(engine, tokenizer):
    whole = complete(engine, tokenizer, PROMPTS[:1], CONFIG)[0]
    stopping = Engine(engine.model, [whole.tokens[4]])
    answer = complete(stopping, tokenizer, PROMPTS[:1], CONFIG)[0]
    place = whole.tokens.index(whole.tokens[4])
    assert answer.tokens == whole.tokens[:place] and answer.finish == "stop"
    assert answer.text == tokenizer.decode(whole.tokens[:place])
