"""A bank in tokens: what a model reads and searches, as arrays with one row per entry.

    entries [N, L]   the text's tokens and an end of text, cut to L, then zeros; ``lengths`` says how many, so that padding never
                     counts. Who reads on to the end knows that the object is said, and does not begin anew
    keys [N, K]      the subject's tokens as within a sentence, then the relation label's; ``subject_lengths``, ``key_lengths``
    object_start, object_stop [N]   where the object's own tokens lie in the entry; 0, 0 where they are not to be had
    subject_ids, relation_ids, pair_ids [N]   equal numbers for equal (casefolded) subject, relation, both

A key is made of the entry's own words, never of a prompt, so that a fact added or changed later is found like any other. The
relation keeps up to half of K and the subject is cut to the rest. A plain sentence has its words for a subject. The span of an
object is that of the tokens that spell it, with a space that the first of them begins with. Where tokens reach over its
borders, as they do in scripts without spaces, the text is encoded in pieces, as texts with links are: so the object has the
tokens that a model gives when it answers. The tokens of a million facts are cached beside the bank, under its hash.

>>> from lichen.dataset.facts import made_fact
>>> tokenizer = Tokenizer.train(["Ada — place of birth: London"] * 4, vocab_size=340)
>>> arrays = BankArrays.of([made_fact("Ada", "place of birth", "London"), Fact("b", "Moss is green.")], tokenizer)
>>> tokenizer.decode(arrays.entries[0, arrays.object_start[0] : arrays.object_stop[0]])
' London'
>>> tokenizer.decode(arrays.keys[0, : arrays.key_lengths[0]]), arrays.subject_ids.tolist(), arrays.relation_ids.tolist()
(' Ada place of birth', [0, 1], [0, 1])
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lichen.config.errors import LichenError
from lichen.core.disk import disk_errors, rename, sync, unlink
from lichen.core.folders import fsync_folder, partial_of
from lichen.dataset.bank import SUMMARY, Bank
from lichen.dataset.facts import Fact, in_running_text, object_place
from lichen.dataset.tokenizer import Tokenizer

_log = logging.getLogger("lichen.knowledge")
CHUNK = 1 << 15  # facts tokenised at once
FORMAT = 3  # of the file; what an earlier one says is made anew
STORED = (
    *("entries", "lengths", "object_start", "object_stop"),
    *("keys", "subject_lengths", "key_lengths", "cut_entries", "cut_keys"),
)


_latest: dict[str, dict[str, np.ndarray]] = {}
"""The latest arrays, by what they were made of: a training reads two copies of one bank, and tokenises a million facts once."""


class Groups:
    """Numbers equal strings equally, in the order they are met."""

    def __init__(self) -> None:
        self._subjects: dict[str, int] = {}
        self._relations: dict[str, int] = {}
        self._pairs: dict[tuple[int, int], int] = {}

    def number(self, facts: Iterable[Fact]) -> np.ndarray:
        """``[N, 3]`` int32: subject, relation, and both. A sentence without a subject stands for itself."""
        rows = [self._number(fact) for fact in facts]
        return np.array(rows, np.int32).reshape(-1, 3)

    def _number(self, fact: Fact) -> tuple[int, int, int]:
        subject = self._subjects.setdefault((fact.subject or fact.text).casefold(), len(self._subjects))
        relation = self._relations.setdefault(fact.relation.casefold(), len(self._relations))
        return subject, relation, self._pairs.setdefault((subject, relation), len(self._pairs))


@dataclass(frozen=True, eq=False)
class BankArrays:
    """See the module; all arrays have N rows. Numbers of groups are equal for equals, and otherwise mean nothing."""

    entries: np.ndarray
    """[N, L] int32."""
    lengths: np.ndarray
    """[N] uint8."""
    object_start: np.ndarray
    """[N] uint8."""
    object_stop: np.ndarray
    """[N] uint8."""
    keys: np.ndarray
    """[N, K] int32."""
    subject_lengths: np.ndarray
    """[N] uint8: tokens of the subject in the key."""
    key_lengths: np.ndarray
    """[N] uint8: tokens of the whole key."""
    cut_entries: np.ndarray
    """[N] bool: the text has more than L tokens."""
    cut_keys: np.ndarray
    """[N] bool: subject and relation have more tokens than the key holds."""
    subject_ids: np.ndarray
    """[N] int32."""
    relation_ids: np.ndarray
    """[N] int32."""
    pair_ids: np.ndarray
    """[N] int32."""
    tokenizer: Tokenizer = field(repr=False)
    _groups: Groups = field(repr=False)

    @classmethod
    def of(cls, facts: Sequence[Fact], tokenizer: Tokenizer, length: int = 32, key_length: int = 16) -> BankArrays:
        """Tokenise ``facts``; ``length`` and ``key_length`` are at most 255."""
        stored = _tokenised(facts, tokenizer, length, key_length)
        return cls._with_groups(stored, facts, tokenizer)

    @classmethod
    def of_bank(
        cls, bank: Bank, tokenizer: Tokenizer, length: int = 32, key_length: int = 16, cache: Path | None = None
    ) -> BankArrays:
        """The same for a bank, out of the file beside it, or in the folder ``cache``, if one fits; else that file is written."""
        path = cache_path(bank, tokenizer, length, cache)
        named = {"hash": bank.hash, "tokenizer": tokenizer.fingerprint, "length": length, "key_length": key_length}
        named["format"] = FORMAT
        stored = _read_cache(path, named, len(bank))
        if stored is None:
            latest = _latest.get(json.dumps(named))
            stored = _tokenised(bank.facts, tokenizer, length, key_length) if latest is None else latest
            _write_cache(path, named, stored)
        _latest.clear()
        _latest[json.dumps(named)] = stored
        return cls._with_groups(stored, bank.facts, tokenizer)

    @classmethod
    def _with_groups(cls, stored: dict[str, np.ndarray], facts: Sequence[Fact], tokenizer: Tokenizer) -> BankArrays:
        groups = Groups()
        subjects, relations, pairs = groups.number(facts).T
        ids = {"subject_ids": subjects, "relation_ids": relations, "pair_ids": pairs}
        ids = {name: np.ascontiguousarray(values) for name, values in ids.items()}
        return cls(**stored, **ids, tokenizer=tokenizer, _groups=groups)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def length(self) -> int:
        """L."""
        return self.entries.shape[1]

    @property
    def key_length(self) -> int:
        """K."""
        return self.keys.shape[1]

    @property
    def truncated_entries(self) -> int:
        """Entries whose text was cut."""
        return int(self.cut_entries.sum())

    @property
    def truncated_keys(self) -> int:
        """Entries whose key was cut, plain sentences among them."""
        return int(self.cut_keys.sum())

    def subset(self, indices: np.ndarray) -> BankArrays:
        """The rows at ``indices``, in that order."""
        return self._changed({name: getattr(self, name)[indices] for name in _ROWS})

    def replace(self, index: int, fact: Fact) -> BankArrays:
        """The same with another fact as entry ``index``: one row is tokenised, the others are copied."""
        row = self._rows([fact])
        arrays = {name: getattr(self, name).copy() for name in _ROWS}
        for name, array in arrays.items():
            array[index] = row[name][0]
        return self._changed(arrays)

    def extended(self, facts: Sequence[Fact]) -> BankArrays:
        """The same with ``facts`` as further entries."""
        rows = self._rows(facts)
        return self._changed({name: np.concatenate([getattr(self, name), rows[name]]) for name in _ROWS})

    def _rows(self, facts: Sequence[Fact]) -> dict[str, np.ndarray]:
        stored = _tokenised(facts, self.tokenizer, self.length, self.key_length)
        ids = dict(zip(("subject_ids", "relation_ids", "pair_ids"), self._groups.number(facts).T, strict=True))
        return {**stored, **ids}

    def _changed(self, arrays: dict[str, Any]) -> BankArrays:
        return replace(self, **arrays)


_ROWS = (*STORED, "subject_ids", "relation_ids", "pair_ids")


# --- Tokens ---


def padded(rows: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of any length as ``[N, width]`` int32, cut and padded with zeros; and their lengths before that, ``[N]`` int64.

    >>> padded([np.array([1, 2, 3]), np.array([4])], 2)[0].tolist()
    [[1, 2], [4, 0]]
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    table = np.zeros((len(rows), width), np.int32)
    flat = np.concatenate([row[:width] for row in rows]) if rows else np.zeros(0, np.int32)
    table[np.arange(width) < lengths[:, None]] = flat
    return table, lengths


def _tokenised(facts: Sequence[Fact], tokenizer: Tokenizer, length: int, key_length: int) -> dict[str, np.ndarray]:
    parts = [
        _texts(facts[start : start + CHUNK], tokenizer, length)
        | _keys(facts[start : start + CHUNK], tokenizer, key_length)
        for start in range(0, max(len(facts), 1), CHUNK)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in STORED}


def _texts(facts: Sequence[Fact], tokenizer: Tokenizer, length: int) -> dict[str, np.ndarray]:
    rows, start, stop = _with_spans(facts, tokenizer.encode_arrays([fact.text for fact in facts]), tokenizer)
    entries, lengths = padded([np.append(row, tokenizer.end_of_text_id) for row in rows], length)
    there = stop <= length
    return {
        "entries": entries,
        "lengths": np.minimum(lengths, length).astype(np.uint8),
        "object_start": np.where(there, start, 0).astype(np.uint8),
        "object_stop": np.where(there, stop, 0).astype(np.uint8),
        "cut_entries": lengths - 1 > length,
    }


def _keys(facts: Sequence[Fact], tokenizer: Tokenizer, width: int) -> dict[str, np.ndarray]:
    subjects, which_subject = _unique([fact.subject or fact.text for fact in facts], tokenizer, width)
    relations, which_relation = _unique([fact.relation for fact in facts], tokenizer, width)
    (subject_rows, subject_lengths), (relation_rows, relation_lengths) = subjects, relations
    subject_full, relation_full = subject_lengths[which_subject], relation_lengths[which_relation]
    relation = np.minimum(relation_full, width // 2)
    relation = np.where(subject_full + relation_full <= width, relation_full, relation)
    subject = np.minimum(subject_full, width - relation)
    relation = np.minimum(relation_full, width - subject)
    places = np.arange(width) - subject[:, None]  # [N, K], of the relation's tokens
    shifted = np.take_along_axis(relation_rows[which_relation], np.clip(places, 0, width - 1), axis=1)
    keys = np.where(places < 0, subject_rows[which_subject], np.where(places < relation[:, None], shifted, 0))
    return {
        "keys": keys.astype(np.int32),
        "subject_lengths": subject.astype(np.uint8),
        "key_lengths": (subject + relation).astype(np.uint8),
        "cut_keys": (subject < subject_full) | (relation < relation_full),
    }


def _unique(texts: Sequence[str], tokenizer: Tokenizer, width: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Every distinct text as it stands within a sentence, padded; and which of them each text is."""
    numbers: dict[str, int] = {}
    which = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))
    return padded(tokenizer.encode_arrays([in_running_text(text) if text else "" for text in numbers]), width), which


