"""Files and folders that appear whole or not at all, and can prove later that they still are.

A folder is written beside its place under a temporary name (``.NAME.partial``), gets a ``MANIFEST.json`` with size and
SHA-256 of every file, is synced file by file and folder by folder, renamed into place, and the parent is synced before
anything reads it back. Whatever instant the process is killed at, or the power goes, the place holds nothing, the old
folder or the new one; and what a disk damages later is named by `verify`, because loaders of tensors and text do not
notice a flipped bit. (The recipe is the databases': Pillai et al., 2014, "All file systems are not created equal".)

Everything that changes the disk in a way that order matters for goes through `core/disk.py`, so that a test can put
a crash before and after each call.

>>> import tempfile
>>> place = Path(tempfile.mkdtemp()) / "model"
>>> with whole_folder(place, {"seed": 1}) as folder:
...     write_file(folder / "config.json", "{}")
>>> sorted(p.name for p in place.iterdir()), verify(place), read_manifest(place).fingerprint
(['MANIFEST.json', 'config.json'], [], {'seed': 1})
>>> _ = (place / "config.json").write_text("{ ")
>>> verify(place)
['config.json: checksum differs']
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.config.errors import LichenError
from lichen.core.disk import BLOCK, disk_errors, rename, sync, unlink, write_all
from lichen.core.locks import LOCK
from lichen.core.locks import FolderLock as FolderLock

MANIFEST = "MANIFEST.json"


# --- Files ---


@dataclass(frozen=True)
class Entry:
    """Size in bytes and SHA-256 (hexadecimal) of one file."""

    bytes: int
    sha256: str


class HashingWriter:
    """A new file that is hashed while it is written, so that it need not be read again for a manifest.

    >>> import tempfile
    >>> with HashingWriter(Path(tempfile.mkdtemp()) / "a") as file:
    ...     file.write(b"abc")
    >>> file.entry.bytes, file.entry.sha256[:8]
    (3, 'ba7816bf')
    """

    def __init__(self, path: Path):
        self.path = path
        self.entry = Entry(0, "")
        self._bytes = 0
        self._digest = hashlib.sha256()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``, any contiguous buffer."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), BLOCK):
            block = view[start : start + BLOCK]
            write_all(self._descriptor, block)
            self._digest.update(block)
        self._bytes += len(view)

    def __enter__(self) -> HashingWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                sync(self._descriptor)
                self.entry = Entry(self._bytes, self._digest.hexdigest())
        finally:
            os.close(self._descriptor)


def write_file(path: str | Path, data: bytes | str) -> None:
    """Replace the file ``path`` by ``data`` (text as UTF-8): after a crash it holds the old bytes or the new ones."""
    path = Path(path)
    partial = partial_of(path)
    data = data.encode() if isinstance(data, str) else data
    with disk_errors(path, len(data)):
        try:
            with HashingWriter(partial) as file:
                file.write(data)
            rename(partial, path)
        except BaseException:
            _discard(partial)
            raise
        fsync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """The temporary sibling under which ``path`` is written."""
    return path.with_name(f".{path.name}.partial")


def fsync_folder(path: str | Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: str | Path) -> None:
    """Make a folder and its parents where they are missing, and put their names on the disk."""
    path = Path(path).absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync_folder(folder.parent)


def sha256_file(path: str | Path, from_disk: bool = False) -> str:
    """SHA-256 of a file, hexadecimal; ``from_disk`` asks the system to drop its cached copy first."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    with Path(path).open("rb", buffering=0) as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


# --- Manifests ---


@dataclass(frozen=True)
class Manifest:
    """What a whole folder holds: an entry per file (by relative POSIX path), and what it was made from."""

    files: dict[str, Entry]
    fingerprint: dict[str, Any]

    def to_json(self) -> str:
        """The one text this manifest may have on disk: a changed byte anywhere in it is noticed."""
        files = {name: {"bytes": e.bytes, "sha256": e.sha256} for name, e in sorted(self.files.items())}
        body = {"files": files, "fingerprint": self.fingerprint, "format": 1}
        seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return json.dumps({**body, "seal": seal}, indent=1, sort_keys=True) + "\n"


def write_manifest(
    folder: str | Path, fingerprint: dict[str, Any] | None = None, known: dict[str, Entry] | None = None
) -> Manifest:
    """Describe all files below ``folder`` in its ``MANIFEST.json``; those in ``known`` are not read again.

    What a killed `write_file` left half-written there is removed first.
    """
    folder = Path(folder)
    for name in [name for name in _names(folder) if _is_leftover(name)]:
        unlink(folder / name)
    known = known or {}
    names = [name for name in _names(folder) if name != MANIFEST]
    files = {n: known.get(n) or Entry((folder / n).stat().st_size, sha256_file(folder / n)) for n in names}
    manifest = Manifest(files, fingerprint or {})
    write_file(folder / MANIFEST, manifest.to_json())
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a folder; raises `LichenError` when it is missing, cut or altered."""
    path = Path(folder) / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        files = {str(name): Entry(int(e["bytes"]), str(e["sha256"])) for name, e in data["files"].items()}
        manifest = Manifest(files, dict(data["fingerprint"]))
    except FileNotFoundError:
        raise LichenError(f"{path}: missing; the folder was never finished, or is not one of ours") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise LichenError(f"{path}: unreadable ({type(error).__name__}); restore the folder or make it anew") from None
    if manifest.to_json() != text:
        raise LichenError(f"{path}: altered; restore the folder or make it anew")
    return manifest


def verify(folder: str | Path, from_disk: bool = False) -> list[str]:
    """What is wrong with a folder, one line per file: missing, extra, size, checksum. Empty means whole.

    Every byte is read. ``from_disk`` asks the system to read the disk rather than its cache.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
        found = set(_names(folder)) - {MANIFEST}
    except (LichenError, OSError) as error:
        return [str(error)]
    problems = [f"{name}: missing" for name in sorted(manifest.files.keys() - found)]
    problems += [f"{name}: extra, not in {MANIFEST}" for name in sorted(found - manifest.files.keys())]
    for name in sorted(found & manifest.files.keys()):
        problems += _compare(folder / name, name, manifest.files[name], from_disk)
    return problems


