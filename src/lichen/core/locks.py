"""One writer per folder, and checkpoints that must not be pruned while someone needs them.

`FolderLock` is a kernel lock (``flock``) on ``.lichen.lock``: it vanishes with its holder, however that dies, so no
stale one has to be guessed at. The file also says who holds it, in words, for the second comer and for file systems
without kernel locks; there the process id, its start time and its process namespace tell a living holder from a
recycled number. `pin` is a small file beside a checkpoint: it outlives its writer, as a job waiting in a queue needs.

>>> import tempfile
>>> folder = Path(tempfile.mkdtemp())
>>> with FolderLock(folder, "training"):
...     FolderLock(folder, "training").acquire()
Traceback (most recent call last):
    ...
lichen.config.errors.LichenError: ... in use by process ... (training since ...); wait for it, stop it, ...
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lichen.config.errors import LichenError
from lichen.core.disk import disk_errors

LOCK = ".lichen.lock"
_held: set[FolderLock] = set()


class FolderLock:
    """Exclusive use of a folder, as a context manager; raises `LichenError` naming the holder if there is one."""

    def __init__(self, folder: str | Path, purpose: str):
        self.path = Path(folder) / LOCK
        self.purpose = purpose
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock now, or raise."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _lock(descriptor, self._holder):
                raise LichenError(self._refusal())
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_identity(self.purpose)).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the folder back; the file stays, empty (removing it would let two processes lock two files)."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self._forget()

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)

    def _holder(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _refusal(self) -> str:
        holder = self._holder()
        who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
        what = f"{holder.get('purpose', '?')} since {holder.get('since', '?')}"
        return f"{self.path.parent}: in use by {who} ({what}); wait for it, stop it, or choose another folder"

    def __enter__(self) -> FolderLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _forget_in_child() -> None:
    """A forked worker must not keep the lock of a parent that was killed."""
    for lock in list(_held):
        lock._forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _lock(descriptor: int, holder: Any) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        return not _is_alive(holder())  # no kernel locks on this file system: believe the words
    return True


def _identity(purpose: str) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "namespace": _process_namespace(),
        "started": _start_of(os.getpid()),
        "purpose": purpose,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether a holder's words describe a living process; one on another machine is taken to live."""
    if not holder:
        return False
    if (holder.get("host"), holder.get("namespace")) != (socket.gethostname(), _process_namespace()):
        return True
    return _start_of(int(holder.get("pid", -1))) == holder.get("started") is not None


def _process_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """When a process started, in words that no change of the clock alters; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # in ticks since the boot
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil  # macOS

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


# --- Pins ---


def pin(checkpoint: str | Path, owner: str) -> Path:
    """Keep a checkpoint from being pruned until `unpin`; several owners may. Returns the pin, a file beside it.

    Raises `LichenError` when the checkpoint is already gone.
    """
    checkpoint = Path(checkpoint)
    path = checkpoint.with_name(f"{checkpoint.name}.{_plain(owner)}.pin")
    with disk_errors(path), pruning_lock(checkpoint.parent):
        if not checkpoint.is_dir():
            raise LichenError(f"{checkpoint}: no such checkpoint to pin; it may have been pruned already")
        path.write_text(json.dumps(_identity(owner)), encoding="utf-8")
    return path


def unpin(checkpoint: str | Path, owner: str) -> None:
    """Undo `pin`; no error if there was none."""
    checkpoint = Path(checkpoint)
    checkpoint.with_name(f"{checkpoint.name}.{_plain(owner)}.pin").unlink(missing_ok=True)


def pins(checkpoint: str | Path) -> list[str]:
    """The owners who keep a checkpoint."""
    checkpoint = Path(checkpoint)
    prefix = checkpoint.name + "."
    found = (p.name for p in checkpoint.parent.iterdir() if p.name.startswith(prefix) and p.name.endswith(".pin"))
    return sorted(name.removeprefix(prefix).removesuffix(".pin") for name in found)


def _plain(owner: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", owner)[:60] or "someone"


@contextlib.contextmanager
def pruning_lock(folder: Path) -> Iterator[None]:
    """Held for the moment of pinning, and of deciding what to prune; waits for the other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # no kernel locks here: the window is a few microseconds
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
