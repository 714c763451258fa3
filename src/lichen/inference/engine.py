"""Prefill and decode: token ids in, token ids out, as they come.

All prompts are read in one pass into a cache allocated once; then every step reads one token per row. A row that is
finished (stop token, enough tokens, context full, or cancelled by whoever reads along) leaves the batch, so that the
others no longer pay for it. A row's tokens depend on its prompt, its seed and the settings only: not on its neighbours,
nor on when they leave. No tokenizer in here: stop texts are the reader's business, who calls ``cancel``.

>>> from lichen.config.model import ModelConfig
>>> from lichen.model.language_model import initialise
>>> model = LanguageModel(ModelConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
>>> engine = Engine(initialise(model, seed=0))
>>> config = SamplingConfig(max_new_tokens=4, seed=7)
>>> together, alone = engine.generate([[1, 2, 3], [4]], config), engine.generate([[4]], config)
>>> len(together[0]), together[1] == alone[0]
(4, True)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lichen.config.errors import LichenError, UsageError
from lichen.config.generation import SamplingConfig
from lichen.inference import sampling
from lichen.model.cache import Cache
from lichen.model.language_model import LanguageModel

Finish = Literal["", "stop", "length"]


@dataclass(frozen=True, slots=True)
class NewToken:
    """One token of one row. ``finish`` says whether it is the row's last, and why."""

    row: int
    token: int
    finish: Finish = ""


class Engine:
    """Generates with ``model`` on the device it lies on. ``stop_ids`` end a row; the id itself is reported, not text.

    The model may be in training (sample texts between steps): its mode is put back after every step.
    """

    def __init__(self, model: LanguageModel, stop_ids: Iterable[int] = ()):
        self.model = model
        self.stop_ids = frozenset(stop_ids)

    @property
    def context_length(self) -> int:
        """How many tokens prompt and answer may have together."""
        return self.model.config.max_position_embeddings

    def start(
        self, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int] | None = None
    ) -> Generation:
        """Begin to answer ``prompts``; ``seeds`` one per row, unset the config's for all.

        Raises UsageError, naming the prompt, for one that is empty, holds an id the model does not have, or leaves no
        room for an answer in the model's context: nothing is ever cut off silently.
        """
        for number, prompt in enumerate(prompts):
            self._check(number, prompt)
        if not prompts:
            raise UsageError("no prompt given")
        if seeds is not None and len(seeds) != len(prompts):
            raise UsageError(f"{len(seeds)} seeds for {len(prompts)} prompts; give one each")
        return Generation(self, prompts, config, seeds or [config.seed] * len(prompts))

    def generate(
        self, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int] | None = None
    ) -> list[list[int]]:
        """All answers at once, without the stop token."""
        answers: list[list[int]] = [[] for _ in prompts]
        for new_tokens in self.start(prompts, config, seeds):
            for new in new_tokens:
                if new.finish != "stop":
                    answers[new.row].append(new.token)
        return answers

    def _check(self, number: int, prompt: Sequence[int]) -> None:
        size = self.model.config.vocabulary
        if not prompt:
            raise UsageError(f"prompt {number + 1} is empty: the model needs at least one token to continue")
        if min(prompt) < 0 or max(prompt) >= size:
            raise UsageError(f"prompt {number + 1} holds an id outside the model's {size}; is it of another tokenizer?")
        if len(prompt) >= self.context_length:
            raise UsageError(
                f"prompt {number + 1} has {len(prompt)} tokens, but the model's context holds {self.context_length}"
                " with at least one for the answer: shorten the prompt"
            )


class _Row:
    """What one text brings along: its own history only, so that neighbours can not matter."""

    def __init__(self, number: int, prompt: Sequence[int], seed: int, limit: int, ngram_size: int):
        self.number = number
        self.seed = seed
        self.limit = limit
        self.count = 0
        self.ngrams = sampling.Ngrams(ngram_size, prompt) if ngram_size else None


