"""Documents to token arrays on all cores.

The Rust engine works outside the interpreter's lock, so threads suffice: each encodes a batch of documents while the
calling thread reads the next ones. A few batches are in flight, never more, and results come back in order: how many
threads there are changes nothing but the time.

>>> tokenizer = Tokenizer.train(["a cat"], vocab_size=320)
>>> encoder = Encoder(tokenizer, max_length=4, batch_size=2, workers=2)
>>> [(int(document.ids[-1]), len(document.ids), document.cut) for document in encoder.encode(["cat", "dogs", "a"])]
[(0, 4, 0), (0, 4, 1), (0, 2, 0)]
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lichen.dataset.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """One document: its ids with the end token, the UTF-8 bytes and characters they stand for, and what was cut off."""

    ids: np.ndarray
    bytes: int
    characters: int
    cut: int = 0


class Encoder:
    """Encodes streams of documents; every document ends with the end-of-text token.

    ``max_length`` cuts longer documents to so many tokens, end token counted. One worker encodes in the calling
    thread; None takes all cores.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_length: int | None = None,
        batch_size: int = 256,
        workers: int | None = None,
    ):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_size = batch_size
        self.workers = workers or available_cores()
        self._prefix = np.array(tokenizer.document_prefix, np.int32)
        self._end = np.array([tokenizer.end_of_text_id], np.int32)

    def encode(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """The documents of ``texts`` in order."""
        batches = _batched(texts, self.batch_size)
        if self.workers == 1:
            for batch in batches:
                yield from self._encode_batch(batch)
            return
        with ThreadPoolExecutor(self.workers, "tokenise") as pool:
            waiting: deque[Future[list[Encoded]]] = deque()
            try:
                for batch in batches:
                    waiting.append(pool.submit(self._encode_batch, batch))
                    if len(waiting) > self.workers + 1:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _encode_batch(self, texts: Sequence[str]) -> list[Encoded]:
        parallel = self.workers > 1
        return [
            self._finish(text, ids)
            for text, ids in zip(texts, self.tokenizer.encode_arrays(texts, parallel), strict=True)
        ]

    def _finish(self, text: str, ids: np.ndarray) -> Encoded:
        size = len(text) if text.isascii() else len(text.encode())
        document = np.concatenate([self._prefix, ids, self._end])
        if self.max_length is None or len(document) <= self.max_length:
            return Encoded(document, size, len(text))
        cut = len(document) - self.max_length
        shortened = np.concatenate([document[: self.max_length - 1], self._end])
        left = self.tokenizer.decode(shortened[:-1]).removesuffix("\ufffd")  # its last character may be half there
        return Encoded(shortened, len(left.encode()), len(left), cut)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batched(texts: Iterable[str], size: int, max_characters: int = 1 << 20) -> Iterator[list[str]]:
    """Lists of at most ``size`` texts; long texts make shorter lists, so that cores end together."""
    texts = iter(texts)
    while batch := list(itertools.islice(texts, 1)):
        characters = len(batch[0])
        while len(batch) < size and characters < max_characters:
            text = next(texts, None)
            if text is None:
                break
            batch.append(text)
            characters += len(text)
        yield batch


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
