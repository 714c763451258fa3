"""Text in, text out: the tokenizer and the engine together.

>>> from lichen.config.model import ModelConfig
>>> from lichen.model.language_model import LanguageModel, initialise
>>> tokenizer = Tokenizer.train(["a cat and a hat"] * 4, vocab_size=330)
>>> small = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
>>> engine = Engine(initialise(LanguageModel(small), seed=0), tokenizer.stop_ids)
>>> [answer] = complete(engine, tokenizer, ["a cat"], SamplingConfig(max_new_tokens=3))
>>> answer.finish, len(answer.tokens)
('length', 3)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lichen.config.errors import UsageError
from lichen.config.generation import SamplingConfig
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.engine import Engine, Finish
from lichen.inference.stopping import TextStream


@dataclass(frozen=True, slots=True)
class NewText:
    """Text that one row gained, often '', and the tokens taken in. ``finish`` says whether they are its last, and why."""

    row: int
    text: str
    tokens: tuple[int, ...] = ()
    finish: Finish = ""


@dataclass(frozen=True)
class Completion:
    """A finished answer."""

    text: str
    """Without the stop text."""
    tokens: tuple[int, ...]
    """All that were generated, but for the stop token."""
    finish: Finish


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text to continue: what the tokenizer puts before a document, and the text, never control tokens.

    Raises UsageError for a text without any token: a model has nothing to continue then.
    """
    ids = [*tokenizer.document_prefix, *tokenizer.encode(text)]
    if not ids:
        raise UsageError("the prompt is empty: give at least one character to continue")
    return ids


def stream(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    seeds: Sequence[int] | None = None,
) -> Iterator[NewText]:
    """The answers to ``prompts`` (ids) as they come, rows in turn. A row that meets a stop text ends at once."""
    generation = engine.start(prompts, config, seeds)
    texts = [TextStream(tokenizer, config.stop, prompt) for prompt in prompts]
    for new_tokens in generation:
        for new in new_tokens:
            text = texts[new.row]
            kept = () if new.finish == "stop" else (new.token,)
            shown = text.push(new.token) if kept else ""
            if new.finish and not text.stopped:
                shown += text.finish()
            if text.stopped:
                generation.cancel(new.row)
            yield NewText(new.row, shown, kept, "stop" if text.stopped else new.finish)


def complete(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SamplingConfig,
    seeds: Sequence[int] | None = None,
) -> list[Completion]:
    """The whole answers to ``prompts``, computed together."""
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    texts: list[list[str]] = [[] for _ in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    finishes: list[Finish] = [""] * len(prompts)
    for new in stream(engine, tokenizer, ids, config, seeds):
        texts[new.row].append(new.text)
        tokens[new.row].extend(new.tokens)
        finishes[new.row] = new.finish
    return [Completion("".join(texts[row]), tuple(tokens[row]), finishes[row]) for row in range(len(prompts))]


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
