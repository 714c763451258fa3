import random
from pathlib import Path

import numpy as np
import pytest

from lichen.config.cleaning import DeduplicateConfig
from lichen.config.errors import LichenError
from lichen.dataset import duplicates
from lichen.dataset.duplicates import Duplicates, find_duplicates, write_hashes

CONFIG = DeduplicateConfig()


def corpus(count: int, seed: int = 0) -> list[str]:
    """English and Chinese documents of which every fifth repeats an earlier one and every seventh nearly does."""
    draw = random.Random(seed)
    texts: list[str] = []
    for number in range(count):
        if number % 5 == 4:
            texts.append(draw.choice(texts))
        elif number % 7 == 6:
            words = draw.choice(texts).split(" ")
            words[draw.randrange(len(words))] = f"new{number}"
            texts.append(" ".join(words))
        elif number % 2:
            texts.append(" ".join(f"w{draw.randint(0, 3000)}" for _ in range(100)))
        else:
            texts.append(" ".join("".join(chr(draw.randint(0x4E00, 0x6000)) for _ in range(7)) for _ in range(20)))
    return texts


def find(folder: Path, texts: list[str], config: DeduplicateConfig = CONFIG, chunk: int = 100) -> Duplicates:
    paths = []
    for start in range(0, len(texts), chunk):
        paths.append(folder / f"{chunk}_{start}")
        part = texts[start : start + chunk]
        write_hashes(paths[-1], part, np.arange(start, start + len(part)) * 10, config)  # numbers with gaps
    return find_duplicates(paths, config)


def test_copies_and_near_copies_are_found_and_distinct_documents_kept(tmp_path):
    texts = corpus(700)
    found = find(tmp_path, texts)
    dropped = dict(zip((found.numbers // 10).tolist(), found.reasons, strict=True))
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        if text in first:
            assert dropped.pop(number) == "exact_duplicate"
        first.setdefault(text, number)
    near = {number for number in range(700) if number % 5 != 4 and number % 7 == 6 and number in first.values()}
    assert set(dropped) <= near, "nothing that is distinct is dropped"
    assert len(dropped) > 0.95 * len(near)
    assert set(dropped.values()) == {"near_duplicate"}
    assert (found.originals < found.numbers).all() and not set(found.originals) & set(found.numbers)


def test_chunks_memory_and_batches_change_nothing(tmp_path, monkeypatch):
    texts = corpus(150)
    expected = find(tmp_path, texts, chunk=1000)
    monkeypatch.setattr(duplicates, "BYTES_PER_ENTRY", 1 << 14)  # several ranges per band
    monkeypatch.setattr(duplicates, "PAIRS", 3)
    for chunk in (40, 101):
        found = find(tmp_path, texts, DeduplicateConfig(memory_mebibytes=1), chunk)
        for name in ("numbers", "codes", "originals"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_each_kind_can_be_switched_off(tmp_path):
    texts = corpus(100)
    exact = find(tmp_path / "a", texts, DeduplicateConfig(near=False)) if (tmp_path / "a").mkdir() is None else None
    assert exact is not None and set(exact.reasons) == {"exact_duplicate"}
    (tmp_path / "b").mkdir()
    near = find(tmp_path / "b", texts, DeduplicateConfig(exact=False))
    assert set(near.reasons) == {"near_duplicate"} and len(near.numbers) > len(exact.numbers)
    (tmp_path / "c").mkdir()
    assert len(find(tmp_path / "c", texts, DeduplicateConfig(exact=False, near=False)).numbers) == 0
    assert (tmp_path / "c" / "100_0").stat().st_size == 40 + 8 * 100, "nothing but the numbers is kept"


def test_the_threshold_decides(tmp_path):
    words = [f"w{number}" for number in range(200)]
    texts = [" ".join(words), " ".join(words[:180] + [f"x{number}" for number in range(20)])]  # about 0.8 in common
    for threshold, count in ((0.6, 1), (0.95, 0)):
        folder = tmp_path / str(threshold)
        folder.mkdir()
        assert len(find(folder, texts, DeduplicateConfig(threshold=threshold)).numbers) == count


def test_documents_without_letters_are_only_exact_duplicates(tmp_path):
    found = find(tmp_path, ["...", "???", "...", "!"])
    assert found.numbers.tolist() == [20] and found.reasons == ["exact_duplicate"]


def test_a_chain_keeps_its_first_document(tmp_path):
    words = [f"w{number}" for number in range(300)]
    chain = [" ".join(words[10 * step : 10 * step + 200]) for step in range(6)]  # neighbours share 0.9
    found = find(tmp_path, chain, DeduplicateConfig(threshold=0.7, permutations=256))
    assert found.numbers.tolist() == [10, 20, 30, 40, 50] and set(found.originals.tolist()) == {0}


def test_many_copies_of_one_document_cost_no_quadratic_work(tmp_path):
    found = find(tmp_path, ["the same green moss on the same old stone"] * 20_000, chunk=20_000)
    assert len(found.numbers) == 19_999
    slightly = [
        f"the same green moss on the same old stone wall by the sea in the mist {'!' * number}"
        for number in range(3000)
    ]
    (tmp_path / "b").mkdir()
    assert len(find(tmp_path / "b", slightly, chunk=3000).numbers) == 2999


def test_candidates_that_agree_with_no_first_document_form_their_own_groups():
    parents = np.arange(6)
    same = {(1, 3), (1, 5), (2, 4)}

    def agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.array([pair in same for pair in zip(first.tolist(), second.tolist(), strict=True)], bool)

    duplicates._link(np.arange(6), np.zeros(6, int), parents, parents.copy(), agree)
    assert parents.tolist() == [0, 1, 2, 1, 2, 1]


def test_codes_of_any_numbers():
    found = Duplicates(np.array([1, 2], np.uint8), np.array([4, 9]), np.array([0, 1]))
    assert found.codes_of(np.array([3, 4, 5, 9, 10])).tolist() == [0, 1, 0, 2, 0]
    nothing = Duplicates(np.empty(0, np.uint8), np.empty(0, int), np.empty(0, int))
    assert nothing.codes_of(np.array([3])).tolist() == [0]


def test_no_documents(tmp_path):
    assert len(find_duplicates([], CONFIG).numbers) == 0
    assert len(find(tmp_path, ["moss"]).numbers) == 0


def test_a_cut_file_is_named(tmp_path):
    find(tmp_path, ["moss on stone", "moss on stone"], DeduplicateConfig(exact=False))
    file = tmp_path / "100_0"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(LichenError, match=r"100_0: has another size"):
        find_duplicates([tmp_path / "100_0"], DeduplicateConfig(exact=False))
