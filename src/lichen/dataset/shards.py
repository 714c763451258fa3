"""Tokenised documents on disk, read through memory maps.

A shard is a few files that share a stem, one per column and index, all plain arrays:

    train/poems/shard_00000.tokens.bin      token ids one after the other, uint16 or uint32 (little endian)
    train/poems/shard_00000.offsets.npy     int64 [N + 1], where each document begins; the last one is the end
    train/poems/shard_00000.bytes.npy       int64 [N], UTF-8 bytes of each document's text

Every document ends with the end-of-text token, counted in its length. Further columns (``loss``, ``images``) lie beside
``tokens`` as ``shard_00000.NAME.npy``, with as many rows as there are tokens. Text prepared with a bank of facts has one
sparse column more, ``shard_00000.links.npy``, with a row for every link (see ``linking.py``), and carries a copy of the bank
at ``knowledge/``. ``dataset.json`` lists the shards;
``MANIFEST.json`` holds size and checksum of every file. (Flat token files with an index are Megatron-LM's idea.)

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> _ = write_shard(folder, 0, [np.array([5, 6, 0]), np.array([7, 0])], [4, 2], np.dtype("uint16"))
>>> documents = Documents("poems", 1.0, [folder / "shard_00000"], np.dtype("uint16"))
>>> len(documents), documents.lengths.tolist(), documents.tokens(1).tolist(), documents.tokens(0, 1).tolist()
(2, [3, 2], [7, 0], [6, 0])
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lichen.config.errors import LichenError, UsageError, nearest
from lichen.core.folders import MANIFEST, read_manifest, verify, write_file
from lichen.dataset.linking import LINK, NO_LINKS

DATASET = "dataset.json"
STATISTICS = "statistics.json"
KNOWLEDGE = "knowledge"
FORMAT = 1
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


def token_type(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id, little endian.

    >>> token_type(6400).name, token_type(151_936).name
    ('uint16', 'uint32')
    """
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def shard_stem(number: int) -> str:
    """``shard_00007``."""
    return f"shard_{number:05d}"


def write_shard(
    folder: Path,
    number: int,
    documents: Sequence[np.ndarray],
    text_bytes: Sequence[int],
    dtype: np.dtype,
    columns: Mapping[str, np.ndarray] | None = None,
    links: Sequence[np.ndarray] | None = None,
) -> list[Path]:
    """Write one shard; returns its files. Each appears whole or not at all, the offsets last.

    ``documents`` hold the ids ``[n_i]`` of each document with its end token, ``columns`` arrays with one row per token,
    ``links`` those of each document (``LINK`` rows), or None for text that was prepared without a bank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = shard_stem(number)
    tokens = np.concatenate(documents).astype(dtype, copy=False) if documents else np.zeros(0, dtype)
    offsets = np.zeros(len(documents) + 1, "<i8")
    np.cumsum([len(document) for document in documents], out=offsets[1:])
    files = {f"{stem}.tokens.bin": tokens.tobytes(), f"{stem}.bytes.npy": _npy(np.array(text_bytes, "<i8"))}
    for name, column in (columns or {}).items():
        if len(column) != len(tokens):
            raise LichenError(f"column {name} has {len(column)} rows for {len(tokens)} tokens; give one row per token")
        files[f"{stem}.{name}.npy"] = _npy(column)
    if links is not None:
        files[f"{stem}.links.npy"] = _npy(_joined_links(links))
    files[f"{stem}.offsets.npy"] = _npy(offsets)
    for name, data in files.items():
        write_file(folder / name, data)
    return [folder / name for name in files]


def _joined_links(links: Sequence[np.ndarray]) -> np.ndarray:
    """The links of all documents of a shard, each with its document's number."""
    joined = np.concatenate([NO_LINKS, *links])
    joined["document"] = np.repeat(np.arange(len(links)), [len(rows) for rows in links])
    return joined


