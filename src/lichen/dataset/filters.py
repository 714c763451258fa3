"""Why a document is dropped: too short, too long, or mostly repeating itself. Every drop has one reason, the first that holds.

Repetition is judged as Gopher did (Rae et al., 2021): by the characters in repeated lines, by how much of the document its most
frequent n-gram covers, and by the share of longer n-grams that repeat. N-grams of a whole block of documents are counted
with one sort per size, so that the price per character hardly depends on how long documents are.

>>> texts = ["苔藓" * 100, "A lichen is one creature made of two.", "", "green moss\\n" * 60]
>>> find_reasons(texts, CleanConfig(min_characters=10))
['top_2_gram', '', 'empty', 'duplicate_lines']
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lichen.config.cleaning import CleanConfig, RepetitionConfig
from lichen.dataset.units import Units

JUDGED = 1_000_000  # characters of a document that repetition is judged by
BLOCK = 1 << 18  # characters handled at once: whole arrays, and still in the processor's cache
MIN_TIMES = 4  # what stands two or three times in a short document is no sign of repetition
MIN_LINES = 4  # below, one refrain would already be a large share
REASONS = (
    "empty",
    "too_short",
    "too_long",
    "duplicate_lines",
    "top_2_gram",
    "top_3_gram",
    "top_4_gram",
    "duplicate_10_gram",
)


def find_reasons(texts: Sequence[str], config: CleanConfig) -> list[str]:
    """The reason to drop each text, one of `REASONS`, or '' to keep it."""
    reasons = [_length_reason(text, config) for text in texts]
    kept = [index for index, reason in enumerate(reasons) if not reason]
    for block in blocks_of([texts[index] for index in kept]):
        chosen = kept[block]
        judged = [texts[index][:JUDGED] for index in chosen]
        for index, reason in zip(chosen, _repetition_reasons(judged, config.repetition), strict=True):
            reasons[index] = reason
    return reasons


def blocks_of(texts: Sequence[str]) -> Iterator[slice]:
    """Consecutive slices of ``texts`` with about `BLOCK` characters each."""
    start, size = 0, 0
    for index, text in enumerate(texts):
        if size and size + len(text) > BLOCK:
            yield slice(start, index)
            start, size = index, 0
        size += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def duplicate_line_fraction(text: str) -> float:
    """Share of characters that stand in lines equal to an earlier one; 0 for few lines.

    >>> duplicate_line_fraction("aa\\nbb\\naa\\ncc")
    0.25
    """
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if len(lines) < MIN_LINES:
        return 0.0
    once = set(lines)
    if len(once) == len(lines):
        return 0.0
    return 1 - sum(map(len, once)) / sum(map(len, lines))


def n_gram_fractions(units: Units, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Per document, [N] each: the share its most frequent n-gram covers, and the share of n-grams that repeat earlier ones.

    The first is 0 where no n-gram is met MIN_TIMES.
    """
    count = len(units.counts)
    top, repeated = np.zeros(count), np.zeros(count)
    hashes, documents = units.n_grams(size)
    if not len(hashes):
        return top, repeated
    bits = np.uint64(max(1, int(count - 1).bit_length()))  # the document above, as much of the hash as fits below
    keys = np.sort((documents.astype(np.uint64) << (np.uint64(64) - bits)) | (hashes >> bits))
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    times = np.diff(starts, append=len(keys))
    owners = (keys[starts] >> (np.uint64(64) - bits)).astype(np.int64)
    grams = np.bincount(documents, minlength=count)
    most = np.zeros(count, np.int64)
    first = np.flatnonzero(np.concatenate(([True], owners[1:] != owners[:-1])))
    most[owners[first]] = np.maximum.reduceat(times, first)
    top = np.where(most >= MIN_TIMES, np.minimum(1.0, most * size / np.maximum(units.counts, 1)), 0.0)
    repeated = 1 - np.bincount(owners, minlength=count) / np.maximum(grams, 1)
    return top, np.where(grams > 0, repeated, 0.0)


def _length_reason(text: str, config: CleanConfig) -> str:
    if not text or text.isspace():
        return "empty"
    if len(text) < config.min_characters:
        return "too_short"
    return "too_long" if config.max_characters is not None and len(text) > config.max_characters else ""


def _repetition_reasons(texts: Sequence[str], limits: RepetitionConfig) -> list[str]:
    units = Units.of(texts)
    judged = units.counts >= limits.min_units
    over: list[tuple[str, np.ndarray]] = []
    if limits.max_duplicate_line_fraction < 1:
        fractions = [duplicate_line_fraction(text) if judge else 0.0 for text, judge in zip(texts, judged, strict=True)]
        over.append(("duplicate_lines", np.array(fractions) > limits.max_duplicate_line_fraction))
    tops = (limits.max_top_2_gram_fraction, limits.max_top_3_gram_fraction, limits.max_top_4_gram_fraction)
    for size, limit in zip((2, 3, 4), tops, strict=True):
        if limit < 1:
            over.append((f"top_{size}_gram", n_gram_fractions(units, size)[0] > limit))
    if limits.max_duplicate_10_gram_fraction < 1:
        over.append(("duplicate_10_gram", n_gram_fractions(units, 10)[1] > limits.max_duplicate_10_gram_fraction))
    reasons = [""] * len(texts)
    for reason, dropped in reversed(over):
        for index in np.flatnonzero(dropped & judged):
            reasons[index] = reason
    return reasons


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
