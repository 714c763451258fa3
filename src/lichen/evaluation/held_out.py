"""Held-out text: documents out of files, and what a model pays for each.

A text is normalised as ``lichen prepare`` does by default, encoded with the model's tokenizer, ended with its end token, and
packed into rows as validation packs it, so that both give the same bits per byte: a document longer than the context is cut,
its first token costs nothing, and its end token costs without having bytes. A bad line is an error here, never left out.

>>> import tempfile
>>> from lichen.config.model import ModelConfig
>>> from lichen.model.language_model import initialise
>>> tokenizer = Tokenizer.train(["a cat and a hat"] * 4, vocab_size=330)
>>> small = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
>>> path = Path(tempfile.mkdtemp()) / "held.jsonl"
>>> _ = path.write_text('{"text": "a cat"}\\n{"text": "苔"}\\n')
>>> held = HeldOut.read([path], tokenizer)
>>> held.texts, held.documents.bytes.tolist(), held.documents.lengths.tolist()
(['a cat', '苔'], [5, 3], [3, 4])
>>> nats = nats_per_document(initialise(LanguageModel(small), seed=0), held.documents, context=8)
>>> (nats / (held.documents.lengths - 1)).round().tolist()  # about the logarithm of the vocabulary's size
[6.0, 6.0]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lichen.config.cleaning import CleanConfig, SourceConfig
from lichen.config.errors import LichenError, UsageError
from lichen.core.batch import Batch
from lichen.core.streams import Stream
from lichen.dataset.loader import ValidationBatches
from lichen.dataset.normalising import normalise
from lichen.dataset.plan import DocumentList, Plan
from lichen.dataset.records import Reject, read_records
from lichen.dataset.sources import open_sources
from lichen.dataset.tokenising import Encoder
from lichen.dataset.tokenizer import Tokenizer
from lichen.model.language_model import LanguageModel


@dataclass(frozen=True)
class HeldOut:
    """Documents in the order of their files."""

    texts: list[str]
    documents: DocumentList
    """Their tokens, with the end token, and bytes."""

    @classmethod
    def read(
        cls, paths: Sequence[Path], tokenizer: Tokenizer, *, field: str = "text", most: int | None = None, seed: int = 0
    ) -> HeldOut:
        """The documents in ``paths``, at most ``most`` of them, drawn evenly.

        Raises:
            UsageError: no such file, or a kind of file that is not known.
            LichenError: a line that is no document, named; files without text.
        """
        texts = list(_read_texts(paths, field))
        if not texts:
            raise LichenError(f"{', '.join(map(str, paths))}: no text in there; give a file of held-out text")
        if most is not None and most < len(texts):
            drawn = Stream(seed, "held-out documents").permutation(len(texts)).take(np.arange(most))
            texts = [texts[number] for number in sorted(drawn.tolist())]
        encoded = list(Encoder(tokenizer).encode(texts))
        documents = DocumentList("held-out text", [document.ids.tolist() for document in encoded])
        documents.bytes = np.array([document.bytes for document in encoded], np.int64)
        return cls(texts, documents)

    def beginnings(self, tokens: int, context: int) -> DocumentList:
        """The first documents, none longer than ``context``, together about ``tokens`` tokens (a whole document at least)."""
        rows: list[list[int]] = []
        for number in range(len(self.texts)):
            if sum(map(len, rows)) >= tokens:
                break
            rows.append(self.documents.tokens(number, 0, context + 1).tolist())
        return DocumentList("beginnings", rows)


def batches_of(documents: DocumentList, context: int, tokens_per_batch: int, padding: int = 0) -> ValidationBatches:
    """``documents`` packed into rows of ``context``, so many rows at once that ``tokens_per_batch`` is kept where it can be."""
    plan = Plan(documents, min(context, int(documents.lengths.max())), seed=0)
    return ValidationBatches(plan, max(1, tokens_per_batch // plan.capacity), padding)


def nats_per_document(
    model: LanguageModel, documents: DocumentList, context: int, tokens_per_batch: int = 4096
) -> np.ndarray:
    """``[N]`` float64: the sum of the negative log-likelihoods of every document's targets.

    Raises LichenError where they are not finite, UsageError for a ``context`` beyond the model's positions.
    """
    if context > model.config.max_position_embeddings:
        raise UsageError(f"context {context}: the model has {model.config.max_position_embeddings} positions")
    batches = batches_of(documents, context, tokens_per_batch)
    nats = np.zeros(len(documents))
    with evaluating(model), torch.inference_mode():
        for number in range(len(batches)):
            batch = batches[number].batch
            output = model(batch.to(model.head_weight.device), want="nll")
            whose = document_numbers(batches, batch)[output.rows.cpu().numpy(), output.segments.cpu().numpy()]
            np.add.at(nats, whose, output.nll.cpu().double().numpy())
    if not np.isfinite(nats).all():
        raise LichenError("the model's likelihoods are not finite: its training diverged; use an earlier checkpoint")
    return nats


def document_numbers(batches: ValidationBatches, batch: Batch) -> np.ndarray:
    """``[B, S]`` int64: to which document each segment of each row belongs; -1 where there is no such segment."""
    found = np.full((batch.rows, max(map(len, batch.lengths))), -1)
    for row, number in enumerate(batch.row_numbers):
        for segment in range(len(batch.lengths[row])):
            found[row, segment] = batches.source.row(number)[segment].document
    return found


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """The model in evaluation mode, and then in the mode it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _read_texts(paths: Sequence[Path], field: str) -> Iterator[str]:
    """Texts that are not empty. Empty lines separate, as in ``lichen prepare``."""
    config = CleanConfig()
    sources = open_sources([SourceConfig(path=path, field=field) for path in paths])
    for record in read_records(sources, config):
        if isinstance(record, Reject):
            if record.cause != "empty_line":
                raise LichenError(f"{record.file}, line {record.line}: {record.detail}; mend it or leave it out")
        elif text := normalise(record.text, config):
            yield text


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