class Documents:
    """One split of one source: documents by number, read where they lie on disk.

    ``stems`` are the shards' paths without their endings, in order. ``weight`` is the source's share in the mixture,
    relative to the others, or None for in proportion to its tokens. ``linked``: there is a links column.
    """

    def __init__(self, name: str, weight: float | None, stems: Sequence[Path], dtype: np.dtype, linked: bool = False):
        self.name = name
        self.weight = weight
        self.linked = linked
        self.stems = tuple(stems)
        self._dtype = dtype
        self._offsets = [_load(stem, "offsets") for stem in self.stems]
        self._first = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)])
        self._columns: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        return int(self._first[-1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """``[N]`` int32, tokens of each document, its end token counted."""
        return _joined([np.diff(offsets) for offsets in self._offsets], np.dtype("int32"))

    @cached_property
    def bytes(self) -> np.ndarray:
        """``[N]`` int64, UTF-8 bytes of each document's text."""
        return _joined([_load(stem, "bytes") for stem in self.stems], np.dtype("int64"))

    @property
    def num_tokens(self) -> int:
        """Tokens in all, end tokens counted."""
        return sum(int(offsets[-1]) for offsets in self._offsets)

    def tokens(self, number: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The ids of document ``number`` from ``start`` to ``stop`` within it; a view of the file."""
        return self.column("tokens", number, start, stop)

    def column(self, name: str, number: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The rows of any column that belong to document ``number``, from ``start`` to ``stop`` within it."""
        shard, place = self._find(number)
        offsets = self._offsets[shard]
        begin, end = int(offsets[place]), int(offsets[place + 1])
        stop = end if stop is None else min(end, begin + max(stop, 0))
        return self._column(shard, name)[min(begin + start, stop) : stop]

    def all_tokens(self, shard: int) -> np.ndarray:
        """The ids of a whole shard, one document after the other."""
        return self._column(shard, "tokens")

    def links(self, number: int) -> np.ndarray:
        """The links of document ``number``, rows of ``LINK`` in the order of their places; a view of the file."""
        if not self.linked:
            return NO_LINKS
        shard, place = self._find(number)
        first = self._first_links(shard)
        return self.all_links(shard)[first[place] : first[place + 1]]

    def all_links(self, shard: int) -> np.ndarray:
        """The links of a whole shard."""
        key = (shard, "links")
        if key not in self._columns:
            links = np.asarray(
                _load(self.stems[shard], "links")
            )  # still the file, but slices cost less than a memmap's
            self._columns[key] = links
            if links.dtype != LINK:
                raise LichenError(f"{self.stems[shard]}.links.npy: not a links column of this version; prepare anew")
        return self._columns[key]

    def _first_links(self, shard: int) -> np.ndarray:
        """``[N + 1]`` where the links of each document of a shard begin."""
        key = (shard, "first links")
        if key not in self._columns:
            documents = np.ascontiguousarray(self.all_links(shard)["document"])
            self._columns[key] = np.searchsorted(documents, np.arange(len(self._offsets[shard])))
        return self._columns[key]

    def _find(self, number: int) -> tuple[int, int]:
        """(shard, place within it) of document ``number``."""
        if not 0 <= number < len(self):
            raise IndexError(f"document {number} of {len(self)}")
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        return shard, number - int(self._first[shard])

    def _column(self, shard: int, name: str) -> np.ndarray:
        key = (shard, name)
        if key not in self._columns:
            self._columns[key] = self._map(shard, name)
        return self._columns[key]

    def _map(self, shard: int, name: str) -> np.ndarray:
        stem, count = self.stems[shard], int(self._offsets[shard][-1])
        if name != "tokens":
            column = _load(stem, name)
        elif count == 0:
            return np.zeros(0, self._dtype)
        else:
            path = stem.with_name(f"{stem.name}.tokens.bin")
            if not path.is_file():
                raise LichenError(f"{path}: missing; run lichen prepare again, it rebuilds what is damaged")
            if path.stat().st_size != count * self._dtype.itemsize:
                raise LichenError(f"{path}: size differs from its index; run lichen prepare again, it rebuilds it")
            column = np.memmap(path, self._dtype, "r")
        if len(column) != count:
            raise LichenError(f"{stem}.{name}: {len(column)} rows for {count} tokens; run lichen prepare again")
        return column


class Prepared:
    """A prepared folder; use ``Prepared.open``."""

    def __init__(self, folder: Path, data: dict[str, Any], fingerprint: str):
        self.folder = folder
        self.data = data
        self.fingerprint = fingerprint
        self.tokenizer_folder = folder / "tokenizer"

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> Prepared:
        """Open a finished folder. ``verify`` reads every byte and raises ``LichenError`` naming each damaged file."""
        folder = Path(folder)
        if not folder.is_dir():
            there = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise UsageError(f"{folder}: no such folder{nearest(folder.name, there)}; lichen prepare makes one")
        if not (folder / MANIFEST).exists() and not (folder / DATASET).exists():
            raise UsageError(f"{folder}: not a prepared folder; lichen prepare makes one")
        manifest = read_manifest(folder)
        if verify:
            raise_damage(folder)
        try:
            data = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LichenError(f"{folder / DATASET}: unreadable ({error}); {REBUILD}") from None
        if data.get("format") != FORMAT:
            raise LichenError(
                f"{folder}: format {data.get('format')} is not the format {FORMAT} read here; prepare anew"
            )
        return cls(folder, data, _fingerprint(manifest.files))

    def documents(self, split: Split) -> tuple[Documents, ...]:
        """The sources that have documents in ``split``, in the order they were given."""
        if split not in SPLITS:
            raise UsageError(f"no such split {split!r}{nearest(split, SPLITS)}")
        dtype = np.dtype(self.data["dtype"])
        found = []
        for source in self.data["sources"]:
            shards = [shard for shard in source[split] if shard["documents"]]
            stems = [self.folder / split / source["name"] / shard["stem"] for shard in shards]
            if stems:
                found.append(Documents(source["name"], source["weight"], stems, dtype, self.bank_hash is not None))
        return tuple(found)

    @property
    def bank_hash(self) -> str | None:
        """The hash of the bank whose entries the text is linked with; None for text prepared without one."""
        return self.data.get(KNOWLEDGE, {}).get("bank")

    @property
    def knowledge_folder(self) -> Path | None:
        """Where the copy of that bank lies."""
        return None if self.bank_hash is None else self.folder / KNOWLEDGE

    @property
    def vocab_size(self) -> int:
        """Of the tokenizer that made the tokens."""
        return int(self.data["tokenizer"]["vocab_size"])

    @property
    def end_of_text_id(self) -> int:
        """The id that ends every document."""
        return int(self.data["tokenizer"]["end_of_text_id"])

    @property
    def tokenizer_fingerprint(self) -> str:
        """``Tokenizer.fingerprint`` of the tokenizer that made the tokens."""
        return str(self.data["tokenizer"]["fingerprint"])

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """The content of ``statistics.json``."""
        return json.loads((self.folder / STATISTICS).read_text(encoding="utf-8"))


REBUILD = "run lichen prepare with the same recipe again: it rebuilds only what is damaged"


def find_damage(folder: Path) -> list[str]:
    """What is wrong with a prepared folder, one line per file; tokens cached beside the copy of a bank are no part of it."""
    cached = f"{KNOWLEDGE}/arrays-"
    return [line for line in verify(folder) if not line.startswith((cached, f"{KNOWLEDGE}/.arrays-"))]


def raise_damage(folder: Path) -> None:
    """Raise ``LichenError`` naming the damaged files of a prepared folder, if there are any."""
    if problems := find_damage(folder):
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise LichenError(f"{folder}: {shown}; {REBUILD}")


def _fingerprint(files: Mapping[str, Any]) -> str:
    """sha256 over the checksums of everything that training depends on."""
    digest = hashlib.sha256()
    for name in sorted(files):
        if name == DATASET or name.split("/")[0] in (*SPLITS, "tokenizer"):
            digest.update(f"{name} {files[name].sha256}\n".encode())
    return digest.hexdigest()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _load(stem: Path, name: str) -> np.ndarray:
    path = stem.with_name(f"{stem.name}.{name}.npy")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise LichenError(f"{path}: missing; {REBUILD}") from None
    except (ValueError, EOFError, OSError) as error:
        raise LichenError(f"{path}: damaged ({error}); {REBUILD}") from None


def _joined(parts: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
