import random

import datasketch
import numpy as np
import pytest

from lichen.config.cleaning import DeduplicateConfig
from lichen.dataset import filters, signatures
from lichen.dataset.signatures import EMPTY, band_hashes, digests, rows_per_band, sign
from lichen.dataset.units import Units

CONFIG = DeduplicateConfig()


def sentence(draw: random.Random, words: int = 60) -> str:
    return " ".join(f"w{draw.randint(0, 9999)}" for _ in range(words))


def test_signatures_are_those_of_datasketch():
    text = sentence(random.Random(0))
    hashes, _ = Units.of([text]).n_grams(5)
    sketch = datasketch.MinHash(128, seed=signatures.SEED, hashfunc=lambda value: value, scheme="affine32")
    for value in (hashes >> np.uint64(32)).tolist():
        sketch.update(value)
    assert np.array_equal(sign([text], CONFIG)[0], sketch.hashvalues)


def test_agreement_estimates_the_share_of_common_shingles():
    draw = random.Random(0)
    config = DeduplicateConfig(permutations=1024, shingle_size=1)
    first = [f"w{number}" for number in range(1000)]
    for common in (0, 500, 800, 950):
        second = first[:common] + [f"x{draw.randint(0, 10**9)}" for _ in range(1000 - common)]
        signed = sign([" ".join(first), " ".join(second)], config)
        assert (signed[0] == signed[1]).mean() == pytest.approx(common / (2000 - common), abs=0.05)


def test_a_signature_does_not_depend_on_the_neighbours(monkeypatch):
    draw = random.Random(1)
    texts = [
        "",
        "苔",
        "苔藓",
        "one two",
        "...",
        *(sentence(draw, draw.randint(0, 80)) for _ in range(60)),
        "苔藓地衣" * 9,
    ]
    together = sign(texts, CONFIG)
    assert np.array_equal(together, np.concatenate([sign([text], CONFIG) for text in texts]))
    monkeypatch.setattr(signatures, "TILE", 7)
    assert np.array_equal(together, sign(texts, CONFIG))


def test_short_documents_are_one_shingle_and_wordless_ones_none():
    signed = sign(["one two", "One two!", "two one", "...", ""], CONFIG)
    assert np.array_equal(signed[0], signed[1]) and not np.array_equal(signed[0], signed[2])
    assert (signed[3:] == EMPTY).all() and (signed[:3] != EMPTY).any()


def test_long_documents_are_signed_piece_by_piece(monkeypatch):
    text = sentence(random.Random(2), 20_000)
    whole = sign([text], CONFIG)[0]
    monkeypatch.setattr(filters, "BLOCK", 20_000)
    monkeypatch.setattr(signatures, "PIECE", 30_000)
    pieces = sign(["x", text, "y"], CONFIG)[1]
    assert (whole == pieces).mean() > 0.99


def test_pairs_at_the_threshold_are_found_with_the_promised_probability():
    for permutations in (16, 64, 128, 256):
        for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
            rows = rows_per_band(permutations, threshold)
            assert 1 <= rows <= permutations
            assert 1 - (1 - threshold**rows) ** (permutations // rows) >= signatures.RECALL or rows == 1


def test_band_hashes_are_equal_exactly_where_all_values_are():
    base = np.arange(128, dtype=np.uint32)
    other = base.copy()
    other[13] += 1
    bands = band_hashes(np.stack([base, other]), 8)
    assert (bands[:, 0] == bands[:, 1]).tolist() == [place != 1 for place in range(16)]
    assert len(set(bands[:, 0].tolist())) == 16


def test_digests_tell_texts_apart():
    found = digests(["moss", "moss ", "moss", "苔"])
    assert found.shape == (4, 2) and len({tuple(row) for row in found.tolist()}) == 3
