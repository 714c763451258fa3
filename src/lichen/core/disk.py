"""The calls to the disk whose order a crash can observe, and what its errors mean to a person.

Whoever writes something that must survive goes through `write_all`, `sync`, `rename` and `unlink`: few enough to put a
crash before and after each of them in a test. `disk_errors` turns a full, read-only or forbidden disk into one line.

>>> print(explain(OSError(errno.EFBIG, "File too large"), Path("x")))
x: the file-size limit is reached; raise it (ulimit -f) or choose another output folder
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lichen.config.errors import LichenError

BLOCK = 1 << 22  # bytes per read and per write: big enough that hashing runs without the interpreter's lock


class DiskFull(LichenError):
    """No space, no quota, or a file-size limit: what was being written is gone, what was there before is untouched."""


class NotWritable(LichenError):
    """The place can not be written to."""


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data``; short writes are continued."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[:BLOCK]) :]


def sync(descriptor: int) -> None:
    """Put a file's bytes, or a folder's names, on the disk."""
    if full := getattr(fcntl, "F_FULLFSYNC", None):  # macOS: fsync alone stops at the drive's own cache
        fcntl.fcntl(descriptor, full)
    else:
        os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give ``source`` the name ``target``, atomically; an existing file there is replaced."""
    os.rename(source, target)  # noqa: PTH104


def unlink(path: Path) -> None:
    """Remove one file."""
    os.unlink(path)  # noqa: PTH108


@contextlib.contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn full, read-only and forbidden disks into a `LichenError`; ``needed`` bytes are named if known."""
    try:
        yield
    except OSError as error:
        raise explain(error, path, needed) from error


def explain(error: OSError, path: Path, needed: int | None = None) -> LichenError:
    """The error to show a person for ``error``, which happened while writing ``path``."""
    where = f"{os.fsdecode(error.filename)}" if isinstance(error.filename, (str, bytes)) else f"{path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(path)
        sizes = f" ({f'{needed:,} bytes needed, ' if needed else ''}{free:,} bytes free)" if free is not None else ""
        return DiskFull(f"{path}: no space left on the disk{sizes}; free some, or choose another output folder")
    if error.errno == errno.EFBIG:
        return DiskFull(f"{path}: the file-size limit is reached; raise it (ulimit -f) or choose another output folder")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return NotWritable(f"{where}: not permitted ({error.strerror}); choose another folder or change its rights")
    return LichenError(f"{where}: {error.strerror or error}; check the disk and the path")


def free_bytes(path: Path) -> int | None:
    """Bytes an ordinary user may still write where ``path`` is or would be; None where the system does not say."""
    for candidate in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(candidate).free
    return None


def check_writable(folder: Path, needed: int = 0) -> None:
    """Make ``folder`` and try to write there; raises `NotWritable`, or `DiskFull` with fewer than ``needed`` bytes."""
    probe = folder / ".writable.partial"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    free = free_bytes(folder)
    if free is not None and free < needed:
        raise DiskFull(f"{folder}: {needed:,} bytes needed, {free:,} bytes free; free some, or choose another folder")


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
