"""How a model goes on from a text: how likely it finds given continuations, and what it writes by itself.

``Continuations`` is all that a task asks of a model; whatever has its two methods can be examined. ``ModelContinuations`` answers
with a language model. Likelihoods are computed in batches of rows of similar length, text and continuation read in one pass, with
targets on the continuation only. Tokens may reach over the border between the two (Chinese has no spaces, so a merge may join the
end of the one with the beginning of the other): whatever all continuations of a text have in common is taken as given, and what
follows is scored, so that they are compared by the likelihood of the same text with different ends.

Generation is greedy, through the key-value cache, from plain text: no marker, no control token, no known position.

>>> from lichen.config.model import ModelConfig
>>> from lichen.model.language_model import initialise
>>> tokenizer = Tokenizer.train(["a cat and a hat"] * 4, vocab_size=330)
>>> small = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
>>> answerer = ModelContinuations(initialise(LanguageModel(small), seed=0), tokenizer)
>>> found = answerer.log_likelihoods([("a cat", " and"), ("a cat", " and a hat")])
>>> found.shape, bool(found[0] > found[1]), len(answerer.generate(["a cat", "a"], 3))
((2,), True, 2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import torch

from lichen.config.errors import LichenError, UsageError
from lichen.config.generation import SamplingConfig
from lichen.core.batch import IGNORE_TARGET, PADDING_SEGMENT, Batch
from lichen.dataset.tokenizer import Tokenizer
from lichen.inference.completion import encode_prompt
from lichen.inference.engine import Engine
from lichen.inference.stopping import TextStream
from lichen.model.language_model import LanguageModel

Normalise = Literal["sum", "mean"]
Pair = tuple[str, str]
"""A text and a continuation of it, with the space between them at the beginning of the latter."""

Settled = Callable[[str, str], bool]
"""Whether a prompt's text so far says all that is asked."""


class Continuations(Protocol):
    """What a task asks of a model."""

    def log_likelihoods(self, pairs: Sequence[Pair]) -> np.ndarray:
        """``[len(pairs)]`` float64: how likely each continuation is after its text, comparable for pairs of equal text."""
        ...

    def generate(self, prompts: Sequence[str], max_new_tokens: int, settled: Settled | None = None) -> list[str]:
        """What is written after each prompt: at most so many tokens, the likeliest each time.

        With ``settled`` a text may end as soon as ``settled(prompt, text)``: nobody needs to know how it goes on.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens ``text`` has, to know how long an answer may need to be."""
        ...


