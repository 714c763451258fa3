import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lichen.dataset import bank_arrays
from lichen.dataset.bank import Bank, write_bank
from lichen.dataset.bank_arrays import BankArrays, cache_path, copy_arrays
from lichen.dataset.bank_edits import BankEditor
from lichen.dataset.facts import Fact, in_running_text, made_fact
from lichen.dataset.tokenizer import Tokenizer

word_tokenizer = runpy.run_path(str(Path(__file__).with_name("word_tokenizers.py")))["word_tokenizer"]
FACTS = [
    made_fact("Ada Lovelace", "place of birth", "London", id="a"),
    made_fact("杜甫", "出生地", "巩县", id="d"),
    made_fact("Café Müller", "place of birth", "São Paulo", id="c"),
    Fact("s", "Moss is green and grows on stone in the shade of old trees, slowly, where it rains."),
    Fact("e", "London saw Ada Lovelace first.", "ada lovelace", "Place of Birth", "London"),
    made_fact(
        "a very long name of someone who has more names than anyone can remember or spell", "job", "poet", id="l"
    ),
    Fact("n", "Nothing here.", "Ada Lovelace", "job", "queen"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = [fact.text for fact in FACTS] + [f" {fact.subject} {fact.relation} {fact.object}" for fact in FACTS]
    return Tokenizer.train(words * 3, vocab_size=500)


@pytest.fixture(scope="module")
def arrays(tokenizer: Tokenizer) -> BankArrays:
    return BankArrays.of(FACTS, tokenizer, length=16, key_length=12)


def rows(arrays: BankArrays, with_groups: bool = False) -> dict[str, list[Any]]:
    names = bank_arrays._ROWS if with_groups else bank_arrays.STORED
    return {name: getattr(arrays, name).tolist() for name in names}


def test_entries_are_the_texts_tokens(arrays: BankArrays, tokenizer: Tokenizer) -> None:
    assert (arrays.entries.dtype, arrays.entries.shape, arrays.lengths.dtype) == (np.int32, (7, 16), np.uint8)
    for number, fact in enumerate(FACTS):
        tokens, length = [*tokenizer.encode(fact.text), tokenizer.end_of_text_id], int(arrays.lengths[number])
        assert arrays.entries[number, :length].tolist() == tokens[:16] and length == min(len(tokens), 16)
        assert not arrays.entries[number, length:].any()
        assert arrays.cut_entries[number] == (len(tokens) > 17)
    assert arrays.truncated_entries == int(arrays.cut_entries.sum()) >= 2


def test_keys_are_the_tokens_of_subject_and_relation_in_running_text(arrays: BankArrays, tokenizer: Tokenizer) -> None:
    for number in (0, 1, 2, 4, 6):
        subject = tokenizer.encode(in_running_text(FACTS[number].subject))
        relation = tokenizer.encode(in_running_text(FACTS[number].relation))
        key, length = arrays.keys[number], int(arrays.key_lengths[number])
        assert key[:length].tolist() == subject + relation and not key[length:].any()
        assert arrays.subject_lengths[number] == len(subject)


def test_a_long_subject_leaves_room_for_the_relation_and_a_sentence_is_all_subject(
    arrays: BankArrays, tokenizer: Tokenizer
) -> None:
    relation = tokenizer.encode(" job")
    stop = int(arrays.subject_lengths[5])
    assert arrays.keys[5, stop : arrays.key_lengths[5]].tolist() == relation and arrays.key_lengths[5] == 12
    assert arrays.subject_lengths[3] == arrays.key_lengths[3] == 12
    assert arrays.cut_keys.tolist() == [False, False, False, True, False, True, False] and arrays.truncated_keys == 2


def test_a_long_relation_is_cut_to_half_the_key(tokenizer: Tokenizer) -> None:
    fact = made_fact("Ada Lovelace Ada Lovelace", "place of birth " * 6, "London")
    arrays = BankArrays.of([fact], tokenizer, key_length=6)
    assert (arrays.subject_lengths[0], arrays.key_lengths[0], arrays.truncated_keys) == (3, 6, 1)


def test_spans_are_the_objects_own_tokens(arrays: BankArrays, tokenizer: Tokenizer) -> None:
    for number in (0, 1, 2):
        start, stop = int(arrays.object_start[number]), int(arrays.object_stop[number])
        assert arrays.entries[number, start:stop].tolist() == tokenizer.encode(in_running_text(FACTS[number].object))
    first = arrays.entries[4, arrays.object_start[4] : arrays.object_stop[4]].tolist()
    assert tokenizer.decode(first) == "London"  # at the beginning there is no space before it
    for number in (3, 5, 6):  # none, cut off, not in the text
        assert arrays.object_start[number] == arrays.object_stop[number] == 0


def test_a_text_is_cut_where_tokens_would_reach_over_the_object() -> None:
    tokenizer = Tokenizer.train(["首都是北京市", "：《红楼梦"] * 9, vocab_size=420)
    facts = [Fact("1", "首都是北京市", "中国", "首都", "北京"), made_fact("曹雪芹", "作品", "《红楼梦》")]
    assert len(tokenizer.encode("首都是北京市")) == 1
    arrays = BankArrays.of(facts, tokenizer)
    for number, fact in enumerate(facts):
        own = arrays.entries[number, arrays.object_start[number] : arrays.object_stop[number]].tolist()
        assert own == tokenizer.encode(fact.object)
        assert tokenizer.decode(arrays.entries[number, : arrays.lengths[number]]) == fact.text


def test_a_space_that_is_a_token_of_its_own_does_not_belong_to_the_object() -> None:
    tokenizer = Tokenizer.train(["Ada — year: "] * 3, vocab_size=330)
    arrays = BankArrays.of([made_fact("Ada", "year", "1815")], tokenizer)
    assert arrays.entries[0, arrays.object_start[0] : arrays.object_stop[0]].tolist() == tokenizer.encode("1815")


def test_other_kinds_of_tokenizers_have_spans_as_well() -> None:
    fact = Fact("1", "Moss is New York green", "Moss", "in", "New York")
    for normalizer in (None, {"type": "Lowercase"}):
        words = ("moss", "is", "new", "york", "green") if normalizer else ("Moss", "is", "New", "York", "green")
        arrays = BankArrays.of([fact, Fact("2", "Moss")], word_tokenizer(*words, normalizer=normalizer))
        assert (arrays.object_start.tolist(), arrays.object_stop.tolist()) == ([2, 0], [4, 0])


def test_a_normaliser_that_changes_lengths_is_noticed(tokenizer: Tokenizer) -> None:
    data = {**tokenizer.data, "normalizer": {"type": "NFD"}}
    other = Tokenizer(data, tokenizer.names)
    arrays = BankArrays.of([FACTS[2]], other)
    span = arrays.entries[0, arrays.object_start[0] : arrays.object_stop[0]].tolist()
    assert span == other.encode(" São Paulo")


def test_equals_have_equal_numbers(arrays: BankArrays) -> None:
    assert arrays.subject_ids.tolist() == [0, 1, 2, 3, 0, 4, 0]
    assert arrays.relation_ids.tolist() == [0, 1, 0, 2, 0, 3, 3]
    assert arrays.pair_ids.tolist() == [0, 1, 2, 3, 0, 4, 5]


def test_one_entry_is_replaced_as_if_all_were_made_anew(arrays: BankArrays, tokenizer: Tokenizer) -> None:
    before = rows(arrays, with_groups=True)
    facts = [*FACTS[:2], made_fact("Ada Lovelace", "出生地", "Paris"), *FACTS[3:]]
    replaced = arrays.replace(2, facts[2])
    assert rows(replaced) == rows(BankArrays.of(facts, tokenizer, 16, 12))
    assert (
        replaced.subject_ids[2] == 0
        and replaced.relation_ids[2] == 1
        and replaced.pair_ids[2] not in before["pair_ids"]
    )
    assert rows(arrays, with_groups=True) == before


def test_entries_are_added_and_taken_out(arrays: BankArrays, tokenizer: Tokenizer) -> None:
    more = [made_fact("杜甫", "job", "poet"), made_fact("new", "job", "poet")]
    extended = arrays.extended(more)
    anew = BankArrays.of([*FACTS, *more], tokenizer, 16, 12)
    assert rows(extended) == rows(anew)
    for name in ("subject_ids", "relation_ids", "pair_ids"):
        found, expected = getattr(extended, name), getattr(anew, name)
        assert ((found[:, None] == found) == (expected[:, None] == expected)).all()
    subset = extended.subset(np.array([7, 0]))
    assert rows(subset) == rows(BankArrays.of([more[0], FACTS[0]], tokenizer, 16, 12))
    assert len(subset) == 2 and subset.subject_ids.tolist() == [1, 0]


def test_no_facts_make_empty_arrays(tokenizer: Tokenizer) -> None:
    arrays = BankArrays.of([], tokenizer, 16, 12)
    assert arrays.entries.shape == (0, 16) and arrays.keys.shape == (0, 12) and arrays.pair_ids.shape == (0,)
    assert len(arrays.extended(FACTS[:1])) == 1


def test_chunks_change_nothing(arrays: BankArrays, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank_arrays, "CHUNK", 2)
    assert rows(BankArrays.of(FACTS, tokenizer, 16, 12), True) == rows(arrays, True)


# --- The file beside the bank ---


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return write_bank(tmp_path / "bank", FACTS)


def test_tokens_are_read_from_the_file_until_the_bank_changes(
    bank: Bank, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = BankArrays.of_bank(bank, tokenizer, 16, 12)
    path = cache_path(bank, tokenizer, 16)
    assert path.name == f"arrays-{bank.hash[:12]}-{tokenizer.fingerprint[:12]}-L16.npz" and path.is_file()
    with monkeypatch.context() as patched:
        patched.setattr(bank_arrays, "_tokenised", lambda *_: pytest.fail("made again"))
        assert rows(BankArrays.of_bank(bank, tokenizer, 16, 12), True) == rows(made, True)
    assert BankArrays.of_bank(bank, tokenizer, 16, 8).key_length == 8  # another key under the same name
    BankArrays.of_bank(bank, tokenizer, 20, 12)
    with BankEditor(bank.folder) as editor:
        editor.edit("a", object="Paris")
        after = editor.bank
    changed = BankArrays.of_bank(after, tokenizer, 16, 12)
    assert rows(changed) == rows(BankArrays.of(after.facts, tokenizer, 16, 12))
    assert [found.name for found in bank.folder.glob("*.npz")] == [cache_path(after, tokenizer, 16).name]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "pickled"])
def test_a_damaged_file_is_made_again(bank: Bank, tokenizer: Tokenizer, damage: str) -> None:
    expected = rows(BankArrays.of_bank(bank, tokenizer, 16, 12), True)
    path = cache_path(bank, tokenizer, 16)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        place = data.index(np.array(bank_entry(expected), np.int32).tobytes())
        data[place] ^= 1
        path.write_bytes(data)
    elif damage == "foreign":
        np.savez(path, a=np.zeros(3))
    elif damage == "pickled":
        np.savez(path, named=np.array([object()], dtype=object))
    else:
        path.write_bytes(b"")
    assert rows(BankArrays.of_bank(bank, tokenizer, 16, 12), True) == expected
    assert np.load(path)["entries"].tolist() == expected["entries"]


def test_a_copy_of_a_bank_is_not_tokenised_again(
    bank: Bank, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = BankArrays.of_bank(bank, tokenizer, 16, 12)
    for name in ("in one process", "in another"):
        bank.copy_to(tmp_path / name)
    monkeypatch.setattr(bank_arrays, "_tokenised", lambda *_: pytest.fail("made again"))
    same = BankArrays.of_bank(Bank.open(tmp_path / "in one process"), tokenizer, 16, 12)
    assert same.entries is made.entries  # and takes no further memory
    assert cache_path(bank, tokenizer, 16, tmp_path / "in one process").is_file()
    bank_arrays._latest.clear()
    copy_arrays(bank, tmp_path / "in another")
    copied = BankArrays.of_bank(Bank.open(tmp_path / "in another"), tokenizer, 16, 12)
    assert rows(copied, True) == rows(made, True)


def test_the_arrays_of_another_bank_are_never_taken(bank: Bank, tokenizer: Tokenizer, tmp_path: Path) -> None:
    BankArrays.of_bank(bank, tokenizer, 16, 12)
    other = write_bank(tmp_path / "other", FACTS[:2])
    copy_arrays(bank, other.folder.parent)
    assert rows(BankArrays.of_bank(other, tokenizer, 16, 12)) == rows(BankArrays.of(FACTS[:2], tokenizer, 16, 12))


def bank_entry(expected: dict[str, list[Any]]) -> list[int]:
    return expected["entries"][0][:4]


def test_a_place_that_can_not_be_written_stays_without(
    bank: Bank, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(bank_arrays, "rename", refused)
    assert len(BankArrays.of_bank(bank, tokenizer, 16, 12)) == len(FACTS)
    assert not [path for path in bank.folder.iterdir() if "arrays" in path.name]
