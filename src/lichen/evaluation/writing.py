"""What a model writes after the beginnings of held-out documents, and how varied and repetitive that is.

Documents are drawn evenly; what follows their first tokens is written greedily and sampled, through the engine's cache, many
texts at once. Texts are judged by their tokens, the prompt left out: how many n-grams are distinct, how many stand in the text
before, whether it ends in a loop, and whether the model ended it itself.

>>> text = Continuation(document=0, prompt="moss", true=" on bark", written=" is is", tokens=(7, 7), ended=True)
>>> found = judge([text, text])
>>> found.distinct[1].value, found.repetition.n, found.ended.value
(0.5, 0, 1.0)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lichen.config.errors import UsageError
from lichen.config.evaluation import LanguageEvaluation
from lichen.config.generation import SamplingConfig
from lichen.core.streams import Stream
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation import intervals, resampling
from lichen.evaluation.held_out import HeldOut
from lichen.evaluation.intervals import Score
from lichen.inference.engine import Engine
from lichen.metrics import diversity
from lichen.model.language_model import LanguageModel

GRAMS = (1, 2, 3)
"""The lengths of n-grams whose distinct share is told."""


@dataclass(frozen=True)
class Continuation:
    """What was given, what followed in the document, and what the model wrote."""

    document: int
    """Its number among those held out."""
    prompt: str
    true: str
    written: str
    tokens: tuple[int, ...]
    """What was written, as ids."""
    ended: bool
    """Whether the model ended the text, before it had to."""


@dataclass(frozen=True)
class Writing:
    """Measures of continuations; shares between 0 and 1, see `lichen.metrics.diversity`."""

    distinct: Mapping[int, Score]
    """By n: distinct n-grams of a text, mean over texts that have any."""
    pooled: Mapping[int, Score]
    """By n: distinct n-grams of all texts together; the interval is the jackknife's."""
    repetition: Score
    """4-grams that stand in the text before, mean over texts that have any."""
    loops: Score
    """Texts that end in a loop."""
    ended: Score
    """Texts that the model ended."""
    tokens: Score
    """Tokens of a text, mean."""
    texts: list[Continuation] = field(repr=False)


def write_on(
    model: LanguageModel,
    tokenizer: Tokenizer,
    held: HeldOut,
    settings: LanguageEvaluation,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Writing]:
    """Continue the beginnings of documents "greedy" and "sampled". The same seed draws the same documents and numbers."""
    given = len(tokenizer.document_prefix) + settings.prompt_tokens
    drawn = drawn_documents(held, given, settings.samples, settings.seed)
    most, temperature, top_p = settings.new_tokens, settings.temperature, settings.top_p
    ways = {
        "greedy": SamplingConfig(max_new_tokens=most, greedy=True),
        "sampled": SamplingConfig(max_new_tokens=most, temperature=temperature, top_p=top_p, seed=settings.seed),
    }
    found = {}
    for name, config in ways.items():
        say(f"{len(drawn):,} continuations, {name}")
        texts = []
        for start in range(0, len(drawn), settings.rows):
            texts += _continued(model, tokenizer, held, drawn[start : start + settings.rows], given, config)
        found[name] = judge(texts, settings.seed)
    return found


def drawn_documents(held: HeldOut, given: int, most: int, seed: int) -> list[int]:
    """The numbers of at most ``most`` documents that go on after ``given`` tokens, drawn evenly, in their order."""
    long_enough = np.flatnonzero(held.documents.lengths > given + 1)  # something but the end token must follow
    if not len(long_enough):
        longest = int(held.documents.lengths.max()) - 1
        raise UsageError(
            f"no document goes on after {given} tokens (the longest has {longest}): lower --prompt-tokens, or give --samples 0"
        )
    order = Stream(seed, "documents to continue").permutation(len(long_enough))
    return sorted(long_enough[order.take(np.arange(min(most, len(long_enough))))].tolist())


def judge(texts: Sequence[Continuation], seed: int = 0) -> Writing:
    """Measure continuations; a text too short for an n-gram counts in no mean of it."""
    tokens = [text.tokens for text in texts]
    without = {n: diversity.pooled_distinct_without(tokens, n) for n in GRAMS}
    return Writing(
        distinct={
            n: resampling.mean([diversity.distinct(text, n) for text in tokens], seed, f"distinct-{n}") for n in GRAMS
        },
        pooled={n: resampling.jackknife(diversity.pooled_distinct(tokens, n), without[n]) for n in GRAMS},
        repetition=resampling.mean([diversity.repetition(text) for text in tokens], seed, "repetition"),
        loops=intervals.share(diversity.loop_period(text) > 0 for text in tokens),
        ended=intervals.share(text.ended for text in texts),
        tokens=resampling.mean([len(text) for text in tokens], seed, "lengths", unit=""),
        texts=list(texts),
    )


def _continued(
    model: LanguageModel,
    tokenizer: Tokenizer,
    held: HeldOut,
    numbers: Sequence[int],
    given: int,
    config: SamplingConfig,
) -> list[Continuation]:
    """The documents with these ``numbers``, all at once; each has random numbers of its own, whatever its company."""
    prompts = [held.documents.tokens(number, 0, given).tolist() for number in numbers]
    seeds = [Stream(config.seed, "continuations").key(number) for number in numbers]
    written: list[list[int]] = [[] for _ in numbers]
    ended = [False] * len(numbers)
    for step in Engine(model, tokenizer.stop_ids).start(prompts, config, seeds):
        for new in step:
            ended[new.row] = new.finish == "stop"
            written[new.row] += [] if ended[new.row] else [new.token]
    found = []
    for number, prompt, ids, end in zip(numbers, prompts, written, ended, strict=True):
        true = held.documents.tokens(number, given, given + config.max_new_tokens).tolist()
        texts = _whole(tokenizer, prompt), _after(tokenizer, prompt, true), _after(tokenizer, prompt, ids)
        found.append(Continuation(number, *texts, tokens=tuple(ids), ended=end))
    return found


def _whole(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ``ids`` without a last character of which they hold the beginning only."""
    return tokenizer.decode(ids).rstrip("\ufffd")


def _after(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text that ``ids`` add to that of ``prompt``, the character that it ends within counted here."""
    return tokenizer.decode([*prompt, *ids]).removeprefix(_whole(tokenizer, prompt))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