def _compare(path: Path, name: str, entry: Entry, from_disk: bool) -> list[str]:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return [f"{name}: not a regular file"]
        if status.st_size != entry.bytes:
            return [f"{name}: {status.st_size} bytes instead of {entry.bytes}"]
        return [] if sha256_file(path, from_disk) == entry.sha256 else [f"{name}: checksum differs"]
    except OSError as error:
        return [f"{name}: {error.strerror}"]


def _names(folder: Path) -> Iterator[str]:
    """All files below ``folder`` by relative POSIX path, but for a lock's; links are named, not followed."""
    for path, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if (Path(path) / name).is_symlink()]
        yield from sorted(
            (Path(path) / name).relative_to(folder).as_posix() for name in (*files, *links) if name != LOCK
        )


def _raise(error: OSError) -> None:
    raise error


# --- Folders ---


@contextlib.contextmanager
def whole_folder(
    path: str | Path,
    fingerprint: dict[str, Any] | None = None,
    *,
    replace: bool = False,
    known: dict[str, Entry] | None = None,
    needed: int | None = None,
) -> Iterator[Path]:
    """A temporary sibling of ``path`` to write files into; it becomes ``path``, whole, when the block ends.

    Args:
        path: where the folder shall appear. It must not exist, unless ``replace``: then it is exchanged in one step.
        fingerprint: what the folder was made from; plain JSON, kept in the manifest.
        known: entries of files hashed while they were written, by relative path; may be filled inside the block.
        needed: bytes that will be written, for the message when the disk is full.

    Raises:
        LichenError: the place is taken, or the disk is full, read-only or returns other bytes than were written. The
            sibling is removed then, and whatever stood at ``path`` still does.
    """
    path = Path(path)
    partial = partial_of(path)
    with disk_errors(path, needed):
        make_folder(path.parent)
        recover(path)
        if path.exists() and not replace:
            raise LichenError(f"{path}: exists already; choose another name, or remove it")
        partial.mkdir()
        try:
            yield partial
            write_manifest(partial, fingerprint, known)
            _fsync_tree(partial)
            _move_into_place(partial, path)
            if problems := verify(path, from_disk=True):
                _move_back(partial, path)
                raise LichenError(f"{path}: reads back differently than written: {problems[0]}; check the disk")
        except BaseException:
            with contextlib.suppress(OSError):
                remove_folder(partial)
            raise
        remove_folder(partial)  # where an exchange has put the old one


def recover(path: Path) -> None:
    """Clear what an interrupted `whole_folder` left beside ``path``: a half-written sibling, an old one set aside."""
    aside = _aside_of(path)
    if aside.exists() and not path.exists():
        rename(aside, path)
        fsync_folder(path.parent)
    remove_folder(aside)
    remove_folder(partial_of(path))


def remove_folder(path: Path) -> None:
    """Remove a folder, its manifest first, so that a half-removed one is never taken for whole; absent is fine."""
    if not path.exists():
        return
    _discard(path / MANIFEST)
    for root, folders, files in os.walk(path, topdown=False):
        for name in files:
            unlink(Path(root) / name)
        for name in folders:
            below = Path(root) / name
            unlink(below) if below.is_symlink() else below.rmdir()
    path.rmdir()


def _discard(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        unlink(path)


def _fsync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            fsync_folder(Path(root) / name)  # a file is synced by the same call
        fsync_folder(root)


def _aside_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _move_into_place(partial: Path, path: Path) -> None:
    if not path.exists():
        rename(partial, path)
    elif not exchange(partial, path):
        aside = _aside_of(path)
        rename(path, aside)  # killed between these two: `recover` puts the old one back
        rename(partial, path)
        fsync_folder(path.parent)
        remove_folder(aside)
    fsync_folder(path.parent)


def _move_back(partial: Path, path: Path) -> None:
    if not (partial.exists() and exchange(partial, path)):
        rename(path, partial)
    fsync_folder(path.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the system can not."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_working_folder, swap = -100, 2
    return call(at_working_folder, os.fsencode(first), at_working_folder, os.fsencode(second), swap) == 0


def stale_siblings(parent: Path) -> list[Path]:
    """Temporary files and folders that interrupted writers left in ``parent``."""
    names: Iterable[Path] = parent.iterdir() if parent.is_dir() else ()
    return sorted(p for p in names if _is_leftover(p.name))


def _is_leftover(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith((".partial", ".replaced"))


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