class Generation:
    """An iterator of steps; a step is the new tokens of the rows still going on, in the order of the prompts."""

    def __init__(self, engine: Engine, prompts: Sequence[Sequence[int]], config: SamplingConfig, seeds: Sequence[int]):
        self._engine = engine
        self._config = config
        limits = [min(config.max_new_tokens, engine.context_length - len(prompt)) for prompt in prompts]
        self._rows = [
            _Row(number, prompt, seed, limit, config.no_repeat_ngram_size)
            for number, (prompt, seed, limit) in enumerate(zip(prompts, seeds, limits, strict=True))
        ]
        weight = engine.model.head_weight
        longest = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
        self._device = weight.device
        self._cache = Cache(engine.model.config, len(prompts), longest, weight.device, weight.dtype)
        self._seen = self._mark_seen(prompts) if config.repetition_penalty != 1 else None
        self._tokens, self._lengths = _padded(prompts, weight.device)
        self._cancelled: set[int] = set()

    def __iter__(self) -> Iterator[list[NewToken]]:
        return self

    def __next__(self) -> list[NewToken]:
        """Read what is new, choose the next token of every row. A row cancelled meanwhile has none any more."""
        self._leave([row for row in self._rows if row.number in self._cancelled])
        if not self._rows:
            raise StopIteration
        with torch.inference_mode(), _evaluating(self._engine.model):
            chosen = self._choose(self._read())
        ids = chosen.tolist()
        new_tokens = [self._take(row, token) for row, token in zip(self._rows, ids, strict=True)]
        self._tokens, self._lengths = chosen[:, None], None
        done = [row for row, new in zip(self._rows, new_tokens, strict=True) if new.finish]
        self._leave(done)
        return new_tokens

    def cancel(self, row: int) -> None:
        """The reader wants no more of ``row``: it leaves before the next step."""
        self._cancelled.add(row)

    @property
    def running(self) -> int:
        """How many rows go on."""
        return sum(1 for row in self._rows if row.number not in self._cancelled)

    def _read(self) -> Tensor:
        """``[R, V]`` float32 logits behind the last token of every row."""
        batch = self._cache.batch(self._tokens, self._lengths)
        logits = self._engine.model(batch, want="last", cache=self._cache).logits
        assert logits is not None
        logits = logits.float()
        if not bool(torch.isfinite(logits.sum())):
            raise LichenError(
                "the model's logits are not finite: its training diverged, or its dtype is too narrow; "
                "use an earlier checkpoint, or fp32"
            )
        return logits

    def _choose(self, logits: Tensor) -> Tensor:
        """``[R]`` next tokens."""
        config, rows = self._config, self._rows
        if self._seen is not None:
            logits = sampling.penalize_repetition(logits, self._seen, config.repetition_penalty)
        if config.no_repeat_ngram_size:
            logits = sampling.forbid(logits, [sorted(row.ngrams.banned()) if row.ngrams else [] for row in rows])
        uniforms = [] if config.is_greedy else [sampling.uniform(row.seed, row.count) for row in rows]
        chosen = sampling.choose(logits, config, uniforms)
        if self._seen is not None:
            self._seen.scatter_(1, chosen[:, None], True)
        return chosen

    def _take(self, row: _Row, token: int) -> NewToken:
        row.count += 1
        if row.ngrams is not None:
            row.ngrams.append(token)
        finish: Finish = "stop" if token in self._engine.stop_ids else "length" if row.count >= row.limit else ""
        return NewToken(row.number, token, finish)

    def _leave(self, leaving: Sequence[_Row]) -> None:
        """Take rows out of the batch; what is left moves together."""
        if not leaving:
            return
        stay = [place for place, row in enumerate(self._rows) if row not in leaving]
        self._rows = [self._rows[place] for place in stay]
        if not stay:
            return
        self._cache.select(stay)
        index = torch.tensor(stay, device=self._device)
        self._tokens = self._tokens[index]
        self._lengths = None if self._lengths is None else [self._lengths[place] for place in stay]
        self._seen = None if self._seen is None else self._seen[index]

    def _mark_seen(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """``[R, V]`` bool, which tokens a row holds."""
        seen = torch.zeros(len(prompts), self._engine.model.config.vocabulary, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, torch.tensor(list(prompt))] = True
        return seen.to(self._device)


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, list[int]]:
    """``[R, T]`` tokens padded on the right, and the true lengths."""
    lengths = [len(prompt) for prompt in prompts]
    width = max(lengths)
    rows = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
    return torch.tensor(rows, dtype=torch.long, device=device), lengths


@contextmanager
def _evaluating(model: LanguageModel) -> Iterator[None]:
    """The model in evaluation mode, and back in training afterwards if it was."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
