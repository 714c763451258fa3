"""Bits per byte of general compressors: the yardstick for what a language model has learnt of a text.

A compressor that reaches b bits per byte is a language model with a cross-entropy of b bits per byte (Shannon, 1948; Delétang
et al., 2024), so both can stand in one table. ``xz`` may also be given the training text first: what it then needs for the
held-out text alone is the fairest opponent, since the model has read that text as well.

>>> text = b"the same words, " * 100
>>> scores = compressors(text, given=text)
>>> sorted(scores), scores["xz, given the training text"] < scores["xz"]
(['gzip', 'xz', 'xz, given the training text'], True)
"""

from __future__ import annotations

import gzip
import lzma

_DICTIONARY_BYTES = 1 << 27  # the window must reach over the whole of the training text


def compressors(text: bytes, given: bytes = b"") -> dict[str, float]:
    """Bits per byte of ``text`` by name of the compressor, at their strongest settings."""
    scores = {"gzip": _rate(gzip.compress(text, 9), text), "xz": _rate(_xz(text), text)}
    if given:
        extra = len(_xz(given + text)) - len(_xz(given))
        scores["xz, given the training text"] = 8 * extra / len(text)
    return scores


def _rate(compressed: bytes, text: bytes) -> float:
    return 8 * len(compressed) / max(1, len(text))


def _xz(text: bytes) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _DICTIONARY_BYTES}]
    return lzma.compress(text, format=lzma.FORMAT_XZ, filters=filters)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
