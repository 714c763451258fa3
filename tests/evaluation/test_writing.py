"""Continuations: those of the engine, the same whatever their company, and counted by text."""

from typing import Any

import numpy as np
import pytest

from lichen.config.errors import UsageError
from lichen.config.evaluation import LanguageEvaluation
from lichen.config.generation import SamplingConfig
from lichen.config.model import ModelConfig
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation.held_out import HeldOut
from lichen.evaluation.writing import Continuation, drawn_documents, judge, write_on
from lichen.inference.engine import Engine
from lichen.model.language_model import LanguageModel, initialise

WORDS = ["the cat sat on the mat and", "a hat is not a cat", "杜甫出生于巩县，李白", "moss"]
SETTINGS = LanguageEvaluation(samples=12, prompt_tokens=4, new_tokens=9, rows=5, seed=3)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(WORDS * 8, vocab_size=340)


@pytest.fixture(scope="module")
def model(tokenizer):
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "max_position_embeddings": 64,
    }
    made = initialise(LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, **size)), seed=0)
    made.model.norm.weight.data.fill_(4.0)
    return made


@pytest.fixture
def held(tokenizer, tmp_path):
    lines = [f"{WORDS[number % 3]} {number} {WORDS[number % 2]}" for number in range(20)] + ["moss"] * 3
    (tmp_path / "held.txt").write_text("\n\n".join(lines), encoding="utf-8")
    (tmp_path / "held.jsonl").write_text("".join(f'{{"text": "{line}"}}\n' for line in lines), encoding="utf-8")
    return HeldOut.read([tmp_path / "held.jsonl"], tokenizer)


def test_texts_are_the_engines_and_do_not_depend_on_their_company(model, tokenizer, held):
    found = write_on(model, tokenizer, held, SETTINGS)
    engine = Engine(model, tokenizer.stop_ids)
    for text in found["greedy"].texts:
        ids = held.documents.tokens(text.document)
        [alone] = engine.generate([ids[:4].tolist()], SamplingConfig(greedy=True, max_new_tokens=9))
        assert list(text.tokens) == alone
        # a character may be cut by the border, where it counts for what follows, and by the end
        assert (
            tokenizer.decode(ids).startswith(text.prompt + text.true.rstrip("\ufffd")) and "\ufffd" not in text.prompt
        )
    assert len(found["sampled"].texts) == 12
    for rows in (1, 256):
        again = write_on(model, tokenizer, held, SETTINGS.model_copy(update={"rows": rows}))
        assert again["sampled"].texts == found["sampled"].texts and again["greedy"].texts == found["greedy"].texts


def test_every_text_has_random_numbers_of_its_own_that_follow_from_the_seed(model, tokenizer, held):
    found = write_on(model, tokenizer, held, SETTINGS)["sampled"]
    assert len({text.tokens for text in found.texts}) == 12, "texts that share their numbers are alike"
    other = write_on(model, tokenizer, held, SETTINGS.model_copy(update={"seed": 4}))["sampled"]
    same = {text.document: text.tokens for text in found.texts}
    assert all(same.get(text.document) != text.tokens for text in other.texts)


def test_documents_are_drawn_among_those_that_go_on(held):
    long_enough = set(np.flatnonzero(held.documents.lengths > 5).tolist())
    every = drawn_documents(held, 4, 1000, seed=0)
    assert set(every) == long_enough and every == sorted(every) and len(every) == 20
    few, more = (set(drawn_documents(held, 4, count, seed=0)) for count in (5, 9))
    assert len(few) == 5 and few < more
    with pytest.raises(UsageError, match="lower --prompt-tokens"):
        drawn_documents(held, 500, 10, seed=0)


def written(*texts, ended=False):
    return [Continuation(number, "", "", "", tuple(text), ended) for number, text in enumerate(texts)]


def test_scores_are_means_over_texts():
    found = judge([*written([1, 2, 3, 4, 5], [7] * 15), *written([], ended=True)])
    assert found.distinct[1].value == pytest.approx((1 + 1 / 15) / 2) and found.distinct[1].n == 2
    assert found.pooled[1].value == pytest.approx(6 / 20) and found.pooled[1].n == 3
    assert found.repetition.value == pytest.approx((0 + 11 / 12) / 2)
    assert (found.loops.value, found.ended.value) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.tokens.value == pytest.approx(20 / 3) and found.tokens.unit == ""
    assert found.distinct[1].low <= found.distinct[1].value <= found.distinct[1].high


def test_a_stop_token_ends_a_text_and_is_no_part_of_it(model, tokenizer, held):
    settings = SETTINGS.model_copy(update={"new_tokens": 40, "temperature": 5.0, "top_p": 1.0})
    found = write_on(model, tokenizer, held, settings)["sampled"]
    stops = set(tokenizer.stop_ids)
    ended = [text for text in found.texts if text.ended]
    assert ended and all(len(text.tokens) < 40 for text in ended)
    assert all(len(text.tokens) == 40 for text in found.texts if not text.ended)
    assert not any(stops & set(text.tokens) for text in found.texts)
