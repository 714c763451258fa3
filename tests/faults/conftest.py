"""What a user meets: verbs called as from the shell, the one line they end with, and folders compared before and after."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lichen.core import logs
from lichen.scripts.command_line import main


@dataclass(frozen=True)
class Said:
    """How a verb ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of the error; a traceback, or a fault that is called a defect, fails."""
        assert "Traceback" not in self.err and "defect of lichen" not in self.err, self.err
        lines = self.err.splitlines()
        found = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert len(found) == 1, self.err
        return lines[found[0]].removeprefix("error: ")

    def refused(self, status: int) -> str:
        """The line of the error, the exit status being ``status``."""
        assert self.status == status, (self.status, self.err)
        return self.error


@pytest.fixture
def lichen(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """A verb in this process: ``lichen("train", run)``."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        finally:
            logs.stop()
        out, err = capsys.readouterr()
        return Said(status, out, err)

    return call


def command(*words: object) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "lichen", *map(str, words)]


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """A verb as a process of its own, in a session of its own: ``start("train", run, TZ="UTC")``."""

    def begin(*words: object, **environment: str) -> subprocess.Popen[str]:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell leaves it to what it starts with &
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            command(*words),
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
        )

    return begin


@pytest.fixture(scope="session")
def end() -> Callable[..., Said]:
    """Wait for such a process, and kill it rather than wait for ever."""

    def finish(process: subprocess.Popen[str], seconds: float = 60) -> Said:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Said(process.returncode, out, err)

    return finish


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, str]]:
    """Every file below a folder with its checksum, but for logs and locks."""

    def taken(folder: Path) -> dict[str, str]:
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lichen.lock")
        names = {path.relative_to(folder).as_posix(): path for path in paths}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in sorted(names.items())
            if not name.startswith("logs/")
        }

    return taken


@pytest.fixture
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A finished run of eight steps, to be harmed."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))