# --- Where the object is ---


def _with_spans(
    facts: Sequence[Fact], rows: list[np.ndarray], tokenizer: Tokenizer
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The tokens of every text, torn ones in pieces; the first of its object's and the one behind, int64; 0, 0 without."""
    start, stop = np.zeros(len(facts), np.int64), np.zeros(len(facts), np.int64)
    found = {number: place for number, fact in enumerate(facts) if (place := object_place(fact)) is not None}
    numbers = np.array([number for number in found if len(rows[number])], np.int64)
    if tokenizer.token_bytes is not None and len(numbers):

        def look(numbers: np.ndarray) -> np.ndarray:
            wanted = [(facts[number], found[number], rows[number]) for number in numbers.tolist()]
            spelt, start[numbers], stop[numbers] = _spans_by_bytes(wanted, tokenizer.token_bytes or ())
            return spelt

        spelt = look(numbers)
        torn = numbers[spelt & (stop[numbers] == 0)]
        if len(torn):
            pieces = tokenizer.encode_arrays([piece for n in torn.tolist() for piece in _pieces(facts[n], found[n])])
            for place, number in enumerate(torn.tolist()):
                rows[number] = np.concatenate(pieces[3 * place : 3 * place + 3])
            look(torn)
        numbers = numbers[~spelt]
    for number in numbers.tolist():
        start[number], stop[number] = _span_by_prefix(facts[number], found[number], rows[number], tokenizer)
    return rows, start, stop


def _pieces(fact: Fact, place: int) -> tuple[str, str, str]:
    """What stands before the object, the object with the space before it, and the rest."""
    text, stop = fact.text, place + len(fact.object)
    start = place - (place > 0 and text[place - 1] == " ")
    return text[:start], text[start:stop], text[stop:]


def _spans_by_bytes(
    wanted: Sequence[tuple[Fact, int, np.ndarray]], token_bytes: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By how many bytes each token stands for, for (fact, place of the object, tokens): whether the tokens spell the text at
    all (a normaliser may have changed it), and the span in tokens."""
    sizes = np.fromiter(map(len, token_bytes), np.int64, len(token_bytes))
    first, last, total, space = np.array([_bytes_of(fact, place) for fact, place, _ in wanted], np.int64).T
    last_token = np.cumsum([len(tokens) for _, _, tokens in wanted])
    first_token = np.concatenate([[0], last_token[:-1]])
    ends = np.concatenate([[0], np.cumsum(sizes[np.concatenate([tokens for _, _, tokens in wanted])])])
    base = ends[first_token]  # of all texts, one after the other: ends[n] is where token n begins
    spelt = ends[last_token] - base == total
    start = np.searchsorted(ends, base + first, side="right") - 1  # the token that holds the object's first byte
    stop = np.minimum(np.searchsorted(ends, base + last), len(ends) - 1)
    begins = ends[start] - base
    aligned = spelt & (ends[stop] - base == last) & ((begins == first) | ((space == 1) & (begins == first - 1)))
    return spelt, np.where(aligned, start - first_token, 0), np.where(aligned, stop - first_token, 0)


def _bytes_of(fact: Fact, place: int) -> tuple[int, int, int, int]:
    """In bytes: where the object begins and ends, how long the text is; and whether a space stands before the object."""
    text, end = fact.text, place + len(fact.object)
    space = int(place > 0 and text[place - 1] == " ")
    if text.isascii():
        return place, end, len(text), space
    total, after = len(text.encode()), text[end:]
    last = total - len(after.encode()) if after else total
    return last - len(fact.object.encode()), last, total, space


def _span_by_prefix(fact: Fact, place: int, tokens: np.ndarray, tokenizer: Tokenizer) -> tuple[int, int]:
    """By what the text before the object, and with it, is encoded to alone."""
    before = tokenizer.encode(fact.text[:place].rstrip())
    until = tokenizer.encode(fact.text[: place + len(fact.object)])
    whole = tokens.tolist()
    agree = whole[: len(before)] == before and whole[: len(until)] == until and len(before) < len(until)
    return (len(before), len(until)) if agree else (0, 0)


# --- The file beside the bank ---


def cache_path(bank: Bank, tokenizer: Tokenizer, length: int, folder: Path | None = None) -> Path:
    """Where the arrays of a bank lie: in ``folder``, or beside it."""
    return (folder or bank.folder) / f"arrays-{bank.hash[:12]}-{tokenizer.fingerprint[:12]}-L{length}.npz"


def _read_cache(path: Path, named: dict[str, Any], count: int) -> dict[str, np.ndarray] | None:
    """The arrays in a file that was made of the same; None where there is none, or it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if json.loads(str(file["named"])) != named:
                return None
            stored = {name: file[name] for name in STORED}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("%s: unreadable (%s); it is made again", path, error)
        return None
    fits = all(len(array) == count for array in stored.values())
    fits = fits and stored["entries"].shape[1] == named["length"] and stored["keys"].shape[1] == named["key_length"]
    return stored if fits else None


def copy_arrays(bank: Bank, folder: Path) -> None:
    """Take along to ``folder``, a copy of ``bank``, the files of tokens that lie beside it; without, they would be made again."""
    for path in bank.folder.glob(f"arrays-{bank.hash[:12]}-*.npz"):
        partial = partial_of(folder / path.name)
        try:
            with disk_errors(partial):
                shutil.copyfile(path, partial)
                rename(partial, folder / path.name)
        except LichenError as error:
            _log.warning("%s; the bank's tokens are not kept", error)
            partial.unlink(missing_ok=True)


def _write_cache(path: Path, named: dict[str, Any], stored: dict[str, np.ndarray]) -> None:
    """Write the file and remove those of earlier versions; a folder that can not be written to stays without."""
    partial = partial_of(path)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(file, named=np.array(json.dumps(named)), **stored)  # type: ignore[arg-type]
                file.flush()
                sync(file.fileno())
            rename(partial, path)
            fsync_folder(path.parent)
            beside = (
                path.parent.glob("arrays-*.npz") if (path.parent / SUMMARY).is_file() else ()
            )  # not in a folder of caches
            for old in beside:
                if old.name.split("-")[1] != named["hash"][:12]:
                    unlink(old)
    except LichenError as error:
        _log.warning("%s; the bank's tokens are not kept", error)
        if partial.exists() and os.access(partial.parent, os.W_OK):
            unlink(partial)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
