"""How well a model writes: bits per byte of held-out text, continuations of it, and the layers while it reads it.

Documents are the examples: intervals are bootstrapped over them, since what is in one document hangs together. Their sums are
kept, so that two models can be compared in pairs. General compressors on the same text stand beside, as the yardstick.

>>> import tempfile
>>> from pathlib import Path
>>> from lichen.config.model import ModelConfig
>>> from lichen.model.language_model import initialise
>>> tokenizer = Tokenizer.train(["a cat and a hat"] * 4, vocab_size=330)
>>> small = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
>>> path = Path(tempfile.mkdtemp()) / "held.txt"
>>> _ = path.write_text("\\n\\n".join(["a cat and a hat"] * 200))
>>> settings = LanguageEvaluation(text=(path,), prompt_tokens=2, new_tokens=6, samples=2, context=16)
>>> found = examine(initialise(LanguageModel(small), seed=0), tokenizer, settings)
>>> found.documents, found.writing["greedy"].distinct[1].n, len(found.look.layers)
(2, 2, 1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from lichen.config.errors import UsageError
from lichen.config.evaluation import LanguageEvaluation
from lichen.dataset.tokenizer import Tokenizer
from lichen.evaluation import resampling
from lichen.evaluation.held_out import HeldOut, batches_of, nats_per_document
from lichen.evaluation.intervals import Score
from lichen.evaluation.layers import Look, look
from lichen.evaluation.writing import Writing, write_on
from lichen.metrics.compression import compressors
from lichen.model.language_model import LanguageModel


@dataclass(frozen=True)
class LanguageFound:
    """Everything that was measured."""

    settings: LanguageEvaluation
    context: int
    """Tokens read at once."""
    documents: int
    targets: int
    bits_per_byte: Score
    nats: np.ndarray = field(repr=False)
    """``[N]`` per document: summed negative log-likelihoods."""
    bytes: np.ndarray = field(repr=False)
    """``[N]`` per document."""
    yardsticks: Mapping[str, float]
    """Bits per byte of general compressors on the same text."""
    writing: Mapping[str, Writing]
    """"greedy" and "sampled"; empty where nothing was continued."""
    look: Look | None
    """The layers; None where they were not looked at."""


def examine(
    model: LanguageModel,
    tokenizer: Tokenizer,
    settings: LanguageEvaluation,
    context: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> LanguageFound:
    """Measure ``model`` on ``settings.text``; ``context`` is for what the settings leave open, unset, the model's own.

    Raises:
        UsageError: no text given, a context beyond the model's positions, no document long enough to be continued.
        LichenError: a text can not be read, or the model diverged.
    """
    if not settings.text:
        raise UsageError("which text is the model to be measured on? give --text FILE, text it was not trained on")
    context = settings.context or context or model.config.max_position_embeddings
    held = HeldOut.read(settings.text, tokenizer, field=settings.field, most=settings.documents, seed=settings.seed)
    say(f"{len(held.texts):,} documents, {int(held.documents.bytes.sum()):,} bytes")
    nats = nats_per_document(model, held.documents, context, settings.tokens_per_batch)
    writing = write_on(model, tokenizer, held, settings, say) if settings.samples else {}
    if settings.layer_tokens:
        say("layers")
    return LanguageFound(
        settings=settings,
        context=context,
        documents=len(held.texts),
        targets=int(held.documents.lengths.sum()) - len(held.texts),
        bits_per_byte=bits_per_byte(nats, held.documents.bytes, settings.seed),
        nats=nats,
        bytes=held.documents.bytes,
        yardsticks=compressors("\n".join(held.texts).encode()),
        writing=writing,
        look=_look(model, held, context, settings) if settings.layer_tokens else None,
    )


def bits_per_byte(nats: ArrayLike, num_bytes: ArrayLike, seed: int = 0) -> Score:
    """Σ nats / (ln 2 · Σ bytes) over documents, both ``[N]``, with its bootstrap interval.

    >>> print(bits_per_byte([math.log(2) * 8] * 3, [4, 4, 4]))
    2 [2, 2], n 3
    """
    return resampling.ratio(np.asarray(nats, float) / math.log(2), num_bytes, seed, "bits per byte")


def _look(model: LanguageModel, held: HeldOut, context: int, settings: LanguageEvaluation) -> Look:
    beginnings = held.beginnings(settings.layer_tokens, context)
    return look(model, [portion.batch for portion in batches_of(beginnings, context, settings.tokens_per_batch)])


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