class ModelContinuations:
    """A model's answers. ``normalise`` says whether log-probabilities of a continuation's tokens are summed or averaged.

    Args:
        model: in the precision and on the device to be used.
        tokenizer: its own.
        tokens_per_batch: how many tokens are read at once, padding counted.
        rows: how many texts are generated at once.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        *,
        normalise: Normalise = "sum",
        tokens_per_batch: int = 4096,
        rows: int = 256,
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.normalise = normalise
        self.tokens_per_batch = tokens_per_batch
        self.rows = rows

    def log_likelihoods(self, pairs: Sequence[Pair]) -> np.ndarray:
        """See Continuations. Raises UsageError for what does not fit the model's context."""
        ids, starts = self._encoded(pairs)
        found = np.zeros(len(pairs))
        order = sorted(range(len(pairs)), key=lambda number: len(ids[number]))
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for chunk in _chunks(order, [len(row) for row in ids], self.tokens_per_batch):
                    found[chunk] = self._score([ids[number] for number in chunk], [starts[number] for number in chunk])
        finally:
            self.model.train(training)
        if not np.isfinite(found).all():
            raise LichenError(
                "the model's likelihoods are not finite: its training diverged; use an earlier checkpoint"
            )
        return found

    def generate(self, prompts: Sequence[str], max_new_tokens: int, settled: Settled | None = None) -> list[str]:
        """See Continuations. Prompts of equal length are computed together: none is padded, none pays for another's."""
        ids = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        by_length: dict[int, list[int]] = {}
        for number, row in enumerate(ids):
            by_length.setdefault(len(row), []).append(number)
        engine = Engine(self.model, self.tokenizer.stop_ids)
        config = SamplingConfig(max_new_tokens=max_new_tokens, greedy=True)
        texts = [""] * len(prompts)
        for length in sorted(by_length):
            numbers = by_length[length]
            for start in range(0, len(numbers), self.rows):
                part = numbers[start : start + self.rows]
                self._write(engine, config, part, ids, prompts, texts, settled)
        return texts

    def _write(
        self,
        engine: Engine,
        config: SamplingConfig,
        numbers: Sequence[int],
        ids: Sequence[Sequence[int]],
        prompts: Sequence[str],
        texts: list[str],
        settled: Settled | None,
    ) -> None:
        """Generate after the prompts with these ``numbers``, into ``texts``."""
        generation = engine.start([ids[number] for number in numbers], config)
        streams = [TextStream(self.tokenizer, (), ids[number]) for number in numbers]
        for new_tokens in generation:
            for new in new_tokens:
                number = numbers[new.row]
                texts[number] += streams[new.row].push(new.token) if new.finish != "stop" else ""
                if new.finish:
                    texts[number] += streams[new.row].finish()
                elif settled is not None and settled(prompts[number], texts[number]):
                    generation.cancel(new.row)

    def count_tokens(self, text: str) -> int:
        """See Continuations."""
        return len(self.tokenizer.encode(text))

    def _encoded(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[int]]:
        """The ids of text and continuation together, and from which on they are scored."""
        prefix = list(self.tokenizer.document_prefix)
        texts = list(dict.fromkeys(text for text, _ in pairs))
        alone = dict(zip(texts, self.tokenizer.encode_batch(texts), strict=True))
        wholes = self.tokenizer.encode_batch([text + continuation for text, continuation in pairs])
        shared = {text: len(ids) for text, ids in alone.items()}
        for (text, _), whole in zip(pairs, wholes, strict=True):
            shared[text] = min(shared[text], _common(alone[text], whole))
        ids = [prefix + whole for whole in wholes]
        # the first token of all has nothing before it that could make it likely
        starts = [max(1, len(prefix) + shared[text]) for text, _ in pairs]
        longest = max((len(row) for row in ids), default=0)
        limit = self.model.config.max_position_embeddings
        if longest > limit + 1:
            raise UsageError(
                f"a question has {longest} tokens, the model's context {limit}: shorten the text before it"
            )
        return ids, starts

    def _score(self, ids: Sequence[Sequence[int]], starts: Sequence[int]) -> np.ndarray:
        """``[R]`` of rows together. A row's last token is a target only: nothing is read after it."""
        device = self.model.head_weight.device
        batch = _batch(ids, starts, self.tokenizer.pad_id).to(device)
        output = self.model(batch, want="nll")
        totals = torch.zeros(len(ids), dtype=torch.float64, device=device)
        totals.index_add_(0, output.rows, -output.nll.double())
        counts = np.array([len(row) - start for row, start in zip(ids, starts, strict=True)])
        sums = totals.cpu().numpy()
        return sums / np.maximum(counts, 1) if self.normalise == "mean" else sums


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """With how many equal ids both begin."""
    most = min(len(one), len(other))
    return next((place for place in range(most) if one[place] != other[place]), most)


def _chunks(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut ``order``, which rises in length, so that rows × longest stays within ``budget`` (a single row may exceed it)."""
    chunk: list[int] = []
    for number in order:
        if chunk and (len(chunk) + 1) * lengths[number] > budget:
            yield chunk
            chunk = []
        chunk.append(number)
    if chunk:
        yield chunk


def _batch(ids: Sequence[Sequence[int]], starts: Sequence[int], padding: int) -> Batch:
    """One segment per row, padded on the right, with targets from ``starts`` on."""
    width = max(max(map(len, ids)) - 1, 1)
    tokens = torch.full((len(ids), width), padding, dtype=torch.long)
    targets = torch.full((len(ids), width), IGNORE_TARGET, dtype=torch.long)
    segments = torch.full((len(ids), width), PADDING_SEGMENT, dtype=torch.long)
    lengths = [max(len(row) - 1, 1) for row in ids]
    for number, (row, start) in enumerate(zip(ids, starts, strict=True)):
        tokens[number, : len(row) - 1] = torch.tensor(row[:-1])
        targets[number, start - 1 : len(row) - 1] = torch.tensor(row[start:])
        segments[number, : lengths[number]] = 0
    return Batch(
        tokens=tokens,
        targets=targets,
        positions=torch.arange(width).expand(len(ids), width).contiguous(),
        segments=segments,
        lengths=tuple((length,) for length in lengths),
    )


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
