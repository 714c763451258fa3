"""Documents to token arrays on all cores.

The Rust engine works outside the interpreter's lock, so threads suffice: each encodes a batch of documents while the
calling thread reads the next ones. A few batches are in flight, never more, and results come back in order: how many
threads there are changes nothing but the time.

With a ``Linker`` the documents bring the links of their text, in tokens. Where tokens stand in the text follows from the
ids alone: the tokens of an object are those that spell its characters, with the space that the first of them may begin
with. Where tokens would reach over an object's borders, as they do in scripts without spaces, the text is cut there and
encoded in pieces: so the object has the tokens that a model gives when it answers a prompt that ends before it. A tokenizer
whose pieces do not add up to the text is left alone, and the link's checksum is 0.

>>> tokenizer = Tokenizer.train(["a cat"], vocab_size=320)
>>> encoder = Encoder(tokenizer, max_length=4, batch_size=2, workers=2)
>>> [(int(document.ids[-1]), len(document.ids), document.cut) for document in encoder.encode(["cat", "dogs", "a"])]
[(0, 4, 0), (0, 4, 1), (0, 2, 0)]
>>> from lichen.dataset.facts import made_fact
>>> linked = Encoder(tokenizer, workers=1, linker=Linker([made_fact("Ada", "field", "logic")]))
>>> document = next(linked.encode(["Ada did logic."]))
>>> link = document.links[0]
>>> tokenizer.decode(document.ids[link["start"] : link["start"] + link["count"]]), int(link["subject"])
('logic', 0)
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from lichen.dataset.linking import LINK, MOST_ENTRIES, MOST_TOKENS, NO_LINKS, Found, Linker, checksums
from lichen.dataset.tokenizer import StreamDecoder, Tokenizer


@dataclass(frozen=True)
class Encoded:
    """One document: its ids with the end token, the UTF-8 bytes and characters they stand for, and what was cut off."""

    ids: np.ndarray
    bytes: int
    characters: int
    cut: int = 0
    links: np.ndarray = field(default_factory=lambda: NO_LINKS)
    """Rows of ``LINK``, ``document`` left at 0."""
    lost_links: int = 0
    """Links of the text that its tokens do not have: cut off, too long, or of a text that its tokens do not spell."""


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
        linker: Linker | None = None,
    ):
        self.tokenizer = tokenizer
        self.linker = linker
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
        found = self.linker.find(text) if self.linker else []
        ids, links = self._linked(text, ids, found) if found else (ids, NO_LINKS)
        document = np.concatenate([self._prefix, ids, self._end])
        if self.max_length is None or len(document) <= self.max_length:
            return Encoded(document, size, len(text), 0, links, len(found) - len(links))
        cut = len(document) - self.max_length
        shortened = np.concatenate([document[: self.max_length - 1], self._end])
        links = links[links["start"] + links["count"] < self.max_length]
        left = self.tokenizer.decode(shortened[:-1]).removesuffix("\ufffd")  # its last character may be half there
        return Encoded(shortened, len(left.encode()), len(left), cut, links, len(found) - len(links))

    def _linked(self, text: str, ids: np.ndarray, found: Sequence[Found]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of a text, and ``found`` as rows of ``LINK``; objects of too many tokens are left out."""
        places = _Places.of(self.tokenizer, text, ids, found)
        if places is None:
            return ids, NO_LINKS
        if not places.aligned.all():
            torn = [link for link, aligned in zip(found, places.aligned, strict=True) if not aligned]
            pieces = self.tokenizer.encode_arrays(_cut(text, torn), parallel=False)
            apart = np.concatenate(pieces)
            if better := _Places.of(self.tokenizer, text, apart, found):
                ids, places = apart, better
        rows = places.rows(ids, found)
        for name in ("subject", "start"):
            rows[name] += len(self._prefix)
        return ids, rows[places.last - places.first <= MOST_TOKENS]


@dataclass(frozen=True)
class _Places:
    """Where the subjects and objects of links stand among the tokens of a text; all ``[n]``."""

    subject: np.ndarray
    first: np.ndarray
    last: np.ndarray
    """The token behind the object."""
    aligned: np.ndarray
    """Whether its tokens begin (but for a space) and end with it."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str, ids: np.ndarray, found: Sequence[Found]) -> _Places | None:
        """None where the ids do not spell the text."""
        encoded = text.encode()
        ends = _token_ends(tokenizer, ids, encoded)
        if ends is None:
            return None
        marks = [place for link in found for place in (link.subject, link.start, link.stop)]
        subjects, starts, stops = _byte_places(text, marks).reshape(-1, 3).T
        first, last = _token_at(ends, starts), np.searchsorted(ends, stops) + 1
        begins = np.where(first > 0, ends[first - 1], 0)
        own = [a == b or encoded[a:b].isspace() for a, b in zip(begins.tolist(), starts.tolist(), strict=True)]
        return cls(_token_at(ends, subjects), first, last, (ends[last - 1] == stops) & own)

    def rows(self, ids: np.ndarray, found: Sequence[Found]) -> np.ndarray:
        """``LINK`` rows of ``found``."""
        rows = np.zeros(len(found), LINK)
        rows["subject"], rows["start"], rows["count"] = self.subject, self.first, self.last - self.first
        rows["checksum"] = np.where(self.aligned, checksums(_spans(ids, self.first, self.last)), 0)
        rows["entries"] = [(*link.entries, *(-1,) * (MOST_ENTRIES - len(link.entries))) for link in found]
        return rows


def _cut(text: str, links: Sequence[Found]) -> list[str]:
    """``text`` in pieces, cut at the borders of the objects of ``links``; the space before an object stays with it.

    >>> _cut("Ada: logic.", [Found(5, 10, 0, (0,))])
    ['Ada:', ' logic', '.']
    """
    borders = {place for link in links for place in (link.start - (text[link.start - 1] == " "), link.stop)}
    places = sorted({0, len(text), *borders})
    return [text[start:stop] for start, stop in itertools.pairwise(places)]


def _token_ends(tokenizer: Tokenizer, ids: np.ndarray, text: bytes) -> np.ndarray | None:
    """``[n]`` the byte behind each token in ``text``; None where the ids do not spell it (a tokenizer that changes text)."""
    table = tokenizer.token_bytes
    if table is not None:
        pieces = [table[token] for token in ids.tolist()]
    else:
        stream = StreamDecoder(tokenizer)
        pieces = [stream.push(token).encode() for token in ids.tolist()]
    if b"".join(pieces) != text:
        return None
    return np.cumsum([len(piece) for piece in pieces])


def _byte_places(text: str, places: Sequence[int]) -> np.ndarray:
    """The bytes at which the characters ``places`` of ``text`` begin."""
    if text.isascii():
        return np.array(places, np.int64)
    order = sorted(set(places))
    sizes = [len(text[start:stop].encode()) for start, stop in itertools.pairwise([0, *order])]
    known = dict(zip(order, itertools.accumulate(sizes), strict=True))
    return np.array([known[place] for place in places], np.int64)


def _token_at(ends: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The first token that spells something of the characters at the bytes ``places``."""
    tokens = np.searchsorted(ends, places)  # the first token that ends there, or behind
    return tokens + ((ends[tokens] == places) & (places > 0))


def _spans(ids: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """``ids[first:last]`` of every pair, -1 filling up."""
    place = first[:, None] + np.arange(int((last - first).max(initial=0)))
    return np.where(place < last[:, None], ids[np.minimum(place, len(ids) - 1)], -1)


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
