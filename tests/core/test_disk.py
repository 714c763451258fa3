"""What a person is told when the disk does not take more."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lichen.config.errors import LichenError
from lichen.core.disk import DiskFull, NotWritable, check_writable, disk_errors, explain, free_bytes, write_all


def test_full_disk_says_how_much_was_needed_and_is_free(tmp_path: Path):
    words = r"no space left .*1,000,000 bytes needed, [\d,]+ bytes free.*free some"
    with pytest.raises(DiskFull, match=words), disk_errors(tmp_path / "a", 1_000_000):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_forbidden_places_are_named(number: int):
    error = explain(OSError(number, os.strerror(number), "/there"), Path("/here"))
    assert isinstance(error, NotWritable) and "/there: not permitted" in str(error)


def test_other_errors_keep_their_words():
    error = explain(OSError(errno.EIO, os.strerror(errno.EIO)), Path("/here"))
    assert type(error) is LichenError and "/here: Input/output error" in str(error)


def test_unwritable_output_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LichenError, match="file"):
        check_writable(tmp_path / "file" / "runs")
    with pytest.raises(DiskFull, match="bytes needed"):
        check_writable(tmp_path, needed=1 << 62)
    check_writable(tmp_path / "new", needed=1)
    assert (tmp_path / "new").is_dir() and not list((tmp_path / "new").iterdir())


def test_read_only_mount_is_refused(tmp_path: Path):
    """In a namespace of its own, where permitted; an unprivileged system refuses the namespace, which proves nothing."""
    code = f"from lichen.core.disk import *; check_writable(Path({str(tmp_path / 'ro')!r}) / 'run')"
    (tmp_path / "ro").mkdir()
    script = f'mount -t tmpfs -o ro none {tmp_path / "ro"} && exec {sys.executable} -c "{code}"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0:
        ended = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
        assert "NotWritable" in ended.stderr and "not permitted (Read-only file system)" in ended.stderr


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    descriptor = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
    write_all(descriptor, b"0123456789")
    os.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_free_space_of_a_place_that_is_not_there_yet(tmp_path: Path):
    free = free_bytes(tmp_path / "not" / "yet")
    assert free is not None and free > 0
